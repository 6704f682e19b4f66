"""Tokens, ids and logs as bytes: small, with a version in front, and safe to read whatever the bytes are.

An answer's tokens are kept for good, so they are packed: columns of numbers (LEB128), every pair of id and text
once, all of it through zlib. Log-probabilities are rounded to `STEP` nat: the error of a probability is at most
0.05 % of itself. A log lives only while its answer is being written, so it is plain JSON and loses nothing.

Layout: four bytes of magic and version, the length of what follows once inflated, then zlib. Inflated, for tokens:
count of pairs, their ids (ascending differences), lengths of their texts, count of tokens, then per token: how many
alternatives; ``rank * 2 + special`` with rank 0 where the token is none of its alternatives; pairs and
log-probabilities of the alternatives and of the tokens of rank 0; last the texts, in UTF-8.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import orjson

from cierzo.errors import BadText, StoreUnusable
from cierzo.messages import Alternative, Phase, StreamEvent, Token

STEP = 0.001
"""Log-probabilities are rounded to this many nats."""

MAX_INFLATED = 64 * 1024 * 1024
"""Most bytes that a packed value may inflate to: 131,072 tokens with 20 alternatives take about 20 MB."""

Parsed = TypeVar("Parsed")

_TOKENS = b"CZT\x01"
_IDS = b"CZI\x01"
_NONE, _LOWEST, _HIGHEST, _UNKNOWN, _NUMBERS = 0, 1, 2, 3, 4
_LARGEST = 1 << 62
_LONGEST = 10
"""Most bytes of a number that are read back."""

_REMEMBERED = 1 << 17
"""Numbers below this are written once and remembered: every token id of Mistral's largest vocabulary."""


class _Written(dict[int, bytes]):
    """Numbers as they are written. Looking one up is five times as fast as writing it, and most come again."""

    def __missing__(self, value: int) -> bytes:
        if value < 0 or value.bit_length() > 7 * _LONGEST:
            raise ValueError(f"a token id cannot be {value}")
        out, rest = bytearray(), value
        while rest > 127:  # noqa: PLR2004 - seven bits a byte
            out.append(rest & 127 | 128)
            rest >>= 7
        out.append(rest)
        if value < _REMEMBERED:
            self[value] = bytes(out)
        return bytes(out)


_WRITTEN = _Written()


def pack_ids(ids: Sequence[int]) -> bytes:
    """Pack token ids. About two bytes an id.

    Raises:
        BadText: They are so many that they could not be read back.
    """
    return _seal(_IDS, [_numbers([len(ids), *ids])])


def unpack_ids(data: bytes) -> tuple[int, ...]:
    """Undo `pack_ids`.

    Raises:
        StoreUnusable: These are not such bytes.
    """
    return _read(data, _IDS, lambda reader: tuple(reader.take(reader.one())))


def pack_tokens(tokens: Sequence[Token]) -> bytes:
    """Pack an answer's tokens: 1,000 with five alternatives of a real model take less than 30 KB.

    Raises:
        BadText: They are so many, or so long, that they could not be read back.
    """
    pairs = sorted({(t.id, t.text) for t in tokens} | {(a.id, a.text) for t in tokens for a in t.alternatives})
    place = {pair: index for index, pair in enumerate(pairs)}
    texts = [text.encode() for _, text in pairs]
    ranks = [_rank(token) for token in tokens]
    alone = [token for rank, token in zip(ranks, tokens, strict=True) if not rank]
    columns = [
        _numbers([len(pairs), *_rises([token_id for token_id, _ in pairs])]),
        _numbers([*map(len, texts), len(tokens), *(len(token.alternatives) for token in tokens)]),
        _numbers(rank * 2 + token.special for rank, token in zip(ranks, tokens, strict=True)),
        _numbers(place[a.id, a.text] for token in tokens for a in token.alternatives),
        _numbers(place[token.id, token.text] for token in alone),
        _numbers(code for t in tokens for code in _descending([_level(a.logprob) for a in t.alternatives])),
        _numbers(_level(token.logprob) for token in alone),
        b"".join(texts),
    ]
    return _seal(_TOKENS, columns)


