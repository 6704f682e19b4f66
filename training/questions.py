"""Draws questions: about an intent, a follow-up, or about anything else. Knows no answers."""

import random
import re
from dataclasses import dataclass
from functools import cache

from training.facts import DATA, INTENTS
from training.grammar import count, fill, lines, sample, sections
from training.tokens import spm

# How often a question is one of the sentences that were written one by one, not one made of parts.
NATURAL = 0.45

# Sections of follow-ups that were written one by one too.
_FOLLOWING = {"more", "shorter", "again", "to_es", "to_en", "to_fr"}

# Domains whose questions may end in "in a language model" and the like.
_TECHNICAL = {"tokens", "sampling", "prompts", "architecture"}

# What the parts of a pattern do to each other where they meet.
_FUSIONS = {
    "es": [(r"\bde el\b", "del"), (r"\ba el\b", "al")],
    "en": [],
    "fr": [
        (r"\bde le\b", "du"),
        (r"\bde les\b", "des"),
        (r"\bà le\b", "au"),
        (r"\bà les\b", "aux"),
        (r"\b([dq]u?e) (?=(un|une|instruct|on)\b)", lambda match: match[1][:-1] + "'"),
    ],
}


@dataclass(frozen=True)
class Bank:
    """Everything one language has to ask with."""

    lang: str
    asked: dict[str, list[str]]
    patterns: dict[str, list[str]]
    other: list[str]
    slots: dict[str, list[str]]
    natural: dict[str, list[str]]
    natural_other: list[str]


@cache
def bank(lang: str) -> Bank:
    """Read the language's files once."""
    other_lines = lines(DATA / f"other_{lang}.txt")
    pairs = [line[1:].split(":", 1) for line in other_lines if line.startswith("=")]
    slots = {name.strip(): words.strip().split("|") for name, words in pairs}
    return Bank(
        lang=lang,
        asked=sections([DATA / f"questions_{lang}{part}.txt" for part in ("", "2", "3")]),
        patterns=sections([DATA / f"patterns_{lang}.txt"]),
        other=[line for line in other_lines if not line.startswith("=")],
        slots=slots,
        natural=sections([DATA / f"natural_{lang}.txt", DATA / f"natural_more_{lang}.txt"]),
        natural_other=[line for part in ("", "2") for line in lines(DATA / f"natural_other{part}_{lang}.txt")],
    )


def _weighted(rng: random.Random, patterns: list[str]) -> str:
    """One pattern, those that stand for more sentences more often, but far from proportionally."""
    return rng.choices(patterns, weights=[count(pattern) ** 0.4 for pattern in patterns])[0]


def _fused(text: str, lang: str) -> str:
    for wrong, right in _FUSIONS[lang]:
        text = re.sub(wrong, right, text)
    return text


@cache
def nouns(intent: str, lang: str) -> list[str]:
    """Patterns of the noun phrases that name the intent; may be empty."""
    return [line[1:].strip() for line in bank(lang).asked[intent] if line.startswith("=")]


def about(rng: random.Random, intent: str, lang: str) -> str:
    """A plain question about the intent, without noise."""
    source = bank(lang)
    if rng.random() < NATURAL:
        return sample(rng, rng.choice(source.natural[intent]))
    named = nouns(intent, lang)
    direct = [line for line in source.asked[intent] if not line.startswith("=")]
    if named and (not direct or rng.random() < 0.5):
        noun = sample(rng, rng.choice(named))
        if rng.random() < 0.25:
            noun = re.sub(r"^(the|a|an|el|la|los|las|un|una|le|les|une) |^l'", "", noun)
        text = sample(rng, _weighted(rng, source.patterns["noun"])).replace("N", noun)
    else:
        text = sample(rng, _weighted(rng, direct))
    if INTENTS[intent].domain in _TECHNICAL and rng.random() < 0.12:
        text += " " + rng.choice(source.patterns["context"])
    return _fused(text, lang)


def ellipsis(rng: random.Random, intent: str, lang: str) -> str:
    """A follow-up that only names the next subject: "and top-k"."""
    source = bank(lang)
    short = source.patterns.get(f"+{intent}", [])
    named = short if short and rng.random() < 0.7 else nouns(intent, lang) or short
    noun = sample(rng, rng.choice(named))
    return _fused(sample(rng, rng.choice(source.patterns["ellipsis"])).replace("N", noun), lang)


@cache
def can_be_elliptic(intent: str) -> bool:
    """Whether a follow-up can name the intent in every language."""
    return all(nouns(intent, lang) or f"+{intent}" in bank(lang).patterns for lang in ("es", "en", "fr"))


def phrase(rng: random.Random, section: str, lang: str) -> str:
    """A line of one of the pattern sections: more, shorter, to_en, system."""
    source = bank(lang)
    if section in _FOLLOWING and rng.random() < NATURAL:
        return sample(rng, rng.choice(source.natural[section]))
    return sample(rng, _weighted(rng, source.patterns[section]))


def deeper(rng: random.Random, intent: str, lang: str) -> str:
    """A follow-up that asks for the intent's second fact: in its own words, or in those that fit any."""
    own = bank(lang).natural.get(f"{intent}.more", [])
    return sample(rng, rng.choice(own)) if own and rng.random() < 0.5 else phrase(rng, "more", lang)


@cache
def vocabulary_words() -> list[str]:
    """Whole words of the tokenizer's own vocabulary, in no particular language."""
    model = spm()
    pieces = (model.id_to_piece(token) for token in range(1000, model.vocab_size()))
    return [piece[1:] for piece in pieces if re.fullmatch("▁[a-zà-ÿ]{3,}|▁[A-Z][a-zà-ÿ]{3,}", piece)]


def other(rng: random.Random, lang: str, strange: bool = True) -> str:
    """A question about something else; with `strange`, some of its words are any words at all."""
    source = bank(lang)
    if strange and rng.random() < NATURAL:
        return sample(rng, rng.choice(source.natural_other))
    slots = source.slots
    if strange and rng.random() < 0.45:
        slots = {name: [*words[:2], *(_words(rng) for _ in range(4))] for name, words in slots.items()}
    text = fill(rng, sample(rng, _weighted(rng, source.other)), slots)
    return _fused(text, lang)


def _words(rng: random.Random) -> str:
    return " ".join(rng.choices(vocabulary_words(), k=rng.choice((1, 1, 2))))
