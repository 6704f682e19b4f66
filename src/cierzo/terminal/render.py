"""Putting text on a terminal: colours where they are wanted, one line that changes, nothing that could do harm.

What a model or a person wrote may hold terminal control characters; none of them is ever sent to a terminal.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

Style = Literal["", "dim", "bold", "red", "green", "yellow", "cyan", "control", "faint"]

_CODES = {
    "dim": "2",
    "bold": "1",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "cyan": "36",
    "control": "1;35",
    "faint": "1;31",
}
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LIKELY, _OPEN, _UNLIKELY, _RARE = 0.8, 0.5, 0.2, 0.05


def neutral(text: str) -> str:
    r"""Return ``text`` with every control character but tab and newline made visible.

    Example:
        >>> neutral("a\x1b[31mb\x9b\x7f")
        'a␛[31mb\\x9b␡'
    """
    return _CONTROLS.sub(_picture, text)


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:  # noqa: PLR2004 - the 32 control characters of ASCII have pictures in this order
        return chr(0x2400 + code)
    if code == 0x7F:  # noqa: PLR2004 - delete
        return "\u2421"
    return "\ufffd" if code >= 0xD800 else f"\\x{code:02x}"  # noqa: PLR2004 - surrogates cannot be encoded at all


def one_line(text: str) -> str:
    """Return ``text`` neutralised and on one line: newlines and tabs become pictures too."""
    return neutral(text).replace("\n", "\u21b5").replace("\t", "\u21e5")


def width_of(text: str) -> int:
    """Columns that a terminal needs for ``text``: two for wide characters, none for combining ones."""
    return sum(
        0 if unicodedata.combining(c) or c == "\u200d" else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def pad(text: str, columns: int) -> str:
    """Return ``text`` with spaces to fill ``columns``; longer texts stay as they are."""
    return text + " " * max(0, columns - width_of(text))


def style_of(probability: float) -> Style:
    """Return the colour of a probability: green, cyan, yellow, red, bright red, from likely to rare."""
    if probability >= _LIKELY:
        return "green"
    if probability >= _OPEN:
        return "cyan"
    if probability >= _UNLIKELY:
        return "yellow"
    return "red" if probability >= _RARE else "faint"


class Screen:
    """Where a command writes: what was asked for to ``out``, everything else to ``err``.

    Escape codes go only to a stream that is a terminal, and colours only where ``NO_COLOR`` is not set.

    Args:
        out: Standard output.
        err: Standard error.
        environ: Where ``NO_COLOR`` and ``TERM`` are looked up; None takes the process's own.
    """

    def __init__(self, out: TextIO, err: TextIO, environ: Mapping[str, str] | None = None) -> None:
        names = os.environ if environ is None else environ
        self.out, self.err = out, err
        able = names.get("TERM", "") != "dumb"
        colors = able and not names.get("NO_COLOR")
        self.is_terminal = out.isatty()
        self.live = err.isatty() and able
        self._out_colors, self._err_colors = colors and out.isatty(), colors and err.isatty()
        self._status = ""
        for stream in (out, err):
            # A terminal that is not UTF-8 shows what it can; half a character never stops an answer.
            if reconfigure := getattr(stream, "reconfigure", None):
                reconfigure(errors="replace")
        if sys.platform == "win32" and able:
            _windows_colors()

    @classmethod
    def standard(cls) -> Screen:
        """The screen of this process."""
        return cls(sys.stdout, sys.stderr)

    @property
    def colors(self) -> bool:
        """Whether standard output shows colours."""
        return self._out_colors

    @property
    def columns(self) -> int:
        """Width of the terminal now; 80 where there is none."""
        return shutil.get_terminal_size().columns

    def write(self, text: str, style: Style = "") -> None:
        """Write a text of the answer at once. A file or pipe gets it exactly as it is."""
        self.clear()
        self.out.write(self.paint(neutral(text), style) if self.is_terminal else text)
        self.out.flush()

    def line(self, text: str = "", style: Style = "") -> None:
        """Write a line to standard output."""
        self.clear()
        self.out.write(self.paint(neutral(text), style) + "\n")
        self.out.flush()

    def paint(self, text: str, style: Style) -> str:
        """Return ``text``, which must be neutral already, in a colour that standard output can show."""
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if style and self._out_colors else text

    def note(self, text: str, style: Style = "dim") -> None:
        """Write a line beside the answer, to standard error."""
        self.clear()
        text = neutral(text)
        self.err.write((f"\x1b[{_CODES[style]}m{text}\x1b[0m" if style and self._err_colors else text) + "\n")
        self.err.flush()

    def error(self, text: str) -> None:
        """Write one red line to standard error."""
        self.note("cierzo: " + " ".join(text.split()), "red")

    def status(self, text: str) -> None:
        """Show ``text`` in the line that changes, where there is a terminal; otherwise do nothing."""
        if not self.live or text == self._status:
            return
        room = max(1, self.columns - 1)
        shown = one_line(text)
        while width_of(shown) > room:
            shown = shown[:-1]
        colored = f"\x1b[2m{shown}\x1b[0m" if self._err_colors else shown
        self.err.write(f"\r{colored}\x1b[K")
        self.err.flush()
        self._status = text

    def clear(self) -> None:
        """Make the changing line disappear."""
        if self._status:
            self.err.write("\r\x1b[K")
            self.err.flush()
            self._status = ""


def _windows_colors() -> None:
    """Old Windows consoles understand escape codes only after being asked; click depends on what asks them."""
    import colorama  # type: ignore[import-untyped,unused-ignore]  # noqa: PLC0415 - there on Windows only

    colorama.just_fix_windows_console()
