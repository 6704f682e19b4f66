"""Brings a database to this program's schema. Each step is one transaction together with the note that it ran.

So a process that is killed leaves a step done or not begun, and the next start goes on from there. Two processes
that start at once take turns: a lock on the file beside SQLite's database, an advisory lock in PostgreSQL.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, inspect, text

from cierzo.errors import StoreUnusable
from cierzo.store.database import Database, ask, translated

_LOCK = 0x6369_6572_7A6F
"""Number of the advisory lock: ``cierzo`` in ASCII."""


STARTING = 60.0
"""Seconds to wait for another process that is making the tables; eight at once on a busy machine took over five."""


async def upgrade(database: Database) -> None:
    """Apply the steps that are missing. Cheap where none is.

    Raises:
        StoreUnusable: The database was written by a newer Cierzo, is not Cierzo's, or is not in UTF-8.
        StoreUnavailable: It does not answer.
    """
    with translated():
        async with database.writing(patience=STARTING), database.engine.connect() as connection:
            await connection.execution_options(immediate=True)
            if database.sqlite:
                await connection.run_sync(_upgrade)
                return
            if await ask(connection, "SHOW server_encoding") != "UTF8":
                raise StoreUnusable("the PostgreSQL database is not in UTF-8: create it with ENCODING 'UTF8'")
            await connection.execute(text("SET lock_timeout = 0"))
            await connection.execute(text("SET statement_timeout = 0"))
            await connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
            await connection.commit()
            try:
                await connection.run_sync(_upgrade)
            finally:
                await connection.invalidate()  # closes it, which frees the lock and forgets the two settings


def _upgrade(connection: Connection) -> None:
    script = ScriptDirectory(str(Path(__file__).parent / "migrations"))

    def missing(current: Any, _context: MigrationContext) -> list[Any]:
        try:
            return script._upgrade_revs("head", current)  # noqa: SLF001 - what alembic's own `upgrade` command calls
        except CommandError:
            raise StoreUnusable(
                "the conversations were written by a newer Cierzo: upgrade it, or choose another database"
            ) from None

    context = MigrationContext.configure(
        connection,
        opts={"fn": missing, "transaction_per_migration": True, "transactional_ddl": True},
    )
    if context.get_current_revision() is None and inspect(connection).has_table("conversations"):
        raise StoreUnusable("this database has tables of another program: choose an empty one for Cierzo")
    connection.rollback()  # what was read opened a transaction; each step wants its own
    with Operations.context(context):
        context.run_migrations()
    if connection.in_transaction():
        connection.commit()
