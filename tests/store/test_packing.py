"""Packed tokens: small, true to within half a step, and nothing but an error for bytes that are something else."""

from __future__ import annotations

import math
import random
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cierzo.errors import BadText, StoreUnusable
from cierzo.messages import Alternative, Phase, Token
from cierzo.store import packing
from cierzo.store.packing import (
    MAX_INFLATED,
    STEP,
    pack_events,
    pack_ids,
    pack_tokens,
    unpack_events,
    unpack_ids,
    unpack_tokens,
)

texts = st.text(st.characters(codec="utf-8"), max_size=6)
ids = st.integers(0, 2**31 - 1)
logprobs = st.floats(-1e4, 10, allow_nan=False) | st.sampled_from([-math.inf, math.inf, 0.0, -0.0, -1e30, -1e-9])
alternatives = st.lists(st.builds(Alternative, ids, texts, logprobs), max_size=20).map(tuple)
tokens = st.lists(st.builds(Token, ids, texts, st.none() | logprobs, st.booleans(), alternatives), max_size=20)


def near(one: float | None, other: float | None) -> bool:
    if one is None or other is None or not math.isfinite(one):
        return one == other
    return abs(one - other) <= STEP / 2 + 1e-9 or abs(one) > 1e12


@given(tokens)
def test_tokens_come_back(given_tokens: list[Token]) -> None:
    back = unpack_tokens(pack_tokens(given_tokens))
    assert len(back) == len(given_tokens)
    for before, after in zip(given_tokens, back, strict=True):
        assert (after.id, after.text, after.special) == (before.id, before.text, before.special)
        assert near(before.logprob, after.logprob)
        assert [(a.id, a.text) for a in after.alternatives] == [(a.id, a.text) for a in before.alternatives]
        assert all(near(a.logprob, b.logprob) for a, b in zip(before.alternatives, after.alternatives, strict=True))


@given(st.lists(st.integers(0, 2**60) | st.integers(0, 2**17 + 2)))
def test_ids_come_back(given_ids: list[int]) -> None:
    assert unpack_ids(pack_ids(given_ids)) == tuple(given_ids)


@given(st.lists(st.integers(0, 2**70 - 1) | st.sampled_from([127, 128, 16_383, 16_384, 2**17 - 1, 2**17])))
def test_numbers_are_written_as_leb128(numbers: list[int]) -> None:
    for _ in "12":  # remembered numbers are as those written for the first time
        assert packing._numbers(numbers) == b"".join(map(leb, numbers))


def size_of(packed: bytes) -> int:
    return packing._Reader(packed, 4).one()


@given(tokens, st.lists(ids), st.sampled_from([-1, 0, 40]))
def test_what_cannot_be_read_back_is_refused_when_it_is_written(
    given_tokens: list[Token], given_ids: list[int], room: int
) -> None:
    for pack, unpack, values in ((pack_tokens, unpack_tokens, given_tokens), (pack_ids, unpack_ids, given_ids)):
        size = size_of(pack(values))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(packing, "MAX_INFLATED", max(0, size + room))
            if room >= 0:
                assert len(unpack(pack(values))) == len(values)
            else:
                with pytest.raises(BadText, match=f"take {size:,} bytes, at most {size - 1:,} can be kept"):
                    pack(values)


def test_the_bound_is_exact() -> None:
    """With the bound as it is: a value as large as may be is read back, and one byte more is refused."""
    near = "x" * (MAX_INFLATED - 100)
    full = near + "x" * (MAX_INFLATED - size_of(pack_tokens([Token(5, near)])))
    assert unpack_tokens(pack_tokens([Token(5, full)])) == (Token(5, full),)
    with pytest.raises(BadText, match="take 67,108,865 bytes, at most 67,108,864 can be kept"):
        pack_tokens([Token(5, full + "x")])


@pytest.mark.parametrize("number", [2**70, -1])
def test_a_number_that_is_not_read_back_is_not_written(number: int) -> None:
    assert unpack_ids(pack_ids([2**70 - 1])) == (2**70 - 1,)
    with pytest.raises(ValueError, match=str(number)):
        pack_ids([number])


@given(
    st.lists(
        st.builds(Phase, st.sampled_from(["queued", "loading", "reading"]), ids, ids)
        | st.builds(Token, ids, texts, st.none() | logprobs, st.booleans(), alternatives)
    )
)
def test_a_log_comes_back_exactly(events: list[Phase | Token]) -> None:
    assert unpack_events(pack_events(events)) == tuple(events)


def test_packing_what_was_unpacked_changes_nothing() -> None:
    once = pack_tokens(answer(200))
    assert pack_tokens(unpack_tokens(once)) == once


