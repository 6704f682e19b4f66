"""Prompts, held against mistral-common's own: golden samples and thousands of random conversations."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from conversations import NAMES, WIDE, expected, says, spelled
from mistral_common.protocol.instruct.messages import AssistantMessage, UserMessage
from mistral_common.protocol.instruct.request import InstructRequest
from reference import LOOKALIKES, OWN, SAMPLES, WORDS, some_dialogue, some_text

from cierzo import prompt as module
from cierzo.errors import BadInput, BadText
from cierzo.messages import Message, Prompt
from cierzo.prompt import TEMPLATES, build, decode, raw, template
from cierzo.templates import codec

DIALOGUES = 2_000


def merged(name: str, turns: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The request in which the system prompt stands in the first question, as Cierzo puts it by default."""
    common = "\n\n".join(text for role, text in turns if role == "system" and text)
    if TEMPLATES[name].system_apart or not common:
        return turns if TEMPLATES[name].system_apart else [turn for turn in turns if turn[0] != "system"]
    rest = [turn for turn in turns if turn[0] != "system"]
    if rest[0][0] != "user":
        return [("user", f"{common}\n\n"), *rest]
    return [("user", f"{common}\n\n{rest[0][1]}"), *rest[1:]]


# Golden samples


def samples() -> Iterator[Any]:
    for name in NAMES:
        for sample in json.loads((SAMPLES / f"{name}.json").read_text("utf-8")):
            yield pytest.param(name, sample, id=f"{name}: {sample['case']}")


@pytest.mark.parametrize(("name", "sample"), tuple(samples()))
def test_golden_samples(name: str, sample: dict[str, Any]) -> None:
    assert build(says(*sample["messages"]), name, context=WIDE, system="official").ids == tuple(sample["ids"])


# From the documentation of Mistral's tokenizers, measured once and written down here by hand.
BY_HAND = {
    "v1": (
        *(1, 733, 16289, 28793, 17121, 28735, 13, 13, 28741, 733, 28748, 16289, 28793),
        *(365, 2, 733, 16289, 28793, 334, 733, 28748, 16289, 28793),
    ),
    "v2": (1, 3, 1098, 4, 1133, 2, 3, 17889, 29503, 781, 781, 29511, 4),
    "v3": (1, 3, 1098, 4, 1133, 2, 3, 17889, 29503, 781, 781, 29511, 4),
    "v3-tekken": (1, 3, 1065, 4, 1066, 2, 3, 1083, 61300, 1267, 1067, 4),
    "v7": (1, 16, 17889, 29503, 17, 3, 1098, 4, 1133, 2, 3, 1102, 4),
    "v7-tekken": (1, 17, 1083, 61300, 18, 3, 1065, 4, 1066, 2, 3, 1067, 4),
    "v11": (1, 17, 1083, 61300, 18, 3, 1065, 4, 1066, 2, 3, 1067, 4),
    "v13": (1, 17, 1083, 61300, 18, 3, 1065, 4, 1066, 2, 3, 1067, 4),
}
SHOWN = {
    "v1": "<s> [INST] SYS\n\nA [/INST] B</s> [INST] C [/INST]",
    "v3": "<s>[INST] A[/INST] B</s>[INST] SYS\n\nC[/INST]",
    "v3-tekken": "<s>[INST]A[/INST]B</s>[INST]SYS\n\nC[/INST]",
    "v7": "<s>[SYSTEM_PROMPT] SYS[/SYSTEM_PROMPT][INST] A[/INST] B</s>[INST] C[/INST]",
    "v7-tekken": "<s>[SYSTEM_PROMPT]SYS[/SYSTEM_PROMPT][INST]A[/INST]B</s>[INST]C[/INST]",
}
CHAT = says(("system", "SYS"), ("user", "A"), ("assistant", "B"), ("user", "C"))


@pytest.mark.parametrize("name", NAMES)
def test_ids_written_by_hand(name: str) -> None:
    prompt = build(CHAT, name, context=99, system="official")
    assert prompt.ids == BY_HAND[name]
    assert prompt.template == name
    assert len(prompt) == len(prompt.ids)
    assert prompt.text == SHOWN.get(name, prompt.text)


