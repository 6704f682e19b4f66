"""What pages show: branches as HTML, answers as HTML while they are written, and what answers."""

from __future__ import annotations

import json
import threading
import time

import httpx
import pytest
from serving import until

from cierzo.engines.script import Reply, Wait
from cierzo.engines.scripted import Scripted
from cierzo.errors import EngineDied
from cierzo.rendering import render

ANSWER = "# Título\n\nUn *token* es:\n\n- uno\n- dos\n\n```python\nx = 1\n```\n\nY <b>nada</b> más.\n"
PIECES = [ANSWER[at : at + 3] for at in range(0, len(ANSWER), 3)]


def updates(server, reply):
    """Follow an answer as a page does; return its events, and its blocks at the end."""
    blocks, events = [], []
    with httpx.stream("GET", f"{server.url}/api/replies/{reply}/html", timeout=30) as answer:
        assert answer.status_code == 200
        for block in answer.read().decode().split("\n\n"):
            fields = dict(
                line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":")
            )
            if "data" in fields:
                events.append((fields["event"], json.loads(fields["data"])))
    for name, data in events:
        if name == "html":
            assert data["first"] <= len(blocks), "no block is missing"
            blocks[data["first"] :] = data["blocks"]
    return events, blocks


def asked(server, text="Hola", **more):
    conversation = more.pop("conversation", None) or server.post("/api/conversations", {}).json()["id"]
    said = server.post(f"/api/conversations/{conversation}/messages", {"text": text, **more}).json()
    return conversation, said["question"]["id"], said["answers"][0]["id"]


@pytest.mark.parametrize("delay", [0.0, 0.01])
def test_an_answer_as_html_while_it_is_written(live, delay):
    server = live(Scripted(Reply.of(PIECES, delay=delay)))
    conversation, _, answer = asked(server)
    events, blocks = updates(server, answer)
    assert blocks == render(ANSWER)
    assert [name for name, _ in events].count("end") == 1
    assert events[-1][0] == "end"
    assert events[-1][1]["reason"] == "eos_token"
    assert [data["tokens"] for name, data in events if name == "html"][-1] == len(PIECES)
    again, same = updates(server, answer)
    assert same == blocks
    assert [name for name, _ in again] == ["html", "end"]
    branch = server.get(f"/api/conversations/{conversation}/branch").json()
    assert branch["messages"][-1]["html"] == blocks


def test_no_more_than_twenty_updates_a_second(live):
    server = live(Scripted(Reply.of(["a "] * 300, delay=0.004)))
    _, _, answer = asked(server)
    began = time.monotonic()
    events, _ = updates(server, answer)
    spent = time.monotonic() - began
    count = sum(name == "html" for name, _ in events)
    print(f"\n{count} updates of 300 tokens in {spent:.1f} s")
    assert 2 <= count <= 20 * spent + 2


def test_the_end_of_an_answer_waits_for_no_pause(live):
    """What takes a second to make is followed by ten of rest, but not where nothing more comes."""
    server = live(Scripted(Reply.of(["| a | b |\n|---|---|\n| 1 | 2 |\n\n" * 5000])))
    _, _, answer = asked(server)
    began = time.monotonic()
    events, _ = updates(server, answer)
    whole = time.monotonic() - began
    assert events[-1][0] == "end"
    began = time.monotonic()
    assert updates(server, answer)[0][-1][0] == "end"  # it is all there: only to make it takes time
    making = time.monotonic() - began
    print(f"\n{whole:.1f} s while it was written, {making:.1f} s afterwards")
    assert whole < 3 * making + 1


def test_phases_failures_and_stops_are_told(live):
    server = live(Scripted(Reply.of([Wait(0.3), "bien", EngineDied("it died")])))
    _, _, answer = asked(server)
    events, blocks = updates(server, answer)
    assert (events[-1][1]["reason"], blocks) == ("failed", ["<p>bien</p>"])
    server = live(Scripted(Reply.of(["a "], repeat=True, delay=0.01)))
    _, _, answer = asked(server)
    found = []
    reading = threading.Thread(target=lambda: found.append(updates(server, answer)))
    reading.start()
    until(lambda: server.engine.running)
    time.sleep(0.2)
    server.post(f"/api/replies/{answer}/stop", {})
    reading.join(20)
    ((events, blocks),) = found
    assert events[-1][1]["reason"] == "stopped"
    stored = server.get(f"/api/replies/{answer}").json()["message"]
    assert blocks == render(stored["text"])


def test_a_branch_and_its_siblings(live):
    server = live(Scripted(Reply.of(["Bien, ", "*gracias*."])))
    conversation, question, answer = asked(server, "Hola\n¿qué tal?")
    server.get(f"/api/replies/{answer}/events")
    other = server.post(f"/api/messages/{question}/again", {}).json()["id"]
    server.get(f"/api/replies/{other}/events")
    for number in range(3):
        _, _, last = asked(server, f"Pregunta {number}", conversation=conversation)
        server.get(f"/api/replies/{last}/events")
    path = f"/api/conversations/{conversation}/branch"
    whole = server.get(path).json()
    assert not whole["earlier"]
    assert [each["message"]["role"] for each in whole["messages"]] == ["user", "assistant"] * 4
    assert whole["messages"][0]["html"] == ["<p>Hola<br>\n¿qué tal?</p>"]
    assert whole["messages"][1]["html"] == ["<p>Bien, <em>gracias</em>.</p>"]
    assert whole["messages"][1]["message"]["id"] == other
    assert whole["messages"][1]["siblings"] == [answer, other]
    assert whole["conversation"]["head"] == last
    ids = [each["message"]["id"] for each in whole["messages"]]
    newest = server.get(path, params={"limit": 3}).json()
    assert ([each["message"]["id"] for each in newest["messages"]], newest["earlier"]) == (ids[-3:], True)
    older = server.get(path, params={"limit": 3, "before": ids[-3]}).json()
    assert [each["message"]["id"] for each in older["messages"]] == ids[-6:-3]
    turned = server.get(path, params={"through": answer}).json()
    assert [each["message"]["id"] for each in turned["messages"]] == [question, answer]
    for wrong in ({"through": "x"}, {"before": "x"}, {"through": answer, "before": last}):
        assert server.get(path, params=wrong).status_code == 404
    assert server.get("/api/replies/x/html").status_code == 404
    assert server.get(f"/api/replies/{question}/html").status_code == 404


def test_what_answers(live):
    said = live(Scripted(Reply.of("x"))).get("/api/engine").json()
    assert (said["engine"], said["model"]) == ("scripted", "scripted")
    assert "temperature" in said["honours"]
    assert said["context"] > 0
    assert said["slots"] >= 1
    assert said["limits"] == {
        "text": 2_000_000,
        "title": 300,
        "stops": 16,
        "stop_length": 256,
        "alternatives": 20,
        "request": 2_000_000,
        "file": 100_000_000,
    }
