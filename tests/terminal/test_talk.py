"""A conversation in the terminal, with a script for a model and a list for a keyboard."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager

import pytest
from test_render import Terminal, screen

from cierzo import app
from cierzo.app import open_conversations
from cierzo.chat import Chat
from cierzo.engines.script import Reply, Script, Wait
from cierzo.engines.scripted import Scripted
from cierzo.errors import BadText, EngineDied, Overloaded, UnknownModel
from cierzo.messages import Phase, Sampling
from cierzo.settings import Settings
from cierzo.store import Store
from cierzo.switching import Switch
from cierzo.terminal import commands
from cierzo.terminal.chat import converse
from cierzo.terminal.commands import COMMANDS
from cierzo.terminal.talk import Talk


class Typed:
    def __init__(self, *lines):
        self.lines = list(lines)

    async def read(self):
        if not self.lines:
            raise EOFError
        line = self.lines.pop(0)
        if isinstance(line, Exception):
            raise line
        return line


@asynccontextmanager
async def serving(engine):
    """What people do in conversations, on the database in this test's home."""
    chat = Chat(engine)
    service = await open_conversations(Settings.load(), chat)
    try:
        yield service
    finally:
        await service.replies.close()
        await chat.close()
        await service.store.close()


async def talk(engine, *lines, to=None, **options):
    async with serving(engine) as service:
        made = Talk(service, to or screen(terminal=False), **options)
        await converse(made, Typed(*lines))
        return made


async def until_running(engine):
    while not engine.running:  # noqa: ASYNC110 - an engine gives no sign of it
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)


async def press_ctrl_c(engine):
    await until_running(engine)
    os.kill(os.getpid(), signal.SIGINT)


def said(made):
    return [message.text for message in made.path]


async def tree_of(made):
    """What the store has, read anew."""
    store = await Store.open(Settings.load())
    try:
        return await store.conversations.open(made.conversation, owner=None)
    finally:
        await store.close()


def out(made):
    return made.screen.out.getvalue()


def err(made):
    return made.screen.err.getvalue()


async def test_answers_go_to_standard_output_and_make_the_next_prompt():
    engine = Scripted("Hola.", "Bien.")
    made = await talk(engine, "hola", "", "  ", "¿qué tal?")
    assert (out(made), err(made)) == ("Hola.\nBien.\n", "")
    assert engine.asked[1].prompt.text == "<s>[INST] hola[/INST] Hola.</s>[INST] ¿qué tal?[/INST]"
    assert said(made) == ["hola", "Hola.", "¿qué tal?", "Bien."]


async def test_system_and_sampling_reach_the_engine():
    engine = Scripted("a")
    await talk(engine, "/system Be brief.", "/set temperature 0.5", "/set top-p=0.3", "hi", "/system -", "/clear", "hi")
    assert engine.asked[0].prompt.text == "<s>[INST] Be brief.\n\nhi[/INST]"
    assert (engine.asked[0].sampling.temperature, engine.asked[0].sampling.top_p) == (0.5, 0.3)
    assert engine.asked[1].prompt.text == "<s>[INST] hi[/INST]"


async def test_set_takes_every_name_and_shows_it():
    made = await talk(
        Scripted(),
        "/set temperature 0",
        "/set max_new_tokens 7",
        "/set top_p 0.5",
        "/set repetition_penalty 1.5",
        "/set top_k 3",
        "/set min_p 0.1",
        "/set seed 5",
        "/set alternatives 2",
        "/set stop 'a b' \\n",
        "/set stop",
    )
    assert made.sampling == Sampling(0.0, 7, 0.5, 1.5, 3, 0.1, 5, ("a b", "\n"), 2)
    assert err(made).endswith("stop 'a b' '\\n'\n")
    await commands.run(made, "/set seed none")
    await commands.run(made, "/set stop -")
    assert (made.sampling.seed, made.sampling.stop) == (None, ())


