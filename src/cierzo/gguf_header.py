"""The head of a GGUF model file: what the model is, read in milliseconds and without trusting a byte of it.

It reads what a chat needs to know (sizes, window, vocabulary) and checks what llama.cpp answers with an abort or
without a reason: too many layers, a file cut short. It loads no weight, and nothing uses the chat template
that a file carries: prompts are made by `cierzo.prompt`. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from cierzo.errors import ModelUnreadable

if TYPE_CHECKING:
    from pathlib import Path

MAX_LAYERS = 512
"""Most layers with which llama.cpp does not abort."""

MAX_ENTRIES = 512
MAX_TENSORS = 32_768
MAX_STRING = 4_096
MAX_STRINGS = 1_000_000
"""Most strings in all arrays together; a Tekken vocabulary with its merges has 400,000."""

_KEPT_TOKENS = 64
_KEPT_NUMBERS = MAX_LAYERS

_SCALARS = {kind: struct.Struct(f"<{form}") for kind, form in zip((*range(8), 10, 11, 12), "BbHhIif?Qqd", strict=True)}
_U32, _U64 = _SCALARS[4], _SCALARS[10]
_STRING, _ARRAY = 8, 9

_BLOCKS = {  # tensor type: (weights in a block, bytes of a block); one that is not here is not measured
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    29: (256, 56),
    30: (1, 2),
    34: (256, 54),
    35: (256, 66),
}


@dataclass(frozen=True, slots=True)
class Header:
    """What the head of a model file says.

    Attributes:
        values: Metadata by key. Texts over `MAX_STRING` bytes are left out.
        tokens: The first tokens of the vocabulary, and those that were asked for, by id.
        vocabulary: How many tokens there are.
        size: Bytes of the file.
    """

    values: dict[str, Any] = field(default_factory=dict)
    tokens: dict[int, str] = field(default_factory=dict)
    vocabulary: int = 0
    size: int = 0

    def text(self, key: str) -> str:
        """Return a text of the metadata, empty where there is none."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str, default: float = 0) -> float:
        """Return a number of the metadata; of the architecture's own keys, without its name."""
        value = self.values.get(f"{self.text('general.architecture')}.{key}", self.values.get(key))
        if isinstance(value, list) and value:
            value = max(value)  # one for each layer, as in models whose layers differ
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else default


def read_header(path: Path, *, tokens: frozenset[int] = frozenset(), adapter: bool = False) -> Header:
    """Read the head of a GGUF file.

    Args:
        path: The file.
        tokens: Ids of tokens to read besides the first ones.
        adapter: Whether it is not a model but an adapter for one, which has no window and no layers of its own.

    Raises:
        ModelUnreadable: It is not a GGUF of version 2 or 3, is damaged, is cut short, or llama.cpp could not load it.
    """
    try:
        with os.fdopen(_open(path), "rb", buffering=2**20) as file:
            return _Reader(file, os.fstat(file.fileno()).st_size, path.name, tokens).read(adapter=adapter)
    except OSError as failed:
        raise ModelUnreadable(f"{path} cannot be read ({failed.strerror or failed}): check the file") from None


