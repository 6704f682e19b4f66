"""A client that leaves frees the engine, and one that stays silent or slow holds nothing for ever."""

from __future__ import annotations

import json
import socket
import time

import httpx
import pytest
from pace import Pace
from serving import asking, until

from cierzo.api import gate, wire
from cierzo.engines.script import Reply, Wait
from cierzo.engines.scripted import Scripted

WITHIN = 1.0

ENDLESS = Reply.of(["token"], repeat=True, delay=0.005)
HANGING = Reply.of([Wait()])
ROUTES = [
    ("/v1/chat/completions", asking(stream=True)),
    ("/v1/chat/completions", asking()),
    ("/v1/completions", {"prompt": "Hi", "stream": True, "max_tokens": 9000}),
    ("/v1/completions", {"prompt": "Hi", "max_tokens": 9000}),
    ("/generate_stream", {"inputs": "Hi"}),
    ("/generate", {"inputs": "Hi"}),
    ("/", {"inputs": "Hi"}),
    ("/", {"inputs": "Hi", "stream": True}),
]


def request(server, path, body):
    """Send a request on a raw socket."""
    data = json.dumps(body).encode()
    host, port = server.socket.getsockname()
    connection = socket.create_connection((host, port))
    head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return connection


@pytest.mark.parametrize("reply", [ENDLESS, HANGING], ids=["while it writes", "while it reads"])
def test_leaving_stops_the_engine(live, reply):
    server = live(Scripted(reply))
    slowest = 0.0
    with Pace() as pace:
        for path, body in ROUTES:
            connection = request(server, path, body)
            until(lambda: server.engine.running == 1)
            time.sleep(0.05)
            connection.close()
            slowest = max(slowest, until(lambda: server.engine.running == 0))
    print(f"\n{len(ROUTES)} clients left; the engine was free after at most {slowest:.3f} s")
    assert slowest < WITHIN * pace.factor
    assert server.engine.stopped == len(ROUTES)
    assert 'cierzo_replies_total{reason="cancelled"} 8.0' in server.get("/metrics").text


def test_leaving_before_the_first_byte(live):
    server = live(Scripted(ENDLESS))
    for path, body in ROUTES:
        request(server, path, body).close()
    time.sleep(0.5)
    with Pace() as pace:
        seconds = until(lambda: server.engine.running == 0 and not server.work.running)
    assert seconds < WITHIN * pace.factor


def test_a_reader_that_reads_nothing_loses_its_answer(live, monkeypatch):
    monkeypatch.setattr(wire, "STALLED", 0.5)
    monkeypatch.setattr(wire, "KEEP_ALIVE", 0.4)
    server = live(Scripted(Reply.of(["a" * 60_000], repeat=True)))
    with request(server, "/generate_stream", {"inputs": "Hi"}):
        until(lambda: server.engine.running == 1)
        assert until(lambda: server.engine.running == 0, 30) > 0.4


def test_a_silent_stream_says_that_it_lives(live, monkeypatch):
    monkeypatch.setattr(wire, "KEEP_ALIVE", 0.1)
    server = live(Scripted(["a", Wait(1.0), "b"]))
    for path in ("/generate_stream", "/v1/chat/completions"):
        text = server.post(path, asking(stream=True) if "v1" in path else {"inputs": "Hi"}).text
        assert text.count(":\n\n") >= 2
        assert '"b"' in text


def test_a_slow_first_token_does_not_hold_back_the_head(live, monkeypatch):
    monkeypatch.setattr(wire, "KEEP_ALIVE", 0.1)
    server = live(Scripted(HANGING))
    with httpx.stream("POST", server.url + "/generate_stream", json={"inputs": "Hi"}, timeout=60) as answer:
        assert answer.status_code == 200


def test_half_requests_are_let_go(live, monkeypatch):
    monkeypatch.setattr(gate, "HEAD_WITHIN", 1.0)
    monkeypatch.setattr(gate, "BODY_WITHIN", 1.0)
    server = live(Scripted("Hola."))
    place = server.socket.getsockname()
    head = f"POST /generate HTTP/1.1\r\nHost: {place[0]}:{place[1]}\r\nContent-Type: application/json\r\n"
    halves = [b"", b"POST /gen", head.encode(), (head + "Content-Length: 100\r\n\r\n{").encode()]
    open_ones = []
    for half in halves * 25:
        connection = socket.create_connection(place)
        connection.sendall(half)
        open_ones.append(connection)
    assert server.post("/generate", {"inputs": "Hi"}).status_code == 200
    until(lambda: len(server.server.server_state.connections) == 0, 60)
    answers = [_rest(connection) for connection in open_ones]
    late = [answer for answer in answers if answer]
    print(f"\n{len(answers)} half requests let go")
    assert all(answer.startswith(b"HTTP/1.1 408") for answer in late)
    assert len(late) == 25


def _rest(connection):
    with connection:
        connection.settimeout(30)
        said = b""
        while chunk := connection.recv(65_536):
            said += chunk
        return said


def test_a_kept_connection_may_ask_again_later(live, monkeypatch):
    monkeypatch.setattr(gate, "HEAD_WITHIN", 1.0)
    server = live(Scripted(Reply.of(["a"] * 20, delay=0.08)))
    with httpx.Client(timeout=60) as client:
        for _ in range(2):
            answer = client.post(server.url + "/generate", json={"inputs": "Hi"})
            assert answer.json() == {"generated_text": "a" * 20}
