"""What becomes of answers in conversations when the server ends, in peace or not."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest
from following import Follower, begin
from pace import Pace
from serve_process import FINISHING
from serving import until

LONG = {"max_new_tokens": 400}


def following(served, reply, count=2):
    """Followers in threads of their own, who hold on until their stream ends or breaks."""
    clients = [Follower() for _ in range(count)]

    def follow(client):
        try:
            client.follow(served.url, reply)
        except httpx.TransportError:
            client.cut()

    threads = [threading.Thread(target=follow, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    until(lambda: all(len(client.events) >= 10 for client in clients))
    return clients, threads


def join(threads):
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_answers_that_are_cut_tell_their_followers_and_are_marked(start):
    served = start(grace=0.5)
    conversation, reply = begin(served, "long", sampling=LONG)
    clients, threads = following(served, reply)
    status, seconds, said = served.end()
    join(threads)
    assert status == 0
    assert re.fullmatch(FINISHING, said)
    assert seconds < 0.5 + 2
    assert clients[0].events == clients[1].events
    assert clients[0].whole()
    assert clients[0].end["reason"] == "interrupted"
    again = start()
    message = again.get(f"/api/conversations/{conversation}").json()["messages"][-1]
    assert (message["text"], message["answer"]["reason"]) == (clients[0].text, "interrupted")
    assert Follower().follow(again.url, reply).events == clients[0].events


def test_answers_finish_within_the_grace_and_nothing_new_begins(start):
    served = start(grace=60)
    conversation, reply = begin(served, "long", sampling={"max_new_tokens": 60})
    clients, threads = following(served, reply)
    served.process.send_signal(signal.SIGTERM)
    until(lambda: served.get("/ready").json()["status"] == "ending")
    refused = served.post(f"/api/conversations/{conversation}/messages", {"text": "Hola", "parent": None})
    assert (refused.status_code, refused.json()["error"]["type"]) == (503, "Refused")
    assert refused.headers["Retry-After"]
    late = Follower().follow(served.url, reply, until=3)  # who looks and follows may still do so
    assert late.whole()
    join(threads)
    assert served.process.wait(60) == 0
    assert clients[0].events == clients[1].events
    assert (clients[0].end["reason"], clients[0].end["finish"]["answer_tokens"]) == ("length", 60)


def test_an_answer_may_be_stopped_while_the_server_ends(start):
    served = start(grace=60)
    _, reply = begin(served, "long", sampling=LONG)
    clients, threads = following(served, reply, count=1)
    served.process.send_signal(signal.SIGTERM)
    until(lambda: served.get("/ready").json()["status"] == "ending")
    assert served.post(f"/api/replies/{reply}/stop", None).json()["answer"]["reason"] == "stopped"
    join(threads)
    assert clients[0].end["reason"] == "stopped"
    assert served.process.wait(60) == 0


def test_a_server_that_ends_tells_the_followers_of_an_answer_that_another_one_writes(start):
    writer, other = start(grace=60), start(grace=60)
    _, reply = begin(writer, "long", sampling=LONG)
    clients, threads = following(other, reply)
    status, seconds, said = other.end()
    join(threads)
    assert status == 0
    assert re.fullmatch(FINISHING, said)
    assert seconds < 2
    for client in clients:
        assert client.error["type"] == "Overloaded"
        assert "the answer goes on" in client.error["message"]
        assert "end" not in [name for _, name, _ in client.events]
    stopped = writer.post(f"/api/replies/{reply}/stop", None).json()
    for client in clients:
        client.follow(writer.url, reply)
        assert client.whole()
        assert client.end["reason"] == "stopped"
        assert client.text == stopped["text"]


def test_an_answer_is_stopped_through_another_server(start):
    writer, other = start(), start()
    _, reply = begin(writer, "long", sampling=LONG)
    clients, threads = following(writer, reply, count=1)
    with Pace() as pace:
        began = time.monotonic()
        stopped = other.post(f"/api/replies/{reply}/stop", None)
        taken = time.monotonic() - began
    join(threads)
    print(f"\nstopped through another server after {taken:.2f} s (pace {pace.factor:.1f})")
    assert stopped.status_code == 200
    assert stopped.json()["answer"]["reason"] == "stopped"
    assert (stopped.json()["text"], clients[0].end["reason"]) == (clients[0].text, "stopped")
    assert taken < 2 * pace.factor


def test_killed_in_the_middle_of_an_answer(start):
    served = start()
    conversation, reply = begin(served, "long", sampling=LONG)
    came = []
    client = Follower()

    def follow():
        try:
            with httpx.stream("GET", f"{served.url}/api/replies/{reply}/events", timeout=60) as answer:
                for chunk in answer.iter_raw():
                    client.feed(chunk)
                    came.extend([time.monotonic()] * (len(client.events) - len(came)))
        except httpx.TransportError:
            client.cut()

    thread = threading.Thread(target=follow)
    with Pace() as pace:
        thread.start()
        until(lambda: len(came) >= 80)
        killed = time.monotonic()
        served.process.kill()
        join([thread])
    # However slow the machine: a bound that grew without end would let every loss pass.
    early = sum(at < killed - min(pace.factor, 2.0) for at in came)
    assert early >= 10

    again = start()
    with Pace() as pace:
        marked = until(lambda: again.get(f"/api/replies/{reply}").json()["message"]["answer"]["state"] == "done", 120)
    message = again.get(f"/api/conversations/{conversation}").json()["messages"][-1]
    assert message["answer"]["reason"] == "interrupted"
    assert message["text"] == client.text[: len(message["text"])] or message["text"].startswith(client.text)
    kept = message["answer"]["logged"]
    print(
        f"\n{len(came)} tokens came, {kept} were kept; marked {marked:.1f} s after the start (pace {pace.factor:.1f})"
    )
    assert kept >= early
    assert marked < 10 * pace.factor

    client.follow(again.url, reply)  # the one who was cut off hears of the end
    assert client.events[-1][1:] == ("end", {"reason": "interrupted", "finish": None, "failure": ""})
    more = again.post(f"/api/replies/{reply}/continue", {"sampling": {"max_new_tokens": 5}}).json()
    rest = Follower().follow(again.url, more["id"])
    assert rest.text.startswith(message["text"])
    assert rest.end["finish"]["answer_tokens"] == kept + 5


@pytest.mark.parametrize("where", ["sqlite:////nowhere/at/all.db", "mysql://x/y", "file"])
def test_a_store_that_cannot_be_opened_is_one_line(where, tmp_path):
    if where == "file":
        (tmp_path / "some.db").write_bytes(b"no database" * 1000)
        where = f"sqlite:///{tmp_path}/some.db"
    command = [sys.executable, "-m", "cierzo", "serve", "--engine", "scripted:", "--port", "0"]
    variables = {**os.environ, "CIERZO_DATABASE_URL": where}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=variables, timeout=60)
    assert ended.returncode in (1, 2)
    assert (ended.stdout, len(ended.stderr.splitlines())) == ("", 1)
    assert "Traceback" not in ended.stderr
