"""Who may start now: so many answers at a time, and a queue in which people take turns.

It stands in front of the engine. Whoever asks ten times waits ten turns; whoever asks once waits one, however
many others the first has sent. It knows no engine and no conversation, only who asks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from cierzo.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Hashable

WAITING = 512
"""Waiting places, of all people together. Half of them are only for people who do not wait yet."""

RETRY_AFTER = 5.0


class Ticket:
    """One answer's right to start. Made by `Admission.enter`; `leave` it, whatever happens.

    Attributes:
        who: Who asked for it.
        admitted: Whether it may start.
        after: Called once, when it is left.
    """

    __slots__ = ("_admission", "_changed", "admitted", "after", "who")

    def __init__(self, admission: Admission, who: str) -> None:
        self._admission = admission
        self._changed = asyncio.Event()
        self.who = who
        self.admitted = False
        self.after: Callable[[], None] | None = None

    @property
    def position(self) -> int:
        """How many turns until this one starts if nobody else comes, from 1; 0 once it may."""
        return 0 if self.admitted else self._admission.position(self)

    async def turn(self) -> AsyncGenerator[int, None]:
        """Yield the position at first and when it changes, until this one may start."""
        shown = 0
        while not self.admitted:
            self._changed.clear()
            if (now := self.position) != shown:
                shown = now
                yield now
            await self._changed.wait()

    def leave(self) -> None:
        """Give the place back: the answer has ended, or was given up while it waited. May be called twice."""
        self._admission.left(self)
        after, self.after = self.after, None
        if after is not None:
            after()

    def changed(self) -> None:
        """Wake whoever waits in `turn`."""
        self._changed.set()


class Admission:
    """The queue.

    Args:
        running: Answers that may run at the same time.
        waiting: Answers that may wait beside them. Once half of these places are taken, the rest is for people who
            have none: whoever sends without end does not shut the others out.
    """

    def __init__(self, running: int, waiting: int = WAITING) -> None:
        self._most_running, self._most_waiting, self._half = running, waiting, (waiting + 1) // 2
        self._running: set[Ticket] = set()
        # In the order in which people take turns; the first one's first ticket goes next.
        self._lines: dict[str, deque[Ticket]] = {}

    @property
    def running(self) -> int:
        """How many may run or run."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._lines.values()))

    @property
    def most_of_one(self) -> int:
        """How many one person may have under way, where nobody else asks."""
        return self._most_running + self._half

    def enter(self, who: str = "") -> Ticket:
        """Take a place.

        Args:
            who: Whoever has the same name shares turns.

        Raises:
            Overloaded: Every place is taken.
        """
        ticket = Ticket(self, who)
        if len(self._running) < self._most_running and not self._lines:
            self._admit(ticket)
            return ticket
        most = self._half if who in self._lines else self._most_waiting
        if self.waiting >= most:
            raise Overloaded(
                f"{len(self._running)} answers are being written and {self.waiting} wait, and there is no room for "
                "another of yours: ask again in a moment",
                retry_after=RETRY_AFTER,
            )
        self._lines.setdefault(who, deque()).append(ticket)
        return ticket

    def position(self, ticket: Ticket) -> int:
        """Return how many turns until a waiting ticket starts if nobody else comes, from 1; 0 if it does not wait."""
        mine = self._lines.get(ticket.who)
        if mine is None or ticket not in mine:
            return 0
        turn = mine.index(ticket)
        ahead, before_me = 0, True
        for who, line in self._lines.items():
            if who == ticket.who:
                before_me = False
            else:  # those whose turn comes before mine go once more than those after me
                ahead += min(len(line), turn + before_me)
        return ahead + turn + 1

    def left(self, ticket: Ticket) -> None:
        """Take a ticket out, and let the next one start."""
        line = self._lines.get(ticket.who)
        if ticket in self._running:
            self._running.discard(ticket)
        elif line is not None and ticket in line:
            line.remove(ticket)
            if not line:
                del self._lines[ticket.who]
        else:
            return
        while self._lines and len(self._running) < self._most_running:
            who = next(iter(self._lines))
            line = self._lines.pop(who)
            self._admit(line.popleft())
            if line:
                self._lines[who] = line  # at the end: everybody else goes first
        for waiting in self._lines.values():
            for each in waiting:
                each.changed()

    def _admit(self, ticket: Ticket) -> None:
        self._running.add(ticket)
        ticket.admitted = True
        ticket.changed()


class Singly:
    """Lets those who come with the same key go one after the other, each after the one before has left."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()  # gone with their last user

    @asynccontextmanager
    async def only(self, key: Hashable | None) -> AsyncGenerator[None, None]:
        """Wait for those who came before with this key; None waits for nobody."""
        if key is None:
            yield
            return
        lock = self._locks.get(key) or asyncio.Lock()
        self._locks[key] = lock
        async with lock:
            yield
