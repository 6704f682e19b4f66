"""Answers while they are written and after: begin, log, fold.

An answer's log holds its phases and tokens, numbered from 1 without a gap, in rows of whole batches. At the end
one transaction turns the log into the message: text, packed tokens, how it ended; from then on the log is read out
of these, under the same numbers. ``state`` goes from ``writing`` to ``done`` once, and whoever brings it there
first wins. Every write may be repeated: said again with the same content it changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cierzo.errors import Conflict
from cierzo.messages import Finish, StreamEvent, Token, check_text
from cierzo.store.conversations import sent_before
from cierzo.store.database import Database
from cierzo.store.logs import folded, logged_events, readable, unfolded
from cierzo.store.packing import pack_events, pack_ids, unpack_events, unpack_ids
from cierzo.store.records import (
    AnswerStart,
    EndReason,
    EventPage,
    StoredMessage,
    Unfinished,
    Written,
    check_id,
    is_id,
)
from cierzo.store.rows import (
    add_message,
    add_words,
    find_answer,
    lock_conversation,
    message_of,
    no_answer,
    owned,
    placed,
    with_answers,
    written,
)
from cierzo.store.schema import answers, events, messages

# Made once: they run several times a second for each answer that is being written.
_GROW = (
    update(answers)
    .where(
        answers.c.message == bindparam("answer"),
        answers.c.state == "writing",
        answers.c.logged == bindparam("after"),
    )
    .values(logged=bindparam("upto"), beat=bindparam("now"))
    .returning(answers.c.stopping)
)
_ADD = insert(events)


class Replies:
    """Keeps answers. An answer's id is the id of its message.

    Args:
        database: Where they are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(
        self,
        conversation: str,
        *,
        owner: str | None,
        parent: str,
        start: AnswerStart,
        client_id: str | None = None,
    ) -> Written:
        """Add an empty answer below ``parent``, make it the head, and open its log.

        Args:
            conversation: Where.
            owner: Whose.
            parent: The question.
            start: What is known of the answer.
            client_id: An id that the caller made: the same id again with the same parent returns the answer that
                is there, so that a question sent twice is answered once.

        Raises:
            NotFound: No such conversation, or no such message in it.
            Conflict: The ``client_id`` stands for something else.
        """
        if client_id is not None:
            check_id(client_id, what="the answer's client id")
        for text in (start.engine, start.model, start.model_hash, start.template, start.route, start.writer):
            check_text(text, what="what is said of the answer's engine", empty=True)
        prompt_ids = pack_ids(start.prompt_ids)

        async def work(connection: AsyncConnection) -> tuple[Row[Any], bool]:
            row = await lock_conversation(connection, conversation, owner)
            there = await sent_before(connection, conversation, client_id)
            if there is not None:
                if there.parent != parent or there.answer_message is None:
                    raise Conflict("this client id was used for another message: use a new one")
                return there, False
            now = self._database.tick(row.touched + 1)
            message = await add_message(
                connection, row, parent=parent, role="assistant", text="", client_id=client_id, now=now
            )
            await connection.execute(
                insert(answers).values(
                    message=message,
                    state="writing",
                    writer=start.writer,
                    logged=0,
                    beat=_now(),
                    engine=start.engine,
                    model=start.model,
                    model_hash=start.model_hash,
                    template=start.template,
                    route=start.route,
                    continues=start.continues,
                    kept=start.kept,
                    dropped=start.dropped,
                    sampling=written(start.sampling),
                    prompt_ids=prompt_ids,
                    failure="",
                )
            )
            return (await connection.execute(with_answers().where(messages.c.id == message))).one(), True

        row, created = await self._database.write(work)
        return Written(message_of(row), created)

    async def log(self, answer: str, batch: Sequence[StreamEvent], *, after: int) -> bool:
        """Add a batch of phases and tokens to the log; an empty one only says that the writer is alive.

        Returns whether somebody has asked for the answer to be stopped; see `stop`.

        Args:
            answer: Which.
            batch: Events ``after + 1`` and the following.
            after: How many events the log has.

        Raises:
            NotFound: There is no such answer.
            Conflict: The answer is done, or its log does not end at ``after``.
            BadText: A token's text holds half a character; no event of the batch was logged.
        """
        _check(batch)
        if not is_id(answer):
            raise no_answer(answer)
        body = pack_events(batch)

        async def work(connection: AsyncConnection) -> bool:
            said = {"answer": answer, "after": after, "upto": after + len(batch), "now": _now()}
            grown = await connection.execute(_GROW, said)
            if (row := grown.one_or_none()) is None:
                return await _said_before(connection, answer, after, body)
            if batch:
                await connection.execute(
                    _ADD, {"message": answer, "first": after + 1, "count": len(batch), "body": body}
                )
            return row.stopping is not None

        return await self._database.write_together(work)

    async def stop(self, answer: str, *, owner: str | None) -> None:
        """Ask whoever writes an answer to stop it: the writer's next `log` says so. Twice is as once.

        Raises:
            NotFound: There is no such answer in a conversation of this owner.
        """

        async def work(connection: AsyncConnection) -> None:
            await find_answer(connection, answer, owned(owner))
            unasked = (answers.c.state == "writing", answers.c.stopping.is_(None))
            await connection.execute(
                update(answers).where(answers.c.message == answer, *unasked).values(stopping=_now())
            )

        await self._database.write(work)

    async def finish(
        self, answer: str, finish: Finish, *, after: int, batch: Sequence[StreamEvent] = (), failure: str = ""
    ) -> StoredMessage:
        """Log the last batch and fold the log into the message, in one transaction.

        Args:
            answer: Which.
            finish: How it ended.
            after: How many events the log has.
            batch: The events that are not in it yet.
            failure: The sentence of the error that ended it.

        Raises:
            NotFound: There is no such answer.
            Conflict: Somebody else has ended it, or its log does not end at ``after``.
            BadText: A token's text, or ``failure``, cannot be stored, or all of it is too much to be read back.
        """
        _check(batch)
        check_text(failure, what="the error's sentence", empty=True)

        async def work(connection: AsyncConnection) -> Any:
            row = await find_answer(connection, answer, lock=True)
            if row.state == "done":
                if row.reason != finish.reason or row.logged != after + len(batch):
                    raise Conflict("the answer has ended already: read it again")
            elif row.logged != after:
                raise Conflict(f"the answer's log ends at {row.logged}, not at {after}: read it again")
            else:
                await self._fold(connection, row, batch, reason=finish.reason, finish=finish, failure=failure)
            return (await connection.execute(with_answers().where(messages.c.id == answer))).one()

        return message_of(await self._database.write(work))

    async def interrupt(self, answer: str, *, writer: str | None = None, failure: str = "") -> bool:
        """Fold what the log of a dead writer holds, and mark the answer ``interrupted``. Return whether this did it.

        Of a log that is too large to be kept the first part is: an answer must not stay open for ever.

        Args:
            answer: Which.
            writer: Only if this one wrote it.
            failure: Why, where there is more to say.

        Raises:
            NotFound: There is no such answer.
        """

        async def work(connection: AsyncConnection) -> bool:
            row = await find_answer(connection, answer, lock=True)
            if row.state == "done" or writer not in (None, row.writer):
                return False
            await self._fold(connection, row, (), reason="interrupted", finish=None, failure=failure)
            return True

        return await self._database.write(work)

    async def _fold(
        self,
        connection: AsyncConnection,
        row: Row[Any],
        batch: Sequence[StreamEvent],
        *,
        reason: EndReason,
        finish: Finish | None,
        failure: str,
    ) -> None:
        logged = [*await logged_events(connection, row.message), *batch]
        if finish is None:
            logged = await asyncio.to_thread(readable, logged)
        text, phases, tokens = await asyncio.to_thread(folded, logged)
        await connection.execute(
            update(answers)
            .where(answers.c.message == row.message)
            .values(
                state="done",
                logged=len(logged),
                reason=reason,
                finish=None if finish is None else written(finish),
                failure=failure,
                ended=_now(),
                phases=phases,
                tokens=tokens,
            )
        )
        await connection.execute(update(messages).where(messages.c.id == row.message).values(body=text))
        await connection.execute(delete(events).where(events.c.message == row.message))
        if text:
            await add_words(connection, conversation=row.conversation, owner=row.owner, message=row.message, text=text)

    async def events(self, answer: str, *, owner: str | None, after: int = 0) -> EventPage:
        """Return the log after event ``after``: the same events under the same numbers, folded or not.

        Raises:
            NotFound: There is no such answer in a conversation of this owner.
        """

        async def work(connection: AsyncConnection) -> tuple[Row[Any], list[StreamEvent], int]:
            row = await find_answer(connection, answer, owned(owner))
            if row.state == "done":
                return row, [], 1
            query = (
                select(events)
                .where(events.c.message == answer, events.c.first + events.c.count > after + 1)
                .order_by(events.c.first)
            )
            rows = (await connection.execute(query)).all()
            first = rows[0].first if rows else row.logged + 1
            return row, [event for each in rows for event in unpack_events(each.body)], first

        row, logged, first = await self._database.read(work)
        done = row.state == "done"
        if done:
            logged = await asyncio.to_thread(unfolded, row.phases, row.tokens)
        skip = max(0, after + 1 - first)
        return EventPage(tuple(logged[skip:]), first + skip, row.logged, done)

    async def tokens(self, answer: str, *, owner: str | None) -> tuple[Token, ...]:
        """Return every token so far, with its log-probability and alternatives.

        Raises:
            NotFound: There is no such answer in a conversation of this owner.
            StoreUnusable: They are damaged.
        """
        page = await self.events(answer, owner=owner)
        return tuple(event for event in page.events if isinstance(event, Token))

    async def prompt_ids(self, answer: str, *, owner: str | None) -> tuple[int, ...]:
        """Return the token ids of the prompt as it was sent.

        Raises:
            NotFound: There is no such answer in a conversation of this owner.
            StoreUnusable: They are damaged.
        """
        row = await self._database.read(lambda connection: find_answer(connection, answer, owned(owner)))
        return unpack_ids(row.prompt_ids)

    async def unfinished(self, *, idle: float = 0.0) -> tuple[Unfinished, ...]:
        """Return the answers of all owners that are marked as being written, longest silent first.

        Args:
            idle: Only those whose log has not grown for so many seconds. 0 where this is the only process.
        """
        now = _now()
        columns = (answers.c.message, answers.c.writer, answers.c.logged, answers.c.beat)
        query = placed(*columns).where(answers.c.state == "writing").order_by(answers.c.beat)
        if idle > 0:
            query = query.where(answers.c.beat <= now - int(idle * 1_000_000))

        async def work(connection: AsyncConnection) -> Any:
            return (await connection.execute(query)).all()

        return tuple(
            Unfinished(row.message, row.conversation, row.owner, row.writer, row.logged, (now - row.beat) / 1e6)
            for row in await self._database.read(work)
        )


def _now() -> int:
    return time.time_ns() // 1000


def _check(batch: Sequence[StreamEvent]) -> None:
    for event in batch:
        if isinstance(event, Token):
            for text in (event.text, *(other.text for other in event.alternatives)):
                check_text(text.replace("\0", ""), what="a token's text", empty=True)


async def _said_before(connection: AsyncConnection, answer: str, after: int, body: bytes) -> bool:
    """Accept a batch that was logged although its writer never heard so; refuse any other. Returns as `Replies.log`."""
    row = await find_answer(connection, answer, lock=True)
    same = select(events.c.body).where(events.c.message == answer, events.c.first == after + 1)
    there = (await connection.execute(same)).scalar_one_or_none()
    if there is not None and bytes(there) == body:
        return row.stopping is not None
    if row.state == "done":
        raise Conflict("the answer has ended already: read it again")
    raise Conflict(f"the answer's log ends at {row.logged}, not at {after}: read it again")
