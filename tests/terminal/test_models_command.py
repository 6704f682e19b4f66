"""`cierzo models` from the download to the removal, against a hub on this machine, in this process."""

from __future__ import annotations

import io
import json
import sys
import tomllib
from pathlib import Path

import click
import pytest
from gguf_files import write
from hub_server import in_use

from cierzo import catalog, downloads
from cierzo.cli import cierzo
from cierzo.downloads import fetching
from cierzo.errors import BadInput, Conflict, ModelGated
from cierzo.settings import Settings

HF = "hf:some/repo/tiny.gguf"


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return write(tmp_path_factory.mktemp("models") / "tiny.gguf", "v3").read_bytes()


@pytest.fixture
def hub(tmp_path, monkeypatch, content):
    monkeypatch.setattr(fetching, "TRIES", 0)
    with in_use(monkeypatch, tmp_path / "cache") as hub:
        model = catalog.find("mistral-7b", tmp_path)
        hub.files[model.repo, model.file] = hub.files["some/repo", "tiny.gguf"] = content
        yield hub


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def run(monkeypatch):
    """Run a command; return what it printed and what it said beside."""

    def running(*arguments, typed=None):
        out, err = io.StringIO(), Terminal()
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        monkeypatch.setattr(sys, "stdin", Terminal(typed) if typed is not None else io.StringIO())
        cierzo.main(["models", *arguments], standalone_mode=False, prog_name="cierzo")
        return out.getvalue(), err.getvalue()

    return running


def events(text):
    return [json.loads(line) for line in text.splitlines()]


def home():
    return Settings.load().home


def test_pull_says_what_it_takes_then_shows_how_far_it_is(hub, run, content):
    out, err = run("pull", "mistral-7b")
    assert Path(out.strip()).read_bytes() == content
    assert "of memory" not in out
    assert "with a window of 4,096 tokens (" in err
    assert "are free" in err
    assert "100 %" in err
    assert "checking it" in err
    assert "`cierzo models use mistral-7b` makes it the one that answers" in err
    out, _ = run("list")
    row = next(line for line in out.splitlines() if "mistral-7b " in line)
    assert row.endswith("here")
    assert "4,096" not in row


def test_pull_goes_on_and_says_so(hub, run, content):
    hub.break_after = 400_000
    with pytest.raises(downloads.DownloadFailed, match="try again, it goes on where it stopped"):
        run("pull", HF)
    out, err = run("pull", HF, "--json")
    assert "are here already: it goes on there" in err
    told = events(out)
    assert [each["event"] for each in told] == ["download"] * (len(told) - 1) + ["model"]
    assert told[0]["done"] > 300_000
    assert (told[-1]["name"], told[-1]["template"], told[-1]["size"]) == (HF, "v3", len(content))
    assert len(told[-1]["sha256"]) == 64


def test_show_asks_the_hub_about_a_file_that_is_not_here(hub, run, content):
    out, _ = run("show", HF)
    assert "not downloaded: `cierzo models pull hf:some/repo/tiny.gguf`" in out
    assert "template  known when it is here" in out
    (model,) = events(run("show", HF, "--json")[0])
    assert (model["size"], model["path"], len(model["sha256"])) == (len(content), None, 64)
    out, _ = run("show", "mixtral-8x7b")
    assert "tokens/s, an estimate for this machine's processor" in out
    assert "32,768 tokens (" in out


def test_gated_models_are_explained(hub, run):
    hub.faults["some/repo"] = (403, "GatedRepo")
    with pytest.raises(ModelGated, match=r"accept it at .*/some/repo, then run `hf auth login`"):
        run("pull", HF)


def test_rm_asks_first(hub, run, content):
    run("pull", HF)
    with pytest.raises(BadInput, match="say --yes: nobody is here who could be asked"):
        run("rm", HF)
    with pytest.raises(click.Abort):
        run("rm", HF, typed="n\n")
    assert catalog.find(HF, home()).path is not None
    out, err = run("rm", HF, typed="y\n")
    assert out == f"removed {HF}: 619 kB are free again\n"
    assert "remove" in err
    assert catalog.find(HF, home()).path is None
    with pytest.raises(BadInput, match="there is nothing to remove"):
        run("rm", HF, "--yes")


def test_rm_of_what_was_begun_and_of_a_file_of_ones_own(hub, run, content):
    hub.break_after = 400_000
    with pytest.raises(downloads.DownloadFailed):
        run("pull", HF)
    assert events(run("rm", HF, "--yes", "--json")[0])[0]["freed"] > 300_000
    folder = home() / "models"
    folder.mkdir(parents=True)
    (folder / "mine.gguf").write_bytes(content)
    run("use", "mine")
    _, err = run("rm", "mine", "-y")
    assert "it was the one that answers: choose another" in err
    assert list(folder.iterdir()) == []
    with pytest.raises(Conflict, match="is always there"):
        run("rm", "cierzo-demo", "--yes")


def test_use_is_written_into_the_settings(hub, run, content, tmp_path, monkeypatch):
    written = home() / "cierzo.toml"
    written.write_text("# mine\nport = 8000\n")
    out, err = run("use", "mistral-7b")
    assert out == f"{written} now says: model = 'mistral-7b'\n"
    assert "it is not on this machine yet: `cierzo models pull mistral-7b`" in err
    assert written.read_text() == '# mine\nport = 8000\nmodel = "mistral-7b"\n'
    assert "*  mistral-7b " in run("list")[0]
    (tmp_path / "near.gguf").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    run("use", "near.gguf")
    assert tomllib.loads(written.read_text())["model"] == str(tmp_path / "near.gguf")
    monkeypatch.setenv("CIERZO_MODEL", "mistral-nemo")
    out, err = run("use", "cierzo-demo", "--json")
    assert events(out) == [{"v": 1, "event": "setting", "name": "model", "value": "cierzo-demo", "file": str(written)}]
    assert "CIERZO_MODEL or --model says 'mistral-nemo' and counts more" in err