def test_system_prompt_stands_first_by_default() -> None:
    """So that the next turn's prompt begins with this one's, and the KV cache holds."""
    for name in NAMES:
        known = codec(template(name))
        now = build(CHAT[:2], name, context=99).ids
        later = build(CHAT, name, context=99).ids
        assert later[: len(now)] == now, name
        assert len(later) - len(now) < 2 * len(known.marks[0] + known.marks[1]) + 8
    assert build(CHAT, "v3", context=99).text == "<s>[INST] SYS\n\nA[/INST] B</s>[INST] C[/INST]"


# Random conversations


@pytest.mark.parametrize("name", NAMES)
def test_random_dialogues_equal_mistral_common(name: str, theirs: dict[str, Any]) -> None:
    rng = random.Random(name)
    lookalikes = LOOKALIKES if name == "v1" else LOOKALIKES + OWN
    for number in range(DIALOGUES):
        turns = some_dialogue(rng, lookalikes)
        official = build(says(*turns), name, context=WIDE, system="official")
        assert official.ids == expected(theirs[name], turns), (number, turns)
        prompt = build(says(*turns), name, context=WIDE)
        first = merged(name, turns)
        assert prompt.ids == (official.ids if first == turns else expected(theirs[name], first)), (number, turns)
        assert not prompt.dropped
        assert prompt.leading_space == (TEMPLATES[name].kind == "spm" and turns[-1][0] != "prefix")
        check_pieces(prompt, name)
    print(f"{name}: {DIALOGUES} random dialogues, each with both places of the system prompt, equal mistral-common's")


def check_pieces(prompt: Prompt, name: str) -> None:
    known = codec(template(name))
    for piece in prompt.pieces:
        if piece.control:
            assert [known.controls[i] for i in piece.ids] == [piece.text]
        else:
            assert piece.ids
            assert not any(i in known.controls for i in piece.ids)
            assert piece.text == decode(piece.ids, name)
    assert tuple(i for piece in prompt.pieces for i in piece.ids) == prompt.ids


@pytest.mark.parametrize("name", NAMES)
def test_the_text_of_a_prompt_says_its_ids(name: str) -> None:
    """Where nobody typed a control token, the string that is shown makes the same prompt again."""
    rng = random.Random(f"shown {name}")
    for _ in range(300):
        turns = some_dialogue(rng, ("nothing",))
        prompt = build(says(*turns), name, context=WIDE)
        assert raw(prompt.text, name).ids == prompt.ids, turns


@pytest.mark.parametrize("name", NAMES)
def test_pieces_show_what_was_typed(name: str) -> None:
    rng = random.Random(f"pieces {name}")
    space = " " if TEMPLATES[name].leading_space else ""
    for _ in range(300):
        text = (some_text(rng, LOOKALIKES) + rng.choice(WORDS)).replace("▁", "-")
        shown = [piece.text for piece in build(says(("user", text)), name, context=WIDE).pieces]
        if name == "v1":
            assert shown == ["<s>", " [INST]", f" {text}", " [/INST]"]
        else:
            assert shown == ["<s>", "[INST]", space + text, "[/INST]"]


def test_version_1_keeps_what_sentencepiece_would_merge_with_the_mark() -> None:
    prompt = build(says(("user", "blanks at the end   ")), "v1", context=99)
    assert prompt.text == "<s> [INST] blanks at the end    [/INST]"


# Structure


@pytest.mark.parametrize("name", NAMES)
def test_several_instructions_in_one_prompt(name: str, theirs: dict[str, Any]) -> None:
    """The notebook's structure: each in its own marks, none answered in between."""
    texts = (
        "Explica qué es la inteligencia artificial como un pirata.",
        "Ahora, dame un ejemplo de cómo la IA se usa en la vida cotidiana.",
    )
    prompt = build(says(*(("user", text) for text in texts)), name, context=999, consecutive="separate")
    official = theirs[name].instruct_tokenizer.encode_instruct(
        InstructRequest(messages=[UserMessage(content=text) for text in texts])
    )
    assert prompt.ids == tuple(official.tokens)
    assert prompt.text.count("[INST]") == prompt.text.count("[/INST]") == 2
    assert build(says(*(("user", text) for text in texts)), name, context=999).text.count("[INST]") == 1


