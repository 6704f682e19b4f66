"""Whole conversations out of the store and into it: every message with its prompt, tokens and dates.

Out, a page of messages at a time, so that a long conversation never is in memory as a whole. In, everything that is
given in one transaction, under ids that nobody has: nothing that is there is changed. It knows no file and no format.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Column, Table, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from cierzo.errors import NotFound
from cierzo.messages import StreamEvent
from cierzo.store.database import Database
from cierzo.store.folding import owner_word, words
from cierzo.store.logs import folded, logged_events, text_of, unfolded
from cierzo.store.packing import pack_ids, unpack_ids
from cierzo.store.records import Answer, Conversation, StoredMessage, check_id, is_id, new_id
from cierzo.store.rows import conversation_of, message_of, owned, with_answers, written
from cierzo.store.schema import answers, conversations, messages, search_texts

PAGE = 50
"""Messages that are read at a time."""

ROWS = 500
"""Rows or ids in one statement."""

Each = TypeVar("Each")

_OURS = re.compile(r"[0-9abcdefghjkmnpqrstvwxyz]{26}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_IMPORT = 0x6369_6572_7A6F  # "cierzo": the name of the lock under which PostgreSQL takes imports one at a time


@dataclass(frozen=True, slots=True)
class Full:
    """A message with all that is kept of it.

    Attributes:
        prompt_ids: Token ids of the prompt as sent, for an answer.
        events: Phases and tokens in the order of the answer's log.
    """

    message: StoredMessage
    prompt_ids: tuple[int, ...] = ()
    events: tuple[StreamEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class Packed:
    """A `Full` as the database keeps it: about a tenth of its size. Made by `packed`."""

    message: StoredMessage
    words: str
    prompt_ids: bytes = b""
    phases: bytes = b""
    tokens: bytes = b""


@dataclass(frozen=True, slots=True)
class Draft:
    """A conversation to be added.

    Attributes:
        conversation: Its title, dates and state; the owner does not count.
        messages: All of them in the order of `StoredMessage.order`, with the positions that a tree has.
    """

    conversation: Conversation
    messages: list[Packed] = field(default_factory=list)


def packed(full: Full) -> Packed:
    """Pack a message. The text of an answer is that of its tokens, whatever ``full.message.text`` says.

    Raises:
        BadText: Its tokens are too many, or too long, to be kept.
    """
    if full.message.answer is None:
        return Packed(full.message, words(full.message.text))
    said, phases, tokens = folded(full.events)
    message = replace(full.message, text=said)
    return Packed(message, words(said), pack_ids(full.prompt_ids), phases, tokens)


class Transfer:
    """Reads and adds whole conversations.

    Args:
        database: Where they are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def listed(self, *, owner: str | None, beginning: str = "") -> tuple[Conversation, ...]:
        """Return an owner's conversations, archived ones and those in the bin too, the one last written to first.

        Args:
            owner: Whose.
            beginning: Only those whose id begins so.
        """
        where = [owned(owner)]
        if beginning:
            where.append(conversations.c.id.startswith(beginning, autoescape=True))
        query = select(conversations).where(*where).order_by(conversations.c.touched.desc(), conversations.c.id)

        async def work(connection: AsyncConnection) -> Sequence[Any]:
            return (await connection.execute(query)).all()

        if beginning and not is_id(beginning):
            return ()
        found = (conversation_of(row) for row in await self._database.read(work))
        return tuple(each for each in found if each.id.startswith(beginning))  # LIKE is not always particular

    async def read(self, conversation: Conversation) -> AsyncGenerator[Full, None]:
        """Yield the messages that ``conversation`` had when it was read, in order, a page in memory at a time.

        An answer that is still being written comes with what it has said.

        Raises:
            NotFound: The conversation was removed meanwhile.
            StoreUnusable: The tokens of an answer are damaged.
        """
        large = (answers.c.prompt_ids, answers.c.phases, answers.c.tokens)
        query = with_answers().add_columns(*large).where(messages.c.conversation == conversation.id)

        async def page(connection: AsyncConnection, first: int) -> list[tuple[Any, list[StreamEvent]]]:
            last = min(first + PAGE, conversation.messages + 1)
            part = query.where(messages.c.ordinal >= first, messages.c.ordinal < last).order_by(messages.c.ordinal)
            rows = (await connection.execute(part)).all()
            return [(row, await _under_way(connection, row)) for row in rows]

        for first in range(1, conversation.messages + 1, PAGE):
            rows = await self._database.read(lambda connection, first=first: page(connection, first))  # type: ignore[misc]
            if len(rows) < min(PAGE, conversation.messages + 1 - first):
                raise NotFound("the conversation is gone: it was removed in the meantime")
            for row, logged in rows:
                yield _full(row, logged)

    async def add(self, drafts: Sequence[Draft], *, owner: str | None) -> tuple[str, ...]:
        """Add conversations, all or none, and return their ids.

        An id that is one of ours and free is kept; any other is given anew, and whatever refers to it follows. The
        first of them becomes the one last written to.

        Args:
            drafts: Checked already: trees whose texts, ids and numbers the store can hold.
            owner: Whose they will be.

        Raises:
            StoreUnavailable: The database does not answer.
        """
        if owner is not None:
            check_id(owner, what="the owner's id")

        async def work(connection: AsyncConnection) -> tuple[str, ...]:
            if not self._database.sqlite:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:name)"), {"name": _IMPORT})
            named = await _names(connection, conversations, (draft.conversation.id for draft in drafts))
            inside = (each.message.id for draft in drafts for each in draft.messages)
            named_inside = await _names(connection, messages, inside)
            for draft in reversed(drafts):
                await self._insert(connection, draft, owner, named[draft.conversation.id], named_inside)
            return tuple(named[draft.conversation.id] for draft in drafts)

        return await self._database.write(work)

    async def _insert(
        self, connection: AsyncConnection, draft: Draft, owner: str | None, name: str, names: dict[str, str]
    ) -> None:
        there = draft.conversation
        await connection.execute(
            insert(conversations).values(
                id=name,
                owner=owner,
                title=there.title,
                created=_micros(there.created),
                updated=_micros(there.updated),
                # Never out of a file: a date in the future would hold its place in the list for ever.
                touched=self._database.tick(),
                pinned=there.pinned,
                archived=there.archived,
                deleted=None if there.deleted is None else _micros(there.deleted),
                head=None if there.head is None else names[there.head],
                messages=len(draft.messages),
            )
        )
        mark = owner_word(owner)
        if there.title:
            title = {"conversation": name, "message": None, "words": f"{mark} {words(there.title)}".rstrip()}
            await connection.execute(insert(search_texts).values(title))
        for some in _some(draft.messages):
            await connection.execute(insert(messages), [_message_row(each, name, names) for each in some])
            if rows := [_answer_row(each, each.message.answer, names) for each in some if each.message.answer]:
                await connection.execute(insert(answers), rows)
            found = [
                {"conversation": name, "message": names[each.message.id], "words": f"{mark} {each.words}".rstrip()}
                for each in some
                if each.words
            ]
            if found:
                await connection.execute(insert(search_texts), found)


