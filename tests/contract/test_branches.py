"""The end of a branch and copies of branches, on both databases, beside what whole trees say."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from promises import check_tree
from sqlalchemy import event
from trees import alike, grow, states
from trees import trees as random_trees

from cierzo import transfer
from cierzo.errors import BadText, Conflict, NotFound
from cierzo.messages import Finish, Sampling, Token
from cierzo.settings import Settings
from cierzo.store import AnswerStart, Store, Tree

TREES = 2 * int(os.environ.get("CIERZO_FAULT_ROUNDS", "8"))
START = AnswerStart("scripted", "m", Sampling(), template="v3", prompt_ids=(1, 3, 4), route="ids")


async def say(store: Store, conversation: str, text: str, parent: str | None = None, owner: str | None = None) -> str:
    written = await store.conversations.append(conversation, owner=owner, parent=parent, role="user", text=text)
    return written.message.id


async def answer(store: Store, conversation: str, parent: str, text: str = "bien") -> str:
    begun = await store.replies.begin(conversation, owner=None, parent=parent, start=START)
    await store.replies.finish(begun.message.id, Finish("eos_token"), after=0, batch=[Token(5, text, -0.5)])
    return begun.message.id


async def line(store: Store, count: int) -> tuple[str, list[str]]:
    """A conversation without branches, and the ids of its messages."""
    conversation = (await store.conversations.create(owner=None, title="Línea")).id
    ids: list[str] = []
    for number in range(count):
        ids.append(await say(store, conversation, f"message {number}", ids[-1] if ids else None))
    return conversation, ids


async def exported(store: Store, conversation: str, owner: str | None = None) -> Any:
    there = await store.conversations.get(conversation, owner=owner)
    return json.loads(b"".join([part async for part in transfer.export_json(store, [there])]))


async def check_reading(store: Store, tree: Tree, through: str | None, before: str | None, limit: int) -> None:
    """What is read of a branch is what the whole tree says of it."""
    path = list(tree.path(through))
    ids = [message.id for message in path]
    reading = store.branches.read(tree.conversation.id, owner=None, through=through, before=before, limit=limit)
    if before is not None and before not in ids:
        with pytest.raises(NotFound):
            await reading
        return
    got = await reading
    end = len(path) if before is None else ids.index(before)
    assert [place.message for place in got.places] == path[max(0, end - limit) : end]
    assert got.earlier == (end > limit)
    assert got.conversation == tree.conversation
    for place in got.places:
        assert place.siblings == tuple(each.id for each in tree.children(place.message.parent))


async def check_copy(store: Store, tree: Tree, last: str) -> None:
    """What is copied of a branch is, but for ids, what a file has of it."""
    path = {message.id for message in tree.path(last)}
    [whole] = (await exported(store, tree.conversation.id))["conversations"]
    expected = {**whole, "messages": [each for each in whole["messages"] if each["id"] in path], "head": last}
    for each in expected["messages"]:
        each["client_id"] = None
        if each["answer"]:
            each["answer"]["continues"] = None
    forked = await store.branches.fork(last, owner=None)
    copied = await exported(store, forked.conversation.id)
    dated = ("created", "updated", "pinned", "archived", "deleted")
    [one], [other] = alike({"conversations": [expected]}), alike(copied)
    assert forked.created
    assert {**one, **dict.fromkeys(dated)} == {**other, **dict.fromkeys(dated)}
    new = await store.conversations.open(forked.conversation.id, owner=None)
    check_tree(new)
    assert (new.conversation.pinned, new.conversation.archived, new.conversation.deleted) == (False, False, None)
    assert new.conversation.title == tree.conversation.title


@pytest.mark.timeout(900)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_branches_of_random_trees_are_what_the_trees_say(
    database: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = request.getfixturevalue("postgres").new_database() if database == "postgres" else ""
    read = copied = 0

    async def look(store: Store, said: Any, state: Any) -> None:
        nonlocal read, copied
        title, pinned, archived, deleted = state
        conversation = await grow(store, said, (title, pinned, archived, False))
        tree = await store.conversations.open(conversation, owner=None)
        ids = [message.id for message in tree.messages]
        for through in (None, *ids):
            for before in (None, *ids):
                await check_reading(store, tree, through, before, 1 + read % 4)
                read += 1
        for each in ids:
            await check_copy(store, tree, each)
            copied += 1
        assert await store.conversations.open(conversation, owner=None) == tree
        if deleted and ids:
            await store.conversations.delete(conversation, owner=None)
            assert (await store.branches.read(conversation, owner=None)).conversation.deleted
            with pytest.raises(NotFound):
                await store.branches.fork(ids[-1], owner=None)

    with asyncio.Runner() as runner:
        store = runner.run(Store.open(Settings.load({"home": tmp_path, "database_url": url})))

        @hypothesis_settings(
            max_examples=TREES,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        @given(random_trees, states)
        def trees(said: Any, state: Any) -> None:
            runner.run(look(store, said, state))

        try:
            trees()
        finally:
            runner.run(store.close())
    print(f"{read} readings and {copied} copies of branches of random trees on {database}")
    assert read > 10 * TREES
    assert copied > TREES


async def test_the_end_of_a_branch_costs_the_same_in_a_long_conversation(store: Store) -> None:
    """As many questions to the database, and as many rows for each, whatever the length."""
    seen: list[str] = []
    found: dict[int, list[str]] = {}
    for count in (12, 240):
        conversation, ids = await line(store, count)
        listening = (store._database.engine.sync_engine, "after_cursor_execute")

        def note(_: Any, cursor: Any, statement: str, *__: Any) -> None:
            seen.append(f"{' '.join(statement.split())[:60]} {cursor.rowcount}")

        seen.clear()
        event.listen(*listening, note)
        branch = await store.branches.read(conversation, owner=None, limit=5)
        event.remove(*listening, note)
        assert [place.message.id for place in branch.places] == ids[-5:]
        found[count] = list(seen)
    assert found[12] == found[240]
    assert len(found[12]) < 10


async def test_a_branch_of_nothing_and_of_what_is_not_there(store: Store) -> None:
    empty = (await store.conversations.create(owner=None)).id
    branch = await store.branches.read(empty, owner=None)
    assert (branch.places, branch.earlier, branch.conversation.id) == ((), False, empty)
    conversation, ids = await line(store, 3)
    other = await say(store, empty, "elsewhere")
    for strange in ("nothing", "", "a\0b", other, "\ud800"):
        for wrong in ({"through": strange}, {"before": strange}):
            with pytest.raises(NotFound):
                await store.branches.read(conversation, owner=None, **wrong)
        with pytest.raises(NotFound):
            await store.branches.read(strange if strange != other else "x", owner=None)
    for stranger in ("ana", "bob"):
        with pytest.raises(NotFound):
            await store.branches.read(conversation, owner=stranger)
        with pytest.raises(NotFound):
            await store.branches.fork(ids[0], owner=stranger)
    for strange in ("nothing", "", "a\0b"):
        with pytest.raises(NotFound):
            await store.branches.fork(strange, owner=None)


async def test_a_copy_asked_for_often_at_once_is_made_once(store: Store) -> None:
    conversation, ids = await line(store, 3)
    last = await answer(store, conversation, ids[-1])
    forks = await asyncio.gather(*(store.branches.fork(last, owner=None, conversation_id="mine") for _ in range(12)))
    assert [fork.created for fork in forks].count(True) == 1
    assert {(fork.conversation.id, fork.conversation.messages) for fork in forks} == {("mine", 4)}
    await say(store, "mine", "and on", forks[0].conversation.head)
    again = await store.branches.fork(last, owner=None, conversation_id="mine")
    assert (again.created, again.conversation.messages) == (False, 5)
    assert len((await store.conversations.list(owner=None)).conversations) == 2


async def test_an_id_that_stands_for_something_else_is_a_conflict(store: Store) -> None:
    conversation, ids = await line(store, 3)
    await store.branches.fork(ids[1], owner=None, conversation_id="mine")
    await store.conversations.create(owner=None, conversation_id="empty")
    await store.conversations.create(owner="ana", conversation_id="hers")
    for taken in ("empty", "hers", conversation):
        with pytest.raises(Conflict):
            await store.branches.fork(ids[0], owner=None, conversation_id=taken)
    with pytest.raises(Conflict):
        await store.branches.fork(ids[2], owner=None, conversation_id="mine")
    with pytest.raises(BadText):
        await store.branches.fork(ids[0], owner=None, conversation_id="a b")
    assert (await store.conversations.get("empty", owner=None)).messages == 0
    assert len((await store.conversations.list(owner=None)).conversations) == 3


async def test_an_answer_that_is_still_written_is_not_copied(store: Store) -> None:
    conversation, ids = await line(store, 1)
    writing = (await store.replies.begin(conversation, owner=None, parent=ids[0], start=START)).message.id
    await store.replies.log(writing, [Token(1, "so"), Token(2, " far")], after=0)
    below = await say(store, conversation, "impatient", writing)
    for each in (writing, below):
        with pytest.raises(Conflict, match="still being written"):
            await store.branches.fork(each, owner=None, conversation_id="mine")
    with pytest.raises(NotFound):
        await store.conversations.get("mine", owner=None)
    assert (await store.branches.fork(ids[0], owner=None)).conversation.messages == 1
    await store.replies.interrupt(writing)
    copy = await store.branches.fork(below, owner=None, conversation_id="mine")
    tree = await store.conversations.open("mine", owner=None)
    assert [message.text for message in tree.messages] == ["message 0", "so far", "impatient"]
    assert copy.conversation.messages == 3
    assert await store.replies.unfinished() == ()


async def test_a_copy_is_found_belongs_to_its_owner_and_outlives_the_original(store: Store) -> None:
    conversation = (await store.conversations.create(owner="ana", title="Cocina")).id
    first = await say(store, conversation, "¿Cuál es tu ingrediente favorito?", owner="ana")
    copy = (await store.branches.fork(first, owner="ana")).conversation
    assert copy.owner == "ana"
    await store.conversations.delete(conversation, owner="ana")
    await store.conversations.purge(older_than=0, owner="ana")
    assert [hit.conversation for hit in (await store.search("ingrediente", owner="ana")).hits] == [copy.id]
    assert [hit.message for hit in (await store.search("cocina", owner="ana")).hits] == [None]
    assert (await store.search("ingrediente", owner=None)).hits == ()
    assert (await store.conversations.list(owner="ana")).conversations == (copy,)
