"""Rows to records, and the writes that several share: add a conversation, add a message, add words to find.

Nothing here opens a transaction; whoever calls has one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Row, Select, and_, false, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from cierzo.errors import Conflict, NotFound
from cierzo.messages import Finish, Role, Sampling, Timings, content
from cierzo.store.folding import owner_word, words
from cierzo.store.records import Answer, Conversation, StoredMessage, is_id, moment, new_id
from cierzo.store.schema import answers, conversations, messages, search_texts

_LARGE = ("prompt_ids", "phases", "tokens")
ANSWER = [column.label(f"answer_{column.name}") for column in answers.c if column.name not in _LARGE]


def owned(owner: str | None) -> ColumnElement[bool]:
    """Return the condition that a conversation is this owner's."""
    if owner is None:
        return conversations.c.owner.is_(None)
    return conversations.c.owner == owner if is_id(owner) else false()


def conversation_of(row: Row[Any]) -> Conversation:
    """Make the record of a row of ``conversations``."""
    return Conversation(
        id=row.id,
        owner=row.owner,
        title=row.title,
        created=moment(row.created),
        updated=moment(row.updated),
        pinned=row.pinned,
        archived=row.archived,
        deleted=None if row.deleted is None else moment(row.deleted),
        head=row.head,
        messages=row.messages,
    )


def message_of(row: Row[Any]) -> StoredMessage:
    """Make the record of a row that `with_answers` selected."""
    return StoredMessage(
        id=row.id,
        conversation=row.conversation,
        parent=row.parent,
        position=row.position,
        order=row.ordinal,
        role=row.role,
        text=row.body,
        created=moment(row.created),
        client_id=row.client_id,
        answer=None if row.answer_message is None else _answer_of(row),
    )


def _answer_of(row: Row[Any]) -> Answer:
    return Answer(
        state=row.answer_state,
        engine=row.answer_engine,
        model=row.answer_model,
        model_hash=row.answer_model_hash,
        template=row.answer_template,
        sampling=_sampling_of(row.answer_sampling),
        route=row.answer_route,
        continues=row.answer_continues,
        kept=row.answer_kept,
        logged=row.answer_logged,
        reason=row.answer_reason,
        finish=None if row.answer_finish is None else _finish_of(row),
        failure=row.answer_failure,
        ended=None if row.answer_ended is None else moment(row.answer_ended),
        dropped=row.answer_dropped,
    )


@lru_cache(maxsize=256)
def _sampling_of(values: str) -> Sampling:
    """Most answers of a conversation share one, and checking one takes 50 microseconds."""
    return Sampling.of(orjson.loads(values))


def _finish_of(row: Row[Any]) -> Finish:
    values = orjson.loads(row.answer_finish)
    beside = {"kept": row.answer_kept, "sent": row.answer_route or "ids"}
    return Finish(**{**values, "timings": Timings(**values["timings"]), **beside})


def written(value: Sampling | Finish) -> str:
    """Return the JSON under which one of the two is kept."""
    return orjson.dumps(content(value)).decode()


def with_answers() -> Select[Any]:
    """Return the query for messages, each with its answer but without the answer's tokens and prompt."""
    return select(messages, *ANSWER).outerjoin(answers, answers.c.message == messages.c.id)


async def lock_conversation(connection: AsyncConnection, conversation: str, owner: str | None) -> Row[Any]:
    """Return the row of a conversation that is not in the bin; nobody else writes to it until the transaction ends.

    Raises:
        NotFound: There is none of that id that is this owner's.
    """
    row = await find_conversation(connection, conversation, owner, lock=True)
    if row.deleted is not None:
        raise no_conversation(conversation)
    return row


async def find_conversation(
    connection: AsyncConnection, conversation: str, owner: str | None, *, lock: bool = False
) -> Row[Any]:
    """Return the row of a conversation, also of one in the bin.

    Raises:
        NotFound: There is none of that id that is this owner's.
    """
    if not is_id(conversation):
        raise no_conversation(conversation)
    query = select(conversations).where(conversations.c.id == conversation, owned(owner))
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise no_conversation(conversation)
    return row


def no_conversation(conversation: str) -> NotFound:
    """Return the error for an id that is nobody's, in the bin, or somebody else's; all look the same."""
    return NotFound(f"there is no conversation {conversation[:40]!r}: list the conversations to see which there are")


