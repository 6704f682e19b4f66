"""Which models there are, as a page offers them, and what the machine has for them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from gguf_files import write
from huggingface_hub import constants

from cierzo import catalog
from cierzo.engines.script import Reply
from cierzo.engines.scripted import Scripted
from cierzo.estimates import fits
from cierzo.machine import Machine, machine


@pytest.fixture
def server(live, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return live(Scripted(Reply.of("x")))


def test_what_a_page_offers(server):
    said = server.get("/api/models").json()
    by_name = {model["name"]: model for model in said["models"]}
    assert list(by_name)[:2] == ["cierzo-demo", "mistral-7b"]
    assert by_name["cierzo-demo"]["downloaded"]
    known = catalog.find("mistral-7b", Path(server.home.name))
    has = said["machine"]
    needs = by_name["mistral-7b"].pop("needs")
    assert [(need["context"], need["memory"]) for need in needs] == [
        (window, catalog.memory_needed(known, window)) for window in (4_096, 32_768)
    ]
    assert needs[0]["fits"] == fits(needs[0]["memory"], Machine(has["memory"], has["free_memory"], 1))
    speed = by_name["mistral-7b"].pop("speed")
    assert 0 < speed["slowest"] < speed["fastest"] == pytest.approx(0.8 * has["bandwidth"] / known.size)
    assert by_name["mistral-7b"] == {
        "name": "mistral-7b",
        "title": "Mistral 7B Instruct v0.3",
        "repository": known.repo,
        "file": known.file,
        "bytes": known.size,
        "license": "Apache-2.0",
        "context": 32_768,
        "template": "v3",
        "needed_memory": catalog.memory_needed(known, 4096),
        "downloaded": False,
        "revision": "main",
        "sha256": "",
        "bytes_begun": 0,
        "download": None,
        "in_use": False,
        "removable": False,
    }
    assert has["memory"] == machine().memory
    assert 0 < has["free_memory"] <= has["memory"]
    assert has["free_disk"] == pytest.approx(shutil.disk_usage("/tmp").free, rel=0.5)
    assert has["cpus"] >= 1


def test_a_file_of_ones_own_and_one_that_was_fetched(server, tmp_path):
    folder = Path(server.home.name) / "models"
    folder.mkdir()
    write(folder / "mine.gguf")
    (folder / "broken.gguf").write_bytes(b"GGUF")
    known = catalog.find("mistral-7b", folder.parent)
    snapshot = tmp_path / "cache" / f"models--{known.repo.replace('/', '--')}"
    (snapshot / "refs").mkdir(parents=True)
    (snapshot / "refs" / "main").write_text("abc")
    (snapshot / "snapshots" / "abc").mkdir(parents=True)
    (snapshot / "snapshots" / "abc" / known.file).write_bytes(b"weights")
    said = {model["name"]: model for model in server.get("/api/models").json()["models"]}
    assert (said["mistral-7b"]["downloaded"], said["mistral-7b"]["bytes"]) == (True, 7)
    assert (said["mine"]["downloaded"], said["mine"]["repository"], said["mine"]["template"]) == (True, "", "v3")
    assert "broken" not in said
    assert str(folder) not in server.get("/api/models").text