async def _under_way(connection: AsyncConnection, row: Any) -> list[StreamEvent]:
    return await logged_events(connection, row.id) if row.answer_state == "writing" else []


def _full(row: Any, logged: list[StreamEvent]) -> Full:
    message = message_of(row)
    if message.answer is None:
        return Full(message)
    if message.answer.state == "done":
        logged = unfolded(row.phases, row.tokens)
    else:
        message = replace(message, text=text_of(logged))
    return Full(message, unpack_ids(row.prompt_ids), tuple(logged))


async def _names(connection: AsyncConnection, table: Table, wanted: Iterable[str]) -> dict[str, str]:
    """Return for each id the one that it gets."""
    column: Column[str] = table.c.id
    names = {}
    for some in _some(wanted):
        there = set((await connection.execute(select(column).where(column.in_(some)))).scalars())
        names.update({name: name if _OURS.fullmatch(name) and name not in there else new_id() for name in some})
    return names


def _message_row(each: Packed, conversation: str, names: dict[str, str]) -> dict[str, Any]:
    message = each.message
    return {
        "id": names[message.id],
        "conversation": conversation,
        "parent": None if message.parent is None else names[message.parent],
        "position": message.position,
        "ordinal": message.order,
        "role": message.role,
        "body": message.text,
        "client_id": message.client_id,
        "created": _micros(message.created),
    }


def _answer_row(each: Packed, answer: Answer, names: dict[str, str]) -> dict[str, Any]:
    ended = _micros(answer.ended or each.message.created)
    return {
        "message": names[each.message.id],
        "state": "done",
        "writer": "",
        "logged": answer.logged,
        "beat": ended,
        "engine": answer.engine,
        "model": answer.model,
        "model_hash": answer.model_hash,
        "template": answer.template,
        "route": answer.route,
        "continues": None if answer.continues is None else names[answer.continues],
        "kept": answer.kept,
        "dropped": answer.dropped,
        "sampling": written(answer.sampling),
        "prompt_ids": each.prompt_ids,
        "reason": answer.reason,
        "finish": None if answer.finish is None else written(answer.finish),
        "failure": answer.failure,
        "ended": ended,
        "phases": each.phases,
        "tokens": each.tokens,
    }


def _some(of: Iterable[Each]) -> Iterator[tuple[Each, ...]]:
    """Yield `ROWS` at a time."""
    rest = iter(of)
    while some := tuple(islice(rest, ROWS)):
        yield some


def _micros(date: datetime) -> int:
    return (date - _EPOCH) // timedelta(microseconds=1)
