"""`cierzo chat` on a real terminal: keys go in, and what a person would see comes out."""

import os
import re
import select
import signal
import struct
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from cierzo.messages import MAX_TEXT
from cierzo.settings import Settings
from cierzo.terminal import keyboard
from cierzo.terminal.render import Screen

pty = pytest.importorskip("pty", reason="pseudo-terminals are there on Unix only")
fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")

UP, LEFT, CTRL_C, CTRL_D, ALT_ENTER, ENTER = "\x1b[A", "\x1b[D", "\x03", "\x04", "\x1b\r", "\r"

SCRIPT = """
[[reply]]
when = "long"
text = "on and "
repeat = true
delay = 0.05
[[reply]]
when = "die"
text = "about to"
fail = "die"
[[reply]]
when = "evil"
tokens = ["red \\u001b[31m and \\u009b2J", " bell \\u0007."]
[[reply]]
when = "wait"
phases = [{ name = "loading", done = 40, total = 100 }]
first = 1.0
text = "There."
[[reply]]
text = "Fine."
"""


class Seen:
    """A process on a pseudo-terminal."""

    def __init__(self, process, master):
        self.process, self.master = process, master
        self.raw = ""
        self.read_to = 0

    def type(self, keys):
        os.write(self.master, keys.encode())

    def until(self, text, timeout=20.0):
        """Wait until the terminal has shown ``text`` since the last wait; return what came until then."""
        end = time.monotonic() + timeout
        while text not in self.raw[self.read_to :]:
            left = end - time.monotonic()
            assert left > 0, f"{text!r} did not come; this did: {self.raw[self.read_to :]!r}"
            if select.select([self.master], [], [], min(left, 0.2))[0]:
                try:
                    self.raw += os.read(self.master, 65_536).decode("utf-8", "replace")
                except OSError:  # the other side is closed
                    assert text in self.raw[self.read_to :], f"it ended before {text!r}: {self.raw[self.read_to :]!r}"
        start, self.read_to = self.read_to, self.raw.index(text, self.read_to) + len(text)
        return self.raw[start : self.read_to]

    def prompt(self):
        """Wait until the editor reads keys: then it asks for pasted text to be marked."""
        return self.until("\x1b[?2004h")

    def status(self):
        end = time.monotonic() + 20
        while self.process.poll() is None and time.monotonic() < end:
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.raw += os.read(self.master, 65_536).decode("utf-8", "replace")
                except OSError:
                    break
        return self.process.wait(timeout=20)


@contextmanager
def chat(tmp_path, *arguments, script=SCRIPT, **env):
    (tmp_path / "script.toml").write_text(script)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
    environ = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "PROMPT_TOOLKIT_NO_CPR": "1", **env}
    environ.pop("NO_COLOR", None)
    environ.update({name: value for name, value in env.items() if name == "NO_COLOR"})
    process = subprocess.Popen(
        [sys.executable, "-m", "cierzo", "chat", "--engine", f"scripted:{tmp_path / 'script.toml'}", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environ,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - Ctrl+C needs it, and no thread runs here
    )
    os.close(slave)
    seen = Seen(process, master)
    try:
        yield seen
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)


def test_a_chat_from_the_first_key_to_the_last(tmp_path):
    with chat(tmp_path) as seen:
        seen.until("/help")
        seen.prompt()
        seen.type("hello" + ENTER)
        seen.until("Fine.")
        seen.prompt()
        seen.type("/set temperature 9" + ENTER)
        seen.until("temperature must be between 0 and 5, not 9")
        seen.prompt()
        seen.type("/quit" + ENTER)
        assert seen.status() == 0
    assert "Traceback" not in seen.raw


def test_ctrl_c_stops_the_answer_and_not_the_chat(tmp_path):
    with chat(tmp_path) as seen:
        seen.prompt()
        seen.type("a long one" + ENTER)
        seen.until("on and on and on")
        seen.type(CTRL_C)
        seen.until("[stopped]", timeout=2)
        seen.prompt()
        seen.type("next" + ENTER)
        seen.until("Fine.")
        seen.prompt()
        seen.type("/prompt" + ENTER)
        assert "on and on and on" in seen.until(" left for an answer")
        seen.prompt()
        seen.type(CTRL_C)
        assert seen.status() == 0
    assert "Traceback" not in seen.raw


def test_ctrl_c_clears_a_line_and_ctrl_d_leaves(tmp_path):
    with chat(tmp_path) as seen:
        seen.prompt()
        seen.type("never sent")
        seen.until("never sent")
        seen.type(CTRL_C)
        seen.prompt()
        seen.type("/show" + ENTER)
        seen.until("there is no answer yet")
        seen.prompt()
        seen.type(CTRL_D)
        assert seen.status() == 0


def test_arrows_go_through_the_history_which_is_kept_for_its_owner_alone(tmp_path):
    home = {"CIERZO_HOME": str(tmp_path / "home")}
    with chat(tmp_path, **home) as seen:
        seen.prompt()
        seen.type("remember me" + ENTER)
        seen.until("Fine.")
        seen.prompt()
        seen.type(CTRL_D)
        assert seen.status() == 0
    assert (tmp_path / "home" / "history").stat().st_mode & 0o777 == 0o600
    with chat(tmp_path, **home) as seen:
        seen.prompt()
        seen.type(UP)
        seen.until("remember me")
        seen.type(LEFT + LEFT + "for " + ENTER)
        seen.until("Fine.")
        seen.prompt()
        seen.type("/prompt" + ENTER)
        seen.until("remember for me")


