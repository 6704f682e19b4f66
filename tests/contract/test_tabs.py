"""Two tabs do anything to one conversation, in any order and at once: its tree stays a tree, and nothing told is lost.

``CIERZO_TAB_STEPS`` sets about how many interleavings are played on each database (200; `make faults` takes 10,000).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from promises import check_tree
from talking import Talk, talking

from cierzo.engines.script import Reply
from cierzo.engines.scripted import Scripted
from cierzo.errors import BadInput, Conflict, NotFound, Overloaded
from cierzo.messages import Sampling
from cierzo.settings import Settings

STEPS = int(os.environ.get("CIERZO_TAB_STEPS", "200"))
A_RUN = 20
played = 0
refused: dict[str, int] = {}

place = st.integers(0, 1000)
text = st.sampled_from(["uno", "dos", "¿tres?", "🫒"])
ACTS = ["send", "send", "send", "resend", "again", "go on", "stop", "rename", "bin", "select"]
SAID = ("a", " b", " c", " d")


class Tabs(RuleBasedStateMachine):
    """The service, and what the tabs were told of it."""

    runner: asyncio.Runner
    talk: Talk

    @initialize()
    def open(self) -> None:
        made = self.run(self.talk.store.conversations.create(owner=None))
        self.here = made.id
        self.told: dict[str, tuple[str | None, str | None]] = {}  # id: parent, text (None: an answer)
        self.ended: dict[str, tuple[str, str]] = {}
        self.sent: list[tuple[str, str, str | None]] = []
        self.titles: set[str] = set()
        self.title = ""
        self.binned = False

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def pick(self, number: int) -> str | None:
        known = [None, *self.told]
        return known[-1 - number % len(known)]

    def both(self, *works: Coroutine[Any, Any, None]) -> None:
        """Let two tabs do something at the same time."""
        global played  # noqa: PLW0603 - hypothesis makes the machines
        played += 1

        async def together() -> None:
            await asyncio.gather(*(self.tolerant(work) for work in works))

        self.run(together())

    async def tolerant(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (Conflict, NotFound, BadInput, Overloaded) as said:  # one clear answer, and nothing has changed
            refused[type(said).__name__] = refused.get(type(said).__name__, 0) + 1

    async def send(self, client_id: str, asked: str, parent: str | None) -> None:
        made = await self.talk.ask(self.here, asked, owner=None, parent=parent, client_id=client_id)
        self.told[made.question.id] = (made.question.parent, asked)
        self.told[made.answer.id] = (made.question.id, None)
        assert made.question.parent == parent

    async def again(self, message: str | None, client_id: str | None) -> None:
        if message is not None:
            made = (await self.talk.again(message, owner=None, client_id=client_id)).message
            self.told[made.id] = (made.parent, None)

    async def go_on(self, answer: str | None, at: int | None) -> None:
        if answer is not None:
            made = (await self.talk.go_on(answer, owner=None, at=at, sampling=Sampling(max_new_tokens=2))).message
            self.told[made.id] = (made.parent, None)

    async def stop(self, answer: str | None) -> None:
        if answer is not None:
            stopped = await self.talk.stop(answer, owner=None)
            assert stopped.answer is not None
            self.ended[answer] = (stopped.answer.reason or "", stopped.text)

    async def rename(self, name: str) -> None:
        await self.talk.store.conversations.change(self.here, owner=None, title=name)
        self.titles.add(name)
        self.title = name

    async def bin(self, *, out: bool) -> None:
        calls = self.talk.store.conversations
        await (calls.restore if out else calls.delete)(self.here, owner=None)

    async def select(self, message: str | None) -> None:
        if message is not None:
            await self.talk.store.conversations.select(self.here, message, owner=None)

    def one(self, what: str, number: int, said: str, serial: int) -> Coroutine[Any, Any, None]:
        at = self.pick(number)
        makers: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "again": lambda: self.again(at, f"again-{number % 3}" if number % 2 else None),
            "go on": lambda: self.go_on(at, number % 4 or None),
            "stop": lambda: self.stop(at),
            "rename": lambda: self.rename(f"{said} {serial}"),
            "bin": lambda: self.bin(out=bool(number % 2)),
            "select": lambda: self.select(at),
        }
        if what in makers:
            return makers[what]()
        if what == "send":
            self.sent.append((f"q{len(self.sent)}", said, at))
        elif not self.sent:
            self.sent.append(("q0", said, None))
        return self.send(*self.sent[-1 if what == "send" else number % len(self.sent)])

    act = st.tuples(st.sampled_from(ACTS), place, text)

    @rule(one=act, two=act, pause=st.sampled_from([0, 0, 1, 3]))
    def two_tabs(self, one: tuple[str, int, str], two: tuple[str, int, str], pause: int) -> None:
        self.both(self.one(*one, 2 * played), self.one(*two, 2 * played + 1))
        self.run(asyncio.sleep(0.001 * pause))

    @invariant()
    def a_tree_with_everything_in_it(self) -> None:
        tree = self.run(self.talk.store.conversations.open(self.here, owner=None))
        check_tree(tree)
        there = {message.id: message for message in tree.messages}
        assert set(self.told) == set(there)
        for message, (parent, said) in self.told.items():
            assert there[message].parent == parent
            assert said is None or there[message].text == said
        for answer, (reason, said) in self.ended.items():
            assert (there[answer].answer.reason, there[answer].text) == (reason, said)
        assert not self.titles or tree.conversation.title in self.titles
        for client_id in {each[0] for each in self.sent}:
            assert sum(message.client_id == client_id for message in tree.messages) <= 1

    def teardown(self) -> None:
        async def rest() -> None:
            for answer in self.told:
                if self.told[answer][1] is None:
                    end = await self.talk.end(answer)
                    assert end.reason in ("eos_token", "length", "stopped")
                    tokens = await self.talk.store.replies.tokens(answer, owner=None)
                    assert await self.talk.text(answer) == "".join(token.text for token in tokens)
            assert (self.talk.admission.running, self.talk.admission.waiting, len(self.talk.replies)) == (0, 0, 0)
            await self.talk.store.conversations.delete(self.here, owner=None)
            await self.talk.store.conversations.purge(older_than=0)

        if hasattr(self, "here"):
            self.run(rest())


@pytest.mark.timeout(120 + STEPS // 2)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_two_tabs(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    global played  # noqa: PLW0603 - as above
    played = 0
    refused.clear()
    url = request.getfixturevalue("postgres").new_database() if database == "postgres" else ""
    chosen = Settings.load({"home": tmp_path, "database_url": url})
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        class Machine(Tabs):
            pass

        async def start() -> Talk:
            return await stack.enter_async_context(
                talking(chosen, Scripted(Reply.of([*SAID], delay=0.001)), running=2, waiting=6)
            )

        Machine.runner, Machine.talk = runner, runner.run(start())
        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=max(1, STEPS // A_RUN),
                    stateful_step_count=A_RUN,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                    derandomize=STEPS < 1000,
                ),
            )
        finally:
            runner.run(stack.aclose())
    print(f"\n{database}: {played} interleavings of two tabs, refused: {refused}")
    assert played > STEPS // 4
