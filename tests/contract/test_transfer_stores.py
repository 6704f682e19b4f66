"""Export and import on both databases: what comes back is what went out, and a broken file leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from promises import check_tree
from trees import Said, alike, exported, grow, imported, states
from trees import trees as random_trees

from cierzo.errors import BadInput
from cierzo.messages import Alternative, Finish, Phase, Sampling, Token
from cierzo.settings import Settings
from cierzo.store import AnswerStart, Store, packing
from cierzo.store.database import ask

ROUNDS = int(os.environ.get("CIERZO_FAULT_ROUNDS", "8"))
TREES = 2 * ROUNDS
MUTATIONS = 65 * ROUNDS
"""On each database, and not the same ones."""


async def counted(store: Store) -> list[int]:
    """Count the rows of every table."""

    async def work(connection: Any) -> list[int]:
        tables = ("conversations", "messages", "answers", "reply_events", "search_texts")
        return [await ask(connection, f"SELECT count(*) FROM {table}") for table in tables]

    return await store._database.read(work)


async def emptied(store: Store) -> None:
    for owner in (None, "ana", "bob"):
        for each in await store.transfer.listed(owner=owner):
            await store.conversations.delete(each.id, owner=owner)
    await store.conversations.purge(older_than=0, everyone=True)
    assert await counted(store) == [0] * 5


async def full(store: Store, owner: str | None = None) -> bytes:
    """A file with every kind of thing in it."""
    asked = Said(0, "user", "¿Qué es ```esto```?\n\u2028\U0001f32c", (), Sampling(), (), None)
    tokens = (
        Token(5, "¡Hola", -0.25, alternatives=(Alternative(5, "¡Hola", -0.25), Alternative(6, "\0", -3.5))),
        Token(7, "", None),
        Token(8, "\0 👋", -1.5),
        Token(2, "", -0.125, special=True),
    )
    events = (Phase("queued", 1, 2, 0.5), Phase("reading", 5, 5, 0.75), *tokens)
    answered = Said(1, "answer", "it was cut off", (1, 3, 4), Sampling(seed=7, stop=("x",)), events, Finish("failed"))
    system = Said(0, "system", "Be brief.", (), Sampling(), (), None)
    cut = Said(1, "answer", "", (9,), Sampling(), events[1:4], None)
    await grow(store, [system, asked, answered, cut, asked], ("One", True, False, False), owner)
    await grow(store, [asked, cut, answered, cut], ("Two", False, True, False), owner)
    await grow(store, [], ("", False, False, True), owner)
    return await exported(store, owner)


async def test_what_was_exported_comes_back_under_new_ids(store: Store) -> None:
    file = await full(store)
    done = await imported(store, file)
    again = await imported(store, file, owner="ana")
    assert (len(done.conversations), done.messages) == (3, 9)
    assert not set(done.conversations) & set(again.conversations)
    for owner, copies in ((None, 2), ("ana", 1)):
        listed = await store.transfer.listed(owner=owner)
        assert len(listed) == 3 * copies
        assert alike(await exported(store, owner)) == alike(file) * copies
        for each in listed:
            check_tree(await store.conversations.open(each.id, owner=owner))


async def test_ids_that_are_free_are_kept(store: Store) -> None:
    file = await full(store)
    before = json.loads(file)
    await emptied(store)
    await imported(store, file)
    after = json.loads(await exported(store))
    assert after["conversations"] == before["conversations"]
    assert after["sha256"] != before["sha256"]  # it has another date


async def test_a_conversation_that_was_undone_to_its_beginning_comes_back_so(store: Store) -> None:
    made = (await store.conversations.create(owner=None)).id
    await store.conversations.append(made, owner=None, parent=None, role="user", text="q")
    await store.conversations.select(made, None, owner=None, exactly=True)
    [copy] = (await imported(store, await exported(store))).conversations
    tree = await store.conversations.open(copy, owner=None)
    assert (tree.conversation.head, [message.text for message in tree.messages]) == (None, ["q"])


async def test_ids_of_another_form_are_not_taken_over(store: Store) -> None:
    await store.conversations.create(owner=None, title="t", conversation_id="../etc/passwd")
    file = await exported(store)
    await emptied(store)
    assert (await imported(store, file)).conversations[0].isalnum()


async def test_what_was_imported_is_found_and_can_be_gone_on_with(store: Store) -> None:
    file = await full(store)
    await emptied(store)
    done = await imported(store, file, owner="ana")
    assert {hit.conversation for hit in (await store.search("hola", owner="ana")).hits} == set(done.conversations[1:])
    assert (await store.search("one", owner="ana")).hits[0].title == "One"
    assert (await store.search("hola", owner=None)).hits == ()
    tree = await store.conversations.open(done.conversations[1], owner="ana")
    answer = next(message for message in tree.messages if message.answer)
    assert (await store.replies.tokens(answer.id, owner="ana"))[0].alternatives[1].text == "\0"
    where = tree.conversation.id
    parent = tree.conversation.head
    await store.conversations.append(where, owner="ana", parent=parent, role="user", text="and?")
    check_tree(await store.conversations.open(where, owner="ana"))
    assert (await store.transfer.listed(owner="ana"))[0].id == where


async def test_a_date_in_the_future_moves_no_clock(store: Store) -> None:
    made = await store.conversations.create(owner=None, title="old")
    document = json.loads(await exported(store))
    document["conversations"][0]["updated"] = "9999-12-31T23:59:59.999999Z"
    del document["sha256"]
    await imported(store, json.dumps(document).encode())
    newer = await store.conversations.create(owner=None, title="new")
    assert (newer.created - made.created).total_seconds() < 60
    assert (await store.conversations.list(owner=None)).conversations[0].title == "new"


async def test_an_answer_being_written_is_exported_with_what_it_has_said(store: Store) -> None:
    made = await store.conversations.create(owner=None)
    asked = (await store.conversations.append(made.id, owner=None, parent=None, role="user", text="a")).message
    start = AnswerStart("e", "m", Sampling())
    begun = (await store.replies.begin(made.id, owner=None, parent=asked.id, start=start)).message
    await store.replies.log(begun.id, [Token(1, "so"), Token(2, " far")], after=0)
    file = await exported(store)
    message = json.loads(file)["conversations"][0]["messages"][1]
    assert (message["text"], message["answer"]["reason"], message["answer"]["finish"]) == (
        "so far",
        "interrupted",
        None,
    )
    await store.replies.interrupt(begun.id)
    assert len((await imported(store, file)).conversations) == 1


async def test_many_messages_go_through_a_page_at_a_time(store: Store) -> None:
    """More than a page and more than one statement's rows, in one line of 1,201."""
    made = await store.conversations.create(owner=None, title="long")
    document = json.loads(await exported(store))
    [conversation] = document["conversations"]
    message = {"role": "user", "created": conversation["created"], "client_id": None, "answer": None}
    conversation["messages"] = [
        {"id": f"m{n}", "parent": f"m{n - 1}" if n else None, "text": f"t{n}", **message} for n in range(1201)
    ]
    conversation["head"] = "m1200"
    del document["sha256"]
    done = await imported(store, json.dumps(document, indent=2).encode())
    assert done.messages == 1201
    await store.conversations.delete(made.id, owner=None)
    await store.conversations.purge(older_than=0)
    assert alike(await exported(store)) == alike(document)


