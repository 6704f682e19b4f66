"""Clients of `cierzo serve` that write down what they were told, and a process of it that can be killed.

Each client has a conversation of its own. It sends a question, follows the answer, and builds on it. What is not
acknowledged it sends again under the same id, as any client would.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

CLIENTS = 8
SCRIPT = """
[[reply]]
text = "{words}"
delay = 0.02
"""
WORDS = " ".join(f"palabra{number}" for number in range(120))
BROKEN = (httpx.TransportError, httpx.StreamError)


class Serving:
    """One `cierzo serve` after another, on one database."""

    def __init__(self, home: Path, database: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        (home / "script.toml").write_text(SCRIPT.format(words=WORDS), "utf-8")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CIERZO_")}
        self.environment = {**inherited, "CIERZO_HOME": str(home), "CIERZO_DATABASE_URL": database}
        self.command = ["serve", "--port", "0", "--engine", f"scripted:{home / 'script.toml'}"]
        self.process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> float:
        """Start it; return how many seconds it took until it answered."""
        began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cierzo", *self.command], env=self.environment, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "http://" in line, "it did not start"
        self.url = next(word for word in line.split() if word.startswith("http://")).rstrip("/")
        assert httpx.get(f"{self.url}/api/conversations", timeout=30).status_code == 200
        return time.monotonic() - began

    def leave_nothing(self) -> None:
        """End it if it still runs: a test may have failed meanwhile."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        assert self.process.returncode == -9, "it ended by itself"


@dataclass(slots=True)
class Turn:
    """One question, what was acknowledged of it, and what was seen of its answer."""

    client_id: str
    text: str
    parent: str | None
    question: str = ""
    answer: str = ""
    number: int = 0
    seen: list[tuple[float, str]] = field(default_factory=list)
    said: str = ""
    ended: str = ""
    counted: bool = False


@dataclass(slots=True)
class Client:
    """One client."""

    name: str
    turns: list[Turn] = field(default_factory=list)
    refused: int = 0
    longest: float = 0.0
    acknowledged: float = 0.0

    @property
    def conversation(self) -> str:
        return f"talk-{self.name}"

    async def talk(self, url: str, until: asyncio.Event) -> None:
        """Go on from where it was, until told otherwise or the server is gone."""
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            try:
                while not until.is_set():
                    await self._turn(http)
            except BROKEN:
                return

    async def _turn(self, http: httpx.AsyncClient) -> None:
        if not self.turns or self.turns[-1].ended:
            parent = self.turns[-1].answer if self.turns else None
            number = len(self.turns)
            self.turns.append(Turn(f"q{number}", f"{self.name} pregunta {number}", parent))
        turn = self.turns[-1]
        if not turn.answer and not await self._send(http, turn):
            return
        await self._follow(http, turn)

    async def _send(self, http: httpx.AsyncClient, turn: Turn) -> bool:
        began = time.monotonic()
        made = await http.post("/api/conversations", json={"id": self.conversation})
        asked = {"text": turn.text, "parent": turn.parent, "client_id": turn.client_id}
        if made.status_code == 201:
            made = await http.post(f"/api/conversations/{self.conversation}/messages", json=asked)
        self.longest = max(self.longest, time.monotonic() - began)
        if made.status_code in (409, 429, 503):  # cut off and not yet marked so; busy; without its database
            self.refused += made.status_code == 503
            await asyncio.sleep(0.1)
            return False
        assert made.status_code in (200, 201), made.text
        told = made.json()
        turn.question, turn.answer = told["question"]["id"], told["answers"][0]["id"]
        self.acknowledged = time.monotonic()
        return True

    async def _follow(self, http: httpx.AsyncClient, turn: Turn) -> None:
        path = f"/api/replies/{turn.answer}/events"
        async with http.stream("GET", path, params={"after": turn.number}) as events:
            if events.status_code == 503:
                self.refused += 1
                await asyncio.sleep(0.1)
                return
            assert events.status_code == 200, events.status_code
            kind = ""
            number = turn.number
            async for line in events.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    number = int(value)
                    assert number == turn.number + 1 or turn.seen, "a gap"
                elif name == "event":
                    kind = value
                elif name == "data" and kind == "token":
                    turn.seen.append((time.monotonic(), json.loads(value)["text"]))
                    turn.number = number
                elif name == "data" and kind == "end":
                    turn.ended = json.loads(value)["reason"]
                elif name == "data" and kind == "phase":
                    turn.number = number


async def load(clients: list[Client], url: str, seconds: float) -> None:
    """Let all of them talk for a while; they notice themselves when the server is gone."""
    until = asyncio.Event()
    talking = [asyncio.create_task(client.talk(url, until)) for client in clients]
    await asyncio.sleep(seconds)
    until.set()
    await asyncio.gather(*talking)


@dataclass(slots=True)
class Found:
    """What was wrong, and by how much the worst answer was cut."""

    wrong: list[str] = field(default_factory=list)
    cut: float = 0.0
    interrupted: int = 0


def check(client: Client, tree: dict[str, Any], killed: float, found: Found) -> None:
    """Compare what a client was told with what is there; what was cut at ``killed`` may lack its last second."""
    messages = tree["messages"]
    orders = [message["order"] for message in messages]
    if orders != list(range(1, len(messages) + 1)):
        found.wrong.append(f"{client.name}: numbered {orders}")
    last = 0
    for turn in client.turns:
        there = [message for message in messages if message["client_id"] == turn.client_id]
        if len(there) > 1 or (turn.question and [message["id"] for message in there] != [turn.question]):
            found.wrong.append(f"{client.name} {turn.client_id}: there {len(there)} times")
        if not turn.question or len(there) != 1:
            continue
        [question] = there
        if (question["text"], question["parent"]) != (turn.text, turn.parent) or question["order"] <= last:
            found.wrong.append(f"{client.name} {turn.client_id}: changed or moved")
        last = question["order"]
        answers = [message for message in messages if message["parent"] == turn.question]
        if [answer["id"] for answer in answers] != [turn.answer]:
            found.wrong.append(f"{client.name} {turn.client_id}: {len(answers)} answers")
            continue
        _check_answer(client, turn, answers[0], killed, found)


def _check_answer(client: Client, turn: Turn, answer: dict[str, Any], killed: float, found: Found) -> None:
    state, reason, text = answer["answer"]["state"], answer["answer"]["reason"], answer["text"]
    if reason == "interrupted" and not turn.counted:
        turn.counted = True
        found.interrupted += 1
    if state == "writing":
        found.wrong.append(f"{client.name} {turn.client_id}: is still being written")
    elif turn.ended and (reason, text) != (turn.ended, turn.said or text):
        found.wrong.append(f"{client.name} {turn.client_id}: ended otherwise")
    elif turn.ended == "eos_token" and text != WORDS:
        found.wrong.append(f"{client.name} {turn.client_id}: reads {text!r}")
    if not WORDS.startswith(text):
        found.wrong.append(f"{client.name} {turn.client_id}: reads {text!r}")
    missing = [when for when, said in zip(*_so_far(turn), strict=True) if len(said) > len(text)]
    if missing:
        found.cut = max(found.cut, killed - missing[0])
    if turn.ended:
        turn.said = text
    elif state == "done":  # what was seen beyond the end is gone; the client reads again, as a page does
        turn.ended, turn.said, turn.seen = reason, text, [(0.0, text)]


def _so_far(turn: Turn) -> tuple[list[float], list[str]]:
    texts, so_far = [], ""
    for _, text in turn.seen:
        so_far += text
        texts.append(so_far)
    return [when for when, _ in turn.seen], texts
