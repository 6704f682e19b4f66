"""The store: what must not be lost. Conversations, their messages, and how every answer came about.

One implementation, two databases: SQLite in one file (the default) and PostgreSQL. What a call returned is on the
disk; a call that raised may be repeated. It knows no engine, no prompt and no face.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncConnection

from cierzo.errors import BadInput, HomeNotWritable
from cierzo.store.branches import Branches
from cierzo.store.conversations import Conversations
from cierzo.store.database import Database, ask, parse_url
from cierzo.store.migrate import upgrade
from cierzo.store.records import (
    Answer,
    AnswerStart,
    Branch,
    Conversation,
    EndReason,
    EventPage,
    Forked,
    Found,
    Hit,
    Page,
    StoredMessage,
    Tree,
    Unfinished,
    Written,
    new_id,
)
from cierzo.store.replies import Replies
from cierzo.store.search import search
from cierzo.store.transfer import Transfer

if TYPE_CHECKING:
    from cierzo.settings import Settings

__all__ = [
    "Answer",
    "AnswerStart",
    "Branch",
    "Conversation",
    "EndReason",
    "EventPage",
    "Forked",
    "Found",
    "Hit",
    "Page",
    "Store",
    "StoredMessage",
    "Tree",
    "Unfinished",
    "Written",
    "new_id",
]


class Store:
    """Made by `Store.open`; closed by `close`.

    Attributes:
        conversations: Conversations and their messages.
        branches: The end of a branch, and copies of branches.
        replies: Answers, while they are written and after.
        transfer: Whole conversations, out and in.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.conversations = Conversations(database)
        self.branches = Branches(database)
        self.replies = Replies(database)
        self.transfer = Transfer(database)

    @classmethod
    async def open(cls, settings: Settings) -> Store:
        """Open the database that ``settings`` names, making it and bringing its schema up to date as needed.

        Raises:
            BadSetting: ``database_url`` cannot be used.
            HomeNotWritable: The folder for the file cannot be written.
            StoreUnusable: The database is damaged, foreign, or newer than this program.
            StoreUnavailable: It does not answer.
        """
        url = parse_url(settings.database_url.get_secret_value(), settings.home / "cierzo.db")
        if url.get_backend_name() == "sqlite" and url.database == str(settings.home / "cierzo.db"):
            settings.writable_home()
            (settings.home / "cierzo.db").touch(mode=0o600)  # conversations are nobody else's business
        elif url.get_backend_name() == "sqlite" and not Path(url.database or "").parent.is_dir():
            raise HomeNotWritable("the folder of the file in CIERZO_DATABASE_URL does not exist: make it first")
        database = Database(url)
        try:
            await upgrade(database)
            store = cls(database)
            database.tick(await store.conversations.latest() + 1)
        except BaseException:
            await database.close()
            raise
        return store

    async def search(self, query: str, *, owner: str | None, limit: int = 20, before: int | None = None) -> Found:
        """Find messages and titles; see `cierzo.store.search.search`."""
        return await search(self._database, query, owner=owner, limit=limit, before=before)

    async def ready(self) -> None:
        """Ask the database something.

        Raises:
            StoreUnavailable: It does not answer.
        """

        async def work(connection: AsyncConnection) -> None:
            await ask(connection, "SELECT count(*) FROM alembic_version")

        await self._database.read(work)

    async def backup(self, file: Path) -> None:
        """Write a copy of a SQLite database, as of one moment, while it is in use.

        Raises:
            BadInput: ``file`` exists, or the database is PostgreSQL, which has pg_dump for this.
            StoreUnavailable: The database does not answer, or the disk is full.
        """
        if not self._database.sqlite:
            raise BadInput("this database is PostgreSQL: make the backup with pg_dump")
        if await asyncio.to_thread(file.exists):
            raise BadInput(f"{file} exists: name a file that does not")
        await self._database.copy_to(file)

    async def close(self) -> None:
        """Finish what is being written, and let go of the database. May be called twice."""
        await self._database.close()
