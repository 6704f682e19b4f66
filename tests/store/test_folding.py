"""Words as a search compares them."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from cierzo.store.folding import MAX_INDEXED, MAX_TERMS, MAX_WORDS_BYTES, fold, owner_word, snippet, terms, words

anything = st.text(st.characters())


@given(anything)
def test_folding_twice_is_as_once(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(anything)
def test_words_hold_letters_and_digits_only(text: str) -> None:
    """So that neither database sees a sign that means something to it, nor half a character."""
    cut = words(text)
    assert all(word.isalnum() for word in cut.split(" ") if word)
    assert "  " not in cut
    cut.encode()
    assert len(set(cut.split())) == len(cut.split())


@given(anything)
def test_terms_are_few_and_clean(text: str) -> None:
    found = terms(text)
    assert len(found) <= MAX_TERMS
    assert all(term.isalnum() for term in found)


@given(st.text("abcdeéñ 猫你\n.", max_size=60), st.data())
def test_every_word_of_a_text_finds_it(text: str, data: st.DataObject) -> None:
    indexed = words(text).split()
    if indexed:
        query = data.draw(st.lists(st.sampled_from(text.split() or [""]), max_size=3).map(" ".join))
        sought = terms(query)
        assert all(term in indexed for term in sought[:-1])
        assert not sought or any(word.startswith(sought[-1]) for word in indexed)


@given(st.text("aé bc\n.", max_size=700), st.text("aébc ", max_size=6))
def test_a_snippet_is_a_part_of_its_text(text: str, query: str) -> None:
    pieces = snippet(text, terms(query))
    joined = "".join(piece for piece, _ in pieces).removeprefix("…").removesuffix("…")
    assert joined in text.replace("\n", " ")
    assert all(piece for piece, _ in pieces)


def test_the_same_word_in_two_normal_forms_is_one() -> None:
    for word in ("crème", "Ąę", "ñandú", "Å", "Ἀθῆναι"):
        assert fold(unicodedata.normalize("NFD", word)) == fold(unicodedata.normalize("NFC", word))


def test_what_is_indexed_has_a_bound() -> None:
    assert words("x" * 10_000_000) == "x" * 64
    many = words(" ".join(f"{number:x}" for number in range(1_000_000)))
    assert len(many.encode()) < MAX_WORDS_BYTES
    assert words(" " * MAX_INDEXED + "late") == ""


def test_an_owners_word_is_no_word_of_a_text() -> None:
    assert words(owner_word("ana")) != owner_word("ana")
    assert owner_word(None) != owner_word("") != owner_word("ana")
