"""A client of our own event streams: small, strict, and able to be cut off at any byte."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
from dataclasses import dataclass, field

from serving import HTTP

OPENING = b"retry: 1000\n\n"
_NUMBER = re.compile(rb"^id: (\d+)$", re.MULTILINE)


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
        with HTTP.stream("GET", f"{url}/api/replies/{reply}/events", headers=headers) as answer:
            assert answer.status_code == 200
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            for chunk in answer.iter_raw():
                self.feed(chunk)
                if until is not None and len(self.events) >= until:
                    break
        self.cut()
        return self


@dataclass
class Cuts:
    """Cuts a stream at each ``step`` bytes, and each time goes on after the last event that had come whole by then.

    Args:
        place: Where the server listens.
        reply: The answer.
        straight: Its stream as it comes to whoever is never cut off.
        step: How many bytes further on the next cut is.
    """

    place: tuple[str, int]
    reply: str
    straight: bytes
    step: int
    done: int = 0
    gaps: int = 0
    repeats: int = 0
    different: int = 0

    async def between(self, first, last, at_once=8):
        """Read the events from ``first`` to ``last``, several parts at once, since a cut is mostly waiting."""
        parts = [first + (last + 1 - first) * number // at_once for number in range(at_once + 1)]
        await asyncio.gather(*(self._part(*pair) for pair in itertools.pairwise(parts)))

    async def _part(self, first, after):
        ends = [found.end() for found in re.finditer(b"\n\n", self.straight)]  # the opening's, then each event's
        number = first - 1
        for offset in range(ends[number] + 1 if number else 1, ends[after - 1] + 1, self.step):
            whole = ends[number]  # the opening comes again with each stream
            said = await body_of(self.place, self.reply, number, len(OPENING) + offset - whole)
            self.different += said != (OPENING + self.straight[whole:])[: len(OPENING) + offset - whole]
            for each in map(int, _NUMBER.findall(said[: said.rfind(b"\n\n") + 1])):
                self.gaps += max(0, each - number - 1)
                self.repeats += each <= number
                number = each
            self.done += 1


async def body_of(place, reply, last, size=None):
    """Return the first ``size`` bytes of a stream's body (None: all of them), then break the connection.

    HTTP/1.0, so that the body comes as it is and not in chunks with lengths between.
    """
    loop = asyncio.get_running_loop()
    number = f"Last-Event-ID: {last}\r\n" if last else ""
    with socket.socket() as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, place)
        asked = f"GET /api/replies/{reply}/events HTTP/1.0\r\nHost: {place[0]}:{place[1]}\r\n{number}\r\n"
        await loop.sock_sendall(connection, asked.encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += await _more(connection, 256)
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        while (size is None or len(body) < size) and (more := await _more(connection, 65_536)):
            body += more
    return body if size is None else body[:size]


async def _more(connection, most):
    async with asyncio.timeout(60):
        return await asyncio.get_running_loop().sock_recv(connection, most)


def begin(server, text="Hola", conversation=None, **more):
    """Ask; return the conversation's id and the answer's."""
    if conversation is None:
        conversation = server.post("/api/conversations", {}).json()["id"]
    asked = server.post(f"/api/conversations/{conversation}/messages", {"text": text, **more})
    assert asked.status_code == 201, asked.text
    return conversation, asked.json()["answers"][0]["id"]
