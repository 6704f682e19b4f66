"""Random operations of two tabs at once: the tree stays a tree, and nothing acknowledged is missing.

``CIERZO_SEQUENCES`` sets how many sequences are played on each database (150; `make faults` takes 500).
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from promises import check_tree

from cierzo.errors import Conflict, NotFound
from cierzo.messages import Finish, Sampling, Token
from cierzo.settings import Settings
from cierzo.store import AnswerStart, Store

SEQUENCES = int(os.environ.get("CIERZO_SEQUENCES", "150"))

operation = st.tuples(
    st.sampled_from(["append", "append", "resend", "begin", "log", "finish", "interrupt", "rename", "select", "bin"]),
    st.integers(0, 5),
)


class Model:
    """One conversation, and what its tabs were told."""

    def __init__(self, store: Store, conversation: str) -> None:
        self.store = store
        self.conversation = conversation
        self.messages: dict[str, tuple[str | None, str | None]] = {}  # id: parent, text (None: an answer)
        self.sent: list[tuple[str, str | None, str]] = []
        self.logged: dict[str, int] = {}
        self.title = ""

    def pick(self, number: int) -> str | None:
        known = [None, *self.messages]
        return known[-1 - number % len(known)]

    async def run(self, name: str, number: int, serial: str) -> None:
        calls, replies, where = self.store.conversations, self.store.replies, self.conversation
        at = self.pick(number)
        try:
            if name == "append" or (name == "resend" and not self.sent):
                sent = (serial, at, f"text {serial}")
                self.sent.append(sent)
                await self.send(*sent)
            elif name == "resend":
                await self.send(*self.sent[number % len(self.sent)])
            elif name == "begin" and at is not None:
                start = AnswerStart("scripted", "m", Sampling())
                begun = await replies.begin(where, owner=None, parent=at, start=start, client_id=f"a-{at}-{number}")
                self.messages[begun.message.id] = (at, None)
                self.logged.setdefault(begun.message.id, 0)
            elif name in ("log", "finish", "interrupt") and self.logged:
                await self.go_on(name, list(self.logged)[number % len(self.logged)])
            elif name == "rename":
                await calls.change(where, owner=None, title=f"title {serial}")
                self.title = f"title {serial}"
            elif name == "select" and at is not None:
                await calls.select(where, at, owner=None)
            elif name == "bin":
                await (calls.delete if number % 2 else calls.restore)(where, owner=None)
        except (Conflict, NotFound):
            pass  # another tab was faster, or the conversation is in the bin: said, not lost

    async def go_on(self, name: str, answer: str) -> None:
        after = self.logged[answer]
        if name == "log":
            await self.store.replies.log(answer, [Token(after, f" {after}", -1.0)], after=after)
            self.logged[answer] = max(self.logged[answer], after + 1)
        elif name == "finish":
            await self.store.replies.finish(answer, Finish("eos_token"), after=after)
        else:
            await self.store.replies.interrupt(answer)

    async def send(self, client_id: str, parent: str | None, text: str) -> None:
        done = await self.store.conversations.append(
            self.conversation, owner=None, parent=parent, role="user", text=text, client_id=client_id
        )
        self.messages[done.message.id] = (parent, text)

    async def check(self) -> None:
        tree = await self.store.conversations.open(self.conversation, owner=None)
        check_tree(tree)
        there = {message.id: message for message in tree.messages}
        assert set(self.messages) == set(there)
        for message, (parent, text) in self.messages.items():
            assert there[message].parent == parent
            assert text is None or there[message].text == text
        for answer, logged in self.logged.items():
            tokens = await self.store.replies.tokens(answer, owner=None)
            assert [token.id for token in tokens] == list(range(logged))


async def play(store: Store, operations: list[tuple[Any, Any]]) -> None:
    await store.conversations.purge(older_than=0, everyone=True)
    model = Model(store, (await store.conversations.create(owner=None)).id)
    for step, pair in enumerate(operations):
        await asyncio.gather(*(model.run(*each, f"{step}-{tab}") for tab, each in enumerate(pair)))
    await model.store.conversations.restore(model.conversation, owner=None)
    await model.check()
    await store.conversations.delete(model.conversation, owner=None)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_random_operations_keep_the_tree(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = request.getfixturevalue("postgres").new_database() if database == "postgres" else ""
    played = 0
    with asyncio.Runner() as runner:
        store = runner.run(Store.open(Settings.load({"home": tmp_path, "database_url": url})))

        @hypothesis_settings(
            max_examples=SEQUENCES + 5,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        @given(st.lists(st.tuples(operation, operation), min_size=1, max_size=6))
        def sequences(operations: list[tuple[Any, Any]]) -> None:
            nonlocal played
            played += 1
            runner.run(play(store, operations))

        try:
            sequences()
        finally:
            runner.run(store.close())
    print(f"{played} sequences of two tabs on {database}")
    assert played >= SEQUENCES
