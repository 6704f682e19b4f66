"""Reads a large JSON document one value at a time, so that no more of it is in memory than the value in hand.

Strict where `json` is not: one BOM at most, UTF-8 only, no name twice in an object, no NaN and no infinity. It knows
nothing of what the values mean.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any, NoReturn

from cierzo.errors import BadInput

if TYPE_CHECKING:
    from typing import BinaryIO

MAX_BYTES = 1 << 30
"""Largest document."""

MAX_VALUE = 64 * 1024 * 1024
"""Longest single value, in characters."""

CHUNK = 1 << 16
_NEAR = 32
"""What is wrong so near to the end of what was read may only be unfinished: no literal or escape is longer."""

_SPACE = re.compile(r"[ \t\n\r]*")


class Scanner:
    """Walks through a document.

    Args:
        file: The document, read once from where it stands.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._json = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)
        self._text, self._at, self._line, self._bytes = "", 0, 1, 0
        self._whole = False

    @property
    def line(self) -> int:
        """The line that has been reached, from 1."""
        return self._line + self._text.count("\n", 0, self._at)

    def peek(self) -> str:
        """Return the next character that is no space, without taking it; empty at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more(CHUNK):
                return ""

    def take(self, sign: str) -> None:
        """Take a sign that must come next.

        Raises:
            BadInput: Another one does, or the document ends.
        """
        if (found := self.peek()) != sign:
            self.broken(f"{sign} is missing" if found else "the file ends too early")
        self._at += 1

    def value(self) -> Any:
        """Take the next value, whole.

        Raises:
            BadInput: It is no JSON, nested too deep, or longer than `MAX_VALUE`.
        """
        self.peek()
        step = CHUNK
        while True:
            try:
                found, end = self._json.raw_decode(self._text, self._at)
            except json.JSONDecodeError as wrong:
                unfinished = wrong.msg.startswith("Unterminated string") or wrong.pos >= len(self._text) - _NEAR
                if not unfinished or not self._more(step):
                    self._line += self._text.count("\n", self._at, wrong.pos)
                    self.broken("the file is cut off" if unfinished else f"{wrong.msg[0].lower()}{wrong.msg[1:]}")
            except RecursionError:
                self.broken("the values are nested too deep")
            except ValueError as wrong:  # ours, of the hooks; or a number with thousands of digits
                self.broken(str(wrong).partition(":")[0])
            else:
                # A number may go on in what is not yet read, behind its point or its exponent's sign.
                open_end = isinstance(found, (int, float)) and end + len("e+") >= len(self._text)
                size = end - self._at  # reading on moves the place where it stands
                if not open_end or not self._more(step):
                    self._at += size
                    return found
            step *= 2

    def name(self, expected: str) -> None:
        """Take the name of an object's next field, and the colon.

        Raises:
            BadInput: It is another one.
        """
        if self.peek() != '"' or self.value() != expected:
            self.broken(f'"{expected}" is missing' if self.peek() else "the file ends too early")
        self.take(":")

    def end(self) -> None:
        """Make sure that nothing follows.

        Raises:
            BadInput: Something does.
        """
        if self.peek():
            self.broken("something follows after the end")

    def broken(self, what: str) -> NoReturn:
        """Raise the error that says where the document is broken."""
        raise BadInput(f"the file is broken in line {self.line} ({what}): nothing was imported")

    def _more(self, step: int) -> bool:
        """Read on; return whether there was something."""
        if self._whole:
            return False
        if len(self._text) - self._at > MAX_VALUE:
            self.broken(f"a value has more than {MAX_VALUE:,} characters")
        raw = self._file.read(step)
        self._bytes += len(raw)
        if self._bytes > MAX_BYTES:
            raise BadInput(f"the file has more than {MAX_BYTES:,} bytes: export fewer conversations at a time")
        self._whole = not raw
        try:
            new = self._decode(raw, final=self._whole)
        except UnicodeDecodeError:
            self.broken("this is not UTF-8")
        self._line += self._text.count("\n", 0, self._at)
        self._text, self._at = self._text[self._at :] + new, 0
        return not self._whole


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
