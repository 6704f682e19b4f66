"""The answers satisfy their own checks, and no answer passes for another language or for the fallback."""

from __future__ import annotations

import pytest
from training.config import CONFIG
from training.facts import FALLBACK, FALLBACK_MARKS, INTENTS, LANGUAGES, check, fold, has_all, language_of

NAME = "Marta"
SIXTY = 60


def texts(lang: str) -> list[tuple[str, str]]:
    """Every (intent or intent.more, answer) of a language, names filled in."""
    found = [(name, text) for name, intent in INTENTS.items() for text in intent.answers[lang]]
    found += [(f"{name}.more", intent.more[lang]) for name, intent in INTENTS.items() if intent.more]
    return [(name, text.replace("{name}", NAME)) for name, text in found]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_answer_is_right_by_its_own_check(lang: str) -> None:
    assert [row for row in texts(lang) if not check(row[0], lang, row[1], NAME)] == []


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_answer_is_in_its_language(lang: str) -> None:
    assert [row for row in texts(lang) if language_of(row[1]) != lang] == []


def test_only_the_fallback_sounds_like_the_fallback() -> None:
    for lang in LANGUAGES:
        for name, text in texts(lang):
            marked = any(mark in fold(text) for mark in FALLBACK_MARKS)
            assert marked == name.startswith(FALLBACK), (name, text)


def test_there_are_enough_intents_with_several_wordings() -> None:
    assert len(INTENTS) > SIXTY
    for intent in INTENTS.values():
        assert set(intent.answers) == set(LANGUAGES)
        assert all(len(set(answers)) > 1 for answers in intent.answers.values()), intent.id
        assert set(intent.more) in (set(), set(LANGUAGES)), intent.id


def test_no_placeholder_is_left() -> None:
    for lang in LANGUAGES:
        for name, text in texts(lang):
            assert "{" not in text, (name, text)


def test_no_answer_teaches_a_command_of_a_later_version() -> None:
    later = ("serve", "export", "import", "users", "keys", "bench", "history", "accounts", "search")
    for lang in LANGUAGES:
        for name, text in texts(lang):
            assert not any(f"cierzo {command}" in text for command in later), (name, text)


def test_the_size_it_states_is_the_configured_one() -> None:
    assert f"{CONFIG.parameters / 1e6:.1f} million" in INTENTS["size"].answers["en"][0]
    assert check("size", "en", f"I have {CONFIG.millions} million parameters in the network.")
    assert not check("size", "en", "I have 7 billion parameters in the network.")


def test_groups_are_alternatives_and_all_must_appear() -> None:
    assert has_all("Una Ñandú está aquí", [["nandu", "avestruz"], ["esta"]])
    assert not has_all("Una Ñandú", [["nandu"], ["esta"]])
