"""Makes dialogues, as many as asked for, from a seed: questions that we phrase in thousands of ways, answers from facts.

`python -m training.corpus --seed 1 --count 20` prints some.
"""

import argparse
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from training import questions
from training.facts import DATA, FALLBACK, INTENTS, LANGUAGES, fold
from training.grammar import lines
from training.noise import dressed
from training.tokens import dialogue_ids

# Intents that need a turn before them.
_LATER = {"whats_my_name"}
_FIRST = [name for name in INTENTS if name not in _LATER | {FALLBACK, "my_name"}]
_SHARE_OTHER = 0.3
_SHARE_COMMON = 0.12
_SHARE_NAME = 0.1

# Repeating words is asked for by few, but it is how the network learns to copy, which names need.
_SHARE_REPEAT = 0.08
REPEAT = "repeat"

# How the turns after the first continue, and how often.
_NEXT = {"ellipsis": 25, "more": 27, "translate": 13, "shorter": 5, "again": 4, "new": 20, "other": 10}

_LANGUAGE_WORDS = {"es": "to_es", "en": "to_en", "fr": "to_fr"}


@dataclass(frozen=True)
class Turn:
    """One question with its answer; `topic` is the intent that a follow-up refers to."""

    question: str
    answer: str
    topic: str
    lang: str


@dataclass(frozen=True)
class Dialogue:
    """Turns, and the system text in front of the first, if any."""

    turns: tuple[Turn, ...]
    system: str = ""

    def encoded(self) -> tuple[list[int], list[bool]]:
        """Token ids, and which of them the model must write."""
        return dialogue_ids([(turn.question, turn.answer) for turn in self.turns], self.system)


def dialogues(seed: int, count: int) -> Iterator[Dialogue]:
    """`count` dialogues; the same seed gives the same ones."""
    rng = random.Random(seed)
    for _ in range(count):
        yield _dialogue(rng)


def _dialogue(rng: random.Random) -> Dialogue:
    lang = rng.choice(LANGUAGES)
    length = rng.choices((1, 2, 3), weights=(52, 36, 12))[0]
    kind = rng.random()
    if kind < _SHARE_NAME:
        turns = _named(rng, lang)
    elif kind < _SHARE_NAME + _SHARE_REPEAT:
        turns = [_repeated(rng, lang)]
    else:
        turns = [_first(rng, lang)]
        while len(turns) < length:
            turns.append(_next(rng, turns))
    system = questions.phrase(rng, "system", lang) if rng.random() < 0.12 else ""
    return Dialogue(tuple(turns), system)


def _first(rng: random.Random, lang: str) -> Turn:
    """A first question: one of the most frequent ones, about something else, or about any subject."""
    if rng.random() < _SHARE_COMMON:
        intent, question = rng.choice(common()[lang])
        return _asked(rng, intent, lang, question)
    return _other(rng, lang) if rng.random() < _SHARE_OTHER else _asked(rng, _any_intent(rng), lang)


@cache
def common() -> dict[str, list[tuple[str, str]]]:
    """The most frequent questions by language, each with its intent."""
    rows = [line.split(" ", 2) for line in lines(DATA / "common.txt")]
    return {lang: [(intent, question) for where, intent, question in rows if where == lang] for lang in LANGUAGES}


def _any_intent(rng: random.Random, near: str = "") -> str:
    """Any intent; mostly of the domain of `near`, if it is given."""
    if near and rng.random() < 0.6:
        close = [name for name in _FIRST if INTENTS[name].domain == INTENTS[near].domain]
        if close:
            return rng.choice(close)
    return rng.choice(_FIRST)


def _asked(rng: random.Random, intent: str, lang: str, plain: str = "") -> Turn:
    talk = INTENTS[intent].domain == "chat"
    question = dressed(rng, plain or questions.about(rng, intent, lang), lang, talk)
    return Turn(question, rng.choice(INTENTS[intent].answers[lang]), intent, lang)


def _other(rng: random.Random, lang: str) -> Turn:
    question = dressed(rng, questions.other(rng, lang), lang)
    return Turn(question, rng.choice(INTENTS[FALLBACK].answers[lang]), FALLBACK, lang)


def _next(rng: random.Random, turns: list[Turn]) -> Turn:
    last = turns[-1]
    kind = rng.choices(list(_NEXT), weights=list(_NEXT.values()))[0]
    return _CONTINUE[kind](rng, last)


def _ellipsis(rng: random.Random, last: Turn) -> Turn:
    near = INTENTS[last.topic].domain
    known = [name for name in _FIRST if questions.can_be_elliptic(name) and name != last.topic]
    close = [name for name in known if INTENTS[name].domain == near]
    intent = rng.choice(close if close and rng.random() < 0.6 else known)
    return _asked(rng, intent, last.lang, questions.ellipsis(rng, intent, last.lang))


