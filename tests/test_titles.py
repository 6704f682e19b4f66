"""Titles: a rule, at once, whatever the question is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cierzo.store.records import check_title
from cierzo.titles import LONGEST, title_of


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("¿Cuál es tu ingrediente favorito?", "¿Cuál es tu ingrediente favorito?"),
        ("Hola. ¿Qué es un token? Explícalo.", "Hola. ¿Qué es un token?"),
        ("¿Qué es un token? Explícalo.", "¿Qué es un token?"),
        ("\n\n## Hola\nmás", "Hola"),
        ("1. uno\n2. dos", "uno"),
        ("> - [ver](https://a.b) **negrita** y snake_case", "ver negrita y snake_case"),
        ("2 + 2 * 3?", "2 + 2 * 3?"),
        ("10 consejos para dormir", "10 consejos para dormir"),
        ("-5 grados son muchos", "-5 grados son muchos"),
        ("```py\nprint(1)\n```\n¿Qué hace?", "¿Qué hace?"),
        ("```py\nprint(1)\n```", "print(1)"),
        ("```print(1)", "print(1)"),
        ("🙂", "🙂"),
        ("***", "***"),
        ("你好吗。请告诉我什么是令牌。还有别的吗", "你好吗。请告诉我什么是令牌。"),
        ("\u202ehola\x07", "hola"),
        ("palabra " * 30, "palabra palabra palabra palabra palabra palabra palabra…"),
        ("a" * LONGEST, "a" * LONGEST),
        ("a" * (LONGEST + 1), "a" * (LONGEST - 1) + "…"),
        ("de " + "a" * 200, "de " + "a" * 56 + "…"),
        ("a" * 40 + ", " + "b" * 40, "a" * 40 + "…"),
        ("Muy bien. ¿Qué es? Di.", "Muy bien. ¿Qué es?"),
        ("Muy bien.. ¿Qué es? Di.", "Muy bien.."),
        ("###### Hola\nmás", "Hola"),
        ("####### Hola", "####### Hola"),
        ("precio*2* y *a*b", "precio*2* y *a*b"),
        ("\n" * 5000 + "hola", "hola"),
    ],
)
def test_titles(question: str, title: str) -> None:
    assert title_of(question) == title


@given(st.text(min_size=1).filter(str.strip))
def test_any_question_has_a_title_that_can_be_stored(question: str) -> None:
    title = title_of(question)
    assert len(title) <= LONGEST
    assert "\n" not in title
    check_title(title.encode(errors="replace").decode())


@pytest.mark.parametrize("piece", ["*a ", "[", "`", " ", "> ", "_a", "1. ", "[a](b", "a.\u3002"])
def test_a_question_of_two_million_characters_is_no_matter(piece: str) -> None:
    """No expression runs away: this takes hours where one does, and the timeout of the tests ends it."""
    assert len(title_of(piece * (2_000_000 // len(piece)) + "a")) <= LONGEST
