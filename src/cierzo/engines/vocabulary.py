"""The bytes of every token, read from the model's own file.

llama.cpp reports a character that took several tokens as one entry, with all its bytes but only the last token's
id. With the vocabulary the others can be found again. It is read only when such an entry first comes.
"""

from __future__ import annotations

import mmap
import struct
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from cierzo.gguf_header import gpt2_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from cierzo.templates import Codec

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4
_BYTE_TOKEN = 6
_LONGEST_RUN = 4096
"""Bytes of one merged entry that are searched; a model that emits more broken bytes in a row than this is noise."""


class Vocabulary:
    """Bytes to ids and back, for SentencePiece with byte fallback and for byte-level BPE (tekken).

    Args:
        path: A GGUF file that llama.cpp has loaded, so its header is sound.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def split(self, raw: bytes, count: int, last: int) -> list[tuple[int, bytes]] | None:
        """Find the ``count`` tokens that spell ``raw`` and end with the id ``last``.

        Among several answers the one a tokenizer would give is taken: at each place the longest token, and a
        plain token before a byte token.

        Returns:
            Ids with their bytes; None if the vocabulary cannot spell it so.
        """
        tail = self.pieces[last] if 0 <= last < len(self.pieces) else b""
        if len(raw) > _LONGEST_RUN or not raw.endswith(tail):
            return None
        found = self._search(raw[: len(raw) - len(tail)], count - 1)
        return None if found is None else [*found, (last, tail)]

    def name(self, token: int) -> str:
        """Return how the file writes a token, such as ``</s>``."""
        return self.spelled[token].decode(errors="replace") if 0 <= token < len(self.spelled) else ""

    def entry(self, key: str, default: Any = None) -> Any:
        """Return an entry of the file's head; texts are bytes."""
        return self._header.get(key, default)

    def _search(self, raw: bytes, count: int) -> list[tuple[int, bytes]] | None:
        """Spell ``raw`` with ``count`` tokens. O(bytes * longest token) steps on numbers of ``count`` bits."""
        reach = [0] * len(raw) + [1]  # bit n of reach[at]: n tokens can spell the rest from there
        for at in range(len(raw) - 1, -1, -1):
            for size in range(1, min(self._longest, len(raw) - at) + 1):
                if reach[at + size] and raw[at : at + size] in self.ids:
                    reach[at] |= reach[at + size] << 1
        found: list[tuple[int, bytes]] = []
        at = 0
        for left in range(count, 0, -1):
            sizes = range(min(self._longest, len(raw) - at), 0, -1)
            fits = (n for n in sizes if raw[at : at + n] in self.ids and reach[at + n] >> (left - 1) & 1)
            size = next(fits, 0)
            if not size:
                return None
            found.append((self.ids[raw[at : at + size]], raw[at : at + size]))
            at += size
        return found if at == len(raw) else None

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self.pieces), default=0)

    @cached_property
    def ids(self) -> dict[bytes, int]:
        """Bytes to id. Where two tokens have the same bytes, the plain one and not the byte token."""
        found: dict[bytes, int] = {}
        for token in sorted(range(len(self.pieces)), key=lambda n: (self.kinds[n] != _BYTE_TOKEN, -n)):
            found[self.pieces[token]] = token
        found.pop(b"", None)
        return found

    @cached_property
    def pieces(self) -> list[bytes]:
        """Bytes of each token; empty for control tokens."""
        byte_level = self._header["tokenizer.ggml.model"] == b"gpt2"
        shown = gpt2_bytes() if byte_level else {}
        pieces = []
        for text, kind in zip(self.spelled, self.kinds, strict=True):
            if kind not in (1, USER_DEFINED, _BYTE_TOKEN):
                pieces.append(b"")
            elif kind == USER_DEFINED:  # never a word of the text's own spelling, so it is taken as it stands
                pieces.append(text)
            elif kind == _BYTE_TOKEN:
                pieces.append(bytes([int(text[1:-1], 16)]))
            elif byte_level:
                pieces.append(bytes(shown[c] for c in text.decode() if c in shown))
            else:
                pieces.append(text.replace("▁".encode(), b" "))
        return pieces

    @cached_property
    def spelled(self) -> list[bytes]:
        """The tokens as the file spells them, by id."""
        tokens: list[bytes] = self._header["tokenizer.ggml.tokens"]
        return tokens

    @cached_property
    def kinds(self) -> list[int]:
        """The kind of each token: a word (1), unknown, control, user-defined, unused or a byte (6)."""
        kinds: list[int] = self._header.get("tokenizer.ggml.token_type") or [1] * len(self.spelled)
        return kinds

    @cached_property
    def _header(self) -> dict[str, Any]:
        with self._path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            (count,) = struct.unpack_from("<Q", data, 16)
            return _entries(data, 24, count)


class Spelling(Vocabulary):
    """The same of a template's tokenizer, for a model whose file is elsewhere.

    Args:
        known: The template's codec.
    """

    def __init__(self, known: Codec) -> None:
        self._known = known

    def name(self, token: int) -> str:
        """Return how the tokenizer writes a control token, such as ``</s>``."""
        return self._known.controls.get(token, "")

    @cached_property
    def ids(self) -> dict[bytes, int]:
        """Bytes to id. Byte tokens come first in every vocabulary, so of two the later is the plain one."""
        return {piece: token for token, piece in enumerate(self.pieces) if piece}

    @cached_property
    def pieces(self) -> list[bytes]:
        """Bytes of each token; empty for control tokens."""
        known = self._known
        return [b"" if n in known.controls else known.bytes_of(n) for n in range(known.template.vocabulary)]


@cache
def spelling(known: Codec) -> Spelling:
    """Return the spelling of a codec; made once, since it looks at every token."""
    return Spelling(known)


def _entries(data: mmap.mmap, at: int, count: int) -> dict[str, Any]:
    """Read the key-value part of a GGUF header (version 3, little-endian)."""
    entries = {}
    for _ in range(count):
        key, at = _value(data, at, _STRING)
        (kind,) = struct.unpack_from("<I", data, at)
        entries[key.decode()], at = _value(data, at + 4, kind)
    return entries


def _value(data: mmap.mmap, at: int, kind: int) -> tuple[Any, int]:
    if kind == _STRING:
        (size,) = struct.unpack_from("<Q", data, at)
        return data[at + 8 : at + 8 + size], at + 8 + size
    if kind == _ARRAY:
        inner, count = struct.unpack_from("<IQ", data, at)
        at += 12
        if inner in _SCALARS:
            layout = f"<{count}{_SCALARS[inner]}"
            return list(struct.unpack_from(layout, data, at)), at + struct.calcsize(layout)
        values = []
        for _ in range(count):
            value, at = _value(data, at, inner)
            values.append(value)
        return values, at
    layout = f"<{_SCALARS[kind]}"
    return struct.unpack_from(layout, data, at)[0], at + struct.calcsize(layout)
