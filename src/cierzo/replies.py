"""The replies that this process writes: each a job of its own, with a log that anybody may follow from any place.

A reply goes on whether somebody follows or not; it ends when the model ends it, fails, is stopped, or the process
ends. Its log is in memory at once and in the store at most `FLUSH` seconds later. Events are numbered from 1
without a gap; whoever has seen number n asks for what comes after n. It knows no engine and no prompt: a stream
of events comes in, and who may start is `cierzo.admission`'s matter.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from cierzo.engines.base import orderly
from cierzo.errors import CierzoError, Conflict, EngineDied, NotFound, StoreUnavailable
from cierzo.messages import Finish, Phase, Timings, Token
from cierzo.store import new_id

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from cierzo.admission import Ticket
    from cierzo.messages import StreamEvent
    from cierzo.store import AnswerStart, EndReason, Store, StoredMessage, Written
    from cierzo.telemetry import Telemetry

FLUSH = 0.4
"""Seconds that an event may be in memory only: what a crash can lose."""

BEAT = 1.0
"""Seconds after which a reply that says nothing tells the store that it lives."""

DEAD = 7.0
"""Seconds without such a sign after which another process's reply counts as cut off."""

SWEEP = 1.0
POLL = 0.25
LAST_TRIES = 4

T = TypeVar("T")

_log = logging.getLogger("cierzo.replies")


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
class _Reply:
    """One reply under way. ``log`` is all of it, of which the store has the first ``stored`` events."""

    id: str
    owner: str | None
    prompt_tokens: int
    kept: int
    log: list[StreamEvent] = field(default_factory=list)
    stored: int = 0
    end: End | None = None
    wanted: Literal["", "stopped", "interrupted", "lost"] = ""
    reading: asyncio.Task[Finish] | None = None
    writing: asyncio.Task[None] | None = None
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    began: float = field(default_factory=time.monotonic)
    first: float = 0.0
    last: float = 0.0

    def add(self, event: StreamEvent) -> None:
        """Log an event. A phase that only repeats the last one is no news."""
        if isinstance(event, Phase) and self.log and _same(self.log[-1], event):
            return
        if isinstance(event, Token):
            self.last = time.monotonic()
            self.first = self.first or self.last
        self.log.append(event)
        self.wake()

    def wake(self) -> None:
        self.grown.set()
        self.grown = asyncio.Event()

    def cut(self, why: Literal["stopped", "interrupted", "lost"]) -> None:
        """End it from outside; what was wanted first counts."""
        self.wanted = self.wanted or why
        if self.reading is not None:
            self.reading.cancel()

    def finish(self, reason: Literal["stopped", "failed"]) -> Finish:
        """Say for the engine, which could not, how far it came."""
        first = self.first - self.began if self.first else 0.0
        timings = Timings(first_token=first, decode=self.last - self.first)
        return Finish(reason, prompt_tokens=self.prompt_tokens, answer_tokens=self.tokens, timings=timings)

    @property
    def tokens(self) -> int:
        return sum(isinstance(event, Token) for event in self.log)


def _same(one: StreamEvent, other: Phase) -> bool:
    return isinstance(one, Phase) and replace(one, seconds=other.seconds) == other


