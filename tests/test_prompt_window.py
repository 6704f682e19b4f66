"""The window: which turns are kept, which are refused, and what it costs to find out."""

from __future__ import annotations

import random
from typing import Any

import pytest
from conversations import WIDE, says
from reference import LOOKALIKES, some_dialogue

from cierzo import prompt as prompts
from cierzo.errors import BadText, PromptTooLong
from cierzo.messages import MAX_TEXT, Message
from cierzo.pieces import Memory
from cierzo.prompt import build, raw
from cierzo.templates import Codec


@pytest.mark.parametrize("name", ["v1", "v3", "v3-tekken", "v7"])
@pytest.mark.parametrize("system", ["first", "official"])
@pytest.mark.parametrize("consecutive", ["merge", "separate"])
def test_window_keeps_as_many_of_the_newest_turns_as_fit(name: str, system: Any, consecutive: Any) -> None:
    rng = random.Random(f"{name} {system} {consecutive}")
    cases = cut = 0
    for _ in range(60):
        messages = says(*(turn for turn in some_dialogue(rng, LOOKALIKES)))
        whole = len(build(messages, name, context=WIDE, system=system, consecutive=consecutive))
        context, reserve = rng.randrange(8, whole + 20), rng.choice((0, 1, 5, 40))
        starts = [i for i, m in enumerate(messages) if m.role == "user"]
        lengths = []
        for start in (0, *starts):
            suffix = [m for i, m in enumerate(messages) if i >= start or m.role == "system"]
            lengths.append((len(build(suffix, name, context=WIDE, system=system, consecutive=consecutive)), suffix))
        cases += 1
        if lengths[-1][0] > context - 1:
            with pytest.raises(PromptTooLong) as refused:
                build(messages, name, context=context, reserve=reserve, system=system, consecutive=consecutive)
            assert refused.value.available == context - 1
            assert refused.value.needed <= lengths[-1][0]
            continue
        prompt = build(messages, name, context=context, reserve=reserve, system=system, consecutive=consecutive)
        fitting = [suffix for length, suffix in lengths if length <= context - max(reserve, 1)] or [lengths[-1][1]]
        ending_blank = messages[-1].role == "assistant" and name != "v1"
        kept = [m.text.rstrip(" ") if ending_blank else m.text for m in prompt.kept]
        assert kept == [m.text.rstrip(" ") if ending_blank else m.text for m in fitting[0]]
        assert sorted(map(id, prompt.dropped)) == sorted(id(m) for m in messages if m not in fitting[0])
        assert list(prompt.dropped) == [m for m in messages if m not in fitting[0]]
        assert len(prompt) <= max(context - max(reserve, 1), lengths[-1][0])
        cut += bool(prompt.dropped)
    print(f"{name}, {system}, {consecutive}: {cases} windows, {cut} cut")


def test_too_long_a_question_says_both_numbers() -> None:
    with pytest.raises(PromptTooLong, match=r"takes 13 tokens and the model's window has room for 9") as refused:
        build(says(("user", "one two three four five six seven eight nine ten")), "v3", context=10)
    assert (refused.value.needed, refused.value.available) == (13, 9)


def test_the_reserve_gives_way_before_the_last_question() -> None:
    messages = says(("user", "old"), ("assistant", "old"), ("user", "one two three"))
    prompt = build(messages, "v3", context=7, reserve=5)
    assert (len(prompt), prompt.kept, prompt.dropped) == (6, (messages[2],), tuple(messages[:2]))
    assert build(messages, "v3", context=12, reserve=0).dropped == ()


def count_encodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(prompts, "REMEMBERED", Memory())  # so that what other tests said does not count
    seen: list[str] = []
    for method in ("user", "system", "assistant"):
        original = getattr(Codec, method)

        def counted(self: Codec, text: str, original: Any = original, **options: Any) -> list[int]:
            seen.append(text)
            return original(self, text, **options)

        monkeypatch.setattr(Codec, method, counted)
    return seen


def test_a_huge_question_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = count_encodings(monkeypatch)
    for text in ("a" * MAX_TEXT, "palabra " * (MAX_TEXT // 8), "😀" * MAX_TEXT):
        for name in ("v1", "v3", "v3-tekken"):
            with pytest.raises(PromptTooLong, match="at least") as refused:
                build([Message("system", text), Message("user", text)], name, context=32_768)
            assert 32_768 < refused.value.needed <= 2 * MAX_TEXT
    assert not seen


def test_a_huge_old_message_is_dropped_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [Message("user", "a" * MAX_TEXT), Message("assistant", "b" * MAX_TEXT), Message("user", "and now?")]
    seen = count_encodings(monkeypatch)
    prompt = build(messages, "v3", context=2_048)
    assert prompt.dropped == tuple(messages[:2])
    assert set(seen) == {"and now?"}


def test_fitting_costs_what_fits_and_not_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text is encoded once (with the system prompt before it, a few times more), and old ones never."""
    messages = [Message("system", "Be brief.")]
    for turn in range(3_000):
        messages += says(("user", f"Question {turn}"), ("assistant", f"Answer {turn}"))
    messages += says(("user", "last"))
    seen = count_encodings(monkeypatch)
    prompt = build(messages, "v3", context=2_048, reserve=256)
    assert len(prompt) <= 2_048 - 256
    assert prompt.kept[0].text == "Be brief."
    assert len(prompt.kept) + len(prompt.dropped) == len(messages)
    assert len(seen) < 1.2 * len(prompt.kept) + 40


def test_a_run_of_blanks_that_breaks_tiktoken_is_an_ordinary_error() -> None:
    with pytest.raises(BadText, match="run of blanks"):
        build(says(("user", " " * 1_000_000 + "a")), "v3-tekken", context=131_072)
    with pytest.raises(BadText, match="run of blanks"):
        raw(" " * 1_000_000 + "a", "v7-tekken")