def unpack_tokens(data: bytes) -> tuple[Token, ...]:
    """Undo `pack_tokens`, log-probabilities to within half a `STEP`.

    Raises:
        StoreUnusable: These are not such bytes.
    """
    return _read(data, _TOKENS, _tokens)


def _tokens(reader: _Reader) -> tuple[Token, ...]:
    count = reader.one()
    ids, total = [], 0
    for rise in reader.take(count):
        total += rise
        ids.append(total)
    lengths = reader.take(count)
    size = reader.one()
    widths = reader.take(size)
    ranks = reader.take(size)
    refs = iter(reader.take(sum(widths)))
    alone = sum(code < 2 for code in ranks)  # noqa: PLR2004 - rank 0, with or without the bit for special
    alone_refs = iter(reader.take(alone))
    levels = iter(reader.take(sum(widths)))
    alone_levels = iter(reader.take(alone))
    texts = reader.texts(lengths)

    tokens = []
    for width, code in zip(widths, ranks, strict=True):
        codes = _ascending([next(levels) for _ in range(width)])
        places = [next(refs) for _ in range(width)]
        alternatives = tuple(
            Alternative(ids[at], texts[at], _number(level)) for at, level in zip(places, codes, strict=True)
        )
        rank, special = code >> 1, bool(code & 1)
        if rank:
            same = alternatives[rank - 1]
            tokens.append(Token(same.id, same.text, same.logprob, special, alternatives))
        else:
            at, level = next(alone_refs), next(alone_levels)
            logprob = None if level == _NONE else _number(level)
            tokens.append(Token(ids[at], texts[at], logprob, special, alternatives))
    return tuple(tokens)


def pack_events(events: Sequence[StreamEvent]) -> bytes:
    """Write phases and tokens as JSON, exactly. `Finish` is not part of a log: it is the answer's state."""
    return orjson.dumps([_plain(event) for event in events])


def unpack_events(data: bytes) -> tuple[StreamEvent, ...]:
    """Undo `pack_events`.

    Raises:
        StoreUnusable: These are not such bytes.
    """
    try:
        return tuple(_event(item) for item in orjson.loads(data))
    except (ValueError, TypeError, KeyError, IndexError) as broken:
        raise _damaged() from broken


def _plain(event: StreamEvent) -> dict[str, Any]:
    if isinstance(event, Phase):
        return {"phase": asdict(event)}
    if not isinstance(event, Token):
        raise TypeError("a log holds phases and tokens; the end is told to Replies.finish")
    alternatives = [[a.id, a.text, _finite(a.logprob)] for a in event.alternatives]
    return {"token": [event.id, event.text, _finite(event.logprob), event.special, alternatives]}


def _event(item: dict[str, Any]) -> StreamEvent:
    if "phase" in item:
        return Phase(**item["phase"])
    token_id, text, logprob, special, alternatives = item["token"]
    return Token(
        token_id,
        text,
        _infinite(logprob),
        special,
        tuple(Alternative(a, b, _infinite(c) if c is not None else math.nan) for a, b, c in alternatives),
    )


def _finite(logprob: float | None) -> float | str | None:
    """JSON has no infinity; an engine reports one for a token that cannot come."""
    return logprob if logprob is None or math.isfinite(logprob) else str(logprob)


def _infinite(written: float | str | None) -> Any:
    return float(written) if isinstance(written, str) else written


def _rank(token: Token) -> int:
    """Return the place of the token among its own alternatives, from 1; 0 where it is not, or not exactly, there."""
    for place, other in enumerate(token.alternatives, 1):
        if (other.id, other.text, other.logprob) == (token.id, token.text, token.logprob):
            return place
    return 0