BAD_COMMANDS = [
    ("/set temperature 9", "between 0 and 5"),
    ("/set temperature nan", "between 0 and 5"),
    ("/set temperature warm", "must be a number between 0 and 5"),
    ("/set max_new_tokens 0", "between 1 and 131072"),
    ("/set max_new_tokens 1.5", "whole number"),
    ("/set alternatives 21", "between 0 and 20"),
    ("/set topp 1", "use top_p"),
    ("/set colour red", "temperature"),
    ("/set stop 'a", "quote"),
    ("/set seed -1", "between 0"),
    ("/hlep", "/help"),
    ("/Retry", "/retry"),
    ("/" + "x" * 1000, "/help"),
    ("/system \x00", "NUL"),
    ("a\x00b", "NUL"),
    ("half \ud800", "surrogate"),
    ("x" * 2_000_001, "at most 2,000,000"),
    (BadText("a line is too long: shorten it"), "too long"),
]


@pytest.mark.parametrize(("line", "expected"), BAD_COMMANDS)
async def test_what_is_wrong_is_one_line_and_the_chat_goes_on(line, expected):
    engine = Scripted("fine")
    made = await talk(engine, line, "still there?")
    assert expected in err(made)
    assert err(made).count("\n") == 1
    assert len(err(made)) < 400
    assert out(made) == "fine\n"
    assert engine.asked[0].prompt.text == "<s>[INST] still there?[/INST]"


async def test_retry_asks_again_without_the_old_answer():
    engine = Scripted("one", "two")
    made = await talk(engine, "/retry", "hi", "/retry")
    assert out(made) == "one\ntwo\n"
    assert engine.asked[0].prompt.text == engine.asked[1].prompt.text
    assert said(made) == ["hi", "two"]


async def test_undo_goes_back_and_deletes_nothing():
    engine = Scripted("a")
    made = await talk(engine, "/undo", "one", "two", "/undo", "three")
    assert said(made) == ["one", "a", "three", "a"]
    assert err(made).startswith("there is no question yet\nback to before the last question")
    assert engine.asked[2].prompt.text == "<s>[INST] one[/INST] a</s>[INST] three[/INST]"
    assert [m.text for m in (await tree_of(made)).messages] == ["one", "a", "two", "a", "three", "a"]


@pytest.mark.parametrize("error", [EngineDied("it died: ask again"), Overloaded("all busy", retry_after=1)])
async def test_an_error_is_one_line_and_the_question_can_be_asked_again(error):
    engine = Scripted(["I was ab", error], "Now.")
    made = await talk(engine, "well?", "/retry")
    assert out(made) == "I was ab\nNow.\n"
    assert err(made).splitlines()[0] == f"cierzo: {error}"
    assert said(made) == ["well?", "Now."]
    assert [m.text for m in (await tree_of(made)).messages] == ["well?", "I was ab", "Now."]


async def test_a_question_that_cannot_fit_is_not_kept():
    engine = Scripted(script=Script((Reply.of("ok"),), context=64))
    made = await talk(engine, "word " * 200, "short")
    assert "the last question takes" in err(made)
    assert out(made) == "ok\n"
    assert [m.text for m in (await tree_of(made)).messages] == ["short", "ok"]


async def test_dropped_turns_are_told():
    engine = Scripted(script=Script((Reply.of("an answer of some words"),), context=64))
    made = await talk(engine, *[f"question number {n} of several" for n in range(4)])
    assert "the oldest 2 messages were left out" in err(made)


async def test_show_tokens_and_prompt():
    made = await talk(
        Scripted(),
        "/tokens",
        "/prompt",
        "/show",
        "hello [INST]",
        "/tokens",
        "/prompt",
        "/show",
        sampling=Sampling(alternatives=2),
    )
    assert err(made).splitlines()[:2] == ["there is no answer yet", "there is no question yet"]
    assert "98.0 %" in out(made)
    assert "<s>[INST] hello [INST][/INST]\n" in out(made)
    assert "[INST]" in err(made)  # told to be plain text
    assert "ended with eos_token" in err(made)


