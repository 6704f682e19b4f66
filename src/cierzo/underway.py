"""One reply under way: its log in memory, who wants it to end, and how it ended. It knows no store and no engine."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from cierzo.messages import Finish, Phase, Timings, Token

if TYPE_CHECKING:
    from cierzo.messages import StreamEvent
    from cierzo.store import EndReason

Wanted = Literal["", "stopped", "interrupted", "lost"]


@dataclass(frozen=True, slots=True)
class End:
    """The last event of every log.

    Attributes:
        reason: How the reply ended.
        finish: Counts and timings; None where the writer ended before it could tell.
        failure: The sentence of the error that ended it; empty otherwise.
    """

    reason: EndReason
    finish: Finish | None = None
    failure: str = ""


@dataclass(slots=True, eq=False)
class Underway:
    """One reply.

    Attributes:
        prompt_tokens: Length of its prompt.
        kept: How many tokens it began with.
        log: All of it, of which the store has the first ``stored`` events.
        end: How it ended; None until the store knows.
        wanted: Who ended it from outside: a person (``stopped``), the process (``interrupted``), or the store, which
            no longer takes what it says (``lost``).
        reading: Reads the engine.
        writing: Does everything; it is done when the store has the end.
        cutting: Set once somebody wants it to end.
        over: Set once nothing more is said.
    """

    id: str
    owner: str | None
    prompt_tokens: int
    kept: int
    log: list[StreamEvent] = field(default_factory=list)
    stored: int = 0
    end: End | None = None
    wanted: Wanted = ""
    reading: asyncio.Task[Finish] | None = None
    writing: asyncio.Task[None] | None = None
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    cutting: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    began: float = field(default_factory=time.monotonic)
    waited: float = 0.0
    first: float = 0.0
    last: float = 0.0

    def add(self, event: StreamEvent) -> None:
        """Log an event. A phase that only repeats the last one is no news."""
        if self.over.is_set() or (isinstance(event, Phase) and self.log and _same(self.log[-1], event)):
            return
        if isinstance(event, Token):
            self.last = time.monotonic()
            self.first = self.first or self.last
        self.log.append(event)
        self.wake()

    def wake(self) -> None:
        """Tell those who follow that there is news."""
        self.grown.set()
        self.grown = asyncio.Event()

    def cut(self, why: Wanted) -> None:
        """End it from outside; what was wanted first counts."""
        self.wanted = self.wanted or why
        self.cutting.set()
        if self.reading is not None:
            self.reading.cancel()

    def finish(self, reason: Literal["stopped", "failed"]) -> Finish:
        """Say for the engine, which could not, how far it came."""
        first = self.first - self.began if self.first else 0.0
        timings = Timings(queue=self.waited, first_token=first, decode=self.last - self.first)
        return Finish(reason, self.prompt_tokens, answer_tokens=self.tokens, timings=timings, kept=self.kept)

    def finished(self, finish: Finish) -> Finish:
        """Add to what the engine says of the end what it cannot know: the tokens kept, and the wait before it."""
        timings = finish.timings.after(self.waited)
        return replace(finish, answer_tokens=finish.answer_tokens + self.kept, timings=timings, kept=self.kept)

    @property
    def tokens(self) -> int:
        """Tokens said, those that it began with included."""
        return sum(isinstance(event, Token) for event in self.log)


def _same(one: StreamEvent, other: Phase) -> bool:
    return isinstance(one, Phase) and replace(one, seconds=other.seconds) == other


async def first_of(until: float, *events: asyncio.Event) -> None:
    """Wait until one of the events is set, or the clock shows ``until``."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=max(0.0, until - time.monotonic()), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
