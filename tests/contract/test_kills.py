"""`cierzo serve` killed, and its database restarted, while eight clients send and stream: nothing told is lost.

``CIERZO_KILL_ROUNDS`` sets how many kills per database (2; `make faults` takes 50), ``CIERZO_RESTART_ROUNDS`` how
many restarts of PostgreSQL (2; `make faults` takes 20).
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from ledger import CLIENTS, Client, Found, Serving, check, load
from talking import until

KILLS = int(os.environ.get("CIERZO_KILL_ROUNDS", "2"))
RESTARTS = int(os.environ.get("CIERZO_RESTART_ROUNDS", "2"))
MARKED_WITHIN = 10.0
LATEST = 1.0 if KILLS < 10 else 3.0
"""Seconds, the most that a kill waits before the clients come, and again while they talk."""


def acknowledged(clients: list[Client]) -> int:
    return sum(bool(turn.answer) for client in clients for turn in client.turns)


async def trees(clients: list[Client], url: str) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        found = [await http.get(f"/api/conversations/{client.conversation}") for client in clients]
    return [each.json() if each.status_code == 200 else {"messages": []} for each in found]


async def settled(clients: list[Client], url: str) -> tuple[list[dict[str, Any]], float]:
    """Wait until no answer is marked as being written; return the conversations and how long it took."""
    began = time.monotonic()
    while True:
        seen = await trees(clients, url)
        writing = [m["id"] for tree in seen for m in tree["messages"] if (m["answer"] or {}).get("state") == "writing"]
        if not writing or time.monotonic() - began > 6 * MARKED_WITHIN:
            return seen, time.monotonic() - began
        await asyncio.sleep(0.1)


async def marked(clients: list[Client], url: str, killed: float, found: Found) -> float:
    """Wait until what a kill cut off is marked, compare it with what was told, and return how long that took."""
    seen, took = await settled(clients, url)
    for client, tree in zip(clients, seen, strict=True):
        check(client, tree, killed, found)
    return took


async def under_load(
    serving: Serving, clients: list[Client], rng: random.Random, marking: asyncio.Task[float] | None = None
) -> float:
    """Let the clients send and stream, and kill the server at some moment, once ``marking`` is done; return when."""
    await asyncio.sleep(rng.uniform(0.0, LATEST))
    talking = asyncio.create_task(load(clients, serving.url, 60))
    enough = acknowledged(clients) + 4
    await until(lambda: acknowledged(clients) >= enough)
    await asyncio.sleep(0.5 + rng.uniform(0.0, LATEST))
    if marking is not None:
        await marking
        await asyncio.sleep(rng.uniform(0.0, 0.5))  # not at the moment at which somebody has just looked
    await asyncio.to_thread(serving.kill)
    killed = time.monotonic()
    talking.cancel()
    await asyncio.wait([talking])
    return killed


@pytest.mark.timeout(120 + 30 * KILLS)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_kill_9_under_load(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """While what a kill cut off is being marked, eight other clients already load the next server.

    That takes seconds, for a writer counts as dead after five; so the eight who were cut wait for it meanwhile.
    """
    url = request.getfixturevalue("postgres").new_database() if database == "postgres" else ""
    serving, rng = Serving(tmp_path / "home", url), random.Random(KILLS)
    request.addfinalizer(serving.leave_nothing)
    shifts = [[Client(f"{shift}{number}") for number in range(CLIENTS)] for shift in "ab"]
    clients = [*shifts[0], *shifts[1]]
    found, starts, marks = Found(), [], []
    began = time.monotonic()
    await asyncio.to_thread(serving.start)
    killed = await under_load(serving, shifts[0], rng)
    for number in range(1, KILLS + 1):
        starts.append(await asyncio.to_thread(serving.start))
        marking = asyncio.create_task(marked(shifts[(number - 1) % 2], serving.url, killed, found))
        if number < KILLS:
            killed = await under_load(serving, shifts[number % 2], rng, marking)
        marks.append(await marking)
    await asyncio.to_thread(serving.kill)
    sent = acknowledged(clients)
    slowest = max(client.longest for client in clients)
    print(
        f"\n{database}: {KILLS} kills in {time.monotonic() - began:.0f} s, {sent} questions acknowledged, "
        f"{found.interrupted} answers cut, {len(found.wrong)} wrong, at most {found.cut:.2f} s of text lost, "
        f"back within {max(starts):.1f} s, all marked within {max(marks):.1f} s "
        f"(the slowest request took {slowest:.2f} s)"
    )
    assert found.wrong == []
    assert found.interrupted >= KILLS
    # A commit may take as long as requests do, which on a machine that others use too may be seconds.
    assert found.cut < 1.0 + slowest
    assert max(marks) < MARKED_WITHIN + 2 * slowest


@pytest.mark.timeout(120 + 20 * RESTARTS)
async def test_postgres_restarted_under_load(postgres: Any, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    serving = Serving(tmp_path / "home", postgres.new_database())
    request.addfinalizer(serving.leave_nothing)
    clients = [Client(f"c{number}") for number in range(CLIENTS)]
    found, recovered = Found(), []
    await asyncio.to_thread(serving.start)
    enough = asyncio.Event()
    talking = [asyncio.create_task(client.talk(serving.url, enough)) for client in clients]
    await until(lambda: all(client.acknowledged for client in clients))
    began = time.monotonic()
    for _ in range(RESTARTS):
        await asyncio.sleep(1.0)
        await asyncio.to_thread(postgres.crash)
        async with httpx.AsyncClient(base_url=serving.url, timeout=30) as http:
            for method, path in (("GET", "/api/conversations"), ("POST", "/api/conversations/talk-c0/messages")):
                told = await http.request(method, path, json={"text": "?"} if method == "POST" else None)
                assert told.status_code == 503
                assert int(told.headers["Retry-After"]) > 0
        await asyncio.sleep(0.5)  # so that clients find it away, too
        await asyncio.to_thread(postgres.start)
        back = time.monotonic()
        await until(lambda back=back: max(client.acknowledged for client in clients) > back)  # type: ignore[misc] # as above
        recovered.append(time.monotonic() - back)
        assert not any(task.done() for task in talking), "a client was cut off"
    enough.set()
    await asyncio.gather(*talking)
    seen, _ = await settled(clients, serving.url)
    for client, tree in zip(clients, seen, strict=True):
        check(client, tree, time.monotonic(), found)
    await asyncio.to_thread(serving.kill)
    sent = acknowledged(clients)
    refused = sum(client.refused for client in clients)
    print(
        f"\n{RESTARTS} restarts in {time.monotonic() - began:.0f} s, {sent} questions acknowledged, "
        f"{refused} refused with 503, {len(found.wrong)} wrong, "
        f"{found.interrupted} answers cut, recovered within {max(recovered):.1f} s"
    )
    assert found.wrong == []
    assert found.interrupted == 0, "an answer that is being written outlives its database"
