"""One way to a database: transactions, their locks, and foreign errors turned into ours. Knows no table.

SQLite. One connection, since SQLite before 3.51.3 can lose a log that one connection resets while another commits.
For the same reason nothing checkpoints by itself: we do, on that connection, holding a lock on a file beside the
database that every writing transaction of every Cierzo process holds too. So a terminal and a page can share a
file. WAL with synchronous=FULL: what is committed is on the disk before the caller hears of it.

Small writes that come at the same time, such as those of a hundred answers that grow, share one transaction and one
flush of the disk.

PostgreSQL. A small pool that tries a connection before it hands it out, so that a restart of the server costs an
error at most to those who were in the middle of something.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from sqlalchemy import URL, AsyncAdaptedQueuePool, Connection, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from cierzo.errors import BadSetting, CierzoError, Conflict, NotFound, StoreUnavailable, StoreUnusable

Result = TypeVar("Result")
Work = Callable[[AsyncConnection], Awaitable[Result]]

BUSY = 5.0
"""Seconds to wait for another process that holds the database."""

CHECKPOINT_BYTES = 4 * 1024 * 1024
"""Size of SQLite's log at which it is written back."""

GATHERING = 0.05
"""Seconds for which a small write waits for others to share its transaction."""

PRAGMAS = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "wal_autocheckpoint": 0, "busy_timeout": 5000}
"""What every SQLite connection is set to, and is asked whether it is. synchronous 2 is FULL."""

_POSTGRES_OPTIONS = (
    "-c synchronous_commit=on -c statement_timeout=30s -c lock_timeout=10s "
    "-c idle_in_transaction_session_timeout=60s -c client_encoding=UTF8"
)


def parse_url(value: str, home_file: Path) -> URL:
    """Return the address for SQLAlchemy: empty means SQLite in ``home_file``.

    Raises:
        BadSetting: It is no address, or of another kind of database. The sentence does not repeat it: it may
            hold a password.
    """
    if not value.strip():
        return URL.create("sqlite+aiosqlite", database=str(home_file))
    try:
        url = make_url(value.strip())
    except (ArgumentError, ValueError):
        url = None
    kind = url.drivername.partition("+")[0] if url else ""
    if url is None or kind not in ("sqlite", "postgresql", "postgres"):
        raise BadSetting(
            "CIERZO_DATABASE_URL is not an address that can be used: write sqlite:////FOLDER/FILE "
            "or postgresql://USER:PASSWORD@HOST/NAME, or leave it empty"
        )
    if kind == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise BadSetting("CIERZO_DATABASE_URL names no file: write sqlite:////FOLDER/FILE")
        return url.set(drivername="sqlite+aiosqlite")
    return url.set(drivername="postgresql+psycopg")


