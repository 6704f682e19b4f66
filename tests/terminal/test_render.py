"""Nothing harmful reaches a terminal; nothing is changed on its way to a file."""

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cierzo.terminal.render import Screen, neutral, one_line, pad, style_of, width_of

CONTROLS = [chr(code) for code in [*range(0x20), *range(0x7F, 0xA0)] if chr(code) not in "\n\t"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def screen(*, terminal=True, **environ):
    kind = Terminal if terminal else io.StringIO
    return Screen(kind(), kind(), environ)


@pytest.mark.parametrize("control", CONTROLS)
def test_every_control_character_is_made_visible(control):
    shown = neutral(f"a{control}b")
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in shown)
    assert len(shown) >= 3


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_what_is_written_to_a_terminal_holds_no_control_character(text):
    to = screen(NO_COLOR="1")
    to.write(text)
    to.line(text)
    to.note(text, "red")
    written = to.out.getvalue() + to.err.getvalue()
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in written if c not in "\n\t")


def test_what_is_harmless_stays():
    text = "¿Qué tal?\n\t\u05e9\u05dd \u200f🌬️ e\u0301"
    assert neutral(text) == text
    assert one_line(text).startswith("¿Qué tal?↵⇥")


def test_a_file_gets_the_answer_exactly():
    to = screen(terminal=False)
    to.write("a\x1b[31m\r\n")
    assert to.out.getvalue() == "a\x1b[31m\r\n"


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_refused(environ):
    to = screen(**environ)
    to.write("a", "red")
    to.error("b")
    assert (to.out.getvalue(), to.err.getvalue()) == ("a", "cierzo: b\n")


def test_no_escape_codes_without_a_terminal():
    to = screen(terminal=False)
    to.write("a", "red")
    to.status("working")
    to.clear()
    to.error("b\nc")
    assert (to.out.getvalue(), to.err.getvalue()) == ("a", "cierzo: b c\n")


def test_the_changing_line_fits_and_disappears(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    to = screen(NO_COLOR="1")
    to.status("loading 漢字漢字漢字漢字漢字\x1b[2J")
    assert width_of(to.err.getvalue().removeprefix("\r").removesuffix("\x1b[K")) <= 19
    to.status("x")
    to.write("answer")
    assert to.err.getvalue().endswith("\rx\x1b[K\r\x1b[K")


def test_widths():
    assert (width_of("añ"), width_of("漢字"), width_of("e\u0301")) == (2, 4, 1)
    assert (pad("漢", 4), pad("longer", 3)) == ("漢  ", "longer")


def test_a_probability_has_one_of_five_colours():
    assert [style_of(p) for p in (1.0, 0.6, 0.3, 0.1, 0.01)] == ["green", "cyan", "yellow", "red", "faint"]
