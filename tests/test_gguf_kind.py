"""What is read of a GGUF file: whose tokenizer it has, which template, how long a window, how many experts."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from gguf_files import vocabulary, write

from cierzo.catalog import Model, find
from cierzo.errors import ModelUnreadable
from cierzo.gguf_header import V1_WINDOW, Header, Weights
from cierzo.gguf_kind import MINISTRAL_WINDOW, WORDS, _active, differing, read_kind
from cierzo.prompt import TEMPLATES
from cierzo.terminal import model_facts

MISTRAL = "{{ bos_token }}{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
CHATML = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
FIRST = {32_000: 3, 32_768: 771, 131_072: 1_000}


def test_the_words_of_mistral_common_are_those_that_are_known_here() -> None:
    for name, known in TEMPLATES.items():
        words = vocabulary(name)
        spelled = b"".join(word + b"\0" for word in words[FIRST[len(words)] :])
        kind = "gpt2" if known.kind == "tekken" else "llama"
        assert blake2b(spelled, digest_size=16).hexdigest() == WORDS[kind], name


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "v2"])
def test_files_of_each_version_have_their_words(name: str, tmp_path: Path) -> None:
    tokens = vocabulary(name)
    if name == "v3-tekken":  # Nemo's file has no names for later control tokens
        tokens[17:20] = [b"<SPECIAL_17>", b"<SPECIAL_18>", b"<SPECIAL_19>"]
    path = write(tmp_path / "file.gguf", name, tokens=tokens, rope_freq_base=1e6)
    _, kind = read_kind(path)
    assert (kind.template, kind.nearest, kind.tokenizer, kind.words) == (name, name, "equal", len(tokens))
    assert kind.own == ""
    assert differing(path, name) == (0, 3 if name == "v3-tekken" else 0)


def test_another_word_makes_another_vocabulary(tmp_path: Path) -> None:
    tokens = vocabulary("v3")
    tokens[20_000:20_003] = [b"one", b"two", b"three"]
    tokens[9] = b"[CONTROL]"
    plain = write(tmp_path / "plain.gguf", tokens=tokens)
    own = write(tmp_path / "own.gguf", tokens=tokens, chat_template=MISTRAL)
    for path, template in ((plain, "v3"), (own, "file")):  # what has no template of its own has nothing better
        _, kind = read_kind(path)
        assert (kind.template, kind.nearest, kind.tokenizer) == (template, "v3", "differs")
        assert differing(path, "v3") == (3, 1)
    assert "differs from mistral-common's v3 in 3 of 32,768 tokens; 1 control tokens" in shown(own)["tokenizer"]


@pytest.mark.parametrize(
    ("changes", "template"),
    [
        ({}, "v3"),
        ({"chat_template": MISTRAL}, "v3"),
        ({"chat_template": CHATML}, "file"),
        ({"chat_template": CHATML * 100}, "file"),
        ({"chat_template": MISTRAL, "architecture": "mistral3"}, "v3"),
        ({"chat_template": MISTRAL, "architecture": "gemma2"}, "file"),
        ({"chat_template": MISTRAL, "tokens": [f"word {n}".encode() for n in range(32_768)]}, "file"),
        ({"chat_template": CHATML, "tokens": [b"a", b"b"], "kind": "gpt2"}, "file"),
    ],
)
def test_what_is_foreign(changes: dict[str, Any], template: str, tmp_path: Path) -> None:
    path = write(tmp_path / "file.gguf", **changes)
    model = find(path, tmp_path)
    assert model.template == template
    assert model.kind is not None
    assert model.kind.own.startswith("file:") == ("chat_template" in changes)


def test_files_with_other_templates_have_other_names(tmp_path: Path) -> None:
    names = set()
    for n in range(3):
        _, kind = read_kind(write(tmp_path / "file.gguf", tokens=[b"a"], chat_template=CHATML + "x" * n))
        names.add(kind.own)
    assert len(names) == 3


@pytest.mark.parametrize("changes", [{}, {"chat_template": CHATML, "kind": "bert"}, {"chat_template": ""}])
def test_what_nobody_can_write_prompts_for_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "file.gguf", tokens=[b"a"], **changes)
    with pytest.raises(ModelUnreadable, match=r"is not a Mistral model .* choose another"):
        read_kind(path)


@pytest.mark.parametrize(
    ("like", "changes", "context"),
    [
        ("v1", {"rope_freq_base": 1e4}, V1_WINDOW),
        ("v1", {"rope_freq_base": 1e4, "chat_template": CHATML}, V1_WINDOW),
        ("v1", {"rope_freq_base": 1e4, "floats": {"rope.scaling.factor": 4.0}}, 32_768),
        ("v3", {"sliding_window": 4_096, "chat_template": CHATML, "architecture": "gemma2"}, 32_768),
        ("v1", {"sliding_window": 4_096}, 4_096),
        ("v3", {"sliding_window": 0}, 32_768),
        ("v3", {"sliding_window": 2**31}, 32_768),
        ("v3-tekken", {"context": 131_072}, 131_072),
        ("v3-tekken", {"context": 131_072, "layers": 36, "embedding": 4_096}, MINISTRAL_WINDOW),
    ],
)
def test_windows(like: str, changes: dict[str, Any], context: int, tmp_path: Path) -> None:
    tokens = vocabulary(like)
    if like == "v3-tekken":
        tokens[17:20] = [b"<SPECIAL_17>", b"<SPECIAL_18>", b"<SPECIAL_19>"]
    _, kind = read_kind(write(tmp_path / "file.gguf", like, tokens=tokens, **changes))
    assert kind.context == context
    assert kind.trained == changes.get("context", 32_768)


def shown(path: Path) -> dict[str, str]:
    return model_facts.rows(find(path, path.parent))


def test_a_file_of_the_catalogue_is_looked_into(tmp_path: Path) -> None:
    path = write(tmp_path / "file.gguf", file_type=15)
    listed = Model("mistral-7b", "Mistral 7B", "v3", 32_768, path=path)
    kind = model_facts.looked_into(listed).kind
    assert kind is not None
    assert (kind.quantization, kind.template) == ("Q4_K_M", "v3")
    assert model_facts.looked_into(replace(listed, path=None)).kind is None


def test_what_is_shown_of_a_capped_window(tmp_path: Path) -> None:
    told = shown(write(tmp_path / "file.gguf", "v1", rope_freq_base=1e4))
    assert told["trained"].startswith("32,768 tokens of window; beyond 8,192")
    assert told["attention"] == "over 4,096 tokens in training, which llama.cpp does not apply"
    assert told["tokenizer"] == "the words are those of mistral-common's v1"
    foreign = shown(
        write(tmp_path / "file.gguf", tokens=[b"a"], chat_template=CHATML, sliding_window=512, architecture="gemma2")
    )
    assert foreign["attention"] == "over 512 tokens"
    assert foreign["tokenizer"] == "not one of Mistral's (1 tokens)"


@pytest.mark.parametrize(
    ("changes", "name"),
    [({"file_type": 15}, "Q4_K_M"), ({"file_type": 7}, "Q8_0"), ({}, "F16"), ({"file_type": 99}, "F16")],
)
def test_quantization(changes: dict[str, int], name: str, tmp_path: Path) -> None:
    _, kind = read_kind(write(tmp_path / "file.gguf", **changes))
    assert kind.quantization == name


def test_a_mixture_reads_only_the_experts_that_answer() -> None:
    dense = Weights(all=1_000, embedding=100, has_output=True, kinds={2: 1_000})
    assert _active(Header({}, weights=dense)) == 900
    assert _active(Header({}, weights=replace(dense, has_output=False))) == 1_000
    mixture = replace(dense, experts=800)
    said = {"general.architecture": "llama", "llama.expert_count": 8, "llama.expert_used_count": 2}
    assert _active(Header(said, weights=mixture)) == 300
    assert _active(Header(said, weights=replace(mixture, kinds={2: 900, 77: 0}))) == 0, "of which nobody knows the size"


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), -1.0, 1e30, 0.0])
def test_numbers_that_no_model_has(value: float, tmp_path: Path) -> None:
    keys = ("expert_count", "expert_used_count", "attention.sliding_window", "attention.key_length")
    floats = dict.fromkeys(keys, value) | {"attention.head_count_kv": value}
    _, kind = read_kind(write(tmp_path / "file.gguf", floats=floats))
    assert (kind.experts, kind.sliding_window, kind.context) == (0, 0, 32_768)
    assert 0 <= kind.kv_bytes < 2**31
