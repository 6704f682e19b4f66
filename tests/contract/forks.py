"""Opens a fresh store in a process that kills itself at its N-th statement or commit, for every N; then again whole.

    python forks.py HOME [SERVER-URL]

Prints one line of JSON: how many kills, what the finished schemas looked like (all must be alike), and how many of
eight processes that open one fresh database at once succeeded. Forks, since a start of Python for each takes minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import psycopg
from sqlalchemy import Engine, event, text

from cierzo.settings import Settings
from cierzo.store import Store

SCHEMA = {
    "": "SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2",
    "postgres": """
        SELECT 'c', table_name || '.' || column_name, data_type || is_nullable
        FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT 'i', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT 'k', conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2, 3""",
}


def settings(home: Path, server: str, name: str) -> Settings:
    url = ""
    if server:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        url = server.replace("/postgres?", f"/{name}?")
    return Settings.load({"home": home / name, "database_url": url})


def forked(chosen: Settings, kill_at: int) -> tuple[int, str]:
    """Open and close a store in a child; return its wait status and the schema that it found at the end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        count = 0

        def step(*_: object) -> None:
            nonlocal count
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        async def run() -> str:
            store = await Store.open(chosen)
            async with store._database.engine.connect() as connection:
                rows = (await connection.execute(text(SCHEMA["" if store._database.sqlite else "postgres"]))).all()
            await store.close()
            return repr(rows)

        event.listen(Engine, "before_cursor_execute", step)
        event.listen(Engine, "commit", step)
        try:
            os.write(writing, asyncio.run(run()).encode())
        except BaseException as failed:  # noqa: BLE001 - the parent hears of it by the status
            print(f"{type(failed).__name__}: {failed}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        schema = pipe.read().decode()
    return os.waitpid(child, 0)[1], schema


def main(home: Path, server: str = "") -> None:
    _, whole = forked(settings(home, server, "whole"), 0)
    kills, schemas, failures, at = 0, set(), 0, 0
    while True:
        at += 1
        chosen = settings(home, server, f"step{at}")
        status, _ = forked(chosen, at)
        if not os.WIFSIGNALED(status):
            failures += status != 0
            break
        kills += 1
        status, schema = forked(chosen, 0)
        failures += status != 0
        schemas.add(schema == whole and len(whole) > 1000)
    together = settings(home, server, "together")
    children = []
    for _ in range(8):
        child = os.fork()
        if child == 0:
            os._exit(0 if os.WEXITSTATUS(forked(together, 0)[0]) == 0 else 1)
        children.append(child)
    opened = sum(os.waitpid(child, 0)[1] == 0 for child in children)
    print(json.dumps({"kills": kills, "alike": sorted(schemas), "failures": failures, "together": opened}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
