"""Whatever an engine does, every answer has exactly one end that the client can see."""

from __future__ import annotations

import json

import httpx
import pytest
from faults import FAULTS, ODD
from serving import asking, data_of

from cierzo.engines.script import Reply
from cierzo.engines.scripted import Scripted

ROUTES = {
    "openai chat": ("/v1/chat/completions", asking(logprobs=True, top_logprobs=1)),
    "openai completions": ("/v1/completions", {"prompt": "Hi", "max_tokens": 1000, "logprobs": 1}),
    "tgi": ("/generate_stream", {"inputs": "Hi", "parameters": {"details": True}}),
    "tgi root": ("/", {"inputs": "Hi"}),
}


def body_of(route, *, stream):
    path, body = ROUTES[route]
    if path == "/generate_stream":
        return (path if stream else "/generate"), body
    return path, {**body, "stream": stream}


def ends(route, events):
    """Count the ends among the events of a stream."""
    found = 0
    for event in events:
        if event == "[DONE]":
            found += 1
        else:
            value = json.loads(event)
            found += "error" in value or (route.startswith("tgi") and value["generated_text"] is not None)
    return found


def test_there_are_twenty_and_more():
    assert len(FAULTS) == 27
    print(f"\n{len(FAULTS)} faults and {len(ODD)} oddities x {len(ROUTES)} routes, streamed and whole, and /api")


@pytest.mark.parametrize("fault", [*FAULTS, *ODD])
def test_every_answer_has_one_end(lent, fault):
    server = lent({**FAULTS, **ODD}[fault](), silence=0.2 if "hangs" in fault else 60)
    for route in ROUTES:
        path, body = body_of(route, stream=True)
        answer = server.post(path, body)
        if answer.status_code == 200:
            events = data_of(answer.text)
            assert ends(route, events) == 1, (route, events[-3:])
            assert ends(route, events[-1:]) == 1, "the end is the last event"
            failed = "error" in events[-1]
        else:
            assert answer.json()["error"]
            failed = True
        assert failed == (fault in FAULTS), (route, answer.text[-300:])
        assert "secret" not in answer.text
        path, body = body_of(route, stream=False)
        whole = server.post(path, body)
        assert (whole.status_code >= 400) == failed, (route, whole.text[:300])
        assert whole.json()
    assert server.work.running == 0
    assert server.get("/health").status_code == 200
    assert server.engine.running == 0


def followed(server):
    """Ask in a conversation, follow the answer, and return its events, and how the store says it ended."""
    conversation = server.post("/api/conversations", {}).json()["id"]
    asked = server.post(f"/api/conversations/{conversation}/messages", {"text": "Hi"}).json()
    answer = asked["answers"][0]["id"]
    said = server.get(f"/api/replies/{answer}/events").text
    blocks = [
        dict(line.split(": ", 1) for line in block.split("\n")) for block in said.split("\n\n") if "data: " in block
    ]
    assert [int(block["id"]) for block in blocks] == list(range(1, len(blocks) + 1))
    return [(block["event"], json.loads(block["data"])) for block in blocks], server.get(
        f"/api/replies/{answer}"
    ).json()


@pytest.mark.parametrize("fault", [*FAULTS, *ODD])
def test_every_answer_in_a_conversation_has_one_end(lent, fault):
    server = lent({**FAULTS, **ODD}[fault](), silence=0.2 if "hangs" in fault else 60)
    events, stored = followed(server)
    assert [name for name, _ in events].count("end") == 1, events[-3:]
    assert "error" not in [name for name, _ in events]
    name, end = events[-1]
    assert name == "end"
    expected = {"says stopped": "stopped"}.get(fault, "failed" if fault in FAULTS else "eos_token")
    assert (end["reason"], stored["message"]["answer"]["reason"]) == (expected, expected)
    assert bool(end["failure"]) == (expected == "failed")
    assert "secret" not in json.dumps([events, stored])
    assert stored["message"]["text"] == "".join(event["text"] for name, event in events if name == "token")
    assert (server.work.service.admission.running, len(server.work.service.replies)) == (0, 0)


def test_the_server_ending_cuts_an_answer_with_an_error(live):
    server = live(Scripted(Reply.of(["a"], repeat=True, delay=0.01)), grace=0.3)
    with httpx.stream("POST", server.url + "/generate_stream", json={"inputs": "Hi"}, timeout=10) as answer:
        lines = answer.iter_lines()
        next(lines)
        server.server.should_exit = True
        said = [line for line in lines if line]
    assert json.loads(said[-1].removeprefix("data: "))["error"].endswith("ask again when it is back")
    assert server.engine.stopped == 1