def _open(path: Path) -> int:
    """Open a regular file and nothing that could block, such as a pipe."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is not a file")
    return descriptor


class _Reader:
    def __init__(self, file: BinaryIO, size: int, name: str, wanted: frozenset[int]) -> None:
        self.file = file
        self.size = size
        self.name = name
        self.wanted = wanted
        self.at = 0
        self.strings = 0
        self.header = Header(size=size)

    def read(self, *, adapter: bool) -> Header:
        if self.take(4) != b"GGUF":
            self.fail("is not a GGUF model")
        version = self.scalar(_U32)
        if version not in (2, 3):
            self.fail(f"is a GGUF of version {version}, which llama.cpp cannot read")
        tensors, entries = self.scalar(_U64), self.scalar(_U64)
        if tensors > MAX_TENSORS or entries > MAX_ENTRIES:
            self.fail("claims more parts than any model has")
        for _ in range(entries):
            self.entry()
        if not adapter:
            self.check_shape()
        self.check_length([self.tensor() for _ in range(tensors)])
        return Header(self.header.values, self.header.tokens, self.vocabulary(), self.size)

    def vocabulary(self) -> int:
        count = self.header.values.get("tokenizer.ggml.tokens", 0)
        return count if isinstance(count, int) else 0

    def entry(self) -> None:
        key = self.string(MAX_STRING)
        kind = self.scalar(_U32)
        value = self.array(key == "tokenizer.ggml.tokens") if kind == _ARRAY else self.value(kind)
        if value is not None and key:
            self.header.values.setdefault(key, value)

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string(MAX_STRING)
        if kind not in _SCALARS:
            self.fail("has an entry of a kind that does not exist")
        return self.scalar(_SCALARS[kind])

    def array(self, vocabulary: bool) -> Any:
        """Pass over an array; keep short ones of numbers, and of the vocabulary its length and a few tokens."""
        kind, count = self.scalar(_U32), self.scalar(_U64)
        if kind == _STRING:
            self.strings += count
            if self.strings > MAX_STRINGS:
                self.fail("claims more words than any model has")
            for index in range(count):
                word = self.string(MAX_STRING)
                if vocabulary and (index < _KEPT_TOKENS or index in self.wanted):
                    self.header.tokens[index] = word or ""
            return count if vocabulary else None
        if kind not in _SCALARS:
            self.fail("has an array of a kind that does not exist")
        form = _SCALARS[kind]
        if count <= _KEPT_NUMBERS:
            return [item for (item,) in form.iter_unpack(self.take(count * form.size))]
        self.skip(count * form.size)
        return None

    def tensor(self) -> int:
        """Return where a tensor ends, counted from the start of the weights; its start where its kind is unknown."""
        self.string(MAX_STRING)
        dimensions = self.scalar(_U32)
        if dimensions > 4:  # noqa: PLR2004 - GGML_MAX_DIMS
            self.fail("has a tensor of more than four dimensions")
        weights = 1
        for _ in range(dimensions):
            weights *= self.scalar(_U64)
        kind, offset = self.scalar(_U32), self.scalar(_U64)
        block, width = _BLOCKS.get(kind, (1, 0))
        return int(offset + weights // block * width)

    def check_shape(self) -> None:
        """Refuse what llama.cpp answers with an abort."""
        header = self.header
        if not header.text("general.architecture"):
            self.fail("does not say which architecture it has")
        layers = header.number("block_count")
        if not 1 <= layers <= MAX_LAYERS:
            self.fail(f"claims {layers:g} layers; a model has between 1 and {MAX_LAYERS}")
        for key, most in (("embedding_length", 2**20), ("attention.head_count", 2**16), ("context_length", 2**31)):
            if not 1 <= header.number(key) <= most:
                self.fail(f"claims a {key} of {header.number(key):g}, which no model has")

    def check_length(self, ends: list[int]) -> None:
        """Refuse a file that was cut short, as a broken download leaves it."""
        alignment = self.header.number("general.alignment", 32)
        if not 1 <= alignment <= 2**16:
            self.fail("has weights at places that cannot be")
        start = -(-self.at // int(alignment)) * int(alignment)
        needed = start + max(ends, default=0)
        if needed > self.size:
            self.fail(f"is cut short: it has {self.size:,} bytes and needs {needed:,}")

    def take(self, count: int) -> bytes:
        self.at += count
        data = self.file.read(count) if self.at <= self.size else b""
        if len(data) != count:
            self.fail("ends too early")
        return data

    def skip(self, count: int) -> None:
        self.at += count
        if self.at > self.size:
            self.fail("ends too early")
        self.file.seek(count, os.SEEK_CUR)

    def scalar(self, form: struct.Struct) -> Any:
        return form.unpack(self.take(form.size))[0]

    def string(self, most: int) -> str | None:
        """Return a text, or None for one that is longer than anybody needs."""
        length = self.scalar(_U64)
        if length > most:
            self.skip(length)
            return None
        return self.take(length).decode(errors="replace")

    def fail(self, what: str) -> NoReturn:
        raise ModelUnreadable(f"{self.name} {what}: download it again, or choose another model")
