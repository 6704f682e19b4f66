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
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from cierzo.admission import Singly
from cierzo.elsewhere import ENDING, Elsewhere, end_of
from cierzo.engines.base import SILENCE, orderly
from cierzo.errors import BadText, CierzoError, Conflict, EngineDied, NotFound, Overloaded, StoreUnavailable
from cierzo.messages import Finish, Phase
from cierzo.orphans import Orphans
from cierzo.store import new_id
from cierzo.underway import End, Underway, first_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from cierzo.admission import Ticket
    from cierzo.messages import StreamEvent, Token
    from cierzo.store import AnswerStart, Store, StoredMessage, Written
    from cierzo.telemetry import Telemetry

__all__ = ["End", "Replies"]

FLUSH = 0.4
"""Seconds that an event may be in memory only: what a crash can lose."""

BEAT = 1.0
"""Seconds after which a reply that says nothing tells the store that it lives."""

WIND_UP = 5.0
"""Seconds that an engine may take to stop; then its answer ends without it."""

PATIENCE = 10.0
"""Seconds that whoever stops a reply waits until the store knows."""

LAST = 1.0
"""Seconds for which a store that is away is asked again while the process ends; what it lacks is found later."""

LONGEST = 5.0
"""Seconds for which the end waits for a store that neither answers nor refuses."""

T = TypeVar("T")

_log = logging.getLogger("cierzo.replies")


