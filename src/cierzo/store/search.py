"""Search over titles and messages: every word must be there, the last may be just begun, accents do not count."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from cierzo.errors import BadInput
from cierzo.store.database import Database
from cierzo.store.folding import MAX_INDEXED, owner_word, snippet, terms
from cierzo.store.records import Found, Hit, moment
from cierzo.store.rows import owned
from cierzo.store.schema import conversations, messages, search_texts

MAX_HITS = 100
"""Most hits that one search gives."""

_SQLITE = text("search_texts.number IN (SELECT rowid FROM search_index WHERE search_index MATCH :words)")
_POSTGRES = text("search_texts.vector @@ CAST(:words AS tsquery)")


async def search(
    database: Database, query: str, *, owner: str | None, limit: int = 20, before: int | None = None
) -> Found:
    """Return what holds all words of ``query``, newest first; nothing for a query without words.

    Args:
        database: Where.
        query: What a person typed, anything at all: signs separate words and mean nothing.
        owner: Only what is this owner's. Conversations in the bin are left out, archived ones are not.
        limit: At most so many hits, and never more than `MAX_HITS`.
        before: Where to go on: `Found.before` of the call before.

    Raises:
        BadInput: ``limit`` is less than 1.
        StoreUnavailable: The database does not answer.
    """
    if limit < 1:
        raise BadInput("limit must be 1 or more")
    sought = terms(query)
    if not sought:
        return Found((), None)
    size = min(limit, MAX_HITS)
    match = (_SQLITE if database.sqlite else _POSTGRES).bindparams(words=_match(database, sought, owner))
    found = (
        select(
            search_texts.c.number,
            conversations.c.id.label("conversation"),
            conversations.c.title,
            conversations.c.created.label("begun"),
            messages.c.id.label("message"),
            messages.c.role,
            func.substr(messages.c.body, 1, MAX_INDEXED).label("body"),
            messages.c.created,
        )
        .join(conversations, conversations.c.id == search_texts.c.conversation)
        .outerjoin(messages, messages.c.id == search_texts.c.message)
        .where(match, owned(owner), conversations.c.deleted.is_(None))
        .order_by(search_texts.c.number.desc())
        .limit(size + 1)
    )
    if before is not None:
        found = found.where(search_texts.c.number < before)

    async def work(connection: AsyncConnection) -> Sequence[Any]:
        return (await connection.execute(found)).all()

    rows = await database.read(work)
    hits = await asyncio.to_thread(lambda: tuple(_hit(row, sought) for row in rows[:size]))
    return Found(hits, rows[size - 1].number if len(rows) > size else None)


def _match(database: Database, sought: list[str], owner: str | None) -> str:
    """Write the words in the database's own language. They hold letters and digits only, so quotes are enough."""
    whole = [owner_word(owner), *sought[:-1]]
    if database.sqlite:
        return " AND ".join([*(f'"{word}"' for word in whole), f'"{sought[-1]}"*'])
    return " & ".join([*(f"'{word}'" for word in whole), f"'{sought[-1]}':*"])


def _hit(row: Row[Any], sought: list[str]) -> Hit:
    return Hit(
        conversation=row.conversation,
        title=row.title,
        message=row.message,
        role=row.role,
        snippet=snippet(row.title if row.message is None else row.body, sought),
        created=moment(row.begun if row.message is None else row.created),
    )
