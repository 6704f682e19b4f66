"""What people do in a conversation: each thing once, however often it is sent, and nothing half done."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from promises import check_tree
from talking import Talk, talking, until

from cierzo import catalog, paths
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.engines.script import Reply
from cierzo.engines.scripted import Scripted
from cierzo.errors import BadInput, BadText, Conflict, NotFound, Overloaded, PromptTooLong
from cierzo.messages import Role, Sampling
from cierzo.settings import Settings
from cierzo.store import StoredMessage, Tree, new_id
from cierzo.store.transfer import Draft, Full, packed

TIMES = 20
ROLES: tuple[Role, Role] = ("user", "assistant")


@pytest.fixture
async def talk(tmp_path: Path) -> AsyncGenerator[Talk]:
    async with talking(tmp_path, Scripted()) as opened:
        opened.chat.engine.script = type(opened.chat.engine.script)(  # type: ignore[attr-defined] # the scripted one has it
            (Reply.of("Sí.", delay=0.002),)
        )
        yield opened


async def tree_of(talk: Talk) -> Tree:
    tree = await talk.store.conversations.open(talk.here, owner=None)
    check_tree(tree)
    return tree


def said(tree: Tree) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in tree.messages]


def prompts(talk: Talk) -> list[str]:
    return [asked.prompt.text for asked in talk.chat.engine.asked]  # type: ignore[attr-defined] # the scripted one has it


async def asked(talk: Talk, text: str, **options: Any) -> Any:
    """Ask, and wait for the end."""
    made = await talk.ask(talk.here, text, owner=None, **options)
    for answer in made.answers:
        await talk.end(answer.id)
    return made


@pytest.mark.parametrize("system", [None, "Sé breve."])
@pytest.mark.parametrize("parent", ["", None, "first"])
async def test_sent_twenty_times_at_once_it_is_there_once(talk: Talk, parent: str | None, system: str | None) -> None:
    first = await asked(talk, "primera", client_id="q0")
    chosen = {"parent": first.answer.id if parent == "first" else parent, "system": system}
    sends = [talk.ask(talk.here, "segunda", owner=None, client_id="q1", **chosen) for _ in range(TIMES)]
    made = await asyncio.gather(*sends)
    assert len({each.question.id for each in made}) == len({each.answer.id for each in made}) == 1
    assert sum(each.created for each in made) == 1
    await talk.end(made[0].answer.id)
    tree = await tree_of(talk)
    expected = [("user", "primera"), ("assistant", "Sí."), ("user", "segunda"), ("assistant", "Sí.")]
    assert [each for each in said(tree) if each[0] != "system"] == expected
    assert [text for role, text in said(tree) if role == "system"] == [system] * bool(system)
    assert len(prompts(talk)) == 2
    again = await asked(talk, "segunda", client_id="q1")
    assert (again.question.id, again.answer.id, again.created) == (made[0].question.id, made[0].answer.id, False)
    assert (talk.admission.running, talk.admission.waiting) == (0, 0)


async def test_sent_at_once_by_two_processes_it_is_there_once(tmp_path: Path) -> None:
    async with talking(tmp_path, Scripted("Sí.")) as one, talking(tmp_path, Scripted("Sí.")) as two:
        sends = [
            talk.ask(one.here, "hola", owner=None, client_id="q", system="Sé breve.")
            for talk in (one, two)
            for _ in "12"
        ]
        made = await asyncio.gather(*sends)
        assert len({each.answer.id for each in made}) == 1
        await one.end(made[0].answer.id)
        assert said(await tree_of(one)) == [("system", "Sé breve."), ("user", "hola"), ("assistant", "Sí.")]


async def test_a_retry_needs_no_place_in_the_queue(tmp_path: Path) -> None:
    async with talking(tmp_path, Scripted(Reply.of(["a"], repeat=True, delay=0.01)), running=1, waiting=2) as talk:
        first = await talk.ask(talk.here, "uno", owner=None, parent=None, client_id="q")
        await talk.ask(talk.here, "dos", owner=None, parent=None)
        made = await asyncio.gather(
            *(talk.ask(talk.here, "uno", owner=None, parent=None, client_id="q") for _ in range(TIMES))
        )
        assert {each.answer.id for each in made} == {first.answer.id}


async def test_the_same_id_with_another_text_is_a_conflict(talk: Talk) -> None:
    await asked(talk, "una", client_id="q")
    with pytest.raises(Conflict):
        await talk.ask(talk.here, "otra", owner=None, client_id="q")
    with pytest.raises(Conflict):
        await talk.ask(talk.here, "otra", owner=None, client_id="q.answer0")
    results = await asyncio.gather(
        *(talk.ask(talk.here, text, owner=None, client_id="r", parent=None) for text in ("a", "b")),
        return_exceptions=True,
    )
    assert sorted(type(each).__name__ for each in results) == ["Asked", "Conflict"]


async def test_a_question_on_an_answer_that_is_written_is_a_conflict(tmp_path: Path) -> None:
    async with talking(tmp_path, Scripted(Reply.of(["a"], repeat=True, delay=0.01))) as talk:
        first = await talk.ask(talk.here, "uno", owner=None)
        for parent in ("", first.answer.id):
            with pytest.raises(Conflict, match="still being written"):
                await talk.ask(talk.here, "dos", owner=None, parent=parent)
        assert len((await tree_of(talk)).messages) == 2
        await talk.stop(first.answer.id, owner=None)
        assert (await talk.ask(talk.here, "dos", owner=None)).question.parent == first.answer.id
        assert talk.admission.running == 1


async def test_an_edited_question_is_a_sibling(talk: Talk) -> None:
    first = await asked(talk, "uno")
    second = await asked(talk, "dos")
    edited = await asked(talk, "DOS", parent=second.question.parent)
    assert edited.question.parent == second.question.parent == first.answer.id
    assert (second.question.position, edited.question.position) == (0, 1)
    assert prompts(talk)[-1] == "<s>[INST] uno[/INST] Sí.</s>[INST] DOS[/INST]"
    begun = await asked(talk, "UNO", parent=None)
    assert begun.question.position == 1
    assert prompts(talk)[-1] == "<s>[INST] UNO[/INST]"
    later = await asked(talk, "tres", parent=second.answer.id)
    assert later.question.parent == second.answer.id
    assert "UNO" not in prompts(talk)[-1]
    assert "DOS" not in prompts(talk)[-1]


async def test_another_answer_to_the_same_question(talk: Talk) -> None:
    first = await asked(talk, "uno", system="Sé breve.")
    for message in (first.question.id, first.answer.id):
        begun = await asyncio.gather(*(talk.again(message, owner=None, client_id=message) for _ in range(5)))
        assert sorted(each.created for each in begun) == [False] * 4 + [True]
        more = [each.message for each in begun]
        assert len({each.id for each in more}) == 1
        await talk.end(more[0].id)
        assert more[0].parent == first.question.id
        assert prompts(talk)[-1] == prompts(talk)[0]
    assert len(prompts(talk)) == 3
    system = (await tree_of(talk)).messages[0]
    assert system.role == "system"
    with pytest.raises(BadInput, match="no question"):
        await talk.again(system.id, owner=None)
    with pytest.raises(NotFound):
        await talk.again(first.question.id, owner="ana")


async def test_two_samplings_of_one_prompt(talk: Talk) -> None:
    cold, warm = Sampling(temperature=0.0), Sampling(temperature=1.0)
    sends = [talk.ask(talk.here, "uno", owner=None, sampling=cold, against=warm, client_id="q") for _ in range(5)]
    made = await asyncio.gather(*sends)
    assert len({tuple(answer.id for answer in each.answers) for each in made}) == 1
    assert [answer.answer.sampling for answer in made[0].answers] == [cold, warm]  # type: ignore[union-attr] # they are
    for answer in made[0].answers:
        await talk.end(answer.id)
    assert prompts(talk) == [prompts(talk)[0]] * 2
    assert [message.position for message in made[0].answers] == [0, 1]


async def test_where_two_places_are_needed_and_one_is_free_nothing_is_stored(tmp_path: Path) -> None:
    async with talking(tmp_path, Scripted(Reply.of(["a"], repeat=True, delay=0.01)), running=1, waiting=0) as talk:
        with pytest.raises(Overloaded):
            await talk.ask(talk.here, "uno", owner=None, sampling=Sampling(), against=Sampling(), system="Sé.")
        assert (talk.admission.running, (await tree_of(talk)).messages) == (0, ())
        assert (await talk.store.conversations.get(talk.here, owner=None)).title == ""
        first = await talk.ask(talk.here, "uno", owner=None)
        for call in (
            talk.ask(talk.here, "dos", owner=None, parent=None),
            talk.again(first.question.id, owner=None),
        ):
            with pytest.raises(Overloaded):
                await call
        assert len((await tree_of(talk)).messages) == 2
        await talk.stop(first.answer.id, owner=None)
        assert talk.admission.running == 0


@pytest.mark.parametrize("what", [{"text": "hola " * 20_000}, {"text": "hola", "system": "sé " * 20_000}])
async def test_what_has_no_room_is_not_stored(talk: Talk, what: dict[str, str]) -> None:
    with pytest.raises(PromptTooLong):
        await talk.ask(talk.here, owner=None, **what)
    assert (await tree_of(talk)).messages == ()
    assert talk.admission.running == 0


@pytest.mark.parametrize("text", ["", " \n", "a\x00b", "\ud83d", "x" * 2_000_001])
async def test_what_is_no_question_is_not_stored(talk: Talk, text: str) -> None:
    with pytest.raises(BadText):
        await talk.ask(talk.here, text, owner=None, system="Sé breve.")
    assert (await tree_of(talk)).messages == ()


async def test_the_last_system_prompt_on_the_way_counts(talk: Talk) -> None:
    first = await asked(talk, "uno", system="A")
    await asked(talk, "dos")
    await asked(talk, "tres", system="A")
    assert [role for role, _ in said(await tree_of(talk))].count("system") == 1
    await asked(talk, "cuatro", system="B")
    assert prompts(talk)[-1].startswith("<s>[INST] B\n\nuno[/INST]")
    await asked(talk, "cinco", system="")
    assert prompts(talk)[-1].startswith("<s>[INST] uno[/INST]")
    await asked(talk, "seis", system="")
    assert [text for role, text in said(await tree_of(talk)) if role == "system"] == ["A", "B", ""]
    await asked(talk, "dos y medio", parent=first.answer.id)
    assert prompts(talk)[-1] == "<s>[INST] A\n\nuno[/INST] Sí.</s>[INST] dos y medio[/INST]"


async def test_the_first_question_makes_the_title_unless_there_is_one(talk: Talk) -> None:
    await asked(talk, "¿Qué es un *token*? Explícalo.")
    await asked(talk, "otra")
    assert (await talk.store.conversations.get(talk.here, owner=None)).title == "¿Qué es un token?"
    there = await talk.store.conversations.create(owner=None, title="mía")
    await talk.ask(there.id, "hola", owner=None)
    assert (await talk.store.conversations.get(there.id, owner=None)).title == "mía"


async def test_a_name_that_a_person_gives_meanwhile_stays(talk: Talk) -> None:
    for turn in range(10):
        there = await talk.store.conversations.create(owner=None)
        rename = talk.store.conversations.change(there.id, owner=None, title="mía")
        sends = [talk.ask(there.id, "hola", owner=None), rename]
        await asyncio.gather(*(sends if turn % 2 else sends[::-1]))
        assert (await talk.store.conversations.get(there.id, owner=None)).title == "mía"


async def test_what_belongs_to_somebody_else_or_elsewhere_is_not_there(talk: Talk) -> None:
    mine = await asked(talk, "un secreto")
    elsewhere = (await talk.store.conversations.create(owner=None)).id
    hers = (await talk.store.conversations.create(owner="ana")).id
    for _ in range(2):  # the second time, paths are known
        for conversation, owner in ((elsewhere, None), (hers, "ana"), (talk.here, "ana"), (hers, None)):
            with pytest.raises(NotFound):
                await talk.ask(conversation, "y?", owner=owner, parent=mine.answer.id)
        with pytest.raises(NotFound):
            await talk.ask(talk.here, "y?", owner=None, parent="no-such-message")
    assert len(prompts(talk)) == 1
    await talk.store.conversations.delete(talk.here, owner=None)
    with pytest.raises(NotFound):
        await talk.ask(talk.here, "y?", owner=None)
    with pytest.raises(NotFound):
        await talk.again(mine.question.id, owner=None)
    assert (talk.admission.running, talk.admission.waiting) == (0, 0)


async def test_paths_that_are_remembered_are_those_that_are_read(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "MOST", 3)
    leaves: list[str | None] = [None]
    for number in range(24):
        parent = leaves[(number * 7) % len(leaves)]
        system = f"s{number}" if number % 5 == 4 else None
        leaves.append((await asked(talk, f"q{number}", parent=parent, system=system)).answer.id)
        tree = await tree_of(talk)
        for leaf in leaves[1::3]:
            expected = [message.message for message in tree.path(leaf)]
            assert list(await talk._paths.to(leaf, talk.here, owner=None)) == expected


async def long(talk: Talk, count: int) -> None:
    """Go to a conversation of so many messages, written at once: one by one, they would take seconds."""
    there = await talk.store.conversations.get(talk.here, owner=None)
    ids = [new_id() for _ in range(count)]
    line = [
        StoredMessage(each, there.id, ids[n - 1] if n else None, 0, n + 1, role, f"{role} {n}", there.created)
        for n, (each, role) in enumerate(zip(ids, itertools.cycle(ROLES), strict=False))
    ]
    draft = Draft(replace(there, head=ids[-1]), [packed(Full(each)) for each in line])
    [talk.here] = await talk.store.transfer.add([draft], owner=None)
    assert len((await tree_of(talk)).path()) == count


async def test_a_conversation_of_two_thousand_messages_is_read_once(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await long(talk, 2000)
    opened = 0
    open_it, read = talk.store.conversations.open, talk.store.conversations.message

    async def counting(*args: Any, **options: Any) -> Any:
        nonlocal opened
        opened += 1
        return await open_it(*args, **options)

    reads: list[int] = []

    async def reading(*args: Any, **options: Any) -> Any:
        reads[-1] += 1
        return await read(*args, **options)

    monkeypatch.setattr(talk.store.conversations, "open", counting)
    for number in range(6):
        made = await talk.ask(talk.here, f"más {number}", owner=None)
        await talk.end(made.answer.id)
    assert opened == 1
    monkeypatch.setattr(talk.store.conversations, "message", reading)
    for number in range(3):
        reads.append(0)
        made = await talk.ask(talk.here, f"aún más {number}", owner=None)
        await until(lambda: not talk.replies)
    assert opened == 1
    assert max(reads) <= 4, "the new question and answer, not the conversation"


async def test_the_next_prompt_begins_with_the_last_one_and_its_answer(tmp_path: Path) -> None:
    """So the engine's KV cache holds all of it, ids as the model wrote them, also after the process started anew."""
    model = catalog.find("cierzo-demo", Settings.load().home)
    if model.path is None:
        pytest.skip("the demo model is not in this checkout")
    before: tuple[int, ...] = ()
    here = ""
    for _ in range(2):
        async with talking(tmp_path, LlamaCpp(model, slots=1, threads=1), running=1) as talk:
            here = here or talk.here
            for question in ("¿Qué es un token?", "Who are you?"):
                sampling = Sampling(temperature=1.0, max_new_tokens=30, seed=7)
                made = await talk.ask(here, question, owner=None, sampling=sampling, system="Sé breve.")
                end = await talk.end(made.answer.id)
                ids = await talk.store.replies.prompt_ids(made.answer.id, owner=None)
                assert ids[: len(before)] == before
                tokens = await talk.store.replies.tokens(made.answer.id, owner=None)
                before = ids + tuple(token.id for token in tokens)
                assert end.finish is not None
                assert end.finish.prompt_tokens == len(ids)