class Replies:
    """All replies of one process. `close` it before the store.

    Args:
        store: Where logs and messages are kept.
        telemetry: Counts them, if given.
        silence: Seconds without any event after which an engine counts as dead.
    """

    def __init__(self, store: Store, telemetry: Telemetry | None = None, *, silence: float = SILENCE) -> None:
        self._store, self._telemetry, self._silence = store, telemetry, silence
        self._live: dict[str, Underway] = {}
        self._beginning: set[asyncio.Task[Written]] = set()
        self._stuck: set[asyncio.Task[Finish]] = set()
        self._singly = Singly()
        self._elsewhere = Elsewhere(store)
        self._sweeping: asyncio.Task[None] | None = None
        self._until = float("inf")
        self.writer = new_id()
        self.closing = False

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, answer: str) -> bool:
        return answer in self._live

    def start(self) -> None:
        """Begin to look for replies whose process has died, now and from then on."""
        self._sweeping = self._sweeping or asyncio.create_task(Orphans(self._store, self._live).watch())

    def refuse_if_closing(self) -> None:
        """Take no new work once the process ends.

        Raises:
            Overloaded: It does.
        """
        if self.closing:
            raise Overloaded("the program is ending: ask again when it is back", retry_after=ENDING)

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

        A caller that is cancelled meanwhile leaves an answer that is written, or none.

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
            Overloaded: The process ends.
            CierzoError: What the store raises; then nothing was begun, as far as is known: ask again with the same
                ``client_id``.
        """

        async def begin() -> Written:
            key = None if client_id is None else (conversation, client_id)
            try:
                self.refuse_if_closing()
                async with self._singly.only(key):
                    written = await self._store.replies.begin(
                        conversation,
                        owner=owner,
                        parent=parent,
                        start=replace(start, writer=self.writer),
                        client_id=client_id,
                    )
                    if not written.created and not await self._forsaken(written.message):
                        ticket.leave()
                        return written
                    reply = Underway(written.message.id, owner, len(start.prompt_ids), len(kept), log=list(kept))
                    self._live[reply.id] = reply
                    reply.writing = asyncio.create_task(self._write(reply, ticket, stream))
            except BaseException:
                ticket.leave()
                raise
            return written

        task = asyncio.create_task(begin())
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)
        return await asyncio.shield(task)

    async def _forsaken(self, message: StoredMessage) -> bool:
        """Whether an earlier call of ours stored this answer but never heard so, and nobody writes it."""
        if message.id in self._live or message.answer is None or message.answer.state == "done":
            return False
        left = await self._store.replies.unfinished()
        return any(each.message == message.id and each.writer == self.writer for each in left)

    async def follow(
        self, answer: str, *, owner: str | None, after: int = 0
    ) -> AsyncGenerator[tuple[int, StreamEvent | End], None]:
        """Yield the log after number ``after``, as it grows, each event with its number; the last is an `End`.

        An `End` comes also where ``after`` lies beyond it: the process that wrote the reply died with its last words.

        Raises:
            NotFound: There is no such answer in a conversation of this owner.
            StoreUnavailable: The database does not answer.
            Overloaded: This process ends, and another one writes the reply, which goes on.
        """
        at = max(0, after)
        while (reply := self._live.get(answer)) is None or reply.owner != owner:
            for number, event in await self._elsewhere.since(answer, owner=owner, after=at):
                yield number, event
                at = number
                if isinstance(event, End):
                    return
            await self._elsewhere.pause()
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
            Conflict: Another process writes it, and did not stop when it was asked.
            StoreUnavailable: It was stopped, but the database does not answer.
        """
        reply = self._live.get(answer)
        if reply is not None and reply.owner == owner:
            reply.cut("stopped")
            assert reply.writing is not None
            await asyncio.wait([reply.writing], timeout=PATIENCE)
            if not reply.writing.done():
                raise StoreUnavailable(
                    "the answer was stopped, and the database does not answer: look again in a moment", retry_after=2.0
                )
        message = await self._store.conversations.message(answer, owner=owner)
        if message.answer is None:
            raise NotFound(f"the message {answer[:40]!r} is no answer of a model: name an answer")
        if message.answer.state == "writing" and answer not in self._live:
            return await self._elsewhere.stop(answer, owner=owner, patience=PATIENCE)
        return message

    async def close(self, grace: float = 0.0) -> None:
        """Let replies finish for ``grace`` seconds; mark the rest ``interrupted``, with all that they said."""
        self.closing = True
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])
        until = time.monotonic() + grace
        if self._beginning:
            await asyncio.wait(self._beginning, timeout=grace + LONGEST)
        if (writing := self._writing()) and (left := until - time.monotonic()) > 0:
            await asyncio.wait(writing, timeout=left)
        self.cut()
        self._until = time.monotonic() + LAST
        if rest := self._writing():
            await asyncio.wait(rest, timeout=LONGEST)
        if rest := self._writing():
            _log.error("replies could not be stored", extra={"fields": {"replies": len(rest)}})
            for task in rest:
                task.cancel()
            await asyncio.wait(rest)

    def cut(self) -> None:
        """Mark every reply that still runs ``interrupted``, and let go of those of other processes."""
        self._elsewhere.let_go()
        for reply in list(self._live.values()):
            reply.cut("interrupted")

    def _writing(self) -> list[asyncio.Task[None]]:
        return [reply.writing for reply in self._live.values() if reply.writing is not None]

    async def _write(
        self, reply: Underway, ticket: Ticket, stream: Callable[[], AsyncGenerator[StreamEvent, None]]
    ) -> None:
        """Read the stream to its end, storing it meanwhile; then fold it, and tell those who follow."""
        storing = asyncio.create_task(self._store_log(reply))
        reading = reply.reading = asyncio.create_task(self._read(reply, ticket, stream))
        try:
            if reply.wanted:
                reading.cancel()
            await self._until_read(reply, reading)
            ticket.leave()
            end = self._outcome(reply, reading)
            reply.over.set()
            await storing
            reply.end = await self._fold(reply, end)
        except StoreUnavailable:  # and the process ends
            _log.error("a reply's end could not be stored", extra={"fields": {"reply": reply.id}})
        except Exception as error:  # noqa: BLE001 - a job of its own has nobody to tell
            _log.exception("a reply could not be kept")
            reply.end = End("failed", failure=str(error) if isinstance(error, CierzoError) else "the answer was lost")
        finally:
            ticket.leave()
            reply.over.set()
            storing.cancel()
            reading.cancel()
            reply.end = reply.end or End("interrupted")
            del self._live[reply.id]
            reply.wake()
            self._count(reply)

    async def _until_read(self, reply: Underway, reading: asyncio.Task[Finish]) -> None:
        """Wait until the engine is done, or until it has had `WIND_UP` seconds to stop."""
        cutting = asyncio.ensure_future(reply.cutting.wait())
        try:
            await asyncio.wait([reading, cutting], return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await asyncio.wait([reading], timeout=WIND_UP)
        finally:
            cutting.cancel()
        if not reading.done():
            _log.error("an engine does not stop", extra={"fields": {"reply": reply.id}})
            self._stuck.add(reading)
            reading.add_done_callback(self._unstuck)

    def _unstuck(self, reading: asyncio.Task[Finish]) -> None:
        self._stuck.discard(reading)
        if not reading.cancelled():
            reading.exception()  # looked at, so that nobody is told that nobody did

    async def _read(
        self, reply: Underway, ticket: Ticket, stream: Callable[[], AsyncGenerator[StreamEvent, None]]
    ) -> Finish:
        async with aclosing(ticket.turn()) as turns:
            async for position in turns:
                reply.add(Phase("queued", position, seconds=time.monotonic() - reply.began))
        reply.waited = time.monotonic() - reply.began
        async with aclosing(orderly(stream(), silence=self._silence)) as events:
            async for event in events:
                if reply.wanted:  # an engine may swallow that it was cancelled
                    raise asyncio.CancelledError
                if isinstance(event, Finish):
                    return reply.finished(event)
                reply.add(event)
        raise EngineDied("the engine's answer ended without saying why: ask again")

    def _outcome(self, reply: Underway, reading: asyncio.Task[Finish]) -> End:
        error = None if not reading.done() or reading.cancelled() else reading.exception()
        if reading.done() and not reading.cancelled() and error is None:
            finish = reading.result()
            failed = "the engine failed without saying why: ask again" if finish.reason == "failed" else ""
            return End(finish.reason, finish, failed)
        if reply.wanted == "stopped":
            return End("stopped", reply.finish("stopped"))
        if reply.wanted or error is None:
            return End("interrupted")
        if not isinstance(error, CierzoError):
            _log.error("a reply failed unexpectedly", exc_info=error)
            error = EngineDied(f"the answer failed unexpectedly ({type(error).__name__}): ask again")
        return End("failed", reply.finish("failed"), str(error))

    async def _store_log(self, reply: Underway) -> None:
        """Bring the log to the store, at most `FLUSH` seconds behind; say every `BEAT` seconds that the reply lives."""
        told = time.monotonic()
        while not reply.over.is_set():
            if reply.stored == len(reply.log):
                await first_of(told + BEAT, reply.grown, reply.over)
            await first_of(told + FLUSH, reply.over)
            batch = reply.log[reply.stored :]
            told = time.monotonic()
            try:
                if await self._insist(self._store.replies.log, reply.id, batch, after=reply.stored):
                    reply.cut("stopped")  # by a person who looks at it through another process
            except Exception as error:  # noqa: BLE001 - somebody took it for dead and ended it, or it cannot be stored
                if not isinstance(error, CierzoError):
                    _log.exception("a reply's log could not be stored")
                reply.cut("lost")
                return
            reply.stored += len(batch)

    async def _fold(self, reply: Underway, end: End) -> End:
        """Turn the log into the message, and return how it ended: another process may have been faster."""
        rest, store, failure = reply.log[reply.stored :], self._store, ""
        try:
            if reply.wanted != "lost" and end.finish is not None:
                try:
                    await self._insist(
                        store.replies.finish, reply.id, end.finish, after=reply.stored, batch=rest, failure=end.failure
                    )
                except BadText as large:  # too much to be kept: the store keeps what it can
                    failure = str(large)
                else:
                    return end
            if reply.wanted != "lost":
                await self._insist(store.replies.log, reply.id, rest, after=reply.stored)
            await self._insist(store.replies.interrupt, reply.id, writer=self.writer, failure=failure)
        except Conflict:
            pass  # it has an end already, which is told below
        except NotFound:
            return End("stopped", failure="the conversation was removed meanwhile")
        return end_of(await self._insist(store.conversations.message, reply.id, owner=reply.owner))

    async def _insist(self, call: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Call the store until it answers; at the end of the process not for long."""
        tries = 0
        while True:
            try:
                return await call(*args, **kwargs)
            except StoreUnavailable:
                tries += 1
                if time.monotonic() > self._until:
                    raise
                await asyncio.sleep(min(0.1 * tries, 1.0))

    def _count(self, reply: Underway) -> None:
        if self._telemetry is None or reply.end is None:
            return
        if reply.first:
            self._telemetry.began(reply.first - reply.began)
        written = reply.tokens - reply.kept
        self._telemetry.ended(reply.end.reason, written, reply.last - reply.first, reply.end.finish)
