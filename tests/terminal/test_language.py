"""The two languages say the same things."""

import string

import pytest

from cierzo.terminal.language import TEXTS, language, say


def holes(text):
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_text_is_there_in_both_languages_with_the_same_values():
    assert TEXTS["en"].keys() == TEXTS["es"].keys()
    assert {key: holes(text) for key, text in TEXTS["en"].items()} == {k: holes(t) for k, t in TEXTS["es"].items()}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "es_ES.UTF-8"}, "es"),
        ({"LANG": "es"}, "es"),
        ({"LANG": "es_MX"}, "es"),
        ({"LANG": "est_EE.UTF-8"}, "en"),
        ({"LANG": "es_ES.UTF-8", "LC_ALL": "en_GB.UTF-8"}, "en"),
        ({"LANG": "en_GB.UTF-8", "LC_ALL": "", "LC_MESSAGES": "es_AR.UTF-8"}, "es"),
    ],
)
def test_the_language_of_the_terminal(environ, expected):
    assert language(environ) == expected


def test_say(monkeypatch):
    monkeypatch.setenv("LC_ALL", "es_ES.UTF-8")
    assert say("reading_at", done=3, total=9) == "leyendo el prompt, 3 de 9 tokens"
