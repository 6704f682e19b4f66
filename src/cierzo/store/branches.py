"""One branch of a conversation: the end of it, for whoever looks, and a copy of it as a conversation of its own.

What it reads does not grow with the conversation: the database walks from a message to its parent, as far as it must.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import CTE, Text, bindparam, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cierzo.errors import Conflict, NotFound
from cierzo.store.database import Database
from cierzo.store.records import Branch, Forked, Place, check_id, is_id, new_id
from cierzo.store.rows import (
    add_conversation,
    conversation_of,
    find_conversation,
    lock_conversation,
    message_of,
    no_message,
    owned,
    with_answers,
)
from cierzo.store.schema import answers, conversations, messages, search_texts

_NOT_COPIED = ("message", "continues", "stopping")
_FACTS = [column for column in answers.c if column.name not in _NOT_COPIED]

_OLD, _NEW = bindparam("old", type_=Text), bindparam("new", type_=Text)
_THERE = bindparam("there", type_=Text)

_COPY = (
    insert(messages).from_select(
        ["id", "conversation", "parent", "position", "ordinal", "role", "body", "created"],
        select(
            *(
                _NEW,
                _THERE,
                bindparam("above", type_=Text),
                literal(0),
                bindparam("place", type_=messages.c.ordinal.type),
            ),
            *(messages.c.role, messages.c.body, messages.c.created),
        ).where(messages.c.id == _OLD),
    ),
    insert(answers).from_select(
        ["message", *(column.name for column in _FACTS)], select(_NEW, *_FACTS).where(answers.c.message == _OLD)
    ),
    insert(search_texts).from_select(
        ["conversation", "message", "words"],
        select(_THERE, _NEW, search_texts.c.words).where(search_texts.c.message == _OLD),
    ),
)
"""From row to row within the database: what was packed stays packed, and no text comes here."""


class Branches:
    """Reads and copies branches.

    Args:
        database: Where they are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(
        self,
        conversation: str,
        *,
        owner: str | None,
        through: str | None = None,
        before: str | None = None,
        limit: int = 30,
    ) -> Branch:
        """Return the last messages of a branch, all from one moment.

        Args:
            conversation: Which; it may be in the bin.
            owner: Whose.
            through: The message with which the branch ends; None for the head.
            before: A message of the branch: only those before it.
            limit: At most so many.

        Raises:
            NotFound: No such conversation, no such message in it, or ``before`` is not on the branch.
        """

        async def work(connection: AsyncConnection) -> Branch:
            row = await find_conversation(connection, conversation, owner)
            last = row.head if through is None else await _known(connection, conversation, through)
            if before is not None:
                last = await _above(connection, last, before)
            up = _up(last, limit)
            query = with_answers().join(up, up.c.id == messages.c.id).order_by(up.c.steps.desc())
            found = [message_of(each) for each in (await connection.execute(query)).all()]
            siblings = await _siblings(connection, conversation, {message.parent for message in found})
            places = tuple(Place(message, tuple(siblings[message.parent])) for message in found)
            return Branch(conversation_of(row), places, earlier=bool(found) and found[0].parent is not None)

        return await self._database.read(work)

    async def fork(self, message: str, *, owner: str | None, conversation_id: str | None = None) -> Forked:
        """Copy the branch that ends with a message, from its first message on, into a new conversation.

        Answers keep all that is known of them, except which other one they continue: that one stays behind. The title
        is the old one's; the ids are new, and the dates of the messages are those of the old ones.

        Args:
            message: The last one to copy.
            owner: Whose.
            conversation_id: An id that the caller made, so that asking twice makes one copy.

        Raises:
            NotFound: There is no such message in a conversation of this owner that is not in the bin.
            Conflict: An answer on the branch is still being written; or ``conversation_id`` is that of a conversation
                which is no copy of this branch.
            BadText: ``conversation_id`` cannot be an id.
        """
        chosen = check_id(conversation_id, what="a conversation's id") if conversation_id is not None else new_id()

        async def work(connection: AsyncConnection) -> Forked:
            there = await _row_of(connection, message, owner)
            source = await lock_conversation(connection, there.conversation, owner)
            up = _up(message)
            query = select(messages.c.id, answers.c.state).select_from(up).join(messages, messages.c.id == up.c.id)
            query = query.outerjoin(answers, answers.c.message == messages.c.id).order_by(up.c.steps.desc())
            path = (await connection.execute(query)).all()
            if any(each.state == "writing" for each in path):
                raise Conflict("this answer is still being written: wait for its end, or stop it, then fork it")
            now = self._database.tick()
            row, created = await add_conversation(
                connection, chosen, owner=owner, title=source.title, now=now, sqlite=self._database.sqlite
            )
            if not created:
                copied = select(messages.c.created).where(
                    messages.c.conversation == chosen, messages.c.ordinal == len(path)
                )
                if chosen == source.id or (await connection.execute(copied)).scalar_one_or_none() != there.created:
                    raise Conflict("a conversation of that id exists: choose another id")
                return Forked(conversation_of(row), created=False)
            names = [new_id() for _ in path]
            rows = [
                {"old": each.id, "new": name, "there": chosen, "above": above, "place": place}
                for place, (each, name, above) in enumerate(zip(path, names, [None, *names], strict=False), 1)
            ]
            for statement in _COPY:
                await connection.execute(statement, rows)
            await connection.execute(
                update(conversations).where(conversations.c.id == chosen).values(head=names[-1], messages=len(names))
            )
            return Forked(conversation_of(await find_conversation(connection, chosen, owner)), created=True)

        return await self._database.write(work)


