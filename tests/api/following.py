"""A client of our own event streams: small, strict, and able to be cut off at any byte."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, field

import httpx

OPENING = b"retry: 1000\n\n"


@dataclass
class Follower:
    """Reads bytes of an event stream, keeps whole events, and knows from where to go on."""

    last: int = 0
    events: list[tuple[int, str, dict]] = field(default_factory=list)
    rest: bytes = b""
    size: int = 0  # of all events so far, in bytes
    error: dict | None = None  # the event without a number, that says to come back

    def feed(self, received):
        *blocks, self.rest = (self.rest + received).split(b"\n\n")
        for block in blocks:
            lines = [line for line in block.split(b"\n") if not line.startswith((b":", b"retry:"))]
            if lines[:1] == [b"event: error"]:
                self.error = json.loads(lines[1].removeprefix(b"data: "))["error"]
            elif lines:
                assert self.error is None, block
                assert [line.split(b": ")[0] for line in lines] == [b"id", b"event", b"data"], block
                number, name, data = (line.split(b": ", 1)[1] for line in lines)
                self.events.append((int(number), name.decode(), json.loads(data)))
                self.last = int(number)
                self.size += len(block) + 2
        return self

    def cut(self):
        """Forget what had not come whole, as a client does whose connection breaks."""
        self.rest = b""

    @property
    def numbers(self):
        return [number for number, _, _ in self.events]

    @property
    def text(self):
        return "".join(data["text"] for _, name, data in self.events if name == "token")

    @property
    def end(self):
        """The last event; there is one end, and nothing after it."""
        assert [name for _, name, _ in self.events].count("end") == 1
        assert self.events[-1][1] == "end"
        return self.events[-1][2]

    def whole(self):
        """No event is missing and none came twice."""
        return self.numbers == list(range(1, len(self.events) + 1))

    def follow(self, url, reply, *, until=None):
        """Read to the end, or until there are so many events; then leave."""
        self.error = None
        headers = {"Last-Event-ID": str(self.last)} if self.last else {}
        with httpx.stream("GET", f"{url}/api/replies/{reply}/events", headers=headers, timeout=60) as answer:
            assert answer.status_code == 200
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            for chunk in answer.iter_raw():
                self.feed(chunk)
                if until is not None and len(self.events) >= until:
                    break
        self.cut()
        return self


def body_of(place, reply, last, size=None):
    """Return the first ``size`` bytes of a stream's body (None: all of them), then cut the connection.

    HTTP/1.0, so that the body comes as it is and not in chunks with lengths between.
    """
    with socket.create_connection(place, timeout=60) as connection:
        asked = f"GET /api/replies/{reply}/events HTTP/1.0\r\nHost: {place[0]}:{place[1]}\r\n"
        connection.sendall(f"{asked}Last-Event-ID: {last}\r\n\r\n".encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += _more(connection)
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        while (size is None or len(body) < size) and (more := _more(connection)):
            body += more
    return body if size is None else body[:size]


def _more(connection):
    return connection.recv(65_536)


def begin(server, text="Hola", conversation=None, **more):
    """Ask; return the conversation's id and the answer's."""
    if conversation is None:
        conversation = server.post("/api/conversations", {}).json()["id"]
    asked = server.post(f"/api/conversations/{conversation}/messages", {"text": text, **more})
    assert asked.status_code == 201, asked.text
    return conversation, asked.json()["answers"][0]["id"]
