"""What kind of model a GGUF file is: whose template it takes, how long its window is, what it reads for a token.

Which of Mistral's templates a model was trained with follows from its vocabulary, the one thing in a file that cannot
be otherwise: never from its name. A file whose words or whose network are not Mistral's, or whose chat template speaks
without Mistral's ``[INST]``, is foreign: it is chatted with through the template in the file (`FILE`).
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from cierzo.errors import ModelUnreadable
from cierzo.gguf_header import TEMPLATE, V1_WINDOW, Kind, gpt2_bytes, read_header
from cierzo.templates import FILE, codec, template

if TYPE_CHECKING:
    from pathlib import Path

    from cierzo.gguf_header import Header, Tokenizer
    from cierzo.templates import Codec

MINISTRAL_WINDOW = 32_768
"""Tokens of window for Ministral 8B: beyond, it needs a sliding window in three of four layers, and llama.cpp has none
for it."""

WORDS = {"llama": "c96902ccd9623aaca29511376c17723e", "gpt2": "cd2a02c628ba8f1822f353227af272c1"}
"""Digests of the words that mistral-common ships, as `Header.digest` makes them: SentencePiece's, which are the same in
versions 1 to 7, and Tekken's. A test makes them from mistral-common anew."""

ARCHITECTURES = frozenset({"llama", "mistral3", "mistral4"})
"""What llama.cpp calls the networks of Mistral's dense models and of Mixtral."""

_V1_OPEN, _V1_WORD = 733, 16_289  # "▁[" and "INST", by which Mistral's 32,000 tokens are told from Llama's
_LATER_BASE = 1e5
"""Between the rotary base of Mistral 7B v0.1 (1e4) and that of v0.2 and Mixtral (1e6)."""

_LARGE = 2**31
_MINISTRAL = (36, 4_096)  # layers and width, which no other model with Nemo's vocabulary has

_FILE_TYPES = (  # as llama.cpp numbers them; those between exist no more
    "F32 F16 Q4_0 Q4_1 - - - Q8_0 Q5_0 Q5_1 Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K IQ2_XXS IQ2_XS "
    "Q2_K_S IQ3_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ3_M IQ2_S IQ2_M IQ4_XS IQ1_M BF16 - - - TQ1_0 TQ2_0 MXFP4"
)
_TENSOR_TYPES = (
    "F32 F16 Q4_0 Q4_1 - - Q5_0 Q5_1 Q8_0 - Q2_K Q3_K Q4_K Q5_K Q6_K - IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ2_S "
    "IQ4_XS - - - - - IQ1_M BF16 - - - TQ1_0 TQ2_0 - - - MXFP4"
)


def read_kind(path: Path) -> tuple[Header, Kind]:
    """Read the head of a file, and say what kind of model it is. Costs 15 ms, with a Tekken vocabulary 80 ms.

    Raises:
        ModelUnreadable: It is damaged; or it is no Mistral model, and has no chat template that could be used instead.
    """
    header = read_header(path, tokens=frozenset({_V1_OPEN, _V1_WORD}))
    tokenizer, name = _tokenizer(header), _template(header, path.name)
    heads = header.number("attention.head_count")
    width = header.number("embedding_length") // heads
    keys = _whole(header, "attention.key_length", width) + _whole(header, "attention.value_length", width)
    trained, experts = _whole(header, "context_length"), _whole(header, "expert_count")
    return header, Kind(
        template=name,
        nearest=_mistral_template(header),
        tokenizer=tokenizer,
        words=header.vocabulary,
        architecture=header.text("general.architecture"),
        quantization=_quantization(header),
        context=min(trained, _most(header) or trained),
        trained=trained,
        sliding_window=_whole(header, "attention.sliding_window"),
        experts=experts,
        active_experts=_whole(header, "expert_used_count") if experts else 0,
        active=_active(header),
        kv_bytes=2 * _whole(header, "block_count") * _whole(header, "attention.head_count_kv", heads) * keys,
        own=_own(header),
    )


def differing(path: Path, name: str) -> tuple[int, int]:
    """Compare the vocabulary of a file with the one that mistral-common ships for a template, token by token.

    Costs 50 ms, with a Tekken vocabulary a second.

    Returns:
        How many words are others, and how many control tokens have other names.
    """
    known = codec(template(name))
    tekken = known.template.kind == "tekken"
    ours = _spelled(known) if tekken else [str(piece) for piece in known.pieces]
    theirs = read_header(path, tokens=frozenset(range(len(ours)))).tokens
    other = [number for number, word in enumerate(ours) if theirs.get(number) != word]
    controls = sum(number in known.controls for number in other)
    return len(other) - controls, controls


