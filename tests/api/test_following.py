"""Event streams of answers: whoever is cut off anywhere goes on there, without a gap and without a repeat.

``CIERZO_EVERY_BYTE=1`` cuts at every byte, which takes minutes; otherwise at every 47th, counted from the start of the
stream, so that every place of an event has its turn in one event or another.
"""

from __future__ import annotations

import os
import threading

import httpx
import pytest
from following import OPENING, Cuts, Follower, begin, body_of
from serving import until

from cierzo.api import wire
from cierzo.engines.script import Reply, Wait
from cierzo.engines.scripted import Scripted

STEP = 1 if os.environ.get("CIERZO_EVERY_BYTE") else 47
WORDS = [f"{chr(97 + number % 26)}" for number in range(200)]


@pytest.mark.timeout(3600)
def test_cut_at_every_byte_and_resumed(lent):
    """Half of the cuts fall into an answer that is being written, the others into one that is done."""
    server = lent(Scripted(Reply.of([*WORDS, Wait()])))
    place = server.socket.getsockname()
    _, reply = begin(server)
    until(lambda: server.get(f"/api/replies/{reply}").json()["message"]["answer"]["logged"] == 200)
    client = Follower().follow(server.url, reply, until=200)
    assert server.get(f"/api/replies/{reply}").json()["message"]["answer"]["state"] == "writing"
    cuts = Cuts(place, reply, server.run(body_of(place, reply, 0, len(OPENING) + client.size)), STEP)
    server.run(cuts.between(1, 100))
    assert server.post(f"/api/replies/{reply}/stop", None).status_code == 200
    client.follow(server.url, reply)
    cuts.straight = server.run(body_of(place, reply, 0))
    server.run(cuts.between(101, 201))
    print(
        f"\n{cuts.done} cuts, one each {STEP} bytes of {len(cuts.straight):,}: "
        f"{cuts.gaps} gaps, {cuts.repeats} repeats, {cuts.different} different"
    )
    assert (cuts.gaps, cuts.repeats, cuts.different) == (0, 0, 0)
    assert cuts.done >= len(cuts.straight) // STEP
    assert Follower().feed(cuts.straight).events == client.events
    assert client.whole()
    assert client.text == "".join(WORDS) == server.get(f"/api/replies/{reply}").json()["message"]["text"]
    assert client.end["reason"] == "stopped"


def test_two_who_reload_in_the_middle(lent):
    server = lent(Scripted(Reply.of(WORDS, delay=0.01)))
    _, reply = begin(server)
    clients = [Follower(), Follower()]

    def reading(client, places):
        for place in places:
            client.follow(server.url, reply, until=place)
        client.follow(server.url, reply)

    threads = [
        threading.Thread(target=reading, args=(client, places))
        for client, places in zip(clients, ([3, 50, 51, 120], [80, 199]), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert clients[0].events == clients[1].events
    assert clients[0].whole()
    assert clients[0].text == "".join(WORDS)
    assert clients[0].end["finish"]["answer_tokens"] == 200
    assert server.engine.stopped == 0  # nobody who left stopped it


def test_the_larger_number_counts(lent):
    server = lent(Scripted("uno dos tres"))
    _, reply = begin(server)
    Follower().follow(server.url, reply)
    url = f"/api/replies/{reply}/events"
    tries = [("?after=2", {}), ("?after=1", {"Last-Event-ID": "2"}), ("?after=2", {"Last-Event-ID": "1"})]
    for query, headers in tries:
        client = Follower().feed(server.get(url + query, headers=headers).content)
        assert client.numbers == [3, 4], (query, headers)
    for beyond in (4, 99, 2**53):
        client = Follower().feed(server.get(f"{url}?after={beyond}").content)
        assert client.end["reason"] == "eos_token"
        assert client.numbers == [4]


@pytest.mark.parametrize("wrong", ["-1", "x", "1.5", "9" * 40, "²"])
def test_a_number_that_is_none_is_refused(echo, wrong):
    for answer in (
        echo.get("/api/replies/x/events", headers={"Last-Event-ID": wrong.encode()}),
        echo.get("/api/replies/x/events", params={"after": wrong}),
    ):
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "BadInput"


def test_a_silent_answer_says_that_it_lives_and_its_head_comes_at_once(lent, monkeypatch):
    monkeypatch.setattr(wire, "KEEP_ALIVE", 0.1)
    server = lent(Scripted(["a", Wait(1.5), "b"]))
    _, reply = begin(server)
    with httpx.stream("GET", f"{server.url}/api/replies/{reply}/events", timeout=60) as answer:
        said = answer.read()
    assert said.startswith(OPENING)
    assert said.count(b":\n\n") >= 2
    assert Follower().feed(said).text == "ab"


def test_a_failure_is_one_end(lent):
    server = lent(Scripted(Reply.of(["uno", " dos", Wait(0.2)], disorder=True)))
    _, reply = begin(server)
    client = Follower().follow(server.url, reply)
    assert client.whole()
    assert (client.text, client.end["reason"]) == ("uno dos", "failed")
    assert client.end["failure"]
    facts = server.get(f"/api/replies/{reply}").json()["message"]
    assert (facts["text"], facts["answer"]["failure"]) == ("uno dos", client.end["failure"])
