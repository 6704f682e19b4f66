"""Killed processes, a restarted server, foreign and damaged files. Each prints how many cases it ran.

``CIERZO_FAULT_ROUNDS`` sets how many kills per database (5; `make faults` takes 100).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from promises import lost

from cierzo.errors import BadSetting, CierzoError, HomeNotWritable, StoreUnavailable, StoreUnusable
from cierzo.settings import Settings
from cierzo.store import Store
from cierzo.store.database import PRAGMAS

ROUNDS = int(os.environ.get("CIERZO_FAULT_ROUNDS", "5"))
HERE = Path(__file__).parent


def write_and_kill(settings: Settings, number: str, seconds: float, *flags: str) -> list[dict[str, Any]]:
    """Let a process write, kill it ``seconds`` after its first acknowledgement, and return what it acknowledged."""
    url = settings.database_url.get_secret_value()
    command = [sys.executable, str(HERE / "writer.py"), str(settings.home), url, number, *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        lines += process.stdout.readlines()
        timer.cancel()
    assert process.returncode == -9, "the writer ended by itself"
    return [json.loads(line) for line in lines if line.endswith("\n")]


@pytest.mark.timeout(60 + 20 * ROUNDS)
async def test_kill_9_loses_nothing_that_was_acknowledged(settings: Settings) -> None:
    rng = random.Random(ROUNDS)
    ledger: list[dict[str, Any]] = []
    wrong: list[str] = []
    for number in range(ROUNDS):
        told = await asyncio.to_thread(write_and_kill, settings, str(number), rng.uniform(0.05, 0.8))
        ledger += told
        store = await Store.open(settings)
        try:
            for left in await store.replies.unfinished():
                assert await store.replies.interrupt(left.message)
            wrong += await lost(store, ledger if number == ROUNDS - 1 else told)  # what is lost later is so at the end
        finally:
            await store.close()
    if not settings.database_url.get_secret_value():
        with sqlite3.connect(settings.home / "cierzo.db") as file:
            assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert file.execute("PRAGMA foreign_key_check").fetchall() == []
        file.close()
    print(f"{ROUNDS} kills, {len(ledger)} acknowledgements, {len(wrong)} lost")
    assert len(ledger) > ROUNDS
    assert wrong == []


async def test_the_ledger_notices_an_acknowledgement_that_comes_too_early(settings: Settings) -> None:
    """The test above can fail: a writer that acknowledges before it writes is found out."""
    wrong: list[str] = []
    for number in range(10):
        ledger = await asyncio.to_thread(write_and_kill, settings, str(number), 0.1 * number, "--early")
        store = await Store.open(settings)
        try:
            for entry in ledger:
                await store.conversations.create(owner=None, conversation_id=entry["conversation"])
            wrong += await lost(store, ledger)
        finally:
            await store.close()
        if wrong:
            break
    assert wrong


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_killed_between_the_steps_of_a_migration(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    server = [request.getfixturevalue("postgres").url("postgres")] if database == "postgres" else []
    command = [sys.executable, str(HERE / "forks.py"), str(tmp_path), *server]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=110)
    result = json.loads(done.stdout)
    print(f"{result['kills']} kills, {result['together']} of 8 that started at once")
    assert result["kills"] > 20
    assert (result["alike"], result["failures"], result["together"]) == ([True], 0, 8), done.stderr


async def test_postgres_restarted_under_load(postgres: Any, tmp_path: Path) -> None:
    store = await Store.open(Settings.load({"home": tmp_path, "database_url": postgres.new_database()}))
    made = (await store.conversations.create(owner=None)).id
    ledger: list[dict[str, Any]] = []
    refused = 0
    until = False

    async def send(tab: int) -> None:
        nonlocal refused
        number = 0
        while not until:
            sent = {"conversation": made, "client_id": f"{tab}-{number}", "parent": None, "text": f"{tab} {number}"}
            try:
                await store.conversations.append(owner=None, role="user", **sent)
            except StoreUnavailable as down:
                refused += down.status == 503 and down.retry_after > 0
                await asyncio.sleep(0.05)
                continue  # the same message again, under the same id
            ledger.append(sent)
            number += 1

    senders = [asyncio.create_task(send(tab)) for tab in range(4)]
    recovered = []
    for _ in range(3):
        await asyncio.sleep(0.4)
        await asyncio.to_thread(postgres.restart)
        begun = time.monotonic()
        have = len(ledger)
        while len(ledger) == have:  # noqa: ASYNC110 - the senders know nothing of who watches them
            await asyncio.sleep(0.02)
        recovered.append(time.monotonic() - begun)
    until = True
    await asyncio.gather(*senders)
    wrong = await lost(store, ledger)
    await store.close()
    print(f"3 restarts, {len(ledger)} sent, {refused} refused meanwhile, back after at most {max(recovered):.2f} s")
    assert wrong == []
    assert len(ledger) > 10


async def test_a_restart_that_is_over_is_noticed_by_nobody(postgres: Any, tmp_path: Path) -> None:
    """Every connection that was open is dead, and the next call on each must find that out before it uses it."""
    store = await Store.open(Settings.load({"home": tmp_path, "database_url": postgres.new_database()}))
    for _ in range(2):
        await asyncio.gather(*(store.conversations.list(owner=None) for _ in range(8)))
        await asyncio.to_thread(postgres.restart)
        await asyncio.gather(*(store.conversations.create(owner=None) for _ in range(8)))
    assert len((await store.conversations.list(owner=None)).conversations) == 16
    await store.close()


async def test_sqlite_is_set_to_lose_nothing(tmp_path: Path) -> None:
    store = await Store.open(Settings.load({"home": tmp_path}))
    async with store._database.engine.connect() as connection:
        for name, value in PRAGMAS.items():
            assert (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one() == value
    assert (PRAGMAS["journal_mode"], PRAGMAS["synchronous"], PRAGMAS["foreign_keys"]) == ("wal", 2, 1)
    assert store._database.engine.pool.size() == 1
    await store.close()
    assert (tmp_path / "cierzo.db").stat().st_mode & 0o077 == 0


async def test_postgres_waits_for_the_disk(postgres: Any, tmp_path: Path) -> None:
    url = postgres.new_database()
    store = await Store.open(Settings.load({"home": tmp_path, "database_url": url}))
    async with store._database.engine.connect() as connection:
        assert (await connection.exec_driver_sql("SHOW synchronous_commit")).scalar_one() == "on"
    await store.close()


async def test_the_log_of_sqlite_is_written_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cierzo.store.database.CHECKPOINT_BYTES", 200_000)
    store = await Store.open(Settings.load({"home": tmp_path}))
    store._database._checkpoint_at = 200_000
    made = (await store.conversations.create(owner=None)).id
    sizes = []
    for number in range(30):
        await store.conversations.append(made, owner=None, parent=None, role="user", text=f"{number} " + "x" * 30_000)
        sizes.append((tmp_path / "cierzo.db-wal").stat().st_size)
    assert 0 in sizes
    assert max(sizes) < 500_000
    # A reader in another program holds the log: it may grow, nobody waits or fails, and later it is written back.
    reader = sqlite3.connect(tmp_path / "cierzo.db")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM messages").fetchall()
    for number in range(30):
        await store.conversations.append(made, owner=None, parent=None, role="user", text=f"{number} " + "y" * 30_000)
    reader.close()
    for number in range(30):
        await store.conversations.append(made, owner=None, parent=None, role="user", text=f"{number} " + "z" * 30_000)
        sizes.append((tmp_path / "cierzo.db-wal").stat().st_size)
    assert 0 in sizes[30:]
    assert (await store.conversations.get(made, owner=None)).messages == 90
    await store.close()


async def test_a_backup_taken_in_use_holds_everything(tmp_path: Path) -> None:
    settings = Settings.load({"home": tmp_path / "a"})
    store = await Store.open(settings)
    made = (await store.conversations.create(owner=None, title="copied")).id
    before = [
        (await store.conversations.append(made, owner=None, parent=None, role="user", text=f"m{i}")).message.id
        for i in range(50)
    ]
    (tmp_path / "b").mkdir()
    more = [
        asyncio.create_task(store.conversations.append(made, owner=None, parent=None, role="user", text=f"n{i}"))
        for i in range(50)
    ]
    await store.backup(tmp_path / "b" / "cierzo.db")
    await asyncio.gather(*more)
    with pytest.raises(CierzoError, match="exists"):
        await store.backup(tmp_path / "b" / "cierzo.db")
    await store.close()
    copy = await Store.open(Settings.load({"home": tmp_path / "b"}))
    tree = await copy.conversations.open(made, owner=None)
    assert {*before} <= {message.id for message in tree.messages}
    assert (await copy.search("m49", owner=None)).hits
    await copy.close()


@pytest.mark.parametrize("content", [b"not a database at all, " * 100, b"SQLite format 3\x00" + b"\xff" * 4000])
async def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cierzo.db").write_bytes(content)
    with pytest.raises(StoreUnusable) as refused:
        await Store.open(Settings.load({"home": tmp_path}))
    assert "\n" not in str(refused.value)
    assert (tmp_path / "cierzo.db").read_bytes() == content


async def test_another_programs_or_a_newer_database_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "cierzo.db") as file:
        file.execute("CREATE TABLE conversations (x)")
    file.close()
    with pytest.raises(StoreUnusable, match="another program"):
        await Store.open(Settings.load({"home": tmp_path}))
    (tmp_path / "cierzo.db").unlink()
    await (await Store.open(Settings.load({"home": tmp_path}))).close()
    with sqlite3.connect(tmp_path / "cierzo.db") as file:
        file.execute("UPDATE alembic_version SET version_num = '9999'")
    file.close()
    with pytest.raises(StoreUnusable, match="newer Cierzo"):
        await Store.open(Settings.load({"home": tmp_path}))


@pytest.mark.parametrize(
    "url",
    ["mysql://u:secret@h/x", "nonsense secret", "sqlite://", "sqlite:///:memory:", "postgresql:/secret", "://secret"],
)
async def test_an_address_that_cannot_be_used_is_refused_without_repeating_it(tmp_path: Path, url: str) -> None:
    with pytest.raises((BadSetting, StoreUnavailable)) as refused:
        await Store.open(Settings.load({"home": tmp_path, "database_url": url}))
    assert "secret" not in str(refused.value)
    assert "secret" not in repr(Settings.load({"home": tmp_path, "database_url": url}))


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    url = f"postgresql://cierzo:secret@/x?host={tmp_path}"
    with pytest.raises(StoreUnavailable) as refused:
        await Store.open(Settings.load({"home": tmp_path, "database_url": url}))
    assert "secret" not in str(refused.value)


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HomeNotWritable):
        await Store.open(Settings.load({"home": tmp_path, "database_url": f"sqlite:///{tmp_path}/no/such/file.db"}))
    store = await Store.open(Settings.load({"home": tmp_path, "database_url": f"sqlite:///{tmp_path}/mine.db"}))
    await store.close()
    assert (tmp_path / "mine.db").exists()


async def test_a_held_lock_is_reported_and_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cierzo.store.database.BUSY", 0.1)
    store = await Store.open(Settings.load({"home": tmp_path}))
    other = await Store.open(Settings.load({"home": tmp_path}))
    async with other._database.writing():
        with pytest.raises(StoreUnavailable, match="another program"):
            await store.conversations.create(owner=None)
        assert (await store.conversations.list(owner=None)).conversations == ()
    await store.conversations.create(owner=None)
    await store.close()
    await other.close()