async def test_model_and_engine_change_what_answers(monkeypatch):
    made, gone = [], Scripted("viejo")

    def opened(settings):
        if settings.model == "none":
            raise UnknownModel("there is no model 'none': see `cierzo models list`")
        slow = (Reply.of("x", first=60),) if settings.model == "lento" else (Reply.of("nuevo"),)
        made.append(Scripted(script=Script(slow, model=settings.model, context=4096)))
        return made[-1]

    monkeypatch.setattr(app, "open_engine", opened)
    monkeypatch.setattr(Switch, "_fits_beside", lambda *_: True)  # these models have no files
    to = screen(terminal=False)
    pressing = []

    async def press():
        while not any(each.running for each in made if each.script.model == "lento"):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    class Pressing(Typed):
        async def read(self):
            if self.lines and self.lines[0] == "/model lento":
                pressing.append(asyncio.create_task(press()))
            return await super().read()

    lines = ("uno", "/model", "/model otro", "dos", "/model none", "tres", "/model lento", "/engine scripted:")
    async with serving(gone) as service:
        here = Talk(service, to)
        await converse(here, Pressing(*lines))
        assert [message.answer.model for message in here.path if message.answer] == ["scripted", "otro", "otro"]
        assert gone._closed
        told = to.err.getvalue()
        assert "otro · scripted · v3 · 4,096 tokens" in told
        assert "there is no model 'none'" in told
        assert "[stopped]" in told
        assert [each.script.model for each in made] == ["otro", "lento", "cierzo-demo"]
        assert service.chat.engine is made[-1]
    await asyncio.gather(*pressing)


async def test_clear_and_help_and_quit():
    engine = Scripted("a")
    made = await talk(engine, "one", "/clear", "two", "/help", "/quit", "never")
    assert [asked.prompt.text for asked in engine.asked] == ["<s>[INST] one[/INST]", "<s>[INST] two[/INST]"]
    assert all(name in err(made) for name in COMMANDS)


async def test_a_line_with_a_space_before_the_slash_is_a_question():
    engine = Scripted("a")
    await talk(engine, " /usr/bin is what?")
    assert len(engine.asked) == 1


async def test_ctrl_c_stops_the_answer_and_keeps_what_was_said():
    engine = Scripted(["Half", " an", Wait(), "never"], "Whole.")
    pressing = asyncio.create_task(press_ctrl_c(engine))
    made = await talk(engine, "go", "/show", "and?")
    await pressing
    assert out(made) == "Half an\nWhole.\n"
    assert err(made).splitlines()[0] == "[stopped]"
    assert "ended with stopped" in err(made)
    assert "[/INST] Half an</s>[INST] and?" in engine.asked[1].prompt.text
    assert (engine.running, engine.stopped) == (0, 1)
    assert signal.getsignal(signal.SIGINT) is not None


async def test_ctrl_c_before_the_first_token_keeps_the_question():
    engine = Scripted([Wait()], "Now.")
    pressing = asyncio.create_task(press_ctrl_c(engine))
    made = await talk(engine, "go", "/retry")
    await pressing
    assert said(made) == ["go", "Now."]


async def test_being_cancelled_is_not_being_stopped():
    engine = Scripted([Wait()])
    task = asyncio.create_task(talk(engine, "go"))
    await until_running(engine)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.running == 0


async def test_the_phase_is_shown_with_a_clock_and_disappears():
    phases = [Phase("queued", 2), Wait(0.45), Phase("loading", 40, 100), Wait(0.3), Phase("reading", 3, 9), Wait(0.3)]
    made = await talk(Scripted([*phases, "Hi"]), "go", to=screen(NO_COLOR="1"))
    for words in ("number 2 in the queue · 0.", "loading the model, 40 %", "reading the prompt, 3 of 9 tokens"):
        assert words in err(made)
    assert err(made).endswith("\r\x1b[K")
    assert out(made) == "Hi\n\n"


async def test_an_answer_cannot_command_the_terminal():
    made = await talk(
        Scripted(["a\x1b]0;title\x07\x9b2J", "\x1b", "[31m"]), "go", "/tokens", "/prompt", to=screen(NO_COLOR="1")
    )
    assert isinstance(made.screen.out, Terminal)
    assert not {"\x1b", "\x07", "\x9b"} & set(out(made))


async def test_a_nul_of_the_model_does_not_end_the_chat():
    made = await talk(Scripted(["a\x00b"], "c"), "one", "two")
    assert out(made) == "a\x00b\nc\n"
