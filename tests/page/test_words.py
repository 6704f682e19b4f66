"""The page's words: the same in every language, and one line for whatever is going on."""

from __future__ import annotations

import re

import pytest

from cierzo.engines.base import EngineInfo
from cierzo.errors import EngineDied
from cierzo.messages import Finish, Phase, Timings
from cierzo.page.turn import View
from cierzo.page.words import ENGLISH, EXAMPLES, LANGUAGES, SPANISH, language, notice, status


def holes(text: str) -> list[str]:
    return sorted(re.findall(r"{(\w+)}", text))


@pytest.mark.parametrize("tag", sorted(LANGUAGES))
def test_every_language_says_everything(tag: str) -> None:
    words = LANGUAGES[tag]
    assert {key: holes(text) for key, text in words.items()} == {key: holes(text) for key, text in ENGLISH.items()}
    assert all(text.strip() == text and text for text in words.values())
    assert len(EXAMPLES[tag]) == len(EXAMPLES["en"])


@pytest.mark.parametrize(
    ("accepted", "tag"),
    [
        ("", "en"),
        ("es", "es"),
        ("es-AR,es;q=0.9,en;q=0.8", "es"),
        ("de-DE,de;q=0.9,fr;q=0.3", "fr"),
        ("en;q=0.2,fr;q=0.9", "fr"),
        ("ES-es", "es"),
        ("fr;q=0,en", "en"),
        ("*", "en"),
        ("fr;q=lots, es;q=0.1", "es"),
        (",;q=,;;;," * 10_000, "en"),
    ],
)
def test_the_browsers_first_language_that_we_have(accepted: str, tag: str) -> None:
    assert language(accepted) == tag


def ended(reason: str, **counts: int) -> View:
    finish = Finish(reason, timings=Timings(decode=2.0), **counts)  # type: ignore[arg-type]
    return View("x", tokens=21, seconds=2.5, finish=finish, over=True)


@pytest.mark.parametrize(
    ("view", "line"),
    [
        (View(seconds=0.04), "Beginning · 0.0 s"),
        (View(phase=Phase("queued"), seconds=1), "Waiting for a free place · 1.0 s"),
        (View(phase=Phase("queued", 3), seconds=1), "Waiting for a free place · number 3 in the queue · 1.0 s"),
        (View(phase=Phase("loading"), seconds=2), "Loading the model · 2.0 s"),
        (View(phase=Phase("loading", 40, 100), seconds=2), "Loading the model · 40 % · 2.0 s"),
        (View(phase=Phase("reading"), seconds=2), "Reading the conversation · 2.0 s"),
        (View(phase=Phase("reading", 5, 9), seconds=2), "Reading the conversation · 5 of 9 tokens · 2.0 s"),
        (View(phase=Phase("reading", 9, 9), tokens=1, seconds=2), "Writing · 1 token · 2.0 s"),
        (ended("eos_token"), "21 tokens · 2.5 s · 10 tokens/s"),
        (View("a", tokens=1, seconds=0.1, finish=Finish("eos_token")), "1 token · 0.1 s"),
        (View(finish=Finish("eos_token")), "The model ended its answer without a word: ask again, or in other words."),
        (ended("length"), "Cut off after 21 tokens: “Max new tokens” or the model's window was reached."),
        (View(tokens=7, stopped=True), "Stopped after 7 tokens."),
        (View(error=EngineDied("it ended: ask again")), "No answer: it ended: ask again."),
        (View(text="a", error=EngineDied("it ended.")), "The answer broke off: it ended."),
        (View(tokens=2, stopped=True, dropped=4), None),
    ],
)
def test_one_line_for_whatever_is_going_on(view: View, line: str | None) -> None:
    if line is None:
        line = (
            "Stopped after 2 tokens.\n"
            "The model's window is full: the first 4 messages of this conversation were left out."
        )
    assert status(view, ENGLISH) == line
    assert status(view, SPANISH) != line or "tokens/s" in line or view.tokens == 1


def test_the_notice_says_who_is_answering() -> None:
    demo = notice(EngineInfo("llamacpp", "cierzo-demo", 2048, "v3"))
    assert all("cierzo models pull mistral-7b" in text for text in demo.values())
    assert "**mistral-7b**" in notice(EngineInfo("llamacpp", "mistral-7b", 2048, "v3"))["es"]
    assert "**my.gguf**" in notice(EngineInfo("llamacpp", "/srv/models/my.gguf", 2048, "v3"))["fr"]
    assert "script" in notice(EngineInfo("scripted", "scripted", 2048, "v3"))["en"]
