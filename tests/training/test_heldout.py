"""The blind examination: complete, well formed, and truly unseen by the training text."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from training.facts import FALLBACK, INTENTS, LANGUAGES

PATH = Path(__file__).parents[2] / "training" / "heldout.json"
KINDS = {"in": 300, "ood": 200, "followup": 60}
MOVES = {"sibling", "more", "language", "name", "thanks", "shorter"}
FIELDS = {"id", "lang", "kind", "turns", "intent", "name", "answer_lang", "move", "near_miss"}

# Questions this short cannot be told from what anybody would write: they may coincide with the training text.
SHORT_WORDS = 2
SHORT_AT_MOST = 15

# Training draws dialogues afresh; this many show what it commonly says, not everything that it could say.
DIALOGUES = 60_000
LONG_WORDS = 3

# Only a name can be told and asked back over two turns.
FOLLOWUP_ONLY = {"whats_my_name"}


@cache
def rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(PATH.read_text("utf-8"))
    return found


def intents(row: dict[str, Any]) -> list[str]:
    return [row["intent"]] if isinstance(row["intent"], str) else list(row["intent"])


def folded(text: str) -> str:
    """The words alone: no case, no accents, no punctuation, one space between them."""
    letters = unicodedata.normalize("NFKD", text.lower().replace("œ", "oe"))
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return " ".join(re.findall(r"\w+", plain))


def sentences(text: str) -> list[str]:
    """The folded sentences of a text: they end at a line, at a stop before a space, or at an opening ¿ or ¡."""
    parts = re.split(r"[.?!…]+(?=\s|$)|[¿¡\n]", text)
    return [plain for part in parts if (plain := folded(part))]


def exempt(row: dict[str, Any], turn: int) -> bool:
    """Whether a turn may coincide with the training text: second turns of follow-ups, and one or two words."""
    return turn > 0 or len(folded(row["turns"][turn]).split()) <= SHORT_WORDS


def test_counts_by_kind_and_language() -> None:
    counts = Counter((row["kind"], row["lang"]) for row in rows())
    assert {kind: sum(counts[kind, lang] for lang in LANGUAGES) for kind in KINDS} == KINDS
    for kind, total in KINDS.items():
        for lang in LANGUAGES:
            assert abs(counts[kind, lang] - total / len(LANGUAGES)) < 1, (kind, lang)


def test_rows_are_well_formed() -> None:
    for row in rows():
        assert set(row) <= FIELDS, row
        assert re.fullmatch(rf"{row['kind']}-{row['lang']}-\d{{3}}", row["id"]), row
        assert len(row["turns"]) == (2 if row["kind"] == "followup" else 1), row
        assert row.get("answer_lang", row["lang"]) in LANGUAGES, row
        assert (row["kind"] == "followup") == ("move" in row), row
        assert row.get("move", "more") in MOVES, row
        if "my_name" in intents(row):
            assert row["name"] in row["turns"][0], row
        if "whats_my_name" in intents(row):
            assert row["name"] in row["turns"][0], row
            assert row["name"] not in row["turns"][1], row


def test_texts_are_clean_unicode() -> None:
    for row in rows():
        for text in row["turns"]:
            text.encode("utf-8")
            assert text == unicodedata.normalize("NFC", text).strip(), row
            assert all(unicodedata.category(letter)[0] != "C" for letter in text), row
            assert "\N{REPLACEMENT CHARACTER}" not in text, row


def test_ids_and_texts_are_unique() -> None:
    assert len({row["id"] for row in rows()}) == len(rows())
    texts = Counter(folded(row["turns"][0]) for row in rows())
    assert [text for text, times in texts.items() if times > 1] == []


def test_intents_are_known() -> None:
    for row in rows():
        for intent in intents(row):
            base, _, level = intent.partition(".")
            assert base in INTENTS, row
            assert level in ("", "more"), row
            assert not level or INTENTS[base].more, row


def test_every_intent_is_asked_twice() -> None:
    asked = Counter(intents(row)[0].partition(".")[0] for row in rows() if row["kind"] == "in")
    wanted = set(INTENTS) - {FALLBACK} - FOLLOWUP_ONLY
    assert {intent for intent in wanted if asked[intent] < 2} == set()
    assert FALLBACK not in asked
    followed = {intent for row in rows() if row["kind"] == "followup" for intent in intents(row)}
    assert followed >= FOLLOWUP_ONLY


def test_outside_means_the_fallback_first() -> None:
    outside = [row for row in rows() if row["kind"] == "ood"]
    assert all(intents(row)[0] == FALLBACK for row in outside)
    assert sum(row.get("near_miss", False) for row in outside) >= 30


def test_followups_have_every_move_in_every_language() -> None:
    for lang in LANGUAGES:
        assert {row["move"] for row in rows() if row["kind"] == "followup" and row["lang"] == lang} == MOVES


def test_few_questions_are_too_short_to_judge() -> None:
    assert sum(row["kind"] == "in" and exempt(row, 0) for row in rows()) <= SHORT_AT_MOST
    assert not any(row["kind"] == "ood" and exempt(row, 0) for row in rows())


def test_no_question_is_in_the_training_text() -> None:
    """A whole question may not be there, nor a sentence of it with three words or more; the exempt ones may."""
    from training import corpus  # noqa: PLC0415  # only this test needs the phrasings

    said = {
        text
        for dialogue in corpus.dialogues(seed=20_260, count=DIALOGUES)
        for turn in dialogue.turns
        for text in (turn.question, turn.answer)
    }
    seen = {folded(text) for text in said}
    asked = {
        part: row["id"]
        for row in rows()
        for turn, text in enumerate(row["turns"])
        if not exempt(row, turn)
        for part in (folded(text), *sentences(text))
        if len(part.split()) >= LONG_WORDS
    }
    lengths = {len(part.split()) for part in asked}
    found = {
        (asked[run], run)
        for text in seen
        for words in [text.split()]
        for length in lengths
        for at in range(len(words) - length + 1)
        if (run := " ".join(words[at : at + length])) in asked
    }
    print(f"{len(rows())} held-out rows against {len(seen)} different texts of {DIALOGUES} dialogues")
    assert not found
