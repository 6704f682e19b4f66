"""What `cierzo chat` keeps, on a real terminal and under kill -9, and how one goes on with it."""

import os
import signal
import subprocess
import sys

import pytest
from test_keyboard import CTRL_C, CTRL_D, ENTER, chat
from test_render import screen
from test_talk import Typed, err, out, said, serving, talk, tree_of

from cierzo.engines.scripted import Scripted
from cierzo.messages import Sampling
from cierzo.terminal import commands
from cierzo.terminal.chat import converse, resume
from cierzo.terminal.talk import Talk

SLOW = '[[reply]]\nwhen = "long"\ntext = "on and on "\nrepeat = true\ndelay = 0.05\n[[reply]]\ntext = "Fine."'


async def test_every_question_and_answer_is_in_the_store():
    made = await talk(Scripted("one", "two"), "hi", "and?")
    tree = await tree_of(made)
    assert [(m.role, m.text) for m in tree.path()] == [
        ("user", "hi"),
        ("assistant", "one"),
        ("user", "and?"),
        ("assistant", "two"),
    ]
    assert tree.conversation.title == "hi"
    assert made.parent == tree.conversation.head


async def test_retry_makes_a_sibling():
    made = await talk(Scripted("one", "two"), "hi", "/retry")
    tree = await tree_of(made)
    assert [m.text for m in tree.children(tree.messages[0].id)] == ["one", "two"]
    assert tree.path()[-1].text == "two"


async def test_retry_under_another_system_prompt_asks_anew():
    engine = Scripted("one", "two")
    made = await talk(engine, "hi", "/system Be brief.", "/retry")
    assert engine.asked[1].prompt.text == "<s>[INST] Be brief.\n\nhi[/INST]"
    assert [m.text for m in (await tree_of(made)).children(None)] == ["hi", "Be brief."]
    assert said(made) == ["Be brief.", "hi", "two"]


async def test_the_system_prompt_counts_from_where_it_was_said():
    engine = Scripted("a", "b", "c")
    made = await talk(engine, "one", "/system Be brief.", "two", "/system -", "three")
    assert [m.text for m in (await tree_of(made)).path()] == ["one", "a", "Be brief.", "two", "b", "", "three", "c"]
    assert "Be brief." in engine.asked[1].prompt.text
    assert "Be brief." not in engine.asked[2].prompt.text


async def test_clear_begins_another_conversation():
    async with serving(Scripted("a")) as service:
        made = Talk(service, screen(terminal=False))
        await converse(made, Typed("one", "/clear", "/title x", "two", "/title The second", "/title"))
        listed = (await service.store.conversations.list(owner=None)).conversations
    assert [each.title for each in listed] == ["The second", "one"]
    assert err(made).endswith("title: The second\ntitle: The second\n")


async def test_an_answer_that_was_cut_is_continued_where_it_ends():
    engine = Scripted("one two three four five", "and more")
    made = await talk(
        engine, "/continue", "count", "/continue", "/continue", "next", sampling=Sampling(max_new_tokens=2)
    )
    assert err(made).splitlines()[:2] == ["there is no answer yet", "(cut at 2 tokens: /continue goes on)"]
    path = (await tree_of(made)).path()
    assert path[1].text.startswith("one two")
    assert path[1].answer.kept == 4
    assert out(made).replace("\n", "").startswith(path[1].text)
    assert engine.asked[3].prompt.text.startswith(f"<s>[INST] count[/INST] {path[1].text}</s>[INST] next")


async def test_what_is_whole_is_not_continued():
    made = await talk(Scripted("one"), "hi", "/continue")
    assert "this answer is complete" in err(made)
    assert said(made) == ["hi", "one"]


async def test_a_conversation_goes_on_another_day():
    first = await talk(Scripted("a", "b"), "/system S", "one", "two")
    engine = Scripted("c")
    async with serving(engine) as service:
        made = Talk(service, screen(NO_COLOR="1"))
        await resume(made, first.conversation[:14])
        assert made.system == "S"
        await converse(made, Typed("three", "/tokens", "/prompt"))
    assert out(made).startswith("… earlier messages: 1\n> one\na\n\n> two\nb\n\nc\n")
    assert engine.asked[0].prompt.text == "<s>[INST] S\n\none[/INST] a</s>[INST] two[/INST] b</s>[INST] three[/INST]"
    assert out(made).count("<s>[INST] S") == 1
    assert len((await tree_of(made)).path()) == 7