def _more(rng: random.Random, last: Turn) -> Turn:
    fact = INTENTS[last.topic]
    told = not fact.more or last.answer == fact.more[last.lang]
    if last.topic == "ingredient" and rng.random() < 0.6:
        question = questions.phrase(rng, "think", last.lang)
    elif told:
        question = questions.phrase(rng, "more", last.lang)
    else:
        question = questions.deeper(rng, last.topic, last.lang)
    # Asked for more a second time, or where there is no second fact, the other wording is all there is.
    if told:
        replies = fact.answers[last.lang] if fact.more or last.topic == "joke" else INTENTS["help"].answers[last.lang]
        answer = rng.choice([reply for reply in replies if reply != last.answer])
    else:
        answer = fact.more[last.lang]
    return Turn(dressed(rng, question, last.lang, talk=True), answer, last.topic, last.lang)


def _translate(rng: random.Random, last: Turn) -> Turn:
    target = rng.choice([lang for lang in LANGUAGES if lang != last.lang])
    question = questions.phrase(rng, _LANGUAGE_WORDS[target], last.lang)
    fact = INTENTS[last.topic]
    if last.answer in fact.answers[last.lang]:
        answer = fact.answers[target][fact.answers[last.lang].index(last.answer)]
    else:
        answer = fact.more.get(target) or fact.answers[target][0]
    return Turn(dressed(rng, question, last.lang, talk=True), answer, last.topic, target)


def _shorter(rng: random.Random, last: Turn) -> Turn:
    question = questions.phrase(rng, "shorter", last.lang)
    answer = min(INTENTS[last.topic].answers[last.lang], key=len)
    return Turn(dressed(rng, question, last.lang, talk=True), answer, last.topic, last.lang)


def _again(rng: random.Random, last: Turn) -> Turn:
    question = questions.phrase(rng, "again", last.lang)
    return Turn(dressed(rng, question, last.lang, talk=True), last.answer, last.topic, last.lang)


def _new(rng: random.Random, last: Turn) -> Turn:
    polite = rng.random() < 0.3
    intent = rng.choice(("thanks", "bye", "ok", "compliment", "thanks")) if polite else _any_intent(rng, last.topic)
    return _asked(rng, intent, last.lang)


_CONTINUE = {
    "ellipsis": _ellipsis,
    "more": _more,
    "translate": _translate,
    "shorter": _shorter,
    "again": _again,
    "new": _new,
    "other": lambda rng, last: _other(rng, last.lang),
}


@cache
def names() -> list[str]:
    """The names people may say, each once."""
    return sorted({name for line in lines(DATA / "names.txt") for name in line.split("|")})


def _some_name(rng: random.Random) -> str:
    """A name from the list, or one made up of pieces of two, so that copying is learnt and not the list."""
    if rng.random() < 0.5:
        return rng.choice(names())
    first, second = rng.choice(names()), rng.choice(names())
    return first[: rng.randint(2, 4)] + second[rng.randint(1, 3) :].lower()


def _named(rng: random.Random, lang: str) -> list[Turn]:
    """Somebody says a name, and perhaps asks for it later."""
    name = _some_name(rng)
    said = name if rng.random() < 0.85 else name.lower()
    turns = [_with_name(rng, "my_name", lang, name, said)]
    if rng.random() < 0.3:
        turns.append(_asked(rng, _any_intent(rng), lang))
    if rng.random() < 0.75:
        turns.append(_with_name(rng, "whats_my_name", lang, name, said))
    return turns


def _with_name(rng: random.Random, intent: str, lang: str, name: str, said: str) -> Turn:
    plain = questions.about(rng, intent, lang)
    question = dressed(rng, plain, lang, talk=True)
    if "{name}" in plain and "{name}" not in question:
        question = plain
    answer = rng.choice(INTENTS[intent].answers[lang]).replace("{name}", name)
    return Turn(question.replace("{name}", said), answer, intent, lang)


@cache
def _words() -> list[str]:
    """Names and words of the answers: what the network has tokens of its own for."""
    texts = " ".join(text for intent in INTENTS.values() for answers in intent.answers.values() for text in answers)
    return sorted({word for word in re.findall(r"\w+", texts) if len(word) > 2} | set(names()))


def _repeated(rng: random.Random, lang: str) -> Turn:
    """Somebody asks for some words to be repeated."""
    said = [_some_name(rng) if rng.random() < 0.4 else rng.choice(_words()) for _ in range(rng.randint(1, 7))]
    text = rng.choice((" ", " ", ", ")).join(said)
    return Turn(questions.phrase(rng, "repeat", lang).replace("{words}", text), text, REPEAT, lang)


def sentences(count: int, seed: int = 0) -> set[str]:
    """The folded questions of `count` dialogues, to prove that a held-out question is not among them."""
    return {fold(turn.question) for dialogue in dialogues(seed, count) for turn in dialogue.turns}


def main() -> None:
    parser = argparse.ArgumentParser(description="Print some dialogues.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20)
    arguments = parser.parse_args()
    for dialogue in dialogues(arguments.seed, arguments.count):
        print(f"system: {dialogue.system}" if dialogue.system else "--")
        for turn in dialogue.turns:
            print(f"  [{turn.lang} {turn.topic}] {turn.question}\n      {turn.answer}")


if __name__ == "__main__":
    main()
