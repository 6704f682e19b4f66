"""Files of conversations over HTTP: out, in again, and what is refused."""

from __future__ import annotations

import json

import httpx
import pytest
from following import Follower, begin
from serving import JSON

from cierzo.api import gate
from cierzo.engines.scripted import Scripted


def sent(server, content, kind="application/json"):
    return httpx.post(f"{server.url}/api/import", content=content, headers={"Content-Type": kind}, timeout=60)


def told(server):
    everything = [server.get(f"/api/conversations?{which}").json()["conversations"] for which in ("", "deleted=true")]
    return [each["id"] for page in everything for each in page]


def test_out_and_in_again(live):
    server, other = live(Scripted("Hola, amigo.")), live(Scripted("Hola."))
    conversation, reply = begin(server, "¿Quién eres?")
    Follower().follow(server.url, reply)
    server.post("/api/conversations", {"title": "Otra"})
    one = server.get(f"/api/conversations/{conversation}/export")
    assert one.headers["Content-Disposition"] == 'attachment; filename="conversations.json"'
    assert one.headers["Content-Type"] == "application/json"
    everything = server.get("/api/export")
    assert [len(json.loads(each.content)["conversations"]) for each in (one, everything)] == [1, 2]

    reading = server.get(f"/api/conversations/{conversation}/export?format=markdown")
    assert reading.headers["Content-Type"] == "text/markdown; charset=utf-8"
    assert reading.headers["Content-Disposition"] == 'attachment; filename="conversations.md"'
    assert "¿Quién eres?" in reading.text
    assert "Hola, amigo." in reading.text

    added = sent(other, everything.content)
    assert (added.status_code, added.json()["messages"]) == (201, 2)
    assert set(told(other)) == set(added.json()["conversations"])
    (there,) = [
        tree
        for name in added.json()["conversations"]
        if (tree := other.get(f"/api/conversations/{name}").json())["messages"]
    ]
    was = server.get(f"/api/conversations/{conversation}").json()
    assert [each["text"] for each in there["messages"]] == [each["text"] for each in was["messages"]]
    inside = [
        server.get(f"/api/replies/{reply}").json(),
        other.get(f"/api/replies/{there['messages'][1]['id']}").json(),
    ]
    assert inside[0]["tokens"] == inside[1]["tokens"]
    assert inside[0]["prompt"] == inside[1]["prompt"]
    assert sent(other, everything.content).status_code == 201  # copies
    assert len(told(other)) == 4


def test_a_broken_file_is_refused_whole(live, monkeypatch):
    server = live(Scripted("Hola."))
    _, reply = begin(server)
    Follower().follow(server.url, reply)
    whole = server.get("/api/export").content
    before = told(server)
    broken = [b"", b"{}", b"[]", b"no JSON", whole[:-5], whole.replace(b'"Hola"', b'"Adios"'), whole + b"{}"]
    for content in broken:
        answer = sent(server, content)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "BadInput"), content[:50]
    assert sent(server, whole, "text/plain").status_code == 400
    monkeypatch.setattr(gate, "MOST_FILE", 100)
    monkeypatch.setattr("cierzo.api.transfers.MOST_FILE", 100)
    assert sent(server, whole).status_code == 413
    assert sent(server, iter([whole])).status_code == 413  # without a length, in chunks
    assert told(server) == before


def test_more_than_a_request_may_have(live):
    """A file may be larger than any other body."""
    server = live(Scripted("Hola."))
    large = {"messages": [{"role": "user", "text": "x" * 2_100_000}]}
    assert httpx.post(f"{server.url}/api/prompt", json=large, headers=JSON, timeout=60).status_code == 413
    conversation, reply = begin(server)
    Follower().follow(server.url, reply)
    file = json.loads(server.get(f"/api/conversations/{conversation}/export").content)
    del file["sha256"]
    content = json.dumps(file).encode() + b" " * 2_100_000
    assert sent(server, content).status_code == 201


@pytest.mark.parametrize("path", ["/api/conversations/x/export", "/api/export?format=pdf"])
def test_what_cannot_be_exported(echo, path):
    answer = echo.get(path)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["message"]
