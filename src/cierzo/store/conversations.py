"""Conversations and their trees of messages.

Every call names the owner (None where there are no accounts); what belongs to somebody else is `NotFound`, the
same as what does not exist. Every write names the message that it builds on. Nothing is overwritten: another
question or answer at the same place is a sibling.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cierzo.errors import BadInput, Conflict
from cierzo.messages import Message, Role
from cierzo.store.database import Database
from cierzo.store.records import (
    Conversation,
    Page,
    StoredMessage,
    Tree,
    Written,
    check_id,
    check_title,
    is_id,
    new_id,
)
from cierzo.store.rows import (
    add_conversation,
    add_message,
    add_words,
    conversation_of,
    find_conversation,
    lock_conversation,
    message_of,
    no_message,
    owned,
    with_answers,
)
from cierzo.store.schema import conversations, messages, search_texts

MAX_PAGE = 200
"""Most conversations that one `Conversations.list` gives."""


class Conversations:
    """Makes, finds, changes and removes conversations.

    Args:
        database: Where they are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, *, owner: str | None, title: str = "", conversation_id: str | None = None) -> Conversation:
        """Make an empty conversation.

        Args:
            owner: Whose it is.
            title: What it is called; may be given later.
            conversation_id: An id that the caller made, so that asking twice makes one. The second call changes
                nothing and returns what is there.

        Raises:
            BadText: The title or the id cannot be stored.
            Conflict: Somebody else has a conversation of that id.
        """
        check_title(title)
        if owner is not None:
            check_id(owner, what="the owner's id")
        chosen = check_id(conversation_id, what="a conversation's id") if conversation_id is not None else new_id()

        async def work(connection: AsyncConnection) -> Conversation:
            now, sqlite = self._database.tick(), self._database.sqlite
            row, _ = await add_conversation(connection, chosen, owner=owner, title=title, now=now, sqlite=sqlite)
            return conversation_of(row)

        return await self._database.write(work)

    async def get(self, conversation: str, *, owner: str | None) -> Conversation:
        """Return a conversation, also one in the bin.

        Raises:
            NotFound: There is none of that id that is this owner's.
        """

        async def work(connection: AsyncConnection) -> Conversation:
            return conversation_of(await find_conversation(connection, conversation, owner))

        return await self._database.read(work)

    async def open(self, conversation: str, *, owner: str | None) -> Tree:
        """Return a conversation with all its messages, all from one moment.

        Raises:
            NotFound: There is none of that id that is this owner's.
        """

        async def work(connection: AsyncConnection) -> tuple[Any, Sequence[Any]]:
            row = await find_conversation(connection, conversation, owner)
            query = with_answers().where(messages.c.conversation == conversation).order_by(messages.c.ordinal)
            return row, (await connection.execute(query)).all()

        row, rows = await self._database.read(work)
        return Tree(conversation_of(row), tuple(message_of(each) for each in rows))

    async def list(
        self,
        *,
        owner: str | None,
        archived: bool = False,
        deleted: bool = False,
        limit: int = 50,
        after: str | None = None,
    ) -> Page:
        """Return conversations, pinned ones first, then the one last written to.

        Args:
            owner: Whose.
            archived: Those in the archive instead of the others.
            deleted: Those in the bin instead of the others, archived or not.
            limit: At most so many, and never more than `MAX_PAGE`.
            after: Where to go on: `Page.after` of the call before.

        Raises:
            BadInput: ``after`` was not made by this method, or ``limit`` is less than 1.
        """
        if limit < 1:
            raise BadInput("limit must be 1 or more")
        where: list[ColumnElement[bool]] = [owned(owner)]
        if deleted:
            where.append(conversations.c.deleted.is_not(None))
        else:
            where += [conversations.c.deleted.is_(None), conversations.c.archived.is_(archived)]
        key = (conversations.c.pinned, conversations.c.touched, conversations.c.id)
        if after is not None:
            where.append(tuple_(*key) < tuple_(*_cursor(after)))
        size = min(limit, MAX_PAGE)
        query = select(conversations).where(*where).order_by(*(column.desc() for column in key)).limit(size + 1)

        async def work(connection: AsyncConnection) -> Sequence[Any]:
            return (await connection.execute(query)).all()

        rows = await self._database.read(work)
        last = rows[size - 1] if len(rows) > size else None
        return Page(
            tuple(conversation_of(row) for row in rows[:size]),
            f"{int(last.pinned)}.{last.touched}.{last.id}" if last else None,
        )

    async def change(
        self,
        conversation: str,
        *,
        owner: str | None,
        title: str | None = None,
        pinned: bool | None = None,
        archived: bool | None = None,
        only_untitled: bool = False,
    ) -> Conversation:
        """Rename, pin or archive; what is None stays. Neither moves the conversation in the list.

        With ``only_untitled`` a conversation that has a title stays as it is.

        Raises:
            NotFound: There is none of that id that is this owner's.
            BadText: The title cannot be stored.
        """
        wanted = {"title": title, "pinned": pinned, "archived": archived}
        values = {name: value for name, value in wanted.items() if value is not None}
        if title is not None:
            check_title(title)

        async def work(connection: AsyncConnection) -> Conversation:
            row = await lock_conversation(connection, conversation, owner)
            if only_untitled and row.title:
                return conversation_of(row)
            if values:
                await connection.execute(
                    update(conversations).where(conversations.c.id == conversation).values(**values)
                )
            if title is not None:
                await connection.execute(
                    delete(search_texts).where(
                        search_texts.c.conversation == conversation, search_texts.c.message.is_(None)
                    )
                )
                await add_words(connection, conversation=conversation, owner=owner, message=None, text=title)
            return conversation_of(await find_conversation(connection, conversation, owner))

        return await self._database.write(work)

    async def append(
        self,
        conversation: str,
        *,
        owner: str | None,
        parent: str | None,
        role: Role,
        text: str,
        client_id: str | None = None,
    ) -> Written:
        """Add a message below ``parent`` (None: a first one) and make it the head.

        Args:
            conversation: Where.
            owner: Whose.
            parent: The message that it builds on.
            role: Who speaks.
            text: What was said.
            client_id: An id that the sender made: the same id again with the same text, role and parent returns
                the message that is there.

        Raises:
            NotFound: No such conversation, or no such parent in it.
            BadText: The text or the id cannot be stored.
            Conflict: The ``client_id`` stands for another message.
        """
        message = Message(role, text)
        if client_id is not None:
            check_id(client_id, what="the message's client id")

        async def work(connection: AsyncConnection) -> tuple[Any, bool]:
            row = await lock_conversation(connection, conversation, owner)
            there = await sent_before(connection, conversation, client_id)
            if there is not None:
                if (there.body, there.role, there.parent) != (message.text, message.role, parent):
                    raise Conflict("this client id was used for another message: send it with a new id")
                return there, False
            added = await add_message(
                connection,
                row,
                parent=parent,
                role=message.role,
                text=message.text,
                client_id=client_id,
                now=self._database.tick(row.touched + 1),
            )
            await add_words(connection, conversation=conversation, owner=owner, message=added, text=message.text)
            return (await connection.execute(with_answers().where(messages.c.id == added))).one(), True

        row, created = await self._database.write(work)
        return Written(message_of(row), created)

    async def message(self, message: str, *, owner: str | None) -> StoredMessage:
        """Return one message.

        Raises:
            NotFound: There is none of that id in a conversation of this owner.
        """

        async def work(connection: AsyncConnection) -> StoredMessage:
            query = with_answers().join(conversations, conversations.c.id == messages.c.conversation)
            row = (await connection.execute(query.where(messages.c.id == message, owned(owner)))).one_or_none()
            if row is None:
                raise no_message(message)
            return message_of(row)

        if not is_id(message):
            raise no_message(message)
        return await self._database.read(work)

    async def sent(self, conversation: str, client_id: str, *, owner: str | None) -> StoredMessage | None:
        """Return the message to which its sender gave this id; None where there is none.

        Raises:
            NotFound: No such conversation.
        """
        check_id(client_id, what="the message's client id")

        async def work(connection: AsyncConnection) -> StoredMessage | None:
            await find_conversation(connection, conversation, owner)
            row = await sent_before(connection, conversation, client_id)
            return None if row is None else message_of(row)

        return await self._database.read(work)

    async def select(
        self, conversation: str, message: str | None, *, owner: str | None, exactly: bool = False
    ) -> Conversation:
        """Make the newest end of the branch through ``message`` the head: how one turns to another sibling.

        ``exactly`` makes the message itself the head, or with None the place before all of them: how one goes back.

        Raises:
            NotFound: No such conversation, or no such message in it.
        """

        async def work(connection: AsyncConnection) -> Conversation:
            await lock_conversation(connection, conversation, owner)
            query = select(messages.c.id, messages.c.parent).where(messages.c.conversation == conversation)
            rows = (await connection.execute(query.order_by(messages.c.ordinal))).all()
            newest = {row.parent: row.id for row in rows}
            if message is not None and message not in {row.id for row in rows}:
                raise no_message(message)
            leaf = message
            while leaf in newest and not exactly:
                leaf = newest[leaf]
            await connection.execute(update(conversations).where(conversations.c.id == conversation).values(head=leaf))
            return conversation_of(await find_conversation(connection, conversation, owner))

        return await self._database.write(work)

    async def delete(self, conversation: str, *, owner: str | None) -> Conversation:
        """Put a conversation into the bin, where no list, search or write finds it. Twice is as once.

        Raises:
            NotFound: There is none of that id that is this owner's.
        """
        return await self._bin(conversation, owner, deleted=time.time_ns() // 1000)

    async def restore(self, conversation: str, *, owner: str | None) -> Conversation:
        """Take a conversation out of the bin. Twice is as once.

        Raises:
            NotFound: There is none of that id that is this owner's.
        """
        return await self._bin(conversation, owner, deleted=None)

    async def _bin(self, conversation: str, owner: str | None, *, deleted: int | None) -> Conversation:
        async def work(connection: AsyncConnection) -> Conversation:
            await find_conversation(connection, conversation, owner)
            unlike = conversations.c.deleted.is_(None) if deleted else conversations.c.deleted.is_not(None)
            await connection.execute(
                update(conversations).where(conversations.c.id == conversation, unlike).values(deleted=deleted)
            )
            return conversation_of(await find_conversation(connection, conversation, owner))

        return await self._database.write(work)

    async def purge(self, *, older_than: float, owner: str | None = None, everyone: bool = False) -> int:
        """Remove for good what has been in the bin for more than ``older_than`` seconds; return how many.

        Args:
            older_than: Seconds; 0 empties the bin.
            owner: Whose bin.
            everyone: All bins; ``owner`` does not matter.
        """
        before = time.time_ns() // 1000 - int(older_than * 1_000_000)
        mine = [] if everyone else [owned(owner)]

        async def work(connection: AsyncConnection) -> int:
            done = await connection.execute(delete(conversations).where(conversations.c.deleted <= before, *mine))
            return done.rowcount

        return await self._database.write(work)

    async def latest(self) -> int:
        """Return the largest ``touched`` there is: from where the order goes on after a start."""

        async def work(connection: AsyncConnection) -> int:
            return (await connection.execute(select(func.max(conversations.c.touched)))).scalar_one() or 0

        return await self._database.read(work)


async def sent_before(connection: AsyncConnection, conversation: str, client_id: str | None) -> Any:
    """Return the row of the message to which the sender gave this id; None where there is none."""
    if client_id is None:
        return None
    query = with_answers().where(messages.c.conversation == conversation, messages.c.client_id == client_id)
    return (await connection.execute(query)).one_or_none()


def _cursor(after: str) -> tuple[bool, int, str]:
    pinned, _, rest = after.partition(".")
    touched, _, conversation = rest.partition(".")
    if pinned not in ("0", "1") or not touched.isdecimal() or not touched.isascii() or len(touched) > 18:  # noqa: PLR2004
        raise BadInput("after must be what the list before gave as the place to go on")
    return pinned == "1", int(touched), check_id(conversation, what="a conversation's id")
