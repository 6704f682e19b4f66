"""The queue: so many at a time, in turns, and everybody is told the right place."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cierzo.admission import Admission, Singly, Ticket
from cierzo.errors import Overloaded

PEOPLE = "abcd"
moves = st.lists(st.one_of(st.sampled_from(PEOPLE), st.integers(0, 30)), max_size=60)


class Slow:
    """The same rule, played out turn by turn: whoever is first in the circle starts one and goes to its end."""

    def __init__(self, running: int) -> None:
        self.most = running
        self.running: list[int] = []
        self.circle: list[str] = []
        self.waiting: list[tuple[str, int]] = []

    def enter(self, who: str, number: int) -> None:
        self.waiting.append((who, number))
        if who not in self.circle:
            self.circle.append(who)
        self.start()

    def leave(self, number: int) -> None:
        self.running = [each for each in self.running if each != number]
        self.waiting = [each for each in self.waiting if each[1] != number]
        self.circle = [who for who in self.circle if any(who == other for other, _ in self.waiting)]
        self.start()

    def start(self) -> None:
        while self.waiting and len(self.running) < self.most:
            who = self.circle.pop(0)
            mine = [each for each in self.waiting if each[0] == who]
            self.waiting.remove(mine[0])
            self.running.append(mine[0][1])
            if len(mine) > 1:
                self.circle.append(who)

    def position(self, number: int) -> int:
        """Let running ones end one by one until this one starts."""
        ahead = Slow(self.most)
        ahead.running, ahead.circle, ahead.waiting = [*self.running], [*self.circle], [*self.waiting]
        turns = 0
        while number not in ahead.running:
            ahead.leave(ahead.running[0])
            turns += 1
        return turns


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 4), moves)
def test_positions_are_what_playing_it_out_gives(running: int, steps: list[str | int]) -> None:
    admission, slow = Admission(running, 1000), Slow(running)
    tickets: dict[int, Ticket] = {}
    for number, step in enumerate(steps):
        if isinstance(step, str):
            tickets[number] = admission.enter(step)
            slow.enter(step, number)
        elif tickets:
            chosen = list(tickets)[step % len(tickets)]
            ticket = tickets.pop(chosen)
            ticket.leave()
            ticket.leave()
            slow.leave(chosen)
        assert {n for n, ticket in tickets.items() if ticket.admitted} == set(slow.running)
        assert admission.running == len(slow.running) <= running
        assert admission.waiting == len(slow.waiting)
        assert {n: ticket.position for n, ticket in tickets.items()} == {n: slow.position(n) for n in tickets}
    for ticket in tickets.values():
        ticket.leave()
    assert (admission.running, admission.waiting) == (0, 0)


def test_a_flood_does_not_starve_another() -> None:
    admission = Admission(2, 64)
    flood = [admission.enter("ana") for _ in range(2 + 32)]
    with pytest.raises(Overloaded):
        admission.enter("ana")
    assert len(flood) == admission.most_of_one
    one, two = admission.enter("bob"), admission.enter("cleo")
    assert (one.position, two.position) == (2, 3)
    for _ in range(3):
        ended = next(ticket for ticket in flood if ticket.admitted)
        flood.remove(ended)
        ended.leave()
    assert one.admitted
    assert two.admitted


def test_two_floods_leave_room_for_a_third() -> None:
    admission = Admission(1, 8)
    for who in ("ana", "bob") * 8:
        with suppress(Overloaded):
            admission.enter(who)
    assert admission.enter("cleo").position == 3
    assert admission.waiting <= 8


def test_every_place_is_counted() -> None:
    admission = Admission(1, 4)
    tickets = [admission.enter(who) for who in PEOPLE] + [admission.enter("e")]
    with pytest.raises(Overloaded, match="1 answers are being written and 4 wait") as full:
        admission.enter("f")
    assert full.value.status == 429
    assert full.value.retry_after > 0
    tickets[2].leave()
    assert [ticket.position for ticket in tickets] == [0, 1, 0, 2, 3]
    assert not tickets[2].admitted
    admission.enter("f")


async def test_whoever_waits_is_told_each_new_place_once() -> None:
    admission = Admission(1)
    tickets = [admission.enter(str(number)) for number in range(4)]

    async def wait() -> list[int]:
        return [position async for position in tickets[3].turn()]

    waiting = asyncio.create_task(wait())
    for ticket in tickets[:3]:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ticket.leave()
        ticket.leave()
    assert await waiting == [3, 2, 1]
    assert tickets[3].admitted
    tickets[3].leave()
    assert admission.running == 0


async def test_the_first_does_not_wait() -> None:
    ticket = Admission(1).enter()
    assert [position async for position in ticket.turn()] == []


async def test_one_after_the_other_with_the_same_key() -> None:
    singly, inside, most = Singly(), {"a": 0, None: 0}, {"a": 0, None: 0}

    async def work(key: str | None) -> None:
        async with singly.only(key):
            inside[key] += 1
            most[key] = max(most[key], inside[key])
            await asyncio.sleep(0.001)
            inside[key] -= 1

    await asyncio.gather(*(work(key) for key in ("a", None) * 5))
    assert most == {"a": 1, None: 5}
    assert not singly._locks, "a key that nobody uses is forgotten"