def test_several_lines_make_one_question(tmp_path):
    with chat(tmp_path, NO_COLOR="1") as seen:
        seen.prompt()
        seen.type("one\\" + ENTER + "two" + ALT_ENTER + "three" + ENTER)
        seen.until("Fine.")
        seen.prompt()
        seen.type("/prompt" + ENTER)
        assert "one\r\ntwo\r\nthree[/INST]" in seen.until("left for an answer")


def test_an_engine_that_dies_is_one_red_line(tmp_path):
    with chat(tmp_path) as seen:
        seen.prompt()
        seen.type("die" + ENTER)
        seen.until("\x1b[31mcierzo: the script says die: ask again\x1b[0m")
        seen.prompt()
        seen.type("fine?" + ENTER)
        seen.until("Fine.")


def test_an_answer_never_reaches_the_terminal_as_a_command(tmp_path):
    with chat(tmp_path) as seen:
        seen.prompt()
        seen.type("evil" + ENTER)
        answer = seen.until("bell ␇.")
    assert "red ␛[31m and \\x9b2J" in answer
    assert "\x9b" not in seen.raw
    assert "\x07" not in seen.raw


def test_the_phase_and_its_clock_are_shown_and_disappear(tmp_path):
    with chat(tmp_path, LC_ALL="es_ES.UTF-8") as seen:
        seen.prompt()
        seen.type("wait" + ENTER)
        shown = seen.until("There.")
    assert re.search(r"cargando el modelo, 40 % · 0\.\d s", shown)
    assert shown.rindex("\x1b[K") > shown.rindex("cargando")


def test_resizing_in_the_middle_of_an_answer(tmp_path):
    with chat(tmp_path) as seen:
        seen.prompt()
        seen.type("a long one" + ENTER)
        seen.until("on and on")
        for columns in (20, 5, 200):
            fcntl.ioctl(seen.master, termios.TIOCSWINSZ, struct.pack("HHHH", 10, columns, 0, 0))
            seen.until("on and on")
        seen.type(CTRL_C)
        seen.until("[stopped]")
        seen.prompt()
        fcntl.ioctl(seen.master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
        seen.type("next" + ENTER)
        seen.until("Fine.")


def test_what_is_typed_during_an_answer_waits_for_the_next_line(tmp_path):
    with chat(tmp_path) as seen:
        seen.prompt()
        seen.type("wait" + ENTER)
        seen.until("cargando" if os.environ.get("LC_ALL", "").startswith("es") else "loading the model")
        seen.type("already")
        assert "already" not in seen.until("There.")
        seen.prompt()
        seen.until("already")


def test_a_home_that_cannot_be_written_is_one_warning(tmp_path):
    with chat(tmp_path, "--no-save", CIERZO_HOME="/dev/null/home") as seen:
        warned = seen.prompt()
        seen.type("hello" + ENTER)
        seen.until("Fine.")
        seen.prompt()
        seen.type(UP)  # within this chat it is remembered
        seen.until("hello")
    assert warned.count("is not kept for the next time") == 1


def test_the_terminal_is_as_it_was_after_a_kill_of_the_answer(tmp_path):
    with chat(tmp_path) as seen:
        seen.prompt()
        before = termios.tcgetattr(seen.master)[3] & termios.ECHO
        seen.type("a long one" + ENTER)
        seen.until("on and on")
        assert not termios.tcgetattr(seen.master)[3] & termios.ECHO
        os.kill(seen.process.pid, signal.SIGINT)
        seen.until("[stopped]")
        seen.prompt()
        seen.type(CTRL_D)
        assert seen.status() == 0
        assert termios.tcgetattr(seen.master)[3] & termios.ECHO
    assert before in (0, termios.ECHO)


# --- the parts that need no terminal -----------------------------------------------------------------------------


def settings(tmp_path):
    return Settings.load({"home": tmp_path})


def test_a_history_that_is_too_large_loses_its_older_half(tmp_path):
    entries = "".join(f"\n# 2026-01-01 00:00:0{n % 10}\n+entry {n} {'x' * 1000}\n" for n in range(2_500))
    (tmp_path / "history").write_text(entries)
    kept = keyboard.history(settings(tmp_path), Screen.standard())
    strings = list(kept.load_history_strings())
    assert strings[0].startswith("entry 2499 ")
    assert 900 < len(strings) < 1_100
    assert all(string.startswith("entry ") for string in strings)
    assert (tmp_path / "history").stat().st_mode & 0o777 == 0o600


def test_what_is_huge_or_blank_is_not_kept(tmp_path):
    kept = keyboard.history(settings(tmp_path), Screen.standard())
    for text in ("x" * 20_001, "  ", "half \ud800", "good"):
        kept.store_string(text)
    assert list(kept.load_history_strings()) == ["good", "half ?"]


def test_a_disk_that_fills_up_is_told_once(tmp_path, capsys):
    kept = keyboard.history(settings(tmp_path), Screen.standard())
    kept.filename = str(tmp_path / "gone" / "history")
    kept.store_string("a")
    kept.store_string("b")
    assert capsys.readouterr().err.count("is not kept") == 1


@pytest.mark.parametrize(("raw", "said"), [(b"\xff\n", "not UTF-8"), (b"x" * (4 * MAX_TEXT + 1), "shorten it")])
def test_a_line_that_is_no_text_is_refused_and_the_chat_goes_on(raw, said):
    done = subprocess.run(
        [sys.executable, "-m", "cierzo", "chat", "--engine", "scripted:"],
        input=raw + b"\nhello\n",
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert said in done.stderr.decode()
    assert done.stdout.endswith(b"You said: hello\n")