class Replies:
    """All replies of one process. `close` it before the store.

    Args:
        store: Where logs and messages are kept.
        telemetry: Counts them, if given.
    """

    def __init__(self, store: Store, telemetry: Telemetry | None = None) -> None:
        self._store, self._telemetry = store, telemetry
        self._live: dict[str, _Reply] = {}
        self._sweeping: asyncio.Task[None] | None = None
        self.writer = new_id()
        self.closing = False

    def __len__(self) -> int:
        return len(self._live)

    def start(self) -> None:
        """Begin to look for replies whose process has died, now and from then on."""
        self._sweeping = self._sweeping or asyncio.create_task(self._sweep())

    async def begin(
        self,
        conversation: str,
        *,
        owner: str | None,
        parent: str,
        start: AnswerStart,
        ticket: Ticket,
        stream: Callable[[], AsyncGenerator[StreamEvent, None]],
        kept: Sequence[Token] = (),
        client_id: str | None = None,
    ) -> Written:
        """Store an empty answer below ``parent`` and let it be written. Returns before the first token.

        Args:
            conversation: Where.
            owner: Whose.
            parent: The question.
            start: What is known of the answer; ``writer`` is filled in here.
            ticket: When it may start. It is left here, whatever happens.
            stream: Makes the engine's stream, once its turn has come.
            kept: Tokens that it begins with, of the answer that it continues.
            client_id: The same id again returns the answer that is there, and ``stream`` is not called.

        Raises:
            CierzoError: What the store raises; then nothing was begun.
        """
        try:
            written = await self._store.replies.begin(
                conversation,
                owner=owner,
                parent=parent,
                start=replace(start, writer=self.writer),
                client_id=client_id,
            )
        except BaseException:
            ticket.leave()
            raise
        if not written.created:
            ticket.leave()
            return written
        reply = _Reply(written.message.id, owner, len(start.prompt_ids), len(kept), log=list(kept))
        self._live[reply.id] = reply
        reply.writing = asyncio.create_task(self._write(reply, ticket, stream))
        return written

    async def follow(
        self, answer: str, *, owner: str | None, after: int = 0
    ) -> AsyncGenerator[tuple[int, StreamEvent | End], None]:
        """Yield the log after number ``after``, as it grows, each event with its number; the last is an `End`.

        An `End` comes also where ``after`` lies beyond it: the process that wrote the reply died with its last words.

        Raises:
            NotFound: There is no such answer in a conversation of this owner.
            StoreUnavailable: The database does not answer.
        """
        at = after
        while (reply := self._live.get(answer)) is None or reply.owner != owner:
            page = await self._store.replies.events(answer, owner=owner, after=at)
            for number, event in enumerate(page.events, page.first):
                yield number, event
                at = number
            if page.done:
                message = await self._store.conversations.message(answer, owner=owner)
                yield page.logged + 1, end_of(message)
                return
            await asyncio.sleep(POLL)
        while True:
            grown = reply.grown
            while at < len(reply.log):
                at += 1
                yield at, reply.log[at - 1]
            if reply.end is not None:
                yield len(reply.log) + 1, reply.end
                return
            await grown.wait()

    async def stop(self, answer: str, *, owner: str | None) -> StoredMessage:
        """Stop a reply, keep what it said, and return it when the engine is free. One that has ended stays as it is.

        Raises:
            NotFound: There is no such answer in a conversation of this owner.
            Conflict: Another process writes it.
        """
        reply = self._live.get(answer)
        if reply is not None and reply.owner == owner:
            reply.cut("stopped")
            assert reply.writing is not None
            await asyncio.wait([reply.writing])
        message = await self._store.conversations.message(answer, owner=owner)
        if message.answer is None:
            raise NotFound(f"the message {answer[:40]!r} is no answer of a model: name an answer")
        if message.answer.state == "writing" and answer not in self._live:
            raise Conflict("another program writes this answer: stop it there")
        return message

    async def close(self, grace: float = 0.0) -> None:
        """Let replies finish for ``grace`` seconds; mark the rest ``interrupted``, with all that they said."""
        self.closing = True
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])
        writing = [reply.writing for reply in self._live.values() if reply.writing is not None]
        if writing and grace > 0:
            await asyncio.wait(writing, timeout=grace)
        self.cut()
        if rest := [task for task in writing if not task.done()]:
            await asyncio.wait(rest)

    def cut(self) -> None:
        """Mark every reply that still runs ``interrupted``."""
        for reply in list(self._live.values()):
            reply.cut("interrupted")

    async def _write(
        self, reply: _Reply, ticket: Ticket, stream: Callable[[], AsyncGenerator[StreamEvent, None]]
    ) -> None:
        """Read the stream to its end, storing it meanwhile; then fold it, and tell those who follow."""
        storing = asyncio.create_task(self._store_log(reply))
        reply.reading = asyncio.create_task(self._read(reply, ticket, stream))
        if reply.wanted:
            reply.reading.cancel()
        try:
            await asyncio.wait([reply.reading])
            end = self._outcome(reply, reply.reading)
            reply.over.set()
            await storing
            reply.end = await self._fold(reply, end)
        except Exception as error:  # noqa: BLE001 - a job of its own has nobody to tell
            _log.exception("a reply could not be kept")
            reply.end = End("failed", failure=str(error) if isinstance(error, CierzoError) else "the answer was lost")
        finally:
            ticket.leave()
            del self._live[reply.id]
            reply.wake()
            self._count(reply)

    async def _read(
        self, reply: _Reply, ticket: Ticket, stream: Callable[[], AsyncGenerator[StreamEvent, None]]
    ) -> Finish:
        async with aclosing(ticket.turn()) as turns:
            async for position in turns:
                reply.add(Phase("queued", position, seconds=time.monotonic() - reply.began))
        async with aclosing(orderly(stream())) as events:
            async for event in events:
                if isinstance(event, Finish):
                    return replace(event, answer_tokens=event.answer_tokens + reply.kept)
                reply.add(event)
        raise EngineDied("the engine's answer ended without saying why: ask again")

    def _outcome(self, reply: _Reply, reading: asyncio.Task[Finish]) -> End:
        if reading.cancelled():
            if reply.wanted == "stopped":
                return End("stopped", reply.finish("stopped"))
            return End("interrupted")
        error = reading.exception()
        if error is None:
            finish = reading.result()
            return End(finish.reason, finish)
        if not isinstance(error, CierzoError):
            _log.error("a reply failed unexpectedly", exc_info=error)
            error = EngineDied(f"the answer failed unexpectedly ({type(error).__name__}): ask again")
        return End("failed", reply.finish("failed"), str(error))

    async def _store_log(self, reply: _Reply) -> None:
        """Bring the log to the store, at most `FLUSH` seconds behind; say every `BEAT` seconds that the reply lives."""
        told = time.monotonic()
        while not reply.over.is_set():
            if reply.stored == len(reply.log):
                await _first(told + BEAT, reply.grown, reply.over)
            await _first(told + FLUSH, reply.over)
            batch = reply.log[reply.stored :]
            try:
                await self._insist(self._store.replies.log, reply.id, batch, after=reply.stored)
            except CierzoError:  # somebody took it for dead and ended it, or it cannot be stored at all
                reply.cut("lost")
                return
            reply.stored += len(batch)
            told = time.monotonic()

    async def _fold(self, reply: _Reply, end: End) -> End:
        """Turn the log into the message, and return how it ended: another process may have been faster."""
        rest, store = reply.log[reply.stored :], self._store
        try:
            if reply.wanted != "lost" and end.finish is not None:
                await self._insist(
                    store.replies.finish, reply.id, end.finish, after=reply.stored, batch=rest, failure=end.failure
                )
                return end
            if reply.wanted != "lost":
                await self._insist(store.replies.log, reply.id, rest, after=reply.stored)
            await self._insist(store.replies.interrupt, reply.id)
        except Conflict:
            pass  # it has an end already, which is told below
        except NotFound:
            return End("stopped", failure="the conversation was removed meanwhile")
        return end_of(await self._insist(store.conversations.message, reply.id, owner=reply.owner))

    async def _insist(self, call: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Call the store until it answers; while the process ends, only a few times."""
        tries = 0
        while True:
            try:
                return await call(*args, **kwargs)
            except StoreUnavailable:
                tries += 1
                if self.closing and tries >= LAST_TRIES:
                    raise
                await asyncio.sleep(min(0.1 * tries, 1.0))

    def _count(self, reply: _Reply) -> None:
        if self._telemetry is None or reply.end is None:
            return
        if reply.first:
            self._telemetry.began(reply.first - reply.began)
        written = reply.tokens - reply.kept
        self._telemetry.ended(reply.end.reason, written, reply.last - reply.first, reply.end.finish)

    async def _sweep(self) -> None:
        """Mark the replies of processes that have died ``interrupted``.

        Clocks of other machines do not matter: what counts is how long the store has seen no sign while we looked.
        """
        quiet: dict[str, float] = {}
        while True:
            try:
                found = {each.message: each.idle for each in await self._store.replies.unfinished()}
                quiet = {name: min(quiet.get(name, idle), idle) for name, idle in found.items()}
                for name in [name for name, idle in found.items() if idle - quiet[name] >= DEAD]:
                    if name not in self._live and await self._store.replies.interrupt(name):
                        _log.warning("a reply was interrupted", extra={"fields": {"reply": name}})
            except NotFound:
                pass  # it was removed meanwhile
            except CierzoError:
                quiet = {}  # nobody could give a sign while the store did not answer
            await asyncio.sleep(SWEEP)


def end_of(message: StoredMessage) -> End:
    """Return the end of an answer that is done."""
    assert message.answer is not None
    assert message.answer.reason is not None
    return End(message.answer.reason, message.answer.finish, message.answer.failure)


async def _first(until: float, *events: asyncio.Event) -> None:
    """Wait until one of the events is set, or the clock shows ``until``."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=max(0.0, until - time.monotonic()), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
