"""`cierzo history`, `export` and `import` as commands: what they print, and how they refuse."""

import io
import json
import os
import stat
import sys
from pathlib import Path

import pytest
from test_cli import schema

from cierzo.cli import main


@pytest.fixture
def run(monkeypatch, capfd):
    """Run a command in this process; return its status, standard output and standard error."""

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return left.value.code, out, err

    return run


@pytest.fixture
def kept(run):
    """Two conversations, and the beginnings of their ids."""
    for question in ("¿Qué es el viento?\n/retry\n", "Otra cosa\n"):
        status, _, err = run("chat", "--engine", "scripted:", stdin=question.encode())
        assert (status, err) == (0, "")
    _, out, _ = run("history", "list", "--json")
    return [json.loads(line)["id"][:14] for line in out.splitlines()]


def ids(run, *flags):
    return [json.loads(line)["id"] for line in run("history", "list", "--json", *flags)[1].splitlines()]


def test_list_is_plain_where_there_is_no_terminal(run, kept):
    status, out, err = run("history", "list")
    head, *rows = out.splitlines()
    assert (status, err, head.split()) == (0, "", ["ID", "WRITTEN", "MESSAGES", "TITLE"])
    assert [row.rsplit("  ", 1)[1] for row in rows] == ["Otra cosa", "¿Qué es el viento?"]
    assert "\x1b" not in out
    assert "older ones" in run("history", "list", "-n", "1")[2]


def test_an_empty_list_says_so(run):
    assert run("history", "list")[2].startswith("there is none yet")


def test_show_and_search(run, kept):
    out = run("history", "show", kept[1])[1]
    assert out.startswith("¿Qué es el viento?\n\nuser · ")
    assert out.count("You said:") == 1
    assert run("history", "show", kept[1], "--all")[1].count("after 1 · scripted") == 2
    assert run("history", "search", "que", "vient")[1].count("¿Qué es el viento?") >= 3
    assert run("history", "search", "nada")[2] == "nothing holds all of these words\n"


def test_the_bin_and_back(run, kept):
    status, out, err = run("history", "rm", kept[0])
    assert (status, out) == (0, "")
    assert "cierzo history restore" in err
    assert [each[:14] for each in ids(run)] == kept[1:]
    assert [each[:14] for each in ids(run, "--deleted")] == kept[:1]
    assert run("chat", "--engine", "scripted:", "--continue", kept[0])[0] == 2
    assert run("history", "restore", kept[0])[2] == "back: Otra cosa\n"
    assert len(ids(run)) == 2


def test_json_is_as_described(run, kept):
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(schema())
    commands = [["history", "list"], ["history", "show", kept[1], "--all"], ["history", "search", "viento"]]
    kinds = set()
    for command in commands:
        for line in run(*command, "--json")[1].splitlines():
            event = json.loads(line)
            check.validate(event)
            kinds.add(event["event"])
    assert kinds == {"conversation", "message", "hit"}


def test_out_and_in_again(run, kept, tmp_path):
    file = tmp_path / "all.json"
    assert run("export", "--all", "-o", str(file))[2].startswith("written to")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    status, out, err = run("import", str(file))
    assert (status, len(out.splitlines())) == (0, 2)
    assert "conversations: 2, messages: 5" in err
    assert len(ids(run)) == 4
    one = run("export", kept[0])[1]
    assert run("import", "-", stdin=one.encode())[0] == 0
    assert len(ids(run)) == 5
    shown = run("export", kept[1], "--format", "markdown")[1]
    assert shown.startswith("# ¿Qué es el viento?\n")
    assert shown.count("## Assistant (scripted)") == 1


BAD = [
    (["export"], "name one conversation, or say --all"),
    (["export", "x", "--all"], "name one conversation, or say --all"),
    (["export", "none"], "there is no conversation 'none'"),
    (["export", "--all", "--format", "pdf"], "json"),
    (["export", "--all", "-o", "/dev/null/x"], "cannot be written"),
    (["export", "--all", "-o", "/"], "cannot be written"),
    (["import", "/none.json"], "cannot be read"),
    (["import", "/"], "cannot be read"),
    (["import", __file__], "expected"),
    (["import"], "Missing argument"),
    (["history", "show", "none"], "cierzo history list"),
    (["history", "show", "%"], "cierzo history list"),
    (["history", "rm", "a b"], "cierzo history list"),
    (["history", "search"], "Missing argument"),
    (["history", "lst"], "lst"),
    (["chat", "--engine", "scripted:", "--continue"], "there is no conversation to go on with"),
    (["chat", "--engine", "scripted:", "--continue", "zz"], "there is no conversation 'zz'"),
    (["chat", "--engine", "scripted:", "--continue", "--no-save"], "--no-save"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD)
def test_what_is_wrong_is_one_line(run, arguments, said):
    status, out, err = run(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert err.startswith("cierzo: ")


def test_an_id_that_is_not_enough(run, kept):
    status, _, err = run("history", "show", kept[0][:2])
    assert status == 2
    assert "2 conversations have an id that begins with" in err


def test_a_broken_file_names_the_line_and_adds_nothing(run, kept, tmp_path):
    file = tmp_path / "all.json"
    run("export", "--all", "-o", str(file))
    file.write_bytes(file.read_bytes()[:-200])
    status, out, err = run("import", str(file))
    assert (status, out) == (2, "")
    assert "the file is broken in line" in err
    assert len(ids(run)) == 2


def test_nothing_is_kept_where_that_was_said(run):
    assert run("chat", "--engine", "scripted:", "--no-save", stdin=b"secret\n")[0] == 0
    assert not (Path(os.environ["CIERZO_HOME"]) / "cierzo.db").exists()


def test_a_database_that_cannot_be_opened_is_one_line(run, monkeypatch):
    monkeypatch.setenv("CIERZO_HOME", "/dev/null/home")
    for command in (["chat", "--engine", "scripted:"], ["history", "list"], ["export", "--all"]):
        status, out, err = run(*command, stdin=b"hi\n")
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert "CIERZO_HOME" in err