def no_message(message: str) -> NotFound:
    """Return the error for an id of no message, or of somebody else's."""
    return NotFound(f"there is no message {message[:40]!r}: open the conversation to see which there are")


def placed(*columns: Any) -> Select[Any]:
    """Return the query for ``columns`` of answers, each with its conversation and whose that is."""
    query = select(*columns, messages.c.conversation, conversations.c.owner)
    return query.join_from(answers, messages).join(conversations, conversations.c.id == messages.c.conversation)


async def find_answer(
    connection: AsyncConnection, answer: str, *where: ColumnElement[bool], lock: bool = False
) -> Row[Any]:
    """Return the row of an answer, as `placed` has it; with ``lock`` nobody else writes it until the transaction ends.

    Raises:
        NotFound: There is none of that id that is as ``where`` says.
    """
    query = placed(answers).where(answers.c.message == answer, *where)
    if not is_id(answer):
        raise no_answer(answer)
    query = query.with_for_update(of=answers) if lock else query
    row: Row[Any] | None = (await connection.execute(query)).one_or_none()
    if row is None:
        raise no_answer(answer)
    return row


def no_answer(answer: str) -> NotFound:
    """Return the error for an id of no answer, or of somebody else's."""
    return NotFound(f"there is no answer {answer[:40]!r}: open the conversation to see which there are")


async def add_conversation(
    connection: AsyncConnection, conversation: str, *, owner: str | None, title: str, now: int, sqlite: bool
) -> tuple[Row[Any], bool]:
    """Add an empty conversation unless there is one of that id; return its row, and whether this added it.

    Raises:
        Conflict: Somebody else has a conversation of that id.
    """
    statement = (sqlite_insert if sqlite else postgres_insert)(conversations).values(
        id=conversation,
        owner=owner,
        title=title,
        created=now,
        updated=now,
        touched=now,
        pinned=False,
        archived=False,
        messages=0,
    )
    # Of an INSERT, SQLAlchemy keeps the count only when asked to; else it is -1 with psycopg.
    counted = statement.on_conflict_do_nothing(index_elements=["id"]).execution_options(preserve_rowcount=True)
    made = (await connection.execute(counted)).rowcount == 1
    row = (await connection.execute(select(conversations).where(conversations.c.id == conversation))).one()
    if row.owner != owner:
        raise Conflict("a conversation of that id exists: choose another id")
    if made and title:
        await add_words(connection, conversation=conversation, owner=owner, message=None, text=title)
    return row, made


async def add_message(
    connection: AsyncConnection,
    row: Row[Any],
    *,
    parent: str | None,
    role: Role,
    text: str,
    client_id: str | None,
    now: int,
) -> str:
    """Add a message below ``parent`` and make it the head. The caller holds the conversation's row.

    Raises:
        NotFound: ``parent`` is no message of this conversation.
    """
    if parent is not None:
        known = select(messages.c.id).where(messages.c.id == parent, messages.c.conversation == row.id)
        if not is_id(parent) or (await connection.execute(known)).one_or_none() is None:
            raise NotFound(f"there is no message {parent[:40]!r} in this conversation: read it again")
    last = select(func.max(messages.c.position)).where(
        and_(
            messages.c.conversation == row.id,
            messages.c.parent.is_(None) if parent is None else messages.c.parent == parent,
        )
    )
    highest = (await connection.execute(last)).scalar_one()
    message = new_id()
    await connection.execute(
        insert(messages).values(
            id=message,
            conversation=row.id,
            parent=parent,
            position=0 if highest is None else highest + 1,
            ordinal=row.messages + 1,
            role=role,
            body=text,
            client_id=client_id,
            created=now,
        )
    )
    await connection.execute(
        update(conversations)
        .where(conversations.c.id == row.id)
        .values(messages=row.messages + 1, head=message, updated=now, touched=now)
    )
    return message


async def add_words(
    connection: AsyncConnection, *, conversation: str, owner: str | None, message: str | None, text: str
) -> None:
    """Make a message, or a title where ``message`` is None, be found."""
    await connection.execute(
        insert(search_texts).values(
            conversation=conversation, message=message, words=f"{owner_word(owner)} {words(text)}".rstrip()
        )
    )
