"""Two tabs do anything to one conversation, in any order and at once: its tree stays a tree, and nothing told is lost.

``CIERZO_TAB_STEPS`` sets how many interleavings are played on each database (200; `make faults` takes 10,000).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from tabs import REPLIES, SLOW, Tabs, taking_turns
from talking import Talk, talking

from cierzo.engines.scripted import Scripted
from cierzo.settings import Settings

STEPS = int(os.environ.get("CIERZO_TAB_STEPS", "200"))
A_RUN = 20
ACTS = ["send", "send", "edit", "resend", "again", "go on", "stop", "rename", "bin", "select"]

act = st.tuples(st.sampled_from(ACTS), st.integers(0, 1000), st.sampled_from(["uno", "dos", SLOW, "🫒"]))


class Machine(RuleBasedStateMachine):
    """Plays runs of steps on one service, each run in a conversation of its own."""

    runner: asyncio.Runner
    talk: Talk
    played = 0
    counted: Counter[str]
    failure: AssertionError | None = None

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        self.tabs = Tabs(self.talk, self.run(self.talk.store.conversations.create(owner=None)).id)

    @rule(one=act, two=act, after=st.lists(st.integers(0, 4), max_size=3), pause=st.sampled_from([0, 0, 1, 3]))
    def two_tabs(self, one: tuple[str, int, str], two: tuple[str, int, str], after: list[int], pause: int) -> None:
        type(self).played += 1
        try:
            self.run(self.tabs.both([one, two], 2 * self.played, after))
        except AssertionError as failure:
            type(self).failure = self.failure or failure
            raise
        self.run(asyncio.sleep(0.001 * pause))

    def teardown(self) -> None:
        if hasattr(self, "tabs") and self.tabs.whole:
            self.run(self.tabs.end())
            self.counted.update(self.tabs.counted)


@pytest.mark.timeout(120 + STEPS)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_two_tabs(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = request.getfixturevalue("postgres").new_database() if database == "postgres" else ""
    chosen = Settings.load({"home": tmp_path, "database_url": url})
    began = time.monotonic()
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        class Played(Machine):
            counted = Counter()  # noqa: RUF012 - one for all of its machines

        async def start() -> Talk:
            talk = await stack.enter_async_context(talking(chosen, Scripted(*REPLIES), running=4, waiting=6))
            database = talk.store._database
            for way in ("read", "write"):
                setattr(database, way, taking_turns(getattr(database, way)))
            return talk

        Played.runner, Played.talk = runner, runner.run(start())
        try:
            run_state_machine_as_test(
                Played,
                settings=settings(
                    max_examples=11 * STEPS // A_RUN // 10 + 2,  # not all runs are of full length
                    stateful_step_count=A_RUN,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                    derandomize=STEPS < 1000,
                    phases=[Phase.generate],  # what depends on the clock seldom fails again in a shorter form
                ),
            )
        except Exception:
            if Played.failure is not None:
                raise Played.failure from None  # played again, it may go well, and then no more is said than that
            raise
        finally:
            runner.run(stack.aclose())
    counted = dict(sorted(Played.counted.items()))
    print(f"\n{database}: {Played.played} interleavings of two tabs in {time.monotonic() - began:.0f} s: {counted}")
    assert Played.played >= STEPS
    assert all(Played.counted[what] > STEPS // 50 for what in ACTS), "each of them is done, not only refused"
    assert Played.counted["cut in the middle"] > STEPS // 50
