"""A real PostgreSQL for the tests, and a store on either database."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import psycopg
import pytest
from quick import quick_folder

from cierzo.settings import Settings
from cierzo.store import Store

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


@pytest.fixture
def tmp_path() -> Generator[Path]:
    """Stands for pytest's own."""
    with tempfile.TemporaryDirectory(prefix="cierzo-", dir=quick_folder()) as folder:
        yield Path(folder)


class Postgres:
    """A server of our own on a Unix socket. It refuses to run as root, so root lends it another user."""

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        self.folder = Path(
            tempfile.mkdtemp(prefix="cierzo-pg-", dir=quick_folder())
        )  # short: a socket's path has at most 107 bytes
        self.user = []
        if os.getuid() == 0:
            self.user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
            shutil.chown(self.folder, "nobody", "nogroup")
        self.made = 0
        self.run("initdb", "-D", "data", "-A", "trust", "-U", "cierzo", "-E", "UTF8", "--locale=C.UTF-8")
        self.start()

    def run(self, program: str, *args: str) -> None:
        command = [*self.user, str(self.binaries / program), *args]
        output = (self.folder / "output").open("ab")
        with output:
            subprocess.run(command, cwd=self.folder, stdout=output, stderr=output, check=True, timeout=60)

    def start(self) -> None:
        options = f"-c listen_addresses='' -k {self.folder}"
        self.run("pg_ctl", "-D", "data", "-o", options, "-l", "log", "-w", "start")

    def restart(self) -> None:
        """End it as a crash would, without a word to its clients, and start it again."""
        self.run("pg_ctl", "-D", "data", "-m", "immediate", "-w", "restart")

    def crash(self) -> None:
        """End it without a word to its clients; `start` brings it back."""
        self.run("pg_ctl", "-D", "data", "-m", "immediate", "-w", "stop")

    def stop(self) -> None:
        if (self.folder / "data" / "postmaster.pid").exists():  # else a test failed while it was away
            self.run("pg_ctl", "-D", "data", "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.folder)

    def url(self, database: str) -> str:
        return f"postgresql://cierzo@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """Make an empty database and return its address."""
        self.made += 1
        name = f"test{self.made}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)


@pytest.fixture(scope="session")
def postgres() -> Generator[Postgres]:
    if not BINARIES:
        pytest.skip("no PostgreSQL here: install Debian's package postgresql to test on it")
    server = Postgres(BINARIES[-1])
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_database(postgres: Postgres) -> str:
    """One database for all tests that leave it empty."""
    return postgres.new_database()


def emptied(url: str) -> None:
    """Remove all rows and leave the tables: to make them takes longer than most tests."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        if tables := [name for (name,) in found if name != "alembic_version"]:
            connection.execute(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY CASCADE")


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Settings]:
    """Settings that name an empty database."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres_database")
    yield Settings.load({"home": tmp_path / "home", "database_url": url})
    if url:
        emptied(url)


@pytest.fixture
async def store(settings: Settings) -> AsyncGenerator[Store]:
    opened = await Store.open(settings)
    yield opened
    await opened.close()
