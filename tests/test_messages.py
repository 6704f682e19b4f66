"""The values: equal by content, frozen, and strict about what may go into them."""

from __future__ import annotations

import math
import pickle
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cierzo.errors import BadSampling, BadText
from cierzo.messages import (
    MAX_ALTERNATIVES,
    MAX_STOP_LENGTH,
    MAX_STOPS,
    MAX_TEXT,
    Finish,
    Message,
    Piece,
    Prompt,
    Sampling,
    Timings,
    check_text,
    content,
)

GOOD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200)


@given(GOOD)
def test_any_unicode_text_is_a_message(text: str) -> None:
    if text.strip():
        assert Message("user", text).text == check_text(text) == text
    assert Message("assistant", text) == Message("assistant", text, ids=(1, 2))
    assert Message("system", text).text == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        (" \n\t\u3000", "is empty"),
        ("a" * (MAX_TEXT + 1), "2,000,001 characters, at most 2,000,000"),
        ("abc\0", "a NUL character at position 3"),
        ("ab\ud83d", r"half a character \(a lone surrogate\) at position 2"),
        ("\udc80x", "at position 0"),
    ],
)
def test_what_no_message_can_be(text: str, reason: str) -> None:
    with pytest.raises(BadText, match=reason) as refused:
        Message("user", text)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 200


def test_what_is_odd_but_allowed() -> None:
    for text in ("\u202eright to left", "\ufeffmark", "[INST]", "</s>", "\x1b[31m", "a" * MAX_TEXT, "👩‍👩‍👧"):
        assert Message("user", text).text == text
    assert Message("assistant", "").text == ""


def test_a_message_is_a_value() -> None:
    one, other = Message("user", "A", ids=(1,)), Message("user", "A", ids=(2,))
    assert one == other
    assert len({one, other}) == 1
    assert one != Message("assistant", "A")
    assert "ids" not in repr(one)
    with pytest.raises(FrozenInstanceError):
        one.text = "B"  # type: ignore[misc] # that is the test
    with pytest.raises(BadText, match="not 'tool'"):
        Message("tool", "A")  # type: ignore[arg-type] # that is the test


def test_a_prompt_is_its_pieces() -> None:
    prompt = Prompt((Piece("<s>", (1,), control=True), Piece(" A b", (5, 6), control=False)), "v3")
    assert prompt.ids == (1, 5, 6)
    assert prompt.text == "<s> A b"
    assert len(prompt) == 3
    assert (prompt.kept, prompt.dropped, prompt.leading_space) == ((), (), False)


def test_the_ids_of_a_prompt_are_joined_once_and_are_no_content_of_their_own() -> None:
    made = [Prompt((Piece("<s>", (1,), control=True), Piece(" A b", (5, 6), control=False)), "v3") for _ in "12"]
    assert made[0].ids is made[0].ids
    assert made[0] == made[1]
    assert hash(made[0]) == hash(made[1])
    assert "ids=(1, 5, 6)" not in repr(made[0])
    other = replace(made[0], pieces=made[0].pieces[:1])
    assert (other.ids, other == made[0]) == ((1,), False)
    assert pickle.loads(pickle.dumps(made[0])).ids == (1, 5, 6)


BAD: list[tuple[str, Any]] = [
    *((name, value) for name in ("temperature", "top_p", "min_p", "repetition_penalty") for value in (-1, 99)),
    *((name, value) for name in ("max_new_tokens", "top_k", "seed", "alternatives") for value in (-1, 2**40, 1.5)),
    *(
        (name, value)
        for name in ("temperature", "max_new_tokens", "top_p", "repetition_penalty", "top_k", "min_p", "alternatives")
        for value in (math.nan, math.inf, -math.inf, "1", None, True, [], 10**400, -(10**400), 1e308)
    ),
    ("max_new_tokens", 0),
    ("seed", 2**32 - 1),
    ("seed", math.nan),
    ("alternatives", MAX_ALTERNATIVES + 1),
    ("repetition_penalty", 0),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=lambda value: f"{value!r:.20}")
def test_sampling_values_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(BadSampling, match=name) as refused:
        Sampling(**{name: value})
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    "stop",
    ["text", [""], ["a" * (MAX_STOP_LENGTH + 1)], ["a"] * (MAX_STOPS + 1), [1], 7, ["a\0"], ["\ud800"]],
    ids=lambda value: f"{value!r:.20}",
)
def test_stops_that_are_none(stop: Any) -> None:
    with pytest.raises((BadSampling, BadText)):
        Sampling(stop=stop)


def test_sampling_takes_what_a_page_sends() -> None:
    sampling = Sampling.of({"temperature": 1, "max_new_tokens": 64.0, "seed": None, "stop": ["a", "b"]})
    assert sampling == Sampling(temperature=1.0, max_new_tokens=64, stop=("a", "b"))
    assert isinstance(sampling.max_new_tokens, int)
    assert isinstance(sampling.temperature, float)
    with pytest.raises(BadSampling, match="there is no sampling value 'heat': use one of"):
        Sampling.of({"heat": 1})


def test_defaults_are_the_notebooks() -> None:
    sampling = Sampling()
    assert (sampling.temperature, sampling.max_new_tokens, sampling.top_p) == (0.9, 256, 0.95)
    assert sampling.repetition_penalty == 1.0


@pytest.mark.parametrize(
    ("tokens", "kept", "timings", "rate"),
    [
        (21, 0, Timings(decode=2.0), 10.0),
        (21, 0, Timings(decode=2.0, engine_rate=12.5), 12.5),
        (21, 10, Timings(decode=2.0), 5.0),
        (21, 0, Timings(decode=0.00002), None),
        (21, 0, Timings(decode=0.00002, engine_rate=800.0), 800.0),
        (21, 20, Timings(decode=2.0), None),
        (1, 0, Timings(decode=2.0), None),
        (0, 0, Timings(), None),
    ],
)
def test_the_speed_is_told_where_it_is_known(tokens: int, kept: int, timings: Timings, rate: float | None) -> None:
    finish = Finish("length", answer_tokens=tokens, timings=timings, kept=kept)
    assert finish.rate == rate
    assert replace(finish, seed=7).rate == rate
    assert finish == replace(finish, kept=0), "what is kept beside it makes no other end of it"
    assert set(content(finish)) == {field.name for field in fields(Finish)} - {"kept", "rate", "sent"}
    kept_only = {**content(finish), "timings": Timings(**content(finish)["timings"])}
    assert Finish(**kept_only, kept=kept).rate == rate
