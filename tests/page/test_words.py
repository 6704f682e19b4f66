"""The page's words: the same in every language, each of them used, and no other asked for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cierzo.page import words
from cierzo.page.drawn import Drawn
from cierzo.page.words import LANGUAGES

WEB = Path(words.__file__).parent / "web"
ENGLISH = LANGUAGES["en"]

LITERAL = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
TEMPLATE = re.compile(r"`([^`]*)`")
SAID = re.compile(r'\bsay\((?:[^()"`]*\?\s*)?"(\w+)"(?:\s*:\s*"(\w+)")?')
COUNTED = re.compile(r'\bcount\("(\w+)"')
MARKED = re.compile(r"__i18n__\{[^}]*?key[^\w]*(\w+)")
"""How Gradio marks a sentence that it looks up in the reader's language."""


def modules() -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in sorted(WEB.glob("*.js"))}


def holes(text: str) -> list[str]:
    return sorted(re.findall(r"{(\w+)}", text))


@pytest.mark.parametrize("tag", sorted(LANGUAGES))
def test_every_language_says_everything(tag: str) -> None:
    said = LANGUAGES[tag]
    assert list(said) == list(ENGLISH), "in the same order, so that they can be read side by side"
    assert {key: holes(text) for key, text in said.items()} == {key: holes(text) for key, text in ENGLISH.items()}
    assert [key for key, text in said.items() if not text.strip() or text.strip() != text] == []
    assert [key for key, text in said.items() if re.search(r"[{}]", re.sub(r"{\w+}", "", text))] == []


@pytest.mark.parametrize("tag", sorted(LANGUAGES))
def test_sentences_are_text(tag: str) -> None:
    """No markup, no address, no sign that a keyboard cannot be trusted to show."""
    for key, text in LANGUAGES[tag].items():
        assert not re.search(r"[<>&`]|https?:|\s\s|[\x00-\x1f\x7f\u200b\ufeff]", text), key
    print(f"\n{len(LANGUAGES[tag])} sentences")


def test_no_language_was_left_in_english() -> None:
    """A sentence that is the same in two languages is a name, a number or one word."""
    for tag in ("es", "fr"):
        same = {key: text for key, text in LANGUAGES[tag].items() if text == ENGLISH[key]}
        assert {key: text for key, text in same.items() if len(re.sub(r"{\w+}", "", text).split()) > 2} == {}, tag


def test_every_sentence_that_a_module_asks_for_exists() -> None:
    asked = {}
    for name, text in modules().items():
        if name == "words.js":
            continue
        for found in SAID.finditer(text):
            asked.update({key: name for key in found.groups() if key})
        for key in COUNTED.findall(text):
            asked.update({key: name, f"{key}_one": name})
    assert len(asked) > 40
    assert {key: name for key, name in asked.items() if key not in ENGLISH} == {}
    print(f"\n{len(asked)} sentences are asked for by name")


def test_every_sentence_that_gradio_shows_exists(page_drawn: Drawn) -> None:
    marked = set(MARKED.findall(page_drawn.html.split("window.gradio_config", 1)[1]))
    assert len(marked) > 15
    assert marked - set(ENGLISH) == set()


def test_every_sentence_is_used(page_drawn: Drawn) -> None:
    source = "\n".join(modules().values())
    literals = set(LITERAL.findall(source))
    patterns = [re.sub(r"\\\$\\\{.*?\\\}", ".+", re.escape(text)) for text in TEMPLATE.findall(source)]
    made = [re.compile(pattern) for pattern in patterns if re.fullmatch(r"[a-z_.+]*[a-z]{3}[a-z_.+]*", pattern)]
    keys = set(re.findall(r'\b(\w+): ["{A-Z]', source))  # of maps that are walked through
    used = literals | keys | set(MARKED.findall(page_drawn.html))
    endings = ("_one", *(text for text in literals if re.fullmatch(r"_[a-z]+", text)))

    def is_used(key: str) -> bool:
        parts = [key.removesuffix(ending) for ending in endings if key.endswith(ending)]
        return any(part in used for part in (key, *parts)) or any(pattern.fullmatch(key) for pattern in made)

    unused = [key for key in ENGLISH if not is_used(key)]
    assert not unused, ", ".join(unused)


def test_the_holes_of_a_sentence_are_filled() -> None:
    """Where a module gives values by name, beside the sentence's name, it gives those that the sentence has."""
    calls = 0
    for name, text in modules().items():
        for key, values in re.findall(r'\bsay\("(\w+)", \{ ?([^{}]*?) ?\}\)', text):
            plain = re.sub(r"\([^()]*\)|\[[^][]*\]", "", LITERAL.sub("", values))
            given = sorted(re.findall(r"(?:^|,)\s*(\w+)", plain))
            calls += 1
            assert given == sorted(set(holes(ENGLISH[key]))), f"{name}: {key}"
        for key in re.findall(r'\bsay\("(\w+)"\)', text):
            assert not holes(ENGLISH[key]), f"{name}: {key} has holes that nobody fills"
    print(f"\n{calls} sentences with values")
    assert calls > 5
