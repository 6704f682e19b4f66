"""Downloads and removals over the API, from a hub on this machine."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest
from gguf_files import write
from hub_server import BLOCK, in_use
from serving import until

from cierzo import catalog, pulling
from cierzo.engines.script import Reply
from cierzo.engines.scripted import Scripted

HF = "hf:some/repo/tiny.gguf"
KEY = ("some/repo", "tiny.gguf")


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return write(tmp_path_factory.mktemp("models") / "tiny.gguf", "v3").read_bytes()


@pytest.fixture
def hub(tmp_path, monkeypatch, content):
    with in_use(monkeypatch, tmp_path / "cache") as hub:
        model = catalog.find("mistral-7b", tmp_path)
        hub.files[model.repo, model.file] = hub.files[KEY] = content
        yield hub


@pytest.fixture
def server(live, hub):
    return live(Scripted(Reply.of("x")))


def ended(server, download):
    until(lambda: server.get(f"/api/downloads/{download}").json()["state"] in ("done", "failed", "cancelled"))
    return server.get(f"/api/downloads/{download}").json()


def entry(server, name):
    return next((model for model in server.get("/api/models").json()["models"] if model["name"] == name), None)


def test_a_download_from_its_beginning_to_the_removal(server, hub, content):
    go_on = threading.Event()
    hub.before_block = lambda place: place < 4 * BLOCK or go_on.wait(60)
    begun = server.post("/api/downloads", {"model": "mistral-7b"})
    assert begun.status_code == 201
    mine = begun.json()
    assert (mine["model"], mine["error"]) == ("mistral-7b", None)
    until(lambda: server.get(f"/api/downloads/{mine['id']}").json()["bytes_done"] > BLOCK)
    seen = server.get("/api/downloads").json()["downloads"]
    assert [(each["id"], each["state"], each["bytes"]) for each in seen] == [(mine["id"], "fetching", len(content))]
    assert server.post("/api/downloads", {"model": "MISTRAL-7B"}).json()["id"] == mine["id"]
    listed = entry(server, "mistral-7b")
    assert (listed["download"]["id"], listed["downloaded"]) == (mine["id"], False)
    assert listed["bytes_begun"] > BLOCK
    busy = server.delete("/api/models/mistral-7b")
    assert (busy.status_code, busy.json()["error"]["type"]) == (409, "Conflict")
    go_on.set()
    assert ended(server, mine["id"])["state"] == "done"
    listed = entry(server, "mistral-7b")
    assert (listed["downloaded"], listed["bytes"], listed["removable"]) == (True, len(content), True)
    assert listed["sha256"] == hashlib.sha256(content).hexdigest()
    again = server.post("/api/downloads", {"model": "mistral-7b"})
    assert (again.status_code, again.json()["error"]["type"]) == (409, "Conflict")
    assert server.delete("/api/models/mistral-7b").json() == {"model": "mistral-7b", "freed": len(content)}
    assert not entry(server, "mistral-7b")["downloaded"]


def test_cancelled_and_gone_on_with(server, hub, content):
    go_on = threading.Event()
    hub.before_block = lambda place: place < 8 * BLOCK or go_on.wait(60)
    mine = server.post("/api/downloads", {"model": HF}).json()
    assert mine["model"] == HF
    until(lambda: server.get(f"/api/downloads/{mine['id']}").json()["bytes_done"] >= 4 * BLOCK)
    assert server.delete(f"/api/downloads/{mine['id']}").json()["state"] == "cancelled"
    go_on.set()
    second = server.post("/api/downloads", {"model": HF}).json()
    assert second["id"] != mine["id"]
    assert ended(server, second["id"])["state"] == "done"
    assert hub.sent < 1.9 * len(content)
    listed = entry(server, HF)
    assert (listed["downloaded"], listed["template"], listed["repository"], listed["file"]) == (True, "v3", *KEY)
    assert server.delete(f"/api/models/{HF}").json()["freed"] == len(content)
    assert entry(server, HF) is None


@pytest.mark.parametrize(
    ("fault", "kind", "advice"),
    [
        ((403, "GatedRepo"), "ModelGated", "accept it at http"),
        ((404, "EntryNotFound"), "DownloadFailed", "has no such file"),
        ((500, ""), "DownloadFailed", "answered with status 500"),
    ],
)
def test_why_it_failed(server, hub, fault, kind, advice):
    hub.faults[KEY[0]] = fault
    failed = ended(server, server.post("/api/downloads", {"model": HF}).json()["id"])
    assert (failed["state"], failed["error"]["type"]) == ("failed", kind)
    assert advice in failed["error"]["message"]
    assert failed["seconds_left"] is None


def test_what_was_begun_by_a_server_that_ended(live, hub, content, monkeypatch):
    """A server of another day finds the beginning, says how much it is, and goes on there."""
    monkeypatch.setattr(pulling, "_LETTING_GO", 0)
    go_on = threading.Event()
    hub.before_block = lambda place: place < 6 * BLOCK or go_on.wait(60)
    first = live(Scripted(Reply.of("x")))
    mine = first.post("/api/downloads", {"model": "mistral-7b"}).json()
    until(lambda: first.get(f"/api/downloads/{mine['id']}").json()["bytes_done"] >= 4 * BLOCK)
    first.server.should_exit = True
    first.thread.join(30)
    second = live(Scripted(Reply.of("x")))
    assert second.get("/api/downloads").json() == {"downloads": []}
    listed = entry(second, "mistral-7b")
    assert 4 * BLOCK <= listed["bytes_begun"] <= 6 * BLOCK
    assert listed["removable"]
    go_on.set()
    assert ended(second, second.post("/api/downloads", {"model": "mistral-7b"}).json()["id"])["state"] == "done"
    assert hub.sent < 1.9 * len(content)


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("no-such-model", 404, "UnknownModel"),
        ("/etc/passwd", 404, "UnknownModel"),
        ("../secret.gguf", 404, "UnknownModel"),
        ("secret.gguf", 404, "UnknownModel"),
        ("hf:a/b/c.txt", 404, "UnknownModel"),
        ("cierzo-demo", 409, "Conflict"),
    ],
)
def test_what_is_no_download(server, name, status, kind):
    for said in (server.post("/api/downloads", {"model": name}), server.delete(f"/api/models/{name}")):
        assert (said.status_code, said.json()["error"]["type"]) in ((status, kind), (404, "NotFound"))
    assert server.get("/api/downloads").json() == {"downloads": []}


def test_what_is_not_asked_properly(server):
    assert server.post("/api/downloads", {}).status_code == 400
    assert server.post("/api/downloads", {"model": "x" * 401}).status_code == 400
    assert server.post("/api/downloads", {"model": "x", "path": "/"}).status_code == 400
    assert server.get("/api/downloads/7").status_code == server.delete("/api/downloads/7").status_code == 404


def test_a_file_of_ones_own_is_removed_and_one_in_use_is_not(live, hub, content):
    server = live(Scripted(Reply.of("x")))
    used = server.engine.describe().model
    folder = Path(server.home.name) / "models"
    folder.mkdir()
    for name in ("mine", used):
        (folder / f"{name}.gguf").write_bytes(content)
    assert (entry(server, used)["in_use"], entry(server, used)["removable"]) == (True, False)
    assert (entry(server, "mine")["in_use"], entry(server, "mine")["removable"]) == (False, True)
    refused = server.delete(f"/api/models/{used}")
    assert (refused.status_code, refused.json()["error"]["type"]) == (409, "Conflict")
    assert server.delete("/api/models/mine").json() == {"model": "mine", "freed": len(content)}
    assert [path.stem for path in folder.iterdir()] == [used]
