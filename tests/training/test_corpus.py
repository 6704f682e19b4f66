"""The dialogues: the same from the same seed, with mistral-common's own ids, in all languages and lengths."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from mistral_common.protocol.instruct.messages import AssistantMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from training import corpus
from training.facts import FALLBACK, INTENTS, LANGUAGES
from training.grammar import count, parse, sample
from training.questions import about, bank, can_be_elliptic, other
from training.tokens import EOS, dialogue_ids

SAMPLE = 600


@pytest.fixture(scope="module")
def made() -> list[corpus.Dialogue]:
    return list(corpus.dialogues(seed=7, count=SAMPLE))


def reference_ids(dialogue: corpus.Dialogue) -> list[int]:
    """What mistral-common encodes for the dialogue up to its last question."""
    messages = []
    for number, turn in enumerate(dialogue.turns):
        text = f"{dialogue.system}\n\n{turn.question}" if number == 0 and dialogue.system else turn.question
        messages += [UserMessage(content=text), AssistantMessage(content=turn.answer)]
    return MistralTokenizer.v3().encode_chat_completion(ChatCompletionRequest(messages=messages[:-1])).tokens


def test_the_same_seed_gives_the_same_dialogues(made: list[corpus.Dialogue]) -> None:
    assert list(corpus.dialogues(seed=7, count=SAMPLE)) == made
    assert list(corpus.dialogues(seed=8, count=SAMPLE)) != made


def test_ids_are_those_of_mistral_common(made: list[corpus.Dialogue]) -> None:
    for dialogue in made[:150]:
        ids, written = dialogue.encoded()
        asked = reference_ids(dialogue)
        assert ids[: len(asked)] == asked
        assert ids[-1] == EOS
        assert all(written[len(asked) :])
        assert written.count(True) > 0


def test_only_answers_and_their_ends_are_predicted() -> None:
    ids, written = dialogue_ids([("A", "B"), ("C", "D")], system="SYS")
    assert ids[:9] == [1, 3, 17889, 29503, 781, 781, 29509, 4, 1133]
    assert [token for token, mine in zip(ids, written, strict=True) if mine] == [1133, EOS, 1152, EOS]


def test_languages_lengths_and_topics_are_balanced(made: list[corpus.Dialogue]) -> None:
    turns = [turn for dialogue in made for turn in dialogue.turns]
    langs = Counter(turn.lang for turn in turns)
    assert all(langs[lang] > len(turns) / 4 for lang in LANGUAGES)
    assert sum(len(dialogue.turns) > 1 for dialogue in made) > SAMPLE / 4
    assert 0.15 < sum(turn.topic == FALLBACK for turn in turns) / len(turns) < 0.4
    assert sum(bool(dialogue.system) for dialogue in made) > SAMPLE / 20


def test_questions_hardly_repeat(made: list[corpus.Dialogue]) -> None:
    first = [dialogue.turns[0].question for dialogue in made]
    assert len(set(first)) > 0.9 * len(first)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_intent_has_questions_and_every_pattern_parses(lang: str) -> None:
    asked = bank(lang).asked
    assert set(asked) == set(INTENTS) - {FALLBACK}
    for lines in (*asked.values(), *bank(lang).patterns.values(), bank(lang).other):
        for line in lines:
            parse(line)
    rng = random.Random(1)
    for intent in asked:
        assert about(rng, intent, lang).strip()
    assert other(rng, lang).strip()


def test_some_intents_can_be_named_in_a_follow_up() -> None:
    assert can_be_elliptic("top_p")
    assert not can_be_elliptic("joke")


def test_a_pattern_stands_for_all_its_choices() -> None:
    rng = random.Random(3)
    pattern = "(what is|what's) (a (big |)token|it)( please|)"
    assert count(pattern) == 12
    drawn = {sample(rng, pattern) for _ in range(500)}
    assert len(drawn) == 12
    assert "what's a big token please" in drawn


def test_an_open_parenthesis_is_refused() -> None:
    with pytest.raises(ValueError, match="unbalanced"):
        parse("what (is|are")
