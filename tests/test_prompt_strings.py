"""Strings to prompts, and prompts to tokens one by one."""

from __future__ import annotations

import random

import pytest
from conversations import NAMES, says, spelled
from reference import LOOKALIKES, OWN, some_text

from cierzo.errors import BadText, PromptTooLong
from cierzo.messages import MAX_TEXT
from cierzo.prompt import TEMPLATES, build, decode, format_prompt, raw, template, token_text, tokenize
from cierzo.templates import codec


def test_raw_honours_control_tokens() -> None:
    assert raw("<s>[INST] A[/INST] B</s>[INST] C[/INST]", "v3").ids == (1, 3, 1098, 4, 1133, 2, 3, 1102, 4)
    assert raw("[INST] A[/INST]", "v3").ids == raw("[INST]A[/INST]", "v3").ids == (1, 3, 1098, 4)
    assert raw("<s>[INST]A[/INST]", "v3-tekken").ids == (1, 3, 1065, 4)
    assert raw("<s>[INST] A[/INST]", "v3-tekken").ids == (1, 3, codec(template("v3-tekken")).encode(" A")[0], 4)
    assert raw("</s> [INST] C[/INST]", "v3").ids == (1, 2, 3, 1102, 4)
    assert raw("[INST] C [/INST]", "v3").ids == (1, 3, 1102, 29473, 4)
    assert raw("[SYSTEM_PROMPT] x[/SYSTEM_PROMPT]", "v7").ids[1] == 16
    assert 16 not in raw("[SYSTEM_PROMPT] x[/SYSTEM_PROMPT]", "v3").ids
    assert raw("<s>[INST] A[/INST]", "v3").template == "raw"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("start", ["", "<s>", "<s><s>", " <s>", "\n<s> <s>"])
def test_raw_begins_exactly_once(name: str, start: str) -> None:
    ids = raw(f"{start}[INST] A [/INST] B</s><s>[INST] C [/INST]", name).ids
    assert ids.count(1) == 1
    assert ids[0] == 1
    if start != "\n<s> <s>" or TEMPLATES[name].leading_space:
        assert ids == raw("[INST] A [/INST] B</s>[INST] C [/INST]", name).ids


def test_raw_reads_the_notebook_as_version_1_does() -> None:
    history = [("¿Cuál es tu ingrediente favorito?", "El ketchup.")]
    conversation = says(("user", history[0][0]), ("assistant", history[0][1]), ("user", "¿Y qué piensa?"))
    prompt = raw(format_prompt("¿Y qué piensa?", history), "v1")
    assert prompt.ids == build(conversation, "v1", context=99).ids
    assert prompt.leading_space


def test_raw_knows_whether_an_answer_begins() -> None:
    assert raw("<s>[INST] A[/INST]", "v3").leading_space
    assert raw("<s>[INST] A[/INST] ", "v3").leading_space
    assert raw("<s>[INST] A [/INST] ", "v1").leading_space
    assert not raw("<s>[INST] A[/INST] Sure,", "v3").leading_space
    assert not raw("Once upon a time", "v1").leading_space
    assert not raw("<s>[INST]A[/INST]", "v3-tekken").leading_space


def test_raw_checks_its_text() -> None:
    for bad in ("", "  ", "a\0b", "\ud800", "a" * (MAX_TEXT + 1)):
        with pytest.raises(BadText):
            raw(bad, "v3")
    with pytest.raises(PromptTooLong, match="at least"):
        raw("a" * MAX_TEXT, "v3", context=2_048)
    with pytest.raises(PromptTooLong, match="takes 6 tokens"):
        raw("one two three four five", "v3", context=6)
    assert len(raw("[" * 200_000 + "<" * 200_000, "v3").ids) > 1000


def test_format_prompt_is_the_notebooks() -> None:
    answer = (
        "Mi ingrediente favorito es el ketchup. Es versátil, sabroso y combina bien con una gran variedad de "
        "alimentos.."
    )
    assert format_prompt("¿Y qué piensa al respecto?", [["¿Cuál es tu ingrediente favorito?", answer]]) == (
        "<s>[INST] ¿Cuál es tu ingrediente favorito? [/INST] Mi ingrediente favorito es el ketchup. Es versátil, "
        "sabroso y combina bien con una gran variedad de alimentos..</s> [INST] ¿Y qué piensa al respecto? [/INST]"
    )
    assert format_prompt("¿Cuál es tu ingrediente favorito?", []) == (
        "<s>[INST] ¿Cuál es tu ingrediente favorito? [/INST]"
    )


# Tokens


@pytest.mark.parametrize("name", NAMES)
def test_tokenize_takes_a_prompt_apart(name: str) -> None:
    prompt = build(says(("user", "¿Qué tal 👩‍👩‍👧?"), ("assistant", "漢字 ok"), ("user", "e\u0301")), name, context=99)
    parts = tokenize(prompt, name)
    assert tuple(part.id for part in parts) == prompt.ids
    assert "".join(part.text for part in parts) == prompt.text
    assert all(prompt.text[part.start : part.stop] == part.text for part in parts)
    assert [part.text for part in parts if part.control] == [p.text for p in prompt.pieces if p.control]
    assert any(not part.text for part in parts)
    assert tokenize(prompt.text, name)[1:] == parts[1:] or name == "v1"


@pytest.mark.parametrize("name", NAMES)
def test_every_token_has_a_text(name: str) -> None:
    known = codec(template(name))
    for token in range(0, known.template.vocabulary, 7):
        assert token_text(token, name)
    assert token_text(1, name) == "<s>"
    assert token_text(-1, name) == "<-1?>"
    assert token_text(10**9, name) == f"<{10**9}?>"
    assert token_text(spelled(known, "😀")[-1], name) == "<0x80>"
    assert len(known.controls) > 2


@pytest.mark.parametrize("name", NAMES)
def test_decode_gives_the_text_back(name: str) -> None:
    rng = random.Random(f"decode {name}")
    known = codec(template(name))
    for _ in range(500):
        text = some_text(rng, LOOKALIKES + OWN).replace("▁", "-") or "x"
        ids = known.encode(text)
        assert decode(ids, name) == (" " if TEMPLATES[name].leading_space else "") + text
        assert decode([1, *ids, 2], name) == decode(ids, name)
        assert decode([1, *ids, 2], name, controls=True) == f"<s>{decode(ids, name)}</s>"