class Database:
    """Runs transactions.

    Args:
        url: What `parse_url` returned.
    """

    def __init__(self, url: URL) -> None:
        self.sqlite = url.get_backend_name() == "sqlite"
        self._file = Path(url.database or "") if self.sqlite else None
        self.engine = _sqlite_engine(url) if self.sqlite else _postgres_engine(url)
        self._lock = FileLock(f"{self._file}.lock", thread_local=False) if self._file else None
        self._running: set[asyncio.Task[Any]] = set()
        self._gathered: list[tuple[Work[Any], asyncio.Future[Any]]] = []
        self._latest = 0
        self._checkpoint_at = CHECKPOINT_BYTES

    def tick(self, at_least: int = 0) -> int:
        """Return microseconds since 1970, but always more than the last time, whatever the clock does."""
        self._latest = max(time.time_ns() // 1000, self._latest + 1, at_least)
        return self._latest

    async def read(self, work: Work[Result]) -> Result:
        """Run ``work`` in a transaction that sees one moment of the database.

        Raises:
            StoreUnavailable: The database does not answer.
        """
        return await self._to_the_end(self._transaction(work, write=False))

    async def write(self, work: Work[Result]) -> Result:
        """Run ``work`` in a transaction; once this returns, what it wrote is on the disk.

        A caller that is cancelled leaves a transaction that is either whole or not there, never a connection
        in the middle of one.

        Raises:
            StoreUnavailable: The database does not answer. Whether the transaction took place is known only if
                it was not yet being committed; every write of the store may be repeated.
        """
        return await self._to_the_end(self._transaction(work, write=True))

    async def write_together(self, work: Work[Result]) -> Result:
        """Do what `write` does, in one transaction with all that asks for the same within `GATHERING` seconds.

        ``work`` raises `Conflict` and `NotFound` before it changes anything. PostgreSQL needs none of this: its
        transactions run side by side and share their flushes by themselves.

        Raises:
            StoreUnavailable: As in `write`.
        """
        if not self.sqlite:
            return await self.write(work)
        mine: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._gathered.append((work, mine))
        if len(self._gathered) == 1:
            task = asyncio.create_task(self._write_gathered())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return await asyncio.shield(mine)

    async def _write_gathered(self) -> None:
        await asyncio.sleep(GATHERING)
        gathered, self._gathered = self._gathered, []

        async def all_of_it(connection: AsyncConnection) -> list[Any]:
            return [await _or_refusal(work(connection)) for work, _ in gathered]

        try:
            outcomes = await self._transaction(all_of_it, write=True)
        except Exception as failed:  # noqa: BLE001 - whoever asked is told
            if len(gathered) == 1:
                outcomes = [failed]
            else:  # perhaps it is the doing of one of them
                outcomes = [await _or_error(self._transaction(work, write=True)) for work, _ in gathered]
        for (_, asked), outcome in zip(gathered, outcomes, strict=True):
            if isinstance(outcome, Exception):
                asked.set_exception(outcome)
            else:
                asked.set_result(outcome)

    async def _to_the_end(self, work: Coroutine[Any, Any, Result]) -> Result:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _transaction(self, work: Work[Result], *, write: bool) -> Result:
        with translated():
            async with self.engine.connect() as connection, self.writing(only_if=write):
                await connection.execution_options(immediate=write)
                if not write and not self.sqlite:
                    await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                async with connection.begin():
                    result = await work(connection)
                if write:
                    await self._checkpoint(connection)
            return result

    @asynccontextmanager
    async def writing(self, *, only_if: bool = True, patience: float | None = None) -> AsyncGenerator[None]:
        """Keep every other Cierzo process from writing to the same SQLite file. Nothing in PostgreSQL.

        Args:
            only_if: False does nothing.
            patience: Seconds to wait for another process; `BUSY` unless said.
        """
        if self._lock is None or not only_if:
            yield
            return
        until = time.monotonic() + (BUSY if patience is None else patience)
        while True:
            try:
                self._lock.acquire(blocking=False)
                break
            except Timeout:
                if time.monotonic() > until:
                    raise StoreUnavailable(
                        "another program holds the conversations' file: try again", retry_after=BUSY
                    ) from None
                await asyncio.sleep(0.005)
        try:
            yield
        finally:
            self._lock.release()

    async def copy_to(self, file: Path) -> None:
        """Write SQLite's database, as of one moment, into a new file."""

        async def copy() -> None:
            with translated():
                async with self.engine.connect() as connection, self.writing():
                    driver = (await connection.get_raw_connection()).driver_connection
                    assert driver is not None
                    await driver.execute("VACUUM INTO ?", (str(file),))

        await self._to_the_end(copy())

    async def _checkpoint(self, connection: AsyncConnection) -> None:
        """Write SQLite's log back into the file once it is large. The caller holds the lock."""
        if self._file is None or self._log_size() < self._checkpoint_at:
            return
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        # A reader in another process can keep the log alive: do not wait for it, try again some megabytes later.
        await driver.execute("PRAGMA busy_timeout = 50")
        try:
            cursor = await driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            await cursor.fetchall()
        finally:
            await driver.execute(f"PRAGMA busy_timeout = {PRAGMAS['busy_timeout']}")
        self._checkpoint_at = self._log_size() + CHECKPOINT_BYTES

    def _log_size(self) -> int:
        try:
            return Path(f"{self._file}-wal").stat().st_size
        except OSError:
            return 0

    async def close(self) -> None:
        """Finish what runs, and let go of the database. May be called twice."""
        if self._running:
            await asyncio.wait(self._running)
        with translated():
            async with self.writing():  # SQLite writes its log back when its last connection closes
                await self.engine.dispose()


def _sqlite_engine(url: URL) -> AsyncEngine:
    engine = create_async_engine(
        url,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=30,
        hide_parameters=True,
        connect_args={"timeout": BUSY},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver's guess
        cursor = connection.cursor()
        for name, value in PRAGMAS.items():
            cursor.execute(f"PRAGMA {name} = {value}")
            cursor.fetchall()
            cursor.execute(f"PRAGMA {name}")
            got = cursor.fetchall()[0][0]
            if got != value:
                raise StoreUnusable(
                    f"SQLite cannot keep conversations safely here ({name} is {got}, not {value}): "
                    "use a folder on a local disk"
                )
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("immediate")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _postgres_engine(url: URL) -> AsyncEngine:
    return create_async_engine(
        url,
        pool_size=5,
        max_overflow=5,
        pool_timeout=10,
        pool_pre_ping=True,
        pool_recycle=1800,
        hide_parameters=True,
        connect_args={"connect_timeout": 5, "options": _POSTGRES_OPTIONS, "application_name": "cierzo"},
    )


async def _or_refusal(work: Awaitable[Result]) -> Result | Conflict | NotFound:
    try:
        return await work
    except (Conflict, NotFound) as refused:
        return refused


async def _or_error(work: Awaitable[Result]) -> Result | Exception:
    try:
        return await work
    except Exception as failed:  # noqa: BLE001 - whoever asked is told
        return failed


@contextmanager
def translated() -> Generator[None]:
    """Turn what a database raises into an error of ours.

    The foreign error is not kept as the cause where its text may quote a row: messages never reach a log.
    """
    try:
        yield
    except CierzoError:
        raise
    except PoolTimeout:
        raise StoreUnavailable("the database is busy: try again in a moment", retry_after=2.0) from None
    except DBAPIError as failed:
        raise _ours(failed) from None
    except (SQLAlchemyError, sqlite3.Error, OSError) as failed:
        raise StoreUnavailable(
            f"the database does not answer ({type(failed).__name__}): try again in a moment", retry_after=2.0
        ) from None


_SQLITE = {
    "is not a database": "is no SQLite database",
    "malformed": "is damaged",
    "readonly": "may not be written",
    "unable to open": "cannot be opened",
}


def _ours(failed: DBAPIError) -> CierzoError:
    """Decide by the driver's own code what the caller can do."""
    cause = failed.orig
    code = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None) or ""
    said = str(cause)
    for words, meaning in _SQLITE.items():
        if isinstance(cause, sqlite3.Error) and words in said:
            return StoreUnusable(f"the conversations' file {meaning}: check it, restore a backup, or choose another")
    if "full" in said and code in ("SQLITE_FULL", "53100"):
        return StoreUnavailable("the disk of the database is full: make room and try again", retry_after=30.0)
    if code.startswith("23503"):
        return NotFound("the conversation is gone: it was deleted in the meantime")
    if code.startswith(("22", "23", "42", "0A", "28", "3D")) or "SQLITE_CONSTRAINT" in code:
        return StoreUnusable(
            f"the database refused ({code}): check CIERZO_DATABASE_URL, its user's rights, and that no other "
            "program changes its tables"
        )
    return StoreUnavailable(
        f"the database does not answer ({code or type(cause).__name__}): try again in a moment", retry_after=2.0
    )


async def ask(connection: AsyncConnection, question: str) -> Any:
    """Return the single value that a question without parameters gives."""
    return (await connection.execute(text(question))).scalar_one()
