"""The head of a GGUF model file: what the model is, read in milliseconds and without trusting a byte of it.

It reads what a chat needs to know (sizes, window, vocabulary) and checks what llama.cpp answers with an abort or
without a reason: too many layers, a file cut short. It loads no weight, and of the chat template that a file may
carry it takes the text and runs nothing. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NoReturn

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

V1_WINDOW = 8192
"""Tokens of window for Mistral 7B v0.1 and what was made from it: llama.cpp does not apply the sliding window that it
was trained with, and beyond this it writes nonsense (llama.cpp issues 3371 and 3867). It is told by the base of its
rotary positions, with which no other network of its kind has a longer window."""

TEMPLATE = "tokenizer.chat_template"
MAX_TEMPLATE = 262_144
"""Longest chat template that is kept, in bytes; of other texts `MAX_STRING`."""

_WORDS_FROM = {32_000: 3, 32_768: 771, 131_072: 1_000}
"""Where the words begin behind the control tokens, in vocabularies as long as Mistral's."""

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
    39: (32, 17),
}


@dataclass(slots=True)
class Weights:
    """Bytes of the tensors in a file; one of a kind that is not known counts nothing.

    Attributes:
        all: Of every tensor.
        experts: Of those that belong to one of several experts.
        embedding: Of the matrix of which each token needs one row.
        has_output: Whether there is a matrix for the output besides.
        kinds: By the kind of tensor, as GGUF numbers them.
    """

    all: int = 0
    experts: int = 0
    embedding: int = 0
    has_output: bool = False
    kinds: dict[int, int] = field(default_factory=dict)

    def add(self, name: str, kind: int, size: int) -> None:
        """Count one tensor."""
        self.all += size
        self.kinds[kind] = self.kinds.get(kind, 0) + size
        if "_exps." in name:
            self.experts += size
        elif name == "token_embd.weight":
            self.embedding = size
        elif name == "output.weight":
            self.has_output = True


@dataclass(frozen=True, slots=True)
class Header:
    """What the head of a model file says.

    Attributes:
        values: Metadata by key. Texts over `MAX_STRING` bytes are left out.
        tokens: The first tokens of the vocabulary, and those that were asked for, by id.
        vocabulary: How many tokens there are.
        digest: BLAKE2 of the words of the vocabulary; of one as long as Mistral's, without its control tokens.
        size: Bytes of the file.
        weights: What the tensors take.
    """

    values: dict[str, Any] = field(default_factory=dict)
    tokens: dict[int, str] = field(default_factory=dict)
    vocabulary: int = 0
    digest: str = ""
    size: int = 0
    weights: Weights = field(default_factory=Weights)

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


Tokenizer = Literal["equal", "differs", "other"]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file says about its model.

    Attributes:
        template: Name of Mistral's template, or ``file`` for the one in the file.
        nearest: Mistral's template by the vocabulary alone; empty where that is none of theirs.
        tokenizer: How its words stand to those that mistral-common ships: ``equal``; ``differs``, for as many words
            of which some are others; or ``other``.
        words: How many tokens the vocabulary has.
        architecture: What llama.cpp calls the network.
        quantization: How the weights are stored, such as ``Q4_K_M``; empty where it is not known.
        context: Tokens of the window in which it works in llama.cpp.
        trained: Tokens of the window as the file has it.
        sliding_window: Tokens to which attention is limited, as the file has it; 0 for no limit.
        experts: Experts of each layer; 0 for a dense model.
        active_experts: How many of them each token goes through.
        active: Bytes of weights that are read for each token.
        kv_bytes: Bytes of KV cache per token of the window, at 16 bits.
        own: Name under which prompts of the template in the file are known; empty where it has none.
    """

    template: str
    nearest: str
    tokenizer: Tokenizer
    words: int
    architecture: str
    quantization: str
    context: int
    trained: int
    sliding_window: int
    experts: int
    active_experts: int
    active: int
    kv_bytes: int
    own: str


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


def gpt2_bytes() -> dict[str, int]:
    """Return which byte each letter of a byte-level vocabulary stands for: printable ones for themselves."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shown = {chr(byte): byte for byte in plain}
    hidden = (byte for byte in range(256) if byte not in shown.values())
    return shown | {chr(256 + n): byte for n, byte in enumerate(hidden)}


class _Reader:
    def __init__(self, file: BinaryIO, size: int, name: str, wanted: frozenset[int]) -> None:
        self.file = file
        self.size = size
        self.name = name
        self.wanted = wanted
        self.at = 0
        self.strings = 0
        self.digest = hashlib.blake2b(digest_size=16)
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
        read = self.header
        return Header(read.values, read.tokens, self.vocabulary(), self.digest.hexdigest(), self.size, read.weights)

    def vocabulary(self) -> int:
        count = self.header.values.get("tokenizer.ggml.tokens", 0)
        return count if isinstance(count, int) else 0

    def entry(self) -> None:
        key = self.string(MAX_STRING)
        kind = self.scalar(_U32)
        value = self.array(key == "tokenizer.ggml.tokens") if kind == _ARRAY else self.value(kind, key)
        if value is not None and key:
            self.header.values.setdefault(key, value)

    def value(self, kind: int, key: str | None) -> Any:
        if kind == _STRING:
            return self.string(MAX_TEMPLATE if key == TEMPLATE else MAX_STRING)
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
            if vocabulary:
                return self.words(count)
            for _ in range(count):
                self.string(MAX_STRING)
            return None
        if kind not in _SCALARS:
            self.fail("has an array of a kind that does not exist")
        form = _SCALARS[kind]
        if count <= _KEPT_NUMBERS:
            return [item for (item,) in form.iter_unpack(self.take(count * form.size))]
        self.skip(count * form.size)
        return None

    def words(self, count: int) -> int:
        """Pass over the vocabulary; keep its digest and a few of its tokens. Return how many there are."""
        first = _WORDS_FROM.get(count, 0)
        for index in range(count):
            word = self.bytes(MAX_STRING) or b""
            if index >= first:
                self.digest.update(word + b"\0")
            if index < _KEPT_TOKENS or index in self.wanted:
                self.header.tokens[index] = word.decode(errors="replace")
        return count

    def tensor(self) -> int:
        """Return where a tensor ends, counted from the start of the weights; its start where its kind is unknown."""
        name = self.string(MAX_STRING)
        dimensions = self.scalar(_U32)
        if dimensions > 4:  # noqa: PLR2004 - GGML_MAX_DIMS
            self.fail("has a tensor of more than four dimensions")
        weights = 1
        for _ in range(dimensions):
            weights *= self.scalar(_U64)
        kind, offset = self.scalar(_U32), self.scalar(_U64)
        block, width = _BLOCKS.get(kind, (1, 0))
        size = weights // block * width
        self.header.weights.add(name or "", kind, size)
        return int(offset + size)

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

    def bytes(self, most: int) -> bytes | None:
        """Return the bytes of a text, or None for one that is longer than anybody needs."""
        length = self.scalar(_U64)
        if length > most:
            self.skip(length)
            return None
        return self.take(length)

    def string(self, most: int) -> str | None:
        """Return a text, or None for one that is longer than anybody needs."""
        read = self.bytes(most)
        return None if read is None else read.decode(errors="replace")

    def fail(self, what: str) -> NoReturn:
        raise ModelUnreadable(f"{self.name} {what}: download it again, or choose another model")