async def test_two_imports_of_one_file_at_once_are_two_copies(store: Store) -> None:
    file = await full(store)
    await emptied(store)
    await asyncio.gather(*(imported(store, file) for _ in range(4)))
    assert alike(await exported(store)) == alike(file) * 4


@pytest.mark.timeout(900)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_random_trees_come_back_equal(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = request.getfixturevalue("postgres").new_database() if database == "postgres" else ""
    played = 0

    async def there_and_back(store: Store, trees: Any) -> None:
        for tree, state in trees:
            await grow(store, tree, state)
        before = await exported(store)
        await imported(store, before, owner="ana")
        between = await exported(store, owner="ana")
        await imported(store, between, owner="bob")
        assert alike(before) == alike(between) == alike(await exported(store, owner="bob"))
        for each in await store.transfer.listed(owner="bob"):
            check_tree(await store.conversations.open(each.id, owner="bob"))
        await emptied(store)

    with asyncio.Runner() as runner:
        store = runner.run(Store.open(Settings.load({"home": tmp_path, "database_url": url})))

        @hypothesis_settings(
            max_examples=TREES,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        @given(st.lists(st.tuples(random_trees, states), min_size=1, max_size=2))
        def trees(given: Any) -> None:
            nonlocal played
            played += 1
            runner.run(there_and_back(store, given))

        try:
            trees()
        finally:
            runner.run(store.close())
    print(f"{played} sets of random trees out and in on {database}")
    assert played >= TREES // 2


# --- broken files ------------------------------------------------------------------------------------------------


def by_bytes(file: bytes, dice: random.Random) -> bytes:
    """Damage a file as a bad disk, a cut connection or an editor does."""
    at, other = dice.randrange(len(file)), dice.randrange(len(file))
    some = slice(at, at + dice.randrange(1, 40))
    lines = file.split(b"\n")
    one, two = dice.randrange(len(lines)), dice.randrange(len(lines))
    ways: list[Callable[[], bytes]] = [
        lambda: file[:at],
        lambda: file[:at] + bytes([file[at] ^ (1 << dice.randrange(8))]) + file[at + 1 :],
        lambda: file[: some.start] + file[some.stop :],
        lambda: file[:at] + file[some] + file[at:],
        lambda: file[:at] + dice.choice(b'{}[]",:0 \n\0\xff').to_bytes() + file[at:],
        lambda: b"\n".join(lines[:one] + lines[one + 1 :]),
        lambda: b"\n".join([*lines[:one], lines[two], *lines[one:]]),
        lambda: file[:at] + file[other:],
        lambda: file + file[at:],
    ]
    return dice.choice(ways)()


VALUES = [None, True, False, -1, 0, 1, 1.5, 2**31, 2**70, 1e308, "", "x", "\ud800", "\0", "system", [], [[]], {}]
VALUES += ["9999-99-99T00:00:00.000000Z", "1969-12-31T23:59:59.999999Z", "nan", {"a": 1}, ["x"], "é" * 5000]


def by_values(file: bytes, dice: random.Random) -> bytes:
    """Change one value, field or place somewhere, as somebody does who wants to get something in; no sum protects."""
    document = json.loads(file)
    if dice.random() < 0.95:
        document.pop("sha256")
    at: Any = document
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = dice.choice(keys)
        if not isinstance(at[key], (dict, list)) or not at[key] or dice.random() < 0.1:
            break
        at = at[key]
    way = dice.random()
    if way < 0.6:
        at[key] = dice.choice(VALUES)
    elif way < 0.7:
        del at[key]
    elif way < 0.8:
        ids = [message["id"] for each in document["conversations"] for message in each["messages"]]
        at[key] = dice.choice(ids)
    elif isinstance(at, list):
        at.insert(dice.randrange(len(at) + 1), at[key])
    else:
        at["more"] = at[key]
    return json.dumps(document).encode()


async def refusal(store: Store, file: bytes) -> str:
    """Import a file; return the sentence with which it was refused, empty where it was not."""
    try:
        await imported(store, file, owner="ana")
    except BadInput as refused:
        return str(refused)
    return ""


async def test_a_broken_file_is_refused_whole_or_says_the_same(store: Store) -> None:
    """Each of so many broken files is refused in one sentence with no row written, or imports as what it says."""
    file = await full(store)
    original = alike(file)
    await emptied(store)
    dice = random.Random(str(store._database.sqlite))
    outcomes: Counter[str] = Counter()
    sentences = set()
    for number in range(MUTATIONS):
        broken = (by_values if number % 2 else by_bytes)(file, dice)
        if refused := await refusal(store, broken):
            sentences.add(refused)
            assert await counted(store) == [0] * 5, broken
            outcomes["refused"] += 1
            continue
        said = alike(json.loads(broken)) if number % 2 else original
        assert _rounded(alike(await exported(store, "ana"))) == _rounded(said), broken
        await emptied(store)
        outcomes["imported, and equal"] += 1
    print(f"{MUTATIONS} broken files: {dict(outcomes)}; {len(sentences)} different sentences")
    assert all("\n" not in sentence and len(sentence) < 300 for sentence in sentences)
    said = ("nothing was imported", "is expected", "reads version 1", "at a time")
    assert [sentence for sentence in sentences if not any(part in sentence for part in said)] == []
    assert outcomes.total() == MUTATIONS >= 500
    assert outcomes["refused"] > MUTATIONS // 2


def _rounded(value: Any) -> Any:
    """1 and 1.0 are one number, and a phase's fields too are compared as such."""
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return round(float(value), 3) if type(value) in (int, float) else value


PLACES = [
    (lambda d: d["conversations"][0]["messages"][1].update(parent="none"), "conversations[0].messages[1].parent"),
    (
        lambda d: d["conversations"][1]["messages"][0].update(parent=d["conversations"][1]["messages"][1]["id"]),
        "[1].messages[0].parent",
    ),
    (
        lambda d: d["conversations"][1]["messages"][0].update(parent=d["conversations"][1]["messages"][0]["id"]),
        "[1].messages[0].parent",
    ),
    (lambda d: d["conversations"][0]["messages"][0].update(role="root"), "messages[0].role"),
    (lambda d: d["conversations"][0].update(head="none"), "conversations[0].head"),
    (lambda d: d["conversations"].append(d["conversations"][0]), "conversations[3].messages[0].id"),
    (lambda d: d["conversations"].append(d["conversations"][2]), "conversations[3].id"),
    (lambda d: d.update(version=2), "version 2"),
    (lambda d: d.update(sha256="0" * 64), "sha256"),
]


async def test_the_sentence_names_the_place(store: Store) -> None:
    # In the file the newest comes first: the bin's, then two, then one; `full` is turned round to have one first.
    file = json.loads(await full(store))
    file["conversations"].reverse()
    del file["sha256"]
    await emptied(store)
    for change, place in PLACES:
        document = json.loads(json.dumps(file))
        change(document)
        with pytest.raises(BadInput) as refused:
            await imported(store, json.dumps(document).encode())
        assert place in str(refused.value)
    assert await counted(store) == [0] * 5


async def test_an_answer_too_large_to_be_kept_is_refused_with_its_place(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await full(store)
    await emptied(store)
    monkeypatch.setattr(packing, "MAX_INFLATED", 30)
    with pytest.raises(BadInput, match=r"conversations\[\d\]\.messages\[\d\] \(the tokens take .* can be kept\)"):
        await imported(store, file)
    assert await counted(store) == [0] * 5


async def test_what_every_answer_has_is_checked(store: Store) -> None:
    """Every field of an answer, taken out or made a list in a list, is missed by name; a newer one may be missing."""
    file = json.loads(await full(store))
    del file["sha256"]
    await emptied(store)
    checked = 0

    def answer(document: Any) -> Any:
        return next(m["answer"] for c in document["conversations"] for m in c["messages"] if m["answer"])

    for name in answer(file):
        ways = [lambda a, n=name: a.update({n: [[[]]]}), lambda a, n=name: a.pop(n)]
        for spoil in ways[: 1 if name == "dropped" else 2]:
            document = json.loads(json.dumps(file))
            spoil(answer(document))
            with pytest.raises(BadInput, match="answer"):
                await imported(store, json.dumps(document).encode())
            checked += 1
    assert checked == 31
    assert await counted(store) == [0] * 5
    del answer(file)["dropped"]
    await imported(store, json.dumps(file).encode())
    assert alike(await exported(store)) == alike(file)