def _level(logprob: float | None) -> int:
    """Return a whole number for a log-probability: four marks, then steps with the sign in the last bit."""
    if logprob is None:
        return _NONE
    if math.isnan(logprob):
        return _UNKNOWN
    if math.isinf(logprob):
        return _LOWEST if logprob < 0 else _HIGHEST
    steps = min(max(round(-logprob / STEP), -_LARGEST >> 8), _LARGEST >> 8)
    return _NUMBERS + (steps * 2 if steps >= 0 else -steps * 2 - 1)


def _number(level: int) -> float:
    if level < _NUMBERS:
        return {_LOWEST: -math.inf, _HIGHEST: math.inf}.get(level, math.nan)
    half, odd = divmod(level - _NUMBERS, 2)
    return (half + 1) * STEP if odd else -half * STEP + 0.0


def _descending(levels: list[int]) -> list[int]:
    """Alternatives come most probable first: differences are small and rarely negative."""
    return [_zigzag(level - before) for before, level in zip([0, *levels], levels, strict=False)]


def _ascending(codes: list[int]) -> list[int]:
    levels, at = [], 0
    for code in codes:
        at += code >> 1 if not code & 1 else -(code >> 1) - 1
        if at < 0:
            raise ValueError("a log-probability below its range")
        levels.append(at)
    return levels


def _zigzag(value: int) -> int:
    return value * 2 if value >= 0 else -value * 2 - 1


def _rises(ascending: list[int]) -> Iterable[int]:
    return (value - before for before, value in zip([0, *ascending], ascending, strict=False))


def _numbers(values: Iterable[int]) -> bytes:
    return b"".join(map(_WRITTEN.__getitem__, values))


def _seal(magic: bytes, columns: Sequence[bytes]) -> bytes:
    """Compress the columns as one stream, each with a Huffman table of its own: 6 % smaller than with one for all."""
    size = sum(map(len, columns))
    if size > MAX_INFLATED:
        raise BadText(f"the tokens take {size:,} bytes, at most {MAX_INFLATED:,} can be kept: ask for a shorter answer")
    squeeze = zlib.compressobj(9)
    packed = [squeeze.compress(column) + squeeze.flush(zlib.Z_FULL_FLUSH) for column in columns if column]
    return b"".join([magic, _numbers([size]), *packed, squeeze.flush()])


def _read(data: bytes, magic: bytes, parse: Callable[[_Reader], Parsed]) -> Parsed:
    """Inflate, parse, and make sure that nothing is left over."""
    try:
        return _parsed(data, magic, parse)
    except (ValueError, IndexError, OverflowError, zlib.error) as broken:
        raise _damaged() from broken


def _parsed(data: bytes, magic: bytes, parse: Callable[[_Reader], Parsed]) -> Parsed:
    if data[: len(magic)] != magic:
        raise ValueError("other magic")
    head = _Reader(data, len(magic))
    size = head.one()
    if size > MAX_INFLATED:
        raise ValueError("too large")
    inflate = zlib.decompressobj()
    raw = inflate.decompress(data[head.at :], size + 1)
    if len(raw) != size or not inflate.eof or inflate.unused_data:
        raise ValueError("other length")
    reader = _Reader(raw, 0)
    parsed = parse(reader)
    if reader.at != len(raw):
        raise ValueError("left over")
    return parsed


def _damaged() -> StoreUnusable:
    return StoreUnusable("the tokens kept with this answer are damaged: its text is not; restore a backup to have them")


class _Reader:
    """Takes numbers and texts from the front of some bytes, and never believes a count that they could not hold."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    def one(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            if byte < 128:  # noqa: PLR2004 - the last byte of a number
                return value
            shift += 7
            if shift >= 7 * _LONGEST:
                raise ValueError("a number too long")

    def take(self, count: int) -> list[int]:
        if count > len(self.data) - self.at:
            raise ValueError("more numbers than bytes")
        return [self.one() for _ in range(count)]

    def texts(self, lengths: list[int]) -> list[str]:
        if sum(lengths) > len(self.data) - self.at:
            raise ValueError("texts longer than the bytes")
        texts = []
        for length in lengths:
            texts.append(self.data[self.at : self.at + length].decode())
            self.at += length
        return texts
