"""Stop texts, found here and not by whoever runs the model.

A server that looks for them holds text back and forgets which token wrote it; some count the stop text among the
answer, some take four at most, and few say which one was met. Here they are all the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cierzo.messages import Token


class StopFilter:
    """Finds stop texts in a stream of tokens. Joined, what it lets through is the text before the first of them.

    A token is held back only while its text may still be the beginning of a stop text.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.stops = stops
        self._longest = max(map(len, stops), default=0)
        self.met: str | None = None
        self._held: list[Token] = []

    def push(self, token: Token) -> list[Token]:
        """Take the next token, return those that are certain now. After `met` is set there are no more."""
        self._held.append(token)
        text = "".join(held.text for held in self._held)
        found = [(text.index(stop), stop) for stop in self.stops if stop in text]
        if found:
            end, self.met = min(found)
            return self._release(end, whole=False)
        near = range(max(0, len(text) - self._longest), len(text))  # a token may be long, and a stop text never is
        safe = next((start for start in near if self._may_stop(text[start:])), len(text))
        return self._release(safe, whole=True)

    def flush(self) -> list[Token]:
        """Return what was held back: no stop text came."""
        held, self._held = self._held, []
        return held

    def _may_stop(self, tail: str) -> bool:
        return any(stop.startswith(tail) for stop in self.stops)

    def _release(self, end: int, *, whole: bool) -> list[Token]:
        """Let tokens out up to character ``end``; the one across it stays held (``whole``) or is cut there."""
        out: list[Token] = []
        while self._held and len(self._held[0].text) <= end:
            token = self._held.pop(0)
            end -= len(token.text)
            out.append(token)
        if not whole and self._held and end:
            out.append(replace(self._held[0], text=self._held[0].text[:end]))
        return out
