"""One message as tokens, and as the pieces in which a person is shown them; short ones are remembered.

Each question is sent with the conversation before it, so nearly all of a prompt was made once already, for the
question before. What is remembered follows from the key alone: a prompt is the same with and without it. This file
knows no window and no turns: `cierzo.prompt` puts the segments together.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from threading import Lock
from typing import TYPE_CHECKING

from cierzo.messages import Piece, Role

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cierzo.templates import Codec

SHORT = 2_000
"""Characters, or ids that a model wrote, of the longest message that is remembered: about 500 tokens. A longer one is
encoded for every prompt again; a window has room for few of them."""

MOST = 2**20
"""Bound of what is remembered, in characters and tokens, all conversations and templates together: some 20 full
windows of 8,192 tokens. 15 MB as people write, 40 MB where each character takes four tokens. What was not used for
longest goes first."""

_ALWAYS = 64
"""What a message counts besides, since an empty one takes memory too."""


@dataclass(frozen=True, eq=False)
class Segment:
    """One message of a prompt, with the control tokens around it.

    Attributes:
        known: The codec that encoded it.
        role: Whose message it is.
        ids: The token ids.
    """

    known: Codec
    role: Role
    ids: tuple[int, ...]

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """The ids as runs of plain text and single control tokens; made when first asked for."""
        return tuple(_split(self.known, self.role, self.ids))


def plain(known: Codec, ids: Sequence[int]) -> Piece:
    """Return ids without control tokens among them as one piece."""
    return Piece(known.decode(ids), tuple(ids), control=False)


class Memory:
    """Segments made before, found by everything that they depend on. Threads may share it.

    Args:
        most: Bound, see `MOST`.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lock = Lock()
        self._known: OrderedDict[tuple[Codec, Role, str, tuple[int, ...], bool], Segment] = OrderedDict()
        self._size = 0

    def segment(self, known: Codec, role: Role, text: str, ids: tuple[int, ...], ends: bool) -> Segment:
        """Return a message as tokens.

        Args:
            known: The template's codec.
            role: Whose message it is.
            text: What it says.
            ids: Of an answer, those that its model wrote: they are taken where they say the text.
            ends: Of an answer, whether the token that ends it follows.

        Raises:
            BadText: See `Codec.encode`.
        """
        if len(text) > SHORT or len(ids) > SHORT:
            return _made(known, role, text, ids, ends)
        key = (known, role, text, ids, ends)
        with self._lock:
            if (there := self._known.get(key)) is not None:
                self._known.move_to_end(key)
                return there
        made = _made(known, role, text, ids, ends)  # not under the lock: another thread may need what is there
        with self._lock:
            if key not in self._known:
                self._known[key] = made
                self._size += _size(text, ids, made)
            while self._size > self._most:
                (_, _, oldest, written, _), gone = self._known.popitem(last=False)
                self._size -= _size(oldest, written, gone)
        return made


REMEMBERED = Memory()
"""The one of this process."""


def _size(text: str, ids: tuple[int, ...], segment: Segment) -> int:
    return _ALWAYS + len(text) + len(ids) + len(segment.ids)


def _made(known: Codec, role: Role, text: str, ids: tuple[int, ...], ends: bool) -> Segment:
    if role == "system":
        return Segment(known, role, tuple(known.system(text)))
    if role == "user":
        return Segment(known, role, tuple(known.user(text)))
    recalled = known.recall(ids, text, ends=ends) if ids else None
    return Segment(known, role, tuple(known.assistant(text, ends=ends) if recalled is None else recalled))


def _split(known: Codec, role: Role, ids: tuple[int, ...]) -> Iterator[Piece]:
    opening, closing = known.marks
    if role == "user" and len(opening) > 1 and ids[: len(opening)] == opening:
        yield plain(known, opening)
        ids = ids[len(opening) :]
        if ids[-len(closing) :] == closing:
            if len(ids) > len(closing):
                yield plain(known, ids[: -len(closing)])
            ids = ids[-len(closing) :]
    for control, run in groupby(ids, key=known.controls.__contains__):
        if control:
            yield from (Piece(known.controls[token], (token,), control=True) for token in run)
        else:
            yield plain(known, tuple(run))