def vocabulary(rng: random.Random) -> list[str]:
    """As many pieces, of as many letters, as Mistral's own vocabulary has."""
    return [
        " " * rng.randint(0, 1) + "".join(rng.choices("etaoinshrdlucmfwypvbgk", k=rng.choice([2, 3, 4, 5, 6, 7, 8])))
        for _ in range(32_000)
    ]


def answer(length: int) -> list[Token]:
    """An answer with the shape of a real one: Zipf's law over the words, a peaked distribution at each place."""
    rng = random.Random(5)
    words = vocabulary(rng)
    order = rng.sample(range(32_000), 32_000)
    weights = [1 / (rank + 2.7) ** 1.07 for rank in range(32_000)]
    made = []
    for _ in range(length):
        chosen = list(dict.fromkeys(rng.choices(order, weights, k=40)))[:5]
        spread = rng.choice([0.3, 1, 3, 6])
        levels = sorted((rng.gauss(0, spread) for _ in chosen), reverse=True)
        total = math.log(sum(map(math.exp, levels)) * 1.2)
        others = tuple(Alternative(i, words[i], level - total) for i, level in zip(chosen, levels, strict=True))
        said = rng.choices(others, [math.exp(other.logprob) for other in others])[0]
        made.append(Token(said.id, said.text, said.logprob, alternatives=others))
    return made


def test_a_thousand_tokens_with_five_alternatives_take_less_than_30_kilobytes() -> None:
    size = len(pack_tokens(answer(1_000)))
    print(f"1,000 tokens with 5 alternatives: {size:,} bytes")
    assert size <= 30_000


def test_damaged_bytes_are_an_error_and_nothing_worse() -> None:
    rng = random.Random(1)
    packed = {
        unpack_tokens: pack_tokens(answer(60)),
        unpack_ids: pack_ids(range(500)),
        unpack_events: pack_events(answer(20)),
    }
    cases = refused = 0
    for unpack, good in packed.items():
        for _ in range(1_500):
            bad = bytearray(good)
            for _ in range(rng.randint(1, 4)):
                kind, at = rng.randrange(4), rng.randrange(len(bad))
                if kind == 0:
                    bad[at] = rng.randrange(256)
                elif kind == 1:
                    del bad[at:]
                elif kind == 2:
                    bad[at:at] = rng.randbytes(rng.randint(1, 9))
                else:
                    del bad[at : at + rng.randint(1, 9)]
                bad = bad or bytearray(b"x")
            cases += 1
            try:
                unpack(bytes(bad))
            except StoreUnusable:
                refused += 1
    print(f"{cases} damaged values, {refused} refused")
    assert refused > cases // 2


def leb(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def raw(numbers: list[int], magic: bytes = b"CZT\x01", tail: bytes = b"", size: int | None = None) -> bytes:
    """Write numbers as a packed value would, with a checksum that is right: what a mutation never reaches."""

    body = b"".join(map(leb, numbers)) + tail
    return magic + leb(len(body) if size is None else size) + zlib.compress(body)


def test_well_formed_lies_are_refused() -> None:
    rng = random.Random(2)
    lies = [
        b"",
        b"CZT\x02" + pack_tokens([])[4:],
        pack_ids([1]),
        raw([2**62]),
        raw([0, 2**40]),
        raw([1, 5, 2**50, 0]),
        raw([0, 1, 0, 2]),
        raw([0, 1, 1, 0, 3, 0], tail=b"x"),
        raw([1, 5, 1, 1, 1, 3, 0, 9, 4], tail=b"\xff"),
        raw([1, 5, 1, 1, 1, 9, 0, 4], tail=b"a"),
        raw([0] * 50),
        raw([], tail=b"\xff" * 100),
        raw([0, 0], size=MAX_INFLATED + 1),
        raw([0], size=1 << 80),
        pack_tokens([]) + b"more",
    ]
    lies += [
        raw(
            [rng.choice([0, 1, 2, 3, 5, 200, 2**31, 2**63]) for _ in range(rng.randint(0, 30))],
            tail=rng.randbytes(rng.randint(0, 5)),
        )
        for _ in range(3_000)
    ]
    refused = 0
    for number, lie in enumerate(lies):
        try:
            unpack_tokens(lie)
        except StoreUnusable:
            refused += 1
        else:
            assert number >= 15, f"case {number} was believed"
    print(f"{len(lies)} lies, {refused} refused")


def test_a_small_value_cannot_fill_the_memory() -> None:
    bomb = raw([], tail=b"\x00" * 30_000_000, size=20)
    tracemalloc.start()
    begun = time.monotonic()
    with pytest.raises(StoreUnusable):
        unpack_tokens(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000
    assert time.monotonic() - begun < 10