def _spelled(known: Codec) -> list[str]:
    """Return Tekken's words as a GGUF spells bytes."""
    letters = {byte: letter for letter, byte in gpt2_bytes().items()}
    count = known.template.vocabulary
    return [
        known.controls[number]
        if number in known.controls
        else "".join(letters[byte] for byte in known.bytes_of(number))
        for number in range(count)
    ]


def _own(header: Header) -> str:
    own = header.text(TEMPLATE)
    return f"{FILE}:{blake2b((header.digest + own).encode(), digest_size=4).hexdigest()}" if own else ""


def _whole(header: Header, key: str, default: float = 0) -> int:
    """Return a whole number of the metadata; what no model has counts as not said."""
    value = header.number(key, default)
    return int(value) if 0 <= value < _LARGE else int(default)


def _tokenizer(header: Header) -> Tokenizer:
    kind, tokens = header.text("tokenizer.ggml.model"), header.tokens
    size = {"llama": (32_000, 32_768), "gpt2": (131_072,)}.get(kind, ())
    if header.vocabulary not in size:
        return "other"
    if header.digest == WORDS[kind]:
        return "equal"
    alike = "[INST]" in tokens.values() or (tokens.get(_V1_OPEN), tokens.get(_V1_WORD)) == ("▁[", "INST")
    return "differs" if alike else "other"


def _template(header: Header, name: str) -> str:
    """Return the name of the template, see the top of this file."""
    own = header.text(TEMPLATE)
    mistral = _mistral_template(header)
    foreign = header.text("general.architecture") not in ARCHITECTURES or _tokenizer(header) != "equal"
    if mistral and not (own and (foreign or "INST" not in own)):
        return mistral  # also of one that differs, where the file has nothing better
    if own and header.text("tokenizer.ggml.model") in WORDS:
        return FILE
    raise ModelUnreadable(
        f"{name} is not a Mistral model (its vocabulary of {header.vocabulary:,} tokens is not theirs) and has no chat "
        "template that can be used, so Cierzo does not know how to write its prompts: choose another"
    )


def _mistral_template(header: Header) -> str:
    """Choose one of Mistral's by the vocabulary; none where it is not alike."""
    tokenizer, known = _tokenizer(header), set(header.tokens.values())
    match header.vocabulary, "[INST]" in known:
        case _ if tokenizer == "other":
            return ""
        case 32_000, _:
            return "v1"
        case 32_768, True:  # version 2 has as many, and was never published
            return "v7" if "[SYSTEM_PROMPT]" in known else "v3"
        case 131_072, True:
            marks = {"[THINK]": "v13", "[ARGS]": "v11", "[SYSTEM_PROMPT]": "v7-tekken"}
            return next((template for mark, template in marks.items() if mark in known), "v3-tekken")
    return ""


def _most(header: Header) -> int:
    """Return the longest window in which llama.cpp runs a model as it was trained; 0 for no bound."""
    if header.text("general.architecture") not in ARCHITECTURES:
        return 0  # where llama.cpp knows a network to have a sliding window, it applies it
    stretched = "rope.scaling.factor" in " ".join(header.values)
    if header.number("rope.freq_base", 1e4) < _LATER_BASE and not stretched:
        return V1_WINDOW
    shape = (header.number("block_count"), header.number("embedding_length"))
    if _mistral_template(header) == "v3-tekken" and shape == _MINISTRAL:
        return MINISTRAL_WINDOW
    return _whole(header, "attention.sliding_window")


def _quantization(header: Header) -> str:
    kinds = header.weights.kinds
    most = max(kinds, key=lambda kind: kinds[kind], default=_LARGE)
    return _nth(_FILE_TYPES, _whole(header, "general.file_type", _LARGE)) or _nth(_TENSOR_TYPES, most)


def _nth(names: str, number: int) -> str:
    known = names.split()
    return known[number].strip("-") if number < len(known) else ""


def _active(header: Header) -> int:
    """Return the bytes of weights that are read for a token: not the other experts, and one row of the embedding.

    0 where the file has tensors of a kind that is not known.
    """
    weights = header.weights
    if not all(weights.kinds.values()):
        return 0
    experts, used = _whole(header, "expert_count"), _whole(header, "expert_used_count")
    resting = weights.experts * (experts - used) // experts if 0 < used < experts else 0
    return weights.all - resting - (weights.embedding if weights.has_output else 0)
