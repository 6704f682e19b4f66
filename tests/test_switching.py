"""Changing the engine while chats go on: what runs ends where it began, whole, and what is closed is really gone."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from talking import Talk, talking, until

from cierzo.chat import Chat
from cierzo.engines.script import Reply, Script, Wait
from cierzo.engines.scripted import Scripted
from cierzo.errors import BadInput, Conflict, EngineDied, ModelUnreadable, UnknownModel
from cierzo.messages import Message, Phase, Prompt, Sampling, StreamEvent, Token
from cierzo.settings import Settings
from cierzo.switching import Switch

GREEDY = Sampling(temperature=0, max_new_tokens=24)
HI = [Message("user", "Hi")]


class Named(Scripted):
    """Says its own name in every token, and knows when it was closed, and whether it was asked after that.

    Its answers stop in the middle while ``gate`` is not set.
    """

    def __init__(self, name: str, *, delay: float = 0.002, words: int = 12, template: str = "v3", **more: Any) -> None:
        reply = Reply.of(" ".join([name] * words), delay=delay)
        super().__init__(script=Script((reply,), model=name, template=template, slots=more.get("slots", 4)))
        self.name, self.whole = name, " ".join([name] * words)
        self.closed_with: int | None = None
        self.foreign: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def stream(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[StreamEvent, None]:
        if prompt.template != self.script.template or self.closed_with is not None:
            self.foreign.append(prompt.template)
        async with aclosing(super().stream(prompt, sampling)) as events:
            async for event in events:
                yield event
                await self.gate.wait()

    async def close(self) -> None:
        self.closed_with = self.running if self.closed_with is None else self.closed_with
        await super().close()


@pytest.fixture
async def talk(tmp_path: Path) -> AsyncGenerator[Talk]:
    async with talking(tmp_path, Named("uno")) as opened:
        yield opened


async def test_answers_under_way_end_on_the_old_engine_which_is_closed_with_the_last(talk: Talk) -> None:
    """Eight run or wait when the engine changes; each is whole, by one engine, and the old one ends after them."""
    old, new = talk.chat.engine, Named("dos", template="v3-tekken")
    assert isinstance(old, Named)
    old.gate.clear()
    new.gate.clear()
    before = [(await talk.ask(talk.here, f"¿{n}?", owner=None, parent=None)).answer for n in range(8)]
    await until(lambda: old.running == 4)
    talk.turn_to(new)
    after = [(await talk.ask(talk.here, f"¡{n}!", owner=None, parent=None)).answer for n in range(4)]
    assert (sum(each.running for each in talk.admissions), len(talk.admissions)) == (8, 2)
    new.gate.set()
    for answer in after:
        await talk.end(answer.id)
    assert (old.running, old.closed_with) == (4, None), "the old engine still writes four, and four wait for it"
    old.gate.set()
    for answer in before:
        assert (await talk.end(answer.id)).reason == "eos_token"
    await until(lambda: old.closed_with is not None)
    assert (old.closed_with, new.closed_with, old.foreign, new.foreign) == (0, None, [], [])
    assert {await talk.text(each.id) for each in before} == {old.whole}
    assert {await talk.text(each.id) for each in after} == {new.whole}
    stored = [await talk.store.conversations.message(each.id, owner=None) for each in (*before, *after)]
    told = [(each.answer.model, each.answer.template) for each in stored if each.answer]
    assert told == [("uno", "v3")] * 8 + [("dos", "v3-tekken")] * 4
    assert [each.running for each in talk.admissions] == [0]


async def test_fifty_switches_among_conversations(talk: Talk) -> None:
    """At random moments; every answer is whole and by the one engine that the store names."""
    random.seed(20261127)
    engines = [talk.chat.engine]
    answers: list[str] = []

    async def person(number: int) -> None:
        here = (await talk.store.conversations.create(owner=None)).id
        while len(engines) < 51:
            asked = await talk.ask(here, f"{number}.{len(answers)}", owner=None)
            answers.append(asked.answer.id)
            assert (await talk.end(asked.answer.id)).reason == "eos_token"

    people = [asyncio.create_task(person(number)) for number in range(4)]
    for number in range(50):
        template = random.choice(["v1", "v3", "v3-tekken", "v7"])
        new = Named(f"m{number}", template=template, delay=random.choice([0.0, 0.002]), words=6)
        begun = len(answers)
        await until(lambda: len(answers) > begun)  # noqa: B023 - it is awaited within this turn
        await asyncio.sleep(random.random() * 0.01)
        talk.turn_to(new)
        engines.append(new)
    await asyncio.gather(*people)
    whole = {each.name: (each.whole, each.script.template) for each in engines if isinstance(each, Named)}
    used = set()
    for answer in answers:
        stored = (await talk.store.conversations.message(answer, owner=None)).answer
        assert stored is not None
        assert (await talk.text(answer), stored.template) == whole[stored.model]
        used.add(stored.model)
    await until(lambda: all(isinstance(each, Named) and each.closed_with == 0 for each in engines[:-1]))
    assert [each.foreign for each in engines if isinstance(each, Named)] == [[]] * 51
    assert len(used) > 12
    print(f"\n{len(answers)} answers by {len(used)} of {len(engines)} engines")


async def test_a_stopped_an_unread_and_a_forgotten_answer_let_go() -> None:
    engine = Named("uno", delay=0.01)
    chat = Chat(engine)
    stream = chat.stream(HI)
    async with aclosing(stream):
        async for event in stream:
            if isinstance(event, Token):
                break
        assert chat.held == 1
    assert chat.held == 0
    held = chat.hold()
    unread = held.stream_prompt(await held.prompt(HI))
    forgotten = _reading(held)
    del held
    assert chat.held == 1
    chat.turn_to(Named("dos"))
    await asyncio.sleep(0.02)
    assert engine.closed_with is None
    del forgotten  # a generator that never began runs none of its `finally`
    gc.collect()
    await until(lambda: engine.closed_with == 0)
    await unread.aclose()
    await chat.close()


async def _reading(held: Any) -> AsyncGenerator[Any, None]:
    try:
        yield held
    finally:
        held.let_go()


async def test_a_queued_answer_that_is_stopped_lets_the_old_engine_go(talk: Talk) -> None:
    old = talk.chat.engine
    assert isinstance(old, Named)
    old.gate.clear()
    answers = [(await talk.ask(talk.here, f"{n}", owner=None, parent=None)).answer.id for n in range(5)]
    talk.turn_to(Named("dos"))
    for answer in answers:
        await talk.stop(answer, owner=None)
    await until(lambda: old.closed_with == 0)


async def test_closing_the_chat_ends_every_engine() -> None:
    old, new = Named("uno", delay=10), Named("dos", delay=10)
    chat = Chat(old)
    first = asyncio.create_task(chat.answer(HI))
    await until(lambda: old.running)
    chat.turn_to(new)
    second = asyncio.create_task(chat.answer(HI))
    await until(lambda: new.running)
    await chat.close()
    for each in (first, second):
        with pytest.raises(EngineDied):
            await each
    assert (old.closed_with, new.closed_with) == (1, 1)
    with pytest.raises(EngineDied):
        chat.turn_to(Named("tres"))


async def test_an_answer_goes_on_in_another_vocabulary(talk: Talk) -> None:
    """A cut answer is re-encoded as text; a token of it means nothing there."""
    text = "El aceite 🫒, «claro» ñandú"
    talk.turn_to(Scripted(Reply.of([*text.split(" ", 1)[0], " ", text.split(" ", 1)[1], "y más"]), script=None))
    first = (await talk.ask(talk.here, "¿?", owner=None, sampling=Sampling(max_new_tokens=4))).answer.id
    assert (await talk.end(first)).reason == "length"
    before = await talk.text(first)
    for template in ("v1", "v3-tekken", "v7-tekken"):
        engine = Scripted(script=Script((Reply.of(" sigue"),), template=template))
        talk.turn_to(engine)
        more = (await talk.go_on(first, owner=None)).message
        assert (await talk.end(more.id)).reason == "eos_token"
        assert await talk.text(more.id) == before.rstrip() + " sigue"
        assert engine.asked[-1].prompt.text.endswith(before.rstrip())
        with pytest.raises(BadInput, match="other tokens"):
            await talk.go_on(first, owner=None, at=1)


class Doors:
    """Opens the engines that a switch asks for: named ones, and one that fails in each way."""

    def __init__(self) -> None:
        self.opened: list[tuple[Settings, Any]] = []

    def open(self, settings: Settings) -> Any:
        if settings.model == "none":
            raise UnknownModel("there is no model 'none'")
        words: list[Any] = [ModelUnreadable("the file is damaged: download it again")]
        broken = Scripted(words) if settings.model == "damaged" else None
        engine = broken or Named(settings.model)
        self.opened.append((settings, engine))
        return engine


@asynccontextmanager
async def switching_among(tmp_path: Path, **settings: Any) -> AsyncGenerator[tuple[Talk, Switch, Doors]]:
    doors = Doors()
    opened = Settings.load({"home": tmp_path, "model": "uno", "engine": "scripted:", **settings})
    async with talking(tmp_path, doors.open(opened)) as talk:
        talk.switch = Switch(talk.chat, opened, doors.open, talk.turn_to)
        yield talk, talk.switch, doors


async def test_a_new_engine_has_to_say_a_word_first(tmp_path: Path) -> None:
    async with switching_among(tmp_path) as (talk, switch, doors):
        old = talk.chat.engine
        info = await switch.to(model="dos", engine="scripted:")
        assert (info.model, talk.chat.info, switch.settings.model, switch.changing) == ("dos", info, "dos", "")
        new = doors.opened[-1][1]
        assert (new.asked[0].prompt.kept, new.asked[0].sampling.max_new_tokens) == (tuple(HI), 1)
        await until(lambda: old.closed_with == 0)
        count = len(doors.opened)
        assert await switch.to(model="dos", engine="scripted:") == info
        assert len(doors.opened) == count, "what is in use already is not opened again"


@pytest.mark.parametrize(("model", "error"), [("none", UnknownModel), ("damaged", ModelUnreadable)])
async def test_an_engine_that_fails_leaves_the_old_one(tmp_path: Path, model: str, error: type[Exception]) -> None:
    async with switching_among(tmp_path) as (talk, switch, _):
        old = talk.chat.engine
        assert isinstance(old, Named)
        old.gate.clear()
        answer = (await talk.ask(talk.here, "¿?", owner=None)).answer.id
        with pytest.raises(error):
            await switch.to(model=model, engine="scripted:")
        assert (talk.chat.engine, switch.changing, switch.settings.model) == (old, "", "uno")
        old.gate.set()
        assert (await talk.end(answer)).reason == "eos_token"
        assert old.closed_with is None


async def test_one_change_at_a_time_and_what_it_waits_for_is_told(tmp_path: Path) -> None:
    async with switching_among(tmp_path) as (talk, switch, doors):
        slow = Scripted([Phase("loading", 40, 100), Wait(0.2), "sí"])
        doors.open, plain = lambda _: slow, doors.open  # type: ignore[method-assign] # a slow one, once
        switch._open = doors.open
        changing = asyncio.create_task(switch.to(model="lento", engine="scripted:"))
        await until(lambda: switch.phase is not None)
        assert (switch.changing, switch.phase and switch.phase.done) == ("lento", 40)
        with pytest.raises(Conflict, match="lento"):
            await switch.to(model="dos", engine="scripted:")
        assert talk.chat.info.model == "uno", "the old one answers meanwhile"
        await changing
        assert (talk.chat.engine, switch.changing, switch.phase) == (slow, "", None)
        switch._open = plain


async def test_a_change_that_is_given_up_leaves_the_old_one(tmp_path: Path) -> None:
    async with switching_among(tmp_path) as (talk, switch, doors):
        mute = Named("mudo", delay=60)
        mute.gate.clear()
        mute.script = replace(mute.script, replies=(Reply.of("a", first=60),))
        switch._open = lambda _: mute
        changing = asyncio.create_task(switch.to(model="mudo", engine="scripted:"))
        await until(lambda: mute.running)
        changing.cancel()
        await asyncio.wait([changing])
        assert (talk.chat.info.model, switch.changing, mute.closed_with) == ("uno", "", 0)
        assert doors.opened[0][1].closed_with is None


async def test_only_whoever_runs_it_may_name_other_files_and_addresses(tmp_path: Path) -> None:
    more = {"engines": "tgi+http://127.0.0.1:3000 , openai+http://[::1]:8000/v1"}
    async with switching_among(tmp_path, **more) as (_, switch, _):
        assert switch.addresses == (
            "scripted:",
            "llamacpp:",
            "tgi+http://127.0.0.1:3000",
            "openai+http://[::1]:8000/v1",
        )
        for model, engine in [
            (None, "openai+http://169.254.169.254"),
            (None, "openai+http://127.0.0.1:3000"),
            (None, "scripted:/etc/passwd"),
            (None, "tgi+http://127.0.0.1:3000@evil.example"),
            (None, " scripted:"),
            (None, ""),
            ("/etc/passwd", None),
            ("../x.gguf", "llamacpp:"),
            ("hf:me/mine/x.gguf", None),
        ]:
            with pytest.raises(BadInput):
                switch.permit(model, engine)
        switch.permit("cierzo-demo", None)
        switch.permit("uno", "llamacpp:")  # that of the start
        switch.permit("/any name there", "tgi+http://127.0.0.1:3000")


async def test_a_key_stays_with_the_server_that_it_was_given_for(tmp_path: Path) -> None:
    async with switching_among(tmp_path, engine_key="k" * 20) as (_, switch, _):
        elsewhere = switch._wanted(None, "openai+http://127.0.0.1:8000")
        here = switch._wanted("otro", "scripted:")
        assert ("k" * 20 in str(elsewhere.model_dump()), "model" in elsewhere.model_fields_set) == (False, False)
        assert (here.model, "model" in here.model_fields_set) == ("otro", True)
        assert {s.engine_key.get_secret_value() for s in (here, switch._wanted(None, "scripted:"))} == {"k" * 20}
        assert elsewhere.engine_key.get_secret_value() == ""
