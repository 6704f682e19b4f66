"""The catalogue: what it offers, how a file of one's own is recognised, and what is said when there is none."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf_files import vocabulary, write
from hub_server import COMMIT, Hub, serve
from huggingface_hub import constants

from cierzo import catalog
from cierzo.catalog import DEMO, V1_WINDOW, Model, find, memory_needed, models, pull, remove
from cierzo.downloads.fetching import Progress
from cierzo.errors import Conflict, DownloadFailed, ModelUnreadable, UnknownModel
from cierzo.prompt import TEMPLATES


@pytest.fixture(autouse=True)
def _no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))


def test_entries_are_whole(tmp_path: Path) -> None:
    listed = models(tmp_path)
    names = [model.name for model in listed]
    assert names == [
        *(DEMO, "mistral-7b", "mistral-7b-v0.1", "mistral-7b-v0.2", "mixtral-8x7b"),
        *("mistral-nemo", "ministral-8b", "mistral-small"),
    ]
    for model in listed[1:]:
        assert model.template in TEMPLATES
        assert model.repo.count("/") == 1
        assert model.file.endswith(".gguf")
        assert model.size > 4e9
        assert model.kv_bytes in (131_072, 147_456, 163_840)
        assert model.license
        assert model.path is None
        assert 0 <= model.active < model.size
        assert find(model.name, tmp_path) == find(model.name.upper(), tmp_path) == model
    assert [model.context for model in listed[1:4]] == [32_768, V1_WINDOW, 32_768]


def test_the_model_that_comes_with_cierzo(tmp_path: Path) -> None:
    model = find(DEMO, tmp_path)
    assert model.path is not None
    assert (model.name, model.template, model.context, model.license) == (DEMO, "v3", 2_048, "Apache-2.0")
    assert 0 < model.size <= 15_000_000
    assert model.kv_bytes > 0
    assert models(tmp_path)[0] == model


def test_an_installation_without_the_demo_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_DEMO_FILE", tmp_path / "none.gguf")
    assert find(DEMO, tmp_path).path is None


@pytest.mark.parametrize(
    ("like", "changes", "template", "context"),
    [
        ("v1", {"rope_freq_base": 1e4}, "v1", V1_WINDOW),
        ("v1", {"rope_freq_base": 1e6}, "v1", 32_768),
        ("v1", {"rope_freq_base": 1e4, "context": 512}, "v1", 512),
        ("v2", {}, "v3", 32_768),
        ("v3", {}, "v3", 32_768),
        ("v7", {}, "v7", 32_768),
        ("v3-tekken", {"context": 131_072}, "v3-tekken", 131_072),
        ("v7-tekken", {}, "v7-tekken", 32_768),
        ("v11", {}, "v11", 32_768),
        ("v13", {}, "v13", 32_768),
    ],
)
def test_templates_are_chosen_by_the_vocabulary(
    like: str, changes: dict[str, Any], template: str, context: int, tmp_path: Path
) -> None:
    if like == "v3-tekken":  # the vocabulary of Nemo, whose file has no names for later control tokens
        tokens = vocabulary(like)
        tokens[17:20] = [b"<SPECIAL_17>", b"<SPECIAL_18>", b"<SPECIAL_19>"]
        changes = {**changes, "tokens": tokens}
    path = write(tmp_path / "named-anything.gguf", like, **changes)
    model = find(path, tmp_path)
    assert (model.template, model.context) == (template, context)
    assert (model.name, model.title, model.path) == (str(path), "Tiny", path)
    assert model.size == path.stat().st_size
    assert model.kv_bytes == 2 * 2 * (16 + 16) * 2  # layers, heads of keys and values, their widths, bytes


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": [b"<unk>", b"<s>"]},
        {"tokens": [f"word {i}".encode() for i in range(32_000)]},  # as many as version 1, and not its own
        {"tokens": [f"word {i}".encode() for i in range(32_768)]},
        {"kind": "gpt2"},
        {"kind": "bert"},
    ],
)
def test_other_vocabularies_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "other.gguf", **changes)
    with pytest.raises(ModelUnreadable, match=r"other\.gguf is not a Mistral model"):
        find(path, tmp_path)


def test_files_in_the_home_folder_have_names(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    path = write(tmp_path / "models" / "mine.gguf")
    (tmp_path / "models" / "broken.gguf").write_bytes(b"GGUF")
    assert [(model.name, model.path) for model in models(tmp_path) if model.name == "mine"] == [("mine", path)]
    assert find("mine", tmp_path).path == path
    assert "broken" not in [model.name for model in models(tmp_path)]
    with pytest.raises(ModelUnreadable, match="ends too early"):
        find("broken", tmp_path)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("mistral7b", "did you mean mistral-7b"),
        ("mixtral", "did you mean mixtral-8x7b"),
        ("gpt", "use one of cierzo-demo, mistral-7b"),
        ("", "use one of"),
        ("missing.gguf", "there is no model file 'missing.gguf': check the path"),
        ("/no/such/file", "check the path"),
        ("a" * 5_000, "use one of"),
        ("a" * 5_000 + ".gguf", "check the path"),
        ("null\0byte", "use one of"),
        ("\ud800", "use one of"),
        ("two\nlines", "two..lines"),
    ],
)
def test_unknown_names(name: str, advice: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=advice) as unknown:
        find(name, tmp_path)
    assert "\n" not in str(unknown.value)
    assert len(str(unknown.value)) < 500


def test_memory_is_weights_window_and_a_little() -> None:
    model = Model("m", "M", "v3", 32_768, size=4_372_812_000, kv_bytes=131_072)
    assert memory_needed(model, 0) > model.size
    assert memory_needed(model, 32_768) - memory_needed(model, 0) == 4 * 2**30
    assert memory_needed(model, 0) < 1.1 * model.size


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Generator[Hub]:
    monkeypatch.setattr("cierzo.downloads._PATIENCE", 60.0)  # this machine may be busy with other tests
    with serve() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server


def test_pull_brings_a_model_that_is_found_without_network_afterwards(hub: Hub, tmp_path: Path) -> None:
    model = find("mistral-7b", tmp_path)
    content = write(tmp_path / "tiny.gguf").read_bytes()
    hub.files[model.repo, model.file] = content
    told: list[Progress] = []
    pulled = pull(model, tmp_path, told.append)
    assert pulled.path is not None
    assert pulled.path.read_bytes() == content
    assert told[-1] == Progress("checking", len(content), len(content))
    assert pulled.sha256 == hashlib.sha256(content).hexdigest()
    asked = len(hub.asked)
    found = find("mistral-7b", tmp_path)
    assert (found.path, found.size, found.template) == (pulled.path, len(content), "v3")
    assert pull(model, tmp_path) == found
    assert len(hub.asked) == asked


def test_pull_refuses_what_is_no_model(hub: Hub, tmp_path: Path) -> None:
    model = find("mistral-7b", tmp_path)
    hub.files[model.repo, model.file] = b"<html>an error page</html>"
    with pytest.raises(ModelUnreadable, match="is not a GGUF model"):
        pull(model, tmp_path)


def test_pull_fails_in_one_sentence(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="there is no repository"):
        pull(find("mistral-7b", tmp_path), tmp_path)


def test_pull_of_what_is_here_already(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.gguf")
    mine = find(path, tmp_path)
    assert pull(mine, tmp_path) == mine
    with pytest.raises(UnknownModel):
        pull(replace(mine, name="gone", path=None), tmp_path)


HF = "hf:some/Repo-GGUF/q4/tiny.gguf"


def test_any_file_of_the_hub_is_a_model(hub: Hub, tmp_path: Path) -> None:
    model = find(HF, tmp_path)
    assert (model.name, model.repo, model.file, model.revision) == (HF, "some/Repo-GGUF", "q4/tiny.gguf", "main")
    assert (model.path, model.template, model.size) == (None, "", 0)
    content = write(tmp_path / "tiny.gguf", "v7").read_bytes()
    hub.files["some/Repo-GGUF", "q4/tiny.gguf"] = content
    assert catalog.asked(model).size == len(content)
    assert catalog.asked(model).sha256 == hashlib.sha256(content).hexdigest()
    pulled = pull(model, tmp_path)
    assert (pulled.name, pulled.template, pulled.size) == (HF, "v7", len(content))
    assert pulled.path is not None
    asked = len(hub.asked)
    assert find(f"  {HF} ", tmp_path) == find("hf://some/Repo-GGUF/q4/tiny.gguf", tmp_path) == pulled
    assert models(tmp_path)[-1] == pulled
    assert find(pulled.path, tmp_path).template == "v7"
    assert len(hub.asked) == asked
    assert remove(pulled, tmp_path) == len(content)
    assert find(HF, tmp_path) == model
    assert HF not in [each.name for each in models(tmp_path)]


def test_a_revision_of_a_file(hub: Hub, tmp_path: Path) -> None:
    hub.files["a/b", "c.gguf"] = write(tmp_path / "tiny.gguf").read_bytes()
    for revision, said in ((COMMIT, COMMIT), ("refs%2Fpr%2F1", "refs/pr/1")):
        pulled = pull(find(f"hf:a/b@{revision}/c.gguf", tmp_path), tmp_path)
        assert (pulled.name, pulled.revision) == (f"hf:a/b@{revision}/c.gguf", said)
        assert f"/a/b/resolve/{revision}/c.gguf" in hub.asked[-1]
        assert find(pulled.name, tmp_path) == pulled


@pytest.mark.parametrize(
    "name",
    ["hf:", "hf:a", "hf:a/b", "hf:a/b/", "hf:a/b/c.txt", "hf:a/b/../c.gguf", "hf:a/b@/c d/..gguf/", "hf:a/b@../c.gguf"],
)
def test_names_that_no_file_of_the_hub_has(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=r"names no file of the hub: write hf:OWNER/REPO/FILE.gguf"):
        find(name, tmp_path)


def test_parts_and_what_is_no_model_of_words(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="is one part of several"):
        find("hf:a/b/big-00001-of-00003.gguf", tmp_path)
    content = write(tmp_path / "tiny.gguf").read_bytes()
    for file in ("whole.gguf", "mmproj-f16.gguf", "big-00002-of-00003.gguf"):
        hub.files["a/b", file] = content
        catalog.downloads.download(catalog.Place("a/b", file))
    assert [model.name for model in models(tmp_path) if model.repo == "a/b"] == ["hf:a/b/whole.gguf"]


def test_removes_only_what_lies_where_models_are_put(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    mine, elsewhere = write(tmp_path / "models" / "mine.gguf"), write(tmp_path / "elsewhere.gguf")
    assert remove(find("mine", tmp_path), tmp_path) > 0
    assert not mine.exists()
    with pytest.raises(Conflict, match=r"is not in .*models nor from the hub: remove the file yourself"):
        remove(find(elsewhere, tmp_path), tmp_path)
    with pytest.raises(Conflict, match="comes with Cierzo and is always there"):
        remove(find(DEMO, tmp_path), tmp_path)
    assert elsewhere.exists()
    assert find(DEMO, tmp_path).path is not None
    model = find("mistral-7b", tmp_path)
    assert remove(model, tmp_path) == 0
    hub.files[model.repo, model.file] = write(tmp_path / "tiny.gguf").read_bytes()
    hub.files[model.repo, "another.gguf"] = b"GGUF"
    assert remove(pull(model, tmp_path), tmp_path) > 0
    assert find("mistral-7b", tmp_path) == model


def test_import_is_light() -> None:
    heavy = ("mistral_common", "numpy", "huggingface_hub", "gguf")
    code = f"import sys, cierzo.catalog; print([n for n in {heavy!r} if n in sys.modules])"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"


def test_the_home_of_nobody_is_no_model(tmp_path):
    with pytest.raises(UnknownModel):
        catalog.find("~nobody-of-this-name/x", tmp_path)
