"""Whatever an engine does, a command ends: with one last event, one line that says why, and status 0 or 1.

In this process, since a hundred new ones take minutes: `main` is all that a process runs. A few have their own.
"""

from __future__ import annotations

import asyncio
import functools
import io
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from faults import FAULTS, ODD

from cierzo import app, chat, replies
from cierzo.cli import main
from cierzo.engines.base import orderly
from cierzo.engines.scripted import Scripted
from cierzo.settings import Settings
from cierzo.store import Store

TESTS = Path(__file__).parent.parent
CASES = {**FAULTS, **ODD}
COMMANDS = ("ask --json", "ask", "tokens", "chat")
SAID = {"has a broken model": "broken", "refuses": "it would not", "has no memory": "none left", "is missing": "none"}


class OnceBroken:
    """An engine that breaks its first promise, and then is fine."""

    def __init__(self, broken):
        self.broken, self.fine, self.asked = broken, Scripted("Fine."), 0

    def describe(self):
        return self.fine.describe()

    def stream(self, prompt, sampling):
        self.asked += 1
        return (self.broken if self.asked == 1 else self.fine).stream(prompt, sampling)

    async def close(self):
        await self.broken.close()


@pytest.fixture
def run(monkeypatch, capfd):
    """Run a command on an engine; return its status and what it wrote."""
    monkeypatch.setattr(chat, "orderly", functools.partial(orderly, silence=0.1))
    monkeypatch.setattr(replies, "orderly", lambda stream, **_: orderly(stream, silence=0.1))
    filters = {name: logging.getLogger(name) for name in ("cierzo.engines", "cierzo.replies")}
    before = {name: (log.filters[:], log.level) for name, log in filters.items()}

    def running(engine, *arguments, stdin=""):
        monkeypatch.setattr(app, "open_engine", lambda _: engine)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8"))
        with pytest.raises(SystemExit) as left:
            main(arguments)
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        assert "secret" not in out + err
        assert engine.running == 0 if not isinstance(engine, OnceBroken) else engine.broken.running == 0
        return left.value.code, out, err

    yield running
    for name, log in filters.items():
        log.filters[:], level = before[name]
        log.setLevel(level)


@functools.cache
def schema():
    text = (TESTS.parent / "docs" / "terminal.md").read_text("utf-8")
    found = re.search(r"```json schema\n(.*?)```", text, re.DOTALL)
    return jsonschema.Draft202012Validator(json.loads(found[1]))


def check_line(fault, status, err):
    """One line that says why, and 1; or nothing, and 0."""
    if fault in FAULTS:
        assert status == 1, err
        assert err.startswith("cierzo: ")
        assert (err.count("\n"), err[-1]) == (1, "\n")
        assert SAID.get(fault, "") in err
        assert len(err) < 300
    else:
        assert (status, err) == (0, "")


@pytest.mark.parametrize("fault", CASES)
def test_ask_as_json_has_one_last_event(run, fault):
    status, out, err = run(CASES[fault](), "ask", "--json", "Hi")
    check_line(fault, status, err)
    lines = [json.loads(line) for line in out.splitlines()]
    for line in lines:
        schema().validate(line)
    kinds = [line["event"] for line in lines]
    assert kinds[0] == "start"
    assert sum(kind in ("finish", "error") for kind in kinds) == 1
    assert kinds[-1] == ("error" if fault in FAULTS else "finish")
    if fault in FAULTS:
        assert err == f"cierzo: {lines[-1]['message']}\n"
    else:
        assert lines[-1]["text"] == "".join(line["text"] for line in lines if line["event"] == "token")
        assert lines[-1]["reason"] == "eos_token"


@pytest.mark.parametrize("command", ["ask", "tokens"])
@pytest.mark.parametrize("fault", CASES)
def test_ask_and_tokens_end_with_one_line(run, fault, command):
    status, out, err = run(CASES[fault](), command, "Hi")
    check_line(fault, status, err)
    assert out == "" or out.endswith("\n")
    assert set(out.partition("\n")[0]) <= {"a", "b"}


async def stored():
    store = await Store.open(Settings.load())
    try:
        [conversation] = await store.transfer.listed(owner=None)
        return (await store.conversations.open(conversation.id, owner=None)).messages
    finally:
        await store.close()


@pytest.mark.parametrize("fault", CASES)
def test_chat_goes_on_after_it_and_keeps_what_was_said(run, fault):
    engine = OnceBroken(CASES[fault]())
    status, out, err = run(engine, "chat", stdin="first\nsecond\n")
    assert status == 0
    question, answer, second, fine = asyncio.run(stored())
    reason = {"says stopped": "stopped"}.get(fault, "failed" if fault in FAULTS else "eos_token")
    assert (answer.answer.state, answer.answer.reason) == ("done", reason)
    assert out == (f"{answer.text}\n" if answer.text or reason != "failed" else "") + "Fine.\n"
    assert set(answer.text) <= {"a", "b"}
    told = err.splitlines()
    if reason == "failed":
        assert told[0] == f"cierzo: {answer.answer.failure}"
        assert told[1:] == ["the question is kept: /retry asks again, /continue goes on from here, /undo goes back"]
        assert SAID.get(fault, "") in answer.answer.failure
    else:
        assert told == (["[stopped]"] if reason == "stopped" else [])
    assert [question.text, second.text, fine.text] == ["first", "second", "Fine."]
    assert (fine.answer.reason, second.parent) == ("eos_token", answer.id if answer.text else question.id)


OWN = [
    ("raises something foreign", "ask", "--json", "Hi"),
    ("raises something foreign", "chat"),
    ("says failed", "ask", "Hi"),
]
PROGRAM = """
import sys
from cierzo import app
from cierzo.cli import main
from faults import FAULTS
fault, *arguments = sys.argv[1:]
app.open_engine = lambda settings: FAULTS[fault]()
main(arguments)
"""


@pytest.mark.parametrize("case", OWN, ids=" ".join)
def test_it_is_the_same_in_a_process_of_its_own(case):
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    stdin = "Hi\n" if "chat" in case else ""
    command = [sys.executable, "-c", PROGRAM, *case]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=variables, check=False, timeout=100)
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stdout + done.stderr
    assert done.stderr.startswith("cierzo: ")
    assert (done.returncode, done.stderr.count("\n")) == ((0, 2) if "chat" in case else (1, 1)), done.stderr
    if "--json" in case:
        assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["start", "token", "error"]
    else:
        assert done.stdout == "a\n"


def test_how_many_there_are():
    cases = len(CASES) * len(COMMANDS)
    print(f"\n{len(FAULTS)} faults and {len(ODD)} oddities x {len(COMMANDS)} commands: {cases} cases, {len(OWN)} alone")
    assert len(FAULTS) == 27