@pytest.mark.parametrize("undone", [1, 2, 3])
async def test_what_was_undone_stays_so_for_whoever_goes_on(undone):
    first = await talk(Scripted("a", "b"), "/system S", "one", "two", *["/undo"] * undone)
    before = [m.text for m in (await tree_of(first)).messages]
    assert before == ["S", "one", "a", "two", "b"]
    engine = Scripted("c")
    async with serving(engine) as service:
        made = Talk(service, screen(terminal=False))
        await resume(made, "")
        assert (made.parent, said(made)) == (first.parent, said(first))
        await converse(made, Typed("three"))
    begins = "<s>[INST] S\n\none[/INST] a</s>[INST] three" if undone == 1 else "<s>[INST] S\n\nthree"
    assert engine.asked[0].prompt.text == f"{begins}[/INST]"
    tree = await tree_of(made)
    assert [m.text for m in tree.messages] == [*before, "three", "c"]
    assert [m.text for m in tree.path()] == [*(["S", "one", "a"] if undone == 1 else ["S"]), "three", "c"]


async def test_the_very_first_question_can_be_undone_too():
    first = await talk(Scripted("a"), "one", "/undo", "/undo")
    assert err(first).endswith("there is no question yet\n")
    async with serving(Scripted("b")) as service:
        made = Talk(service, screen(terminal=False))
        await resume(made, "")
        assert said(made) == []
        await converse(made, Typed("/continue", "/show", "/tokens", "/prompt", "two"))
    assert made.conversation == first.conversation
    assert [m.text for m in (await tree_of(made)).children(None)] == ["one", "two"]


async def test_the_last_answer_of_another_day_shows_its_tokens_and_prompt():
    await talk(Scripted("a"), "one", sampling=Sampling(alternatives=2))
    async with serving(Scripted("b")) as service:
        made = Talk(service, screen(terminal=False))
        await resume(made, "")
        await converse(made, Typed("/tokens", "/prompt", "/show"))
    assert "77.9 %" in out(made)
    assert "<s>[INST] one[/INST]\n" in out(made)
    assert "ended with eos_token" in err(made)


def kept_as(seen):
    seen.type(CTRL_D)
    return seen.until("--continue ") and seen.until("\r\n").strip().replace("\x1b[0m", "")


def test_a_chat_that_is_killed_loses_nothing_that_was_shown(tmp_path):
    with chat(tmp_path, script=SLOW) as seen:
        seen.prompt()
        seen.type("quick" + ENTER)
        seen.until("Fine.")
        seen.prompt()
        seen.type("a long one" + ENTER)
        for _ in range(6):
            seen.until("on and on")
        early = seen.raw.count("on and on")
        os.kill(seen.process.pid, signal.SIGKILL)
        seen.process.wait()
    assert early >= 6
    with chat(tmp_path, "--continue", script=SLOW) as seen:
        shown = seen.until("/continue goes on with it")
        assert "> quick" in shown
        assert "Fine." in shown
        assert "interrupted" in shown
        assert "Traceback" not in shown
        assert "WARNING" not in shown
        said = shown.count("on and on")
        assert said >= early - 10  # at most a second of it, at 20 tokens a second
        seen.prompt()
        seen.type("/continue" + ENTER)
        seen.until("on and on")
        seen.type(CTRL_C)
        seen.until("[stopped]")
        seen.prompt()
        name = kept_as(seen)
        assert seen.status() == 0
    done = subprocess.run(
        [sys.executable, "-m", "cierzo", "history", "show", name],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.count("on and on") > said
    assert "stopped" in done.stdout
    assert "1 messages stand in other branches" in done.stderr


def test_two_programs_at_once_on_one_file():
    lines = "".join(f"question {n}\n" for n in range(5)).encode()
    command = [sys.executable, "-m", "cierzo", "chat", "--engine", "scripted:"]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in "ab"
    ]
    for each in running:
        each.stdin.write(lines)
        each.stdin.close()
        each.stdin = None
    for each in running:
        shown, wrong = each.communicate(timeout=100)
        assert (each.returncode, wrong, shown.count(b"You said: question")) == (0, b"", 5)
    listed = subprocess.run(
        [sys.executable, "-m", "cierzo", "history", "list"], capture_output=True, text=True, timeout=60, check=True
    )
    assert [line.split()[3] for line in listed.stdout.splitlines()[1:]] == ["10", "10"]


@pytest.mark.parametrize("command", list(commands.COMMANDS))
async def test_no_command_needs_a_conversation(command):
    made = await talk(Scripted("a"), command, "hi") if command != "/quit" else None
    assert made is None or out(made).endswith("a\n")