@pytest.mark.parametrize("name", NAMES)
def test_ids_that_a_model_wrote_are_kept(name: str) -> None:
    known = codec(template(name))
    text = "¡Hola! 👋 I say"
    letters = [i for letter in text for i in known.encode(letter)[-len(letter.encode()) :]]
    unusual = known.encode("¡")[:-2] + letters if name.startswith("v1") else letters
    unusual = spelled(known, text)
    assert unusual != known.encode(text)
    messages = [Message("user", "Hi"), Message("assistant", text, ids=tuple(unusual)), Message("user", "x")]
    ids = build(messages, name, context=99).ids
    start = ids.index(unusual[0])
    assert list(ids[start : start + len(unusual) + 1]) == [*unusual, known.eos]
    ended = [Message("user", "Hi"), Message("assistant", text, ids=(*unusual, known.eos)), Message("user", "x")]
    assert build(ended, name, context=99).ids == ids
    continued = build(messages[:2], name, context=99)
    assert list(continued.ids[-len(unusual) :]) == unusual
    assert not continued.leading_space
    wrong = [Message("user", "Hi"), Message("assistant", text, ids=tuple(unusual[:-1])), Message("user", "x")]
    assert (
        build(wrong, name, context=99).ids == build(says(*[(m.role, m.text) for m in messages]), name, context=99).ids
    )


def test_answers_without_text_are_left_out() -> None:
    for name in NAMES:
        messages = says(("user", "A"), ("assistant", ""), ("user", "B"))
        prompt = build(messages, name, context=99)
        assert prompt.ids == build(says(("user", "A"), ("user", "B")), name, context=99).ids
        assert prompt.kept == (messages[0], messages[2])
        assert prompt.dropped == ()
        assert build(messages[:2], name, context=99).ids == build(messages[:1], name, context=99).ids


def test_blanks_that_the_template_leaves_out_are_left_out_of_kept() -> None:
    messages = says(("user", "A"), ("assistant", "B  "))
    assert build(messages, "v3", context=99).kept[-1].text == "B"
    assert build(messages, "v1", context=99).kept[-1].text == "B  "
    ids = tuple(spelled(codec(template("v3")), "B  "))
    assert build([messages[0], Message("assistant", "B  ", ids=ids)], "v3", context=99).kept[-1].text == "B  "


def test_a_continued_answer_is_not_ended(theirs: dict[str, Any]) -> None:
    for name in NAMES:
        prompt = build(says(("user", "A"), ("assistant", "B and")), name, context=99)
        official = theirs[name].instruct_tokenizer.encode_instruct(
            InstructRequest(messages=[UserMessage(content="A"), AssistantMessage(content="B and", prefix=True)])
        )
        assert prompt.ids == tuple(official.tokens)
        assert prompt.ids[-1] != 2


@pytest.mark.parametrize(
    "messages",
    [[], says(("system", "S")), says(("assistant", "A")), says(("user", "A"), ("system", "S"))],
)
def test_a_conversation_without_a_question_is_refused(messages: list[Message]) -> None:
    with pytest.raises(BadText):
        build(messages, "v3", context=99)


def test_unknown_template_names_the_known() -> None:
    with pytest.raises(BadInput, match="v3-tekken"):
        template("v4")
    with pytest.raises(BadInput, match="v13"):
        build(CHAT, "chatml", context=99)


def test_everything_exported_exists() -> None:
    assert all(hasattr(module, name) for name in module.__all__)


def test_importing_is_light() -> None:
    code = "import sys, cierzo.prompt; print([n for n in ('mistral_common', 'numpy', 'pydantic') if n in sys.modules])"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"
