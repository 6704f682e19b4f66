"""Starts a server that others wrote, asks everything of it through Cierzo's engine for it, and prints what it saw.

    python interop/check.py vllm                     (or transformers, or llama-server)
    python interop/check.py vllm --record            and write tests/data/recorded/vllm.json anew

Ends with status 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import checks
import recording
import servers
from agreement import load
from checks import Setting, Wrong

import cierzo
from cierzo.errors import CierzoError

Check = Callable[[Setting], Awaitable[str]]
EVERY: tuple[Check, ...] = (
    checks.streaming,
    checks.details,
    checks.stop,
    checks.length,
    checks.seed,
    checks.cancellation,
)
RECORDED = servers.ROOT / "tests" / "data" / "recorded"


@dataclass(frozen=True)
class Plan:
    """How a server is checked.

    Attributes:
        engines: Addresses of Cierzo's engines for it; ``{url}`` is the server's.
        more: Checks besides those that every server gets.
        busy: The server's own count of answers that it writes just now: a metric's name.
        endless: How an answer is sampled that goes on for long.
    """

    engines: tuple[str, ...]
    more: tuple[Check, ...] = ()
    busy: str = ""
    endless: dict[str, Any] = field(default_factory=lambda: checks.NOISE)


PLANS = {
    "transformers": Plan(("openai+{url}/v1",)),
    "vllm": Plan(("openai+{url}/v1",), (checks.window, checks.overload), "vllm:num_requests_running", checks.LOOP),
    "llama-server": Plan(("openai+{url}/v1", "llamacpp+{url}"), (checks.window,), "llamacpp:requests_processing"),
}


def count(url: str, metric: str) -> int:
    """Read from a server how many answers it writes."""
    return int(checks.metric(url, metric))


async def examine(plan: Plan, engine: str, url: str, answers: Path) -> bool:
    """Run all checks through one engine, print a line for each, and say whether all held."""
    busy = functools.partial(count, metric=plan.busy) if plan.busy else None
    held = True
    async with cierzo.AsyncClient(engine=engine.format(url=url)) as client:
        at = Setting(client, load(answers), url, busy, plan.endless)
        info = await client.chat.meet()
        print(
            f"{engine}: {info.model}, template {info.template}, window {info.context}, takes {info.takes}, {info.where}"
        )
        print(f"  honours {', '.join(sorted(info.honours))}; version {info.version or 'untold'}", flush=True)
        for check in (checks.agreement, *EVERY, *plan.more):
            began = time.monotonic()
            try:
                saw = await check(at)
            except (Wrong, CierzoError) as wrong:
                held, saw = False, f"WRONG: {type(wrong).__name__}: {wrong}"
            except Exception:  # noqa: BLE001 - whatever it is, the other checks still tell something
                held, saw = False, f"WRONG:\n{traceback.format_exc()}"
            print(f"  {check.__name__}: {saw} [{time.monotonic() - began:.1f} s]", flush=True)
        for note in at.notes:
            print(f"    {note}")
    return held


async def check_all(plan: Plan, url: str, answers: Path) -> bool:
    """Examine a server through each of its engines."""
    return all([await examine(plan, engine, url, answers) for engine in plan.engines])


async def recorded(plan: Plan, url: str, versions: str) -> dict[str, Any]:
    """Return what a recording of this server holds."""
    file = await recording.record(plan.engines[0], url, versions)
    if checks.overload in plan.more:
        file["full"] = await recording.record_full(plan.engines[0], url)
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description="Check Cierzo's engines against a server that others wrote.")
    parser.add_argument("server", choices=sorted(PLANS))
    parser.add_argument("--answers", type=Path, default=servers.PLACE / "answers.json")
    parser.add_argument("--record", action="store_true", help="write tests/data/recorded/SERVER.json anew")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is ended too
    plan, versions = PLANS[arguments.server], servers.versions(arguments.server)
    print(f"{arguments.server}: {versions}", flush=True)
    began = time.monotonic()
    with servers.running(arguments.server) as server:
        print(f"  up after {time.monotonic() - began:.0f} s", flush=True)
        if arguments.record:
            file = RECORDED / f"{arguments.server}.json"
            recording.write(file, asyncio.run(recorded(plan, server.url, versions)))
            print(f"  {file.relative_to(servers.ROOT)}: {file.stat().st_size / 1000:.0f} kB")
        held = asyncio.run(check_all(plan, server.url, arguments.answers))
    sys.exit(not held)


if __name__ == "__main__":
    main()