def _up(last: str | None, limit: int | None = None, until: str | None = None) -> CTE:
    """Return the way up from a message: ``id``, ``parent`` and ``steps`` of each, it itself being 0 steps away.

    Args:
        last: Where it begins; None is nowhere.
        limit: At most so many.
        until: The message with which it ends, if it comes to it.
    """
    begin = select(messages.c.id, messages.c.parent, literal(0).label("steps")).where(messages.c.id == last)
    up = begin.cte("up", recursive=True)
    more = select(messages.c.id, messages.c.parent, up.c.steps + 1).join(up, messages.c.id == up.c.parent)
    if limit is not None:
        more = more.where(up.c.steps < limit - 1)
    if until is not None:
        more = more.where(up.c.id != until)
    return up.union_all(more)


async def _known(connection: AsyncConnection, conversation: str, message: str) -> str:
    query = select(messages.c.id).where(messages.c.id == message, messages.c.conversation == conversation)
    if not is_id(message) or (await connection.execute(query)).one_or_none() is None:
        raise NotFound(f"there is no message {message[:40]!r} in this conversation: read it again")
    return message


async def _above(connection: AsyncConnection, last: str | None, before: str) -> str | None:
    """Return what ``before`` follows, if that lies on the way up from ``last``."""
    up = _up(last, until=before if is_id(before) else None)
    found = (await connection.execute(select(up.c.parent).where(up.c.id == before))).all() if is_id(before) else []
    if not found:
        raise NotFound(f"the message {before[:40]!r} is not on this branch: read it again")
    parent: str | None = found[0].parent
    return parent


async def _siblings(
    connection: AsyncConnection, conversation: str, parents: set[str | None]
) -> dict[str | None, list[str]]:
    """Return for each parent the ids of the messages that follow it, in order."""
    beside: dict[str | None, list[str]] = {parent: [] for parent in parents}
    wanted = [messages.c.parent.in_(parents - {None})]
    if None in parents:  # asked by itself: with an OR, SQLite would read the whole conversation
        wanted.append(messages.c.parent.is_(None))
    for where in wanted:
        query = select(messages.c.id, messages.c.parent).where(messages.c.conversation == conversation, where)
        for row in (await connection.execute(query.order_by(messages.c.position))).all():
            beside[row.parent].append(row.id)
    return beside


async def _row_of(connection: AsyncConnection, message: str, owner: str | None) -> Any:
    query = select(messages.c.conversation, messages.c.created).join(
        conversations, conversations.c.id == messages.c.conversation
    )
    if not is_id(message):
        raise no_message(message)
    row = (await connection.execute(query.where(messages.c.id == message, owned(owner)))).one_or_none()
    if row is None:
        raise no_message(message)
    return row
