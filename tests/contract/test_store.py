"""What the store promises, on both databases."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from promises import check_tree
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from cierzo.errors import BadInput, BadText, CierzoError, Conflict, NotFound
from cierzo.messages import MAX_TEXT, Alternative, Finish, Phase, Sampling, Timings, Token
from cierzo.settings import Settings
from cierzo.store import AnswerStart, Store, StoredMessage, new_id
from cierzo.store.schema import metadata

START = AnswerStart(
    engine="llamacpp",
    model="cierzo-demo",
    model_hash="ab" * 32,
    template="v3",
    sampling=Sampling(temperature=0.5, stop=("fin", "\n\n"), seed=7, alternatives=5),
    prompt_ids=(1, 3, 28_705, 131_071, 0),
    route="ids",
    dropped=3,
    writer="here",
)
EVENTS = [
    Phase("queued", 1, 2, 0.5),
    Phase("reading", 5, 5, 0.75),
    Token(5, "¡Hola", -0.25, alternatives=(Alternative(5, "¡Hola", -0.25), Alternative(6, "Ah", -math.inf))),
    Token(7, "", None),
    Token(8, " 👋", -1.5, alternatives=(Alternative(9, " x", -1.0),)),
    Token(2, "", -0.125, special=True),
]
FINISH = Finish("eos_token", 5, 2, 3, Timings(0.5, 0.0, 0.25, 0.75, 1.0, 20.0), seed=7, stop=None)


async def begun(store: Store, owner: str | None = None) -> tuple[str, StoredMessage]:
    conversation = (await store.conversations.create(owner=owner, title="Saludos")).id
    said = await store.conversations.append(
        conversation, owner=owner, parent=None, role="user", text="¿Cuál es tu ingrediente favorito?"
    )
    return conversation, said.message


async def say(store: Store, conversation: str, text: str, parent: str | None = None) -> StoredMessage:
    said = await store.conversations.append(conversation, owner=None, parent=parent, role="user", text=text)
    return said.message


async def test_a_new_conversation_is_empty(store: Store) -> None:
    made = await store.conversations.create(owner=None, title="Uno")
    tree = await store.conversations.open(made.id, owner=None)
    assert tree.conversation == made
    assert (tree.messages, tree.path(), made.head, made.title, made.owner) == ((), (), None, "Uno", None)
    assert abs(made.created.timestamp() - time.time()) < 60


async def test_a_conversation_asked_for_twice_is_made_once(store: Store) -> None:
    first = await store.conversations.create(owner="ana", title="one", conversation_id="mine")
    again = await store.conversations.create(owner="ana", title="two", conversation_id="mine")
    assert first == again
    assert len((await store.search("one", owner="ana")).hits) == 1
    assert (await store.search("two", owner="ana")).hits == ()
    with pytest.raises(Conflict):
        await store.conversations.create(owner="bob", conversation_id="mine")


async def test_messages_form_a_tree(store: Store) -> None:
    conversation, question = await begun(store)
    answers = [await say(store, conversation, f"answer {i}", question.id) for i in range(3)]
    edited = await say(store, conversation, "another question")
    last = await say(store, conversation, "on the first answer", answers[0].id)
    tree = await store.conversations.open(conversation, owner=None)
    check_tree(tree)
    assert [message.position for message in tree.children(question.id)] == [0, 1, 2]
    assert [message.id for message in tree.children(None)] == [question.id, edited.id]
    assert [message.id for message in tree.path()] == [question.id, answers[0].id, last.id]
    assert [message.id for message in tree.path(answers[2].id)] == [question.id, answers[2].id]


async def test_choosing_a_branch_goes_to_its_newest_end(store: Store) -> None:
    conversation, question = await begun(store)
    left = await say(store, conversation, "left", question.id)
    right = await say(store, conversation, "right", question.id)
    below = await say(store, conversation, "below left", left.id)
    assert (await store.conversations.select(conversation, right.id, owner=None)).head == right.id
    assert (await store.conversations.select(conversation, left.id, owner=None)).head == below.id
    assert (await store.conversations.select(conversation, question.id, owner=None)).head == right.id
    with pytest.raises(NotFound):
        await store.conversations.select(conversation, "nothing", owner=None)


async def test_going_back_changes_the_head_and_nothing_else(store: Store) -> None:
    conversation, question = await begun(store)
    left = await say(store, conversation, "left", question.id)
    await say(store, conversation, "below left", left.id)
    before = (await store.conversations.open(conversation, owner=None)).messages
    for message in (left.id, question.id, None):
        there = await store.conversations.select(conversation, message, owner=None, exactly=True)
        assert there.head == message
        tree = await store.conversations.open(conversation, owner=None)
        assert tree.messages == before
        assert [each.id for each in tree.path()] == [each.id for each in tree.path(message) if message]
    assert (await store.conversations.select(conversation, None, owner=None)).head == before[-1].id
    for strange in ("nothing", ""):
        with pytest.raises(NotFound):
            await store.conversations.select(conversation, strange, owner=None, exactly=True)


async def test_a_message_sent_often_at_once_exists_once(store: Store) -> None:
    conversation, question = await begun(store)

    async def send() -> tuple[str, bool]:
        done = await store.conversations.append(
            conversation, owner=None, parent=question.id, role="user", text="same", client_id="c1"
        )
        return done.message.id, done.created

    sent = await asyncio.gather(*(send() for _ in range(20)))
    assert len({message for message, _ in sent}) == 1
    assert [created for _, created in sent].count(True) == 1
    assert (await store.conversations.get(conversation, owner=None)).messages == 2


@pytest.mark.parametrize("change", [{"text": "other"}, {"role": "assistant"}, {"parent": None}])
async def test_a_client_id_used_for_something_else_is_a_conflict(store: Store, change: dict[str, str | None]) -> None:
    conversation, question = await begun(store)
    values = {"parent": question.id, "role": "user", "text": "same", "client_id": "c1"}
    await store.conversations.append(conversation, owner=None, **values)
    with pytest.raises(Conflict) as refused:
        await store.conversations.append(conversation, owner=None, **(values | change))
    assert refused.value.status == 409
    other = (await store.conversations.create(owner=None)).id
    await store.conversations.append(other, owner=None, **(values | {"parent": None}))


async def test_a_parent_must_lie_in_the_conversation(store: Store) -> None:
    _, question = await begun(store)
    other = (await store.conversations.create(owner=None)).id
    for parent in ("nothing", question.id):
        with pytest.raises(NotFound):
            await say(store, other, "x", parent)
    assert (await store.conversations.get(other, owner=None)).messages == 0


async def test_lists_put_pinned_first_then_the_last_written_to(store: Store) -> None:
    made = [(await store.conversations.create(owner=None, title=str(i))).id for i in range(7)]
    await say(store, made[2], "hello")
    await store.conversations.change(made[0], owner=None, pinned=True)
    await store.conversations.change(made[1], owner=None, archived=True)
    await store.conversations.delete(made[3], owner=None)
    titles, after = [], None
    while True:
        page = await store.conversations.list(owner=None, limit=2, after=after)
        titles += [conversation.title for conversation in page.conversations]
        after = page.after
        if after is None:
            break
    assert titles == ["0", "2", "6", "5", "4"]
    assert [c.title for c in (await store.conversations.list(owner=None, archived=True)).conversations] == ["1"]
    assert [c.title for c in (await store.conversations.list(owner=None, deleted=True)).conversations] == ["3"]
    for nonsense in ("", "x", "1.2", "9.9.9", "0.١.x", "0." + "9" * 30 + ".x"):
        with pytest.raises(BadInput):
            await store.conversations.list(owner=None, after=nonsense)


async def test_a_clock_that_jumps_back_changes_no_order(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns
    made = []
    for shift in (0, 86_400, -86_400, 0):
        monkeypatch.setattr(time, "time_ns", lambda shift=shift: now() + shift * 10**9)
        made.append((await store.conversations.create(owner=None)).id)
    page = await store.conversations.list(owner=None)
    assert [conversation.id for conversation in page.conversations] == made[::-1]


async def test_rename_pin_archive_leave_the_rest(store: Store) -> None:
    conversation, _ = await begun(store)
    before = await store.conversations.get(conversation, owner=None)
    after = await store.conversations.change(conversation, owner=None, title="Neu", pinned=True, archived=True)
    assert (after.title, after.pinned, after.archived) == ("Neu", True, True)
    assert (after.updated, after.head, after.messages) == (before.updated, before.head, before.messages)
    assert await store.conversations.change(conversation, owner=None) == after


async def test_the_bin_can_be_undone_until_it_is_emptied(store: Store) -> None:
    conversation, _ = await begun(store)
    gone = await store.conversations.delete(conversation, owner=None)
    assert gone.deleted == (await store.conversations.delete(conversation, owner=None)).deleted
    assert (await store.search("ingrediente", owner=None)).hits == ()
    with pytest.raises(NotFound):
        await say(store, conversation, "too late")
    assert await store.conversations.purge(older_than=60) == 0
    back = await store.conversations.restore(conversation, owner=None)
    assert back.deleted is None
    assert len((await store.search("ingrediente", owner=None)).hits) == 1
    await store.conversations.delete(conversation, owner=None)
    assert await store.conversations.purge(older_than=0, owner="ana") == 0
    assert await store.conversations.purge(older_than=0) == 1
    with pytest.raises(NotFound):
        await store.conversations.get(conversation, owner=None)


async def test_purging_leaves_nothing_behind(store: Store) -> None:
    conversation, question = await begun(store)
    answer = (await store.replies.begin(conversation, owner=None, parent=question.id, start=START)).message.id
    await store.replies.log(answer, EVENTS, after=0)
    await store.conversations.delete(conversation, owner=None)
    await store.conversations.purge(older_than=0, everyone=True)
    assert (await store.search("saludos ingrediente", owner=None)).hits == ()
    assert await store.replies.unfinished() == ()
    with pytest.raises(NotFound):
        await store.replies.log(answer, EVENTS, after=len(EVENTS))


async def test_nobody_reaches_what_is_somebody_elses(store: Store) -> None:
    conversation, question = await begun(store, owner="ana")
    answer = (await store.replies.begin(conversation, owner="ana", parent=question.id, start=START)).message.id
    calls, replies = store.conversations, store.replies
    for stranger in (None, "bob", "ANA", "ana "):
        attempts = [
            calls.get(conversation, owner=stranger),
            calls.open(conversation, owner=stranger),
            calls.change(conversation, owner=stranger, title="mine"),
            calls.append(conversation, owner=stranger, parent=None, role="user", text="x"),
            calls.select(conversation, question.id, owner=stranger),
            calls.message(question.id, owner=stranger),
            calls.delete(conversation, owner=stranger),
            calls.restore(conversation, owner=stranger),
            replies.begin(conversation, owner=stranger, parent=question.id, start=START),
            replies.events(answer, owner=stranger),
            replies.tokens(answer, owner=stranger),
            replies.prompt_ids(answer, owner=stranger),
        ]
        for attempt in attempts:
            with pytest.raises(NotFound) as refused:
                await attempt
            assert "ana" not in str(refused.value)
        assert (await calls.list(owner=stranger)).conversations == ()
        assert (await store.search("ingrediente", owner=stranger)).hits == ()
    assert len((await store.search("ingrediente", owner="ana")).hits) == 1


async def test_an_answer_is_kept_with_everything(store: Store) -> None:
    conversation, question = await begun(store)
    reply = await store.replies.begin(conversation, owner=None, parent=question.id, start=START, client_id="a1")
    answer = reply.message.id
    assert reply.created
    assert (reply.message.text, reply.message.role) == ("", "assistant")
    await store.replies.log(answer, EVENTS[:3], after=0)
    done = await store.replies.finish(answer, FINISH, after=3, batch=EVENTS[3:])
    assert done.text == "¡Hola 👋"
    kept = done.answer
    assert kept is not None
    assert (kept.engine, kept.model, kept.model_hash, kept.template) == ("llamacpp", "cierzo-demo", "ab" * 32, "v3")
    assert (kept.sampling, kept.route, kept.state, kept.logged) == (START.sampling, "ids", "done", len(EVENTS))
    assert (kept.reason, kept.finish, kept.failure) == ("eos_token", FINISH, "")
    assert await store.replies.prompt_ids(answer, owner=None) == START.prompt_ids
    assert await store.replies.tokens(answer, owner=None) == tuple(e for e in EVENTS if isinstance(e, Token))
    opened = await store.conversations.open(conversation, owner=None)
    assert opened.messages[-1] == done
    assert await store.conversations.message(answer, owner=None) == done
    again = await store.replies.begin(conversation, owner=None, parent=question.id, start=START, client_id="a1")
    assert (again.created, again.message) == (False, done)


async def test_a_log_reads_the_same_before_and_after_it_is_folded(store: Store) -> None:
    conversation, question = await begun(store)
    answer = (await store.replies.begin(conversation, owner=None, parent=question.id, start=START)).message.id
    batches = [EVENTS[:1], EVENTS[1:4], [], EVENTS[4:]]
    after = 0
    for batch in batches:
        await store.replies.log(answer, batch, after=after)
        after += len(batch)

    async def check(*, done: bool) -> None:
        for start in range(len(EVENTS) + 3):
            page = await store.replies.events(answer, owner=None, after=start)
            assert page.events == tuple(EVENTS[start:])
            assert (page.first, page.logged, page.done) == (max(start, 0) + 1, len(EVENTS), done)

    await check(done=False)
    await store.replies.finish(answer, FINISH, after=after)
    await check(done=True)


async def test_a_log_has_no_gap_and_no_repeat(store: Store) -> None:
    conversation, question = await begun(store)
    answer = (await store.replies.begin(conversation, owner=None, parent=question.id, start=START)).message.id
    await store.replies.log(answer, EVENTS[:2], after=0)
    await store.replies.log(answer, EVENTS[:2], after=0)  # its writer did not hear that it was logged
    for after in (1, 3):
        with pytest.raises(Conflict):
            await store.replies.log(answer, EVENTS[2:], after=after)
    with pytest.raises(Conflict):
        await store.replies.log(answer, EVENTS[:3], after=0)
    with pytest.raises(Conflict):
        await store.replies.finish(answer, FINISH, after=1)
    page = await store.replies.events(answer, owner=None)
    assert page.events == tuple(EVENTS[:2])


async def test_answers_that_grow_at_the_same_time_do_not_harm_each_other(store: Store) -> None:
    answers = []
    for _ in range(12):
        conversation, question = await begun(store)
        begin = store.replies.begin(conversation, owner=None, parent=question.id, start=START)
        answers.append((await begin).message.id)
    await store.replies.stop(answers[3], owner=None)
    await store.replies.finish(answers[4], FINISH, after=0)
    asked = [store.replies.log(answer, EVENTS, after=place % 4 == 1) for place, answer in enumerate(answers)]
    said = await asyncio.gather(*asked, store.replies.log(new_id(), EVENTS, after=0), return_exceptions=True)
    kinds = [type(each) if isinstance(each, Exception) else each for each in said]
    at_its_place = [place == 3 for place in range(12)]
    wrong = {1: Conflict, 4: Conflict, 5: Conflict, 9: Conflict}
    assert kinds == [*(wrong.get(place, told) for place, told in enumerate(at_its_place)), NotFound]
    for place, answer in enumerate(answers):
        page = await store.replies.events(answer, owner=None)
        assert page.events == (() if place in wrong else tuple(EVENTS))


async def test_a_write_that_breaks_its_transaction_breaks_no_other(store: Store) -> None:
    made = await store.conversations.create(owner=None, title="Uno")
    database, tries = store.replies._database, []

    async def breaks(connection: AsyncConnection) -> None:
        tries.append("breaks")
        await connection.execute(text("SELECT nothing FROM nowhere"))

    async def writes(connection: AsyncConnection) -> int:
        query = text("UPDATE conversations SET title = 'Dos' WHERE id = :id")
        return (await connection.execute(query, {"id": made.id})).rowcount

    outcomes = await asyncio.gather(
        database.write_together(writes), database.write_together(breaks), return_exceptions=True
    )
    assert outcomes[0] == 1
    assert isinstance(outcomes[1], CierzoError)
    assert (await store.conversations.open(made.id, owner=None)).conversation.title == "Dos"


async def test_whoever_writes_an_answer_hears_that_it_is_to_stop(store: Store) -> None:
    conversation, question = await begun(store, "ana")
    answer = (await store.replies.begin(conversation, owner="ana", parent=question.id, start=START)).message.id
    assert not await store.replies.log(answer, EVENTS[:2], after=0)
    for strange in (None, "bob"):
        with pytest.raises(NotFound):
            await store.replies.stop(answer, owner=strange)
    with pytest.raises(NotFound):
        await store.replies.stop(question.id, owner="ana")
    assert not await store.replies.log(answer, [], after=2)
    for _ in "12":
        await store.replies.stop(answer, owner="ana")
    assert await store.replies.log(answer, [], after=2)
    assert await store.replies.log(answer, EVENTS[2:4], after=2)
    assert await store.replies.log(answer, EVENTS[2:4], after=2), "said again it is heard again"
    done = await store.replies.finish(answer, Finish("stopped"), after=4)
    await store.replies.stop(answer, owner="ana")
    assert await store.conversations.message(answer, owner="ana") == done


async def test_an_answer_ends_once(store: Store) -> None:
    conversation, question = await begun(store)
    answer = (await store.replies.begin(conversation, owner=None, parent=question.id, start=START)).message.id
    await store.replies.log(answer, EVENTS, after=0)

    async def end(how: str) -> str:
        try:
            if how == "interrupt":
                return how if await store.replies.interrupt(answer) else "late"
            await store.replies.finish(answer, Finish(how), after=len(EVENTS))
        except Conflict:
            return "late"
        return how

    ends = await asyncio.gather(*(end(how) for how in ("stopped", "interrupt", "eos_token", "length")))
    [winner] = [each for each in ends if each != "late"]
    kept = (await store.conversations.message(answer, owner=None)).answer
    assert kept is not None
    assert kept.reason == {"interrupt": "interrupted"}.get(winner, winner)
    with pytest.raises(Conflict):
        await store.replies.log(answer, [Token(1, "x")], after=len(EVENTS))
    if winner != "interrupt":
        await store.replies.finish(answer, Finish(winner), after=len(EVENTS))  # said again, it changes nothing


async def test_what_a_dead_process_was_writing_is_found_and_marked(store: Store) -> None:
    conversation, question = await begun(store)
    answer = (await store.replies.begin(conversation, owner=None, parent=question.id, start=START)).message.id
    await store.replies.log(answer, EVENTS[:5], after=0)
    [left] = await store.replies.unfinished()
    assert (left.message, left.conversation, left.owner, left.writer, left.logged) == (
        answer,
        conversation,
        None,
        "here",
        5,
    )
    assert await store.replies.unfinished(idle=3600) == ()
    assert not await store.replies.interrupt(answer, writer="another process")
    assert await store.replies.interrupt(answer)
    assert not await store.replies.interrupt(answer)
    marked = await store.conversations.message(answer, owner=None)
    assert marked.answer is not None
    assert (marked.text, marked.answer.reason, marked.answer.finish) == ("¡Hola 👋", "interrupted", None)
    assert await store.replies.unfinished() == ()
    assert [hit.message for hit in (await store.search("hola", owner=None)).hits] == [answer]


async def test_an_answer_that_failed_says_why(store: Store) -> None:
    conversation, question = await begun(store)
    answer = (await store.replies.begin(conversation, owner=None, parent=question.id, start=START)).message.id
    done = await store.replies.finish(answer, Finish("failed"), after=0, failure="the engine died: ask again")
    assert done.answer is not None
    assert (done.text, done.answer.reason, done.answer.failure) == ("", "failed", "the engine died: ask again")
    with pytest.raises(NotFound):
        await store.replies.finish("nothing", FINISH, after=0)


ZOO = {
    "line ends": "a\r\nb\rc\nd\u2028e",
    "byte order mark": "\ufeffx\ufeff",
    "right to left": "\u202eabc\u202c שלום",
    "four bytes": "🏳️‍🌈 𝔘𝔫𝔦 \U0010ffff",
    "not characters": "\ufffe\uffff",
    "decomposed": "e\u0301 \u1100\u1161",
    "escapes": "\\x00 \\u0000 %00 %s ' \" ; -- $$ :name",
    "control": "".join(map(chr, range(1, 32))) + "\x7f\x85 x",
    "no spaces": "x" * 300_000,
    "as long as may be": "é" * MAX_TEXT,
}


@pytest.mark.parametrize("name", ZOO)
async def test_any_text_comes_back_as_it_went(store: Store, name: str) -> None:
    conversation = (await store.conversations.create(owner=None, title=ZOO[name][:200])).id
    await say(store, conversation, ZOO[name])
    tree = await store.conversations.open(conversation, owner=None)
    assert tree.messages[0].text == ZOO[name]
    assert tree.conversation.title == ZOO[name][:200]


@pytest.mark.parametrize("bad", ["a\x00b", "a\ud800b", "\udfff", "x" * (MAX_TEXT + 1), ""])
async def test_text_that_cannot_be_kept_is_refused_before_the_database(store: Store, bad: str) -> None:
    conversation, question = await begun(store)
    with pytest.raises(BadText):
        await say(store, conversation, bad)
    answer = (await store.replies.begin(conversation, owner=None, parent=question.id, start=START)).message.id
    if bad:
        with pytest.raises(BadText):
            await store.conversations.change(conversation, owner=None, title=bad)
        with pytest.raises(BadText):
            await store.replies.finish(answer, FINISH, after=0, failure=bad)
    if bad.replace("\0", "") == bad != "":
        for token in (Token(1, bad), Token(1, "x", alternatives=(Alternative(1, bad, -1.0),))):
            with pytest.raises(BadText):
                await store.replies.log(answer, [Token(1, "good"), token], after=0)
    with pytest.raises(BadText):
        await store.conversations.append(conversation, owner=None, parent=None, role="user", text="x", client_id=bad)
    assert (await store.conversations.get(conversation, owner=None)).messages == 2


async def test_a_nul_that_a_model_writes_loses_nothing(store: Store) -> None:
    conversation, question = await begun(store)
    answer = (await store.replies.begin(conversation, owner=None, parent=question.id, start=START)).message.id
    tokens = [Token(1, "a\x00b", -1.0, alternatives=(Alternative(1, "\x00", -1.5),)), Token(2, "c", -0.5)]
    await store.replies.log(answer, tokens, after=0)
    done = await store.replies.finish(answer, FINISH, after=2)
    assert done.text == "a\ufffdbc"
    assert await store.replies.tokens(answer, owner=None) == tuple(tokens)


@pytest.mark.parametrize("strange", ["a\x00b", "a\ud800b", "' OR ''='", "x" * 5000, ""])
async def test_strange_ids_are_not_found(store: Store, strange: str) -> None:
    await begun(store)
    for attempt in (
        store.conversations.get(strange, owner=None),
        store.conversations.message(strange, owner=None),
        store.replies.events(strange, owner=None),
        store.replies.interrupt(strange),
        store.conversations.get("x", owner=strange),
    ):
        with pytest.raises(CierzoError) as refused:
            await attempt
        assert refused.value.status in (400, 404)


async def test_two_programs_share_one_database(store: Store, settings: object) -> None:
    conversation, question = await begun(store)
    other = await Store.open(settings)
    try:
        await asyncio.gather(
            *(
                each.conversations.append(
                    conversation, owner=None, parent=question.id, role="user", text=f"{number}", client_id=f"c{number}"
                )
                for number in range(40)
                for each in (store, other)
            )
        )
        tree = await other.conversations.open(conversation, owner=None)
    finally:
        await other.close()
    check_tree(tree)
    assert len(tree.messages) == 41


async def test_a_caller_that_leaves_breaks_nothing(store: Store) -> None:
    conversation, question = await begun(store)
    left = 0
    for number in range(60):
        task = asyncio.create_task(say(store, conversation, f"message {number}", question.id))
        await asyncio.sleep(number % 12 * 0.0005)  # a quick disk may have it all written by then
        left += task.cancel()
        await asyncio.wait([task])
    assert left >= 5
    await say(store, conversation, "still here", question.id)
    check_tree(await store.conversations.open(conversation, owner=None))


async def test_ready_asks_the_database(store: Store) -> None:
    await store.ready()


async def test_the_tables_are_as_the_queries_name_them(store: Store) -> None:
    def differences(connection: Connection) -> list[object]:
        own = {"search_index", "alembic_version"}  # what the migrations say in each database's own words

        def ours(name: str | None, kind: str, *_: object) -> bool:
            return not (kind == "table" and name is not None and (name in own or name.startswith("search_index_")))

        options = {"include_object": lambda _, name, kind, *__: ours(name, kind), "include_name": ours}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        return [each for each in found if "vector" not in str(each)]

    async with store._database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_answers_of_an_older_program_lose_nothing(store: Store, settings: Settings) -> None:
    """Back to before the last step, and forward again."""
    conversation, question = await begun(store)
    answer = (await store.replies.begin(conversation, owner=None, parent=question.id, start=START)).message.id
    done = await store.replies.finish(answer, FINISH, after=0, batch=EVENTS)
    assert done.answer is not None
    assert done.answer.dropped == 3

    async def back(connection: Any) -> None:
        await connection.execute(text("ALTER TABLE answers DROP COLUMN dropped"))
        await connection.execute(text("UPDATE alembic_version SET version_num = '0004'"))

    await store._database.write(back)
    newer = await Store.open(settings)
    try:
        kept = await newer.conversations.message(answer, owner=None)
        assert kept == replace(done, answer=replace(done.answer, dropped=None))
        again = await newer.replies.begin(conversation, owner=None, parent=question.id, start=START)
        assert again.message.answer is not None
        assert again.message.answer.dropped == 3
        assert await newer.replies.tokens(answer, owner=None)
    finally:
        await newer.close()


async def test_closing_twice_is_as_once(settings: object) -> None:
    opened = await Store.open(settings)
    await opened.close()
    await opened.close()
