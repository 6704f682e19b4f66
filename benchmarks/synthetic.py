"""Write GGUF files with random weights and Mistral's real vocabularies, for measurements and tests.

The shape is a Mistral network's (RMSNorm, rotary positions, grouped-query attention, SwiGLU), so the speed is a
real model's. The weights are noise, so what it says is not. Nothing is downloaded: mistral-common carries the
vocabularies.
"""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from sentencepiece import SentencePieceProcessor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

SPM_FILES = {
    "v1": "tokenizer.model.v1",
    "v3": "mistral_instruct_tokenizer_240323.model.v3",
    "v7": "mistral_instruct_tokenizer_241114.model.v7",
}
TEKKEN_FILE = "tekken_240911.json"
TEKKEN_SIZE = 131_072
_SYSTEM = {17: "[SYSTEM_PROMPT]", 18: "[/SYSTEM_PROMPT]"}
_CALLS = _SYSTEM | {32: "[ARGS]", 33: "[CALL_ID]"}
CONTROLS = {"tekken": {}, "v7-tekken": _SYSTEM, "v11": _CALLS, "v13": _CALLS | {34: "[THINK]", 35: "[/THINK]"}}
"""Control tokens beside those that every Tekken vocabulary has."""

_HUSH = 1e-3
"""What a layer adds is so much quieter than the embedding where ``follows`` decides what is said."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a network.

    ``tied``: the output matrix is the embedding. ``experts``: feed-forward networks of a layer, of which each token
    goes through ``active``; 0 for one.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    hidden: int
    context: int = 4096
    tied: bool = False
    experts: int = 0
    active: int = 0

    @property
    def kv_bytes(self) -> int:
        """Bytes of KV cache per token at 16 bits."""
        return self.layers * self.kv_heads * (self.width // self.heads) * 2 * 2


TINY = Shape(layers=2, width=64, heads=4, kv_heads=2, hidden=128, context=2048, tied=True)
TINY_MIXTURE = replace(TINY, experts=8, active=2)
MID = Shape(layers=12, width=1024, heads=16, kv_heads=4, hidden=3584, context=4096)
MISTRAL_7B = Shape(layers=32, width=4096, heads=32, kv_heads=8, hidden=14_336, context=32_768)


def write(
    path: Path,
    shape: Shape = TINY,
    *,
    vocabulary: str | Callable[[gguf.GGUFWriter], int] = "v3",
    architecture: str = "llama",
    quantisation: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q8_0,
    chat_template: str | None = None,
    seed: int = 0,
    loud: tuple[range, float] | None = None,
    follows: Mapping[int, int] | None = None,
    **claims: int,
) -> Path:
    """Write a model of this shape to ``path``.

    Args:
        path: File to make.
        shape: Sizes of the tensors.
        vocabulary: ``v1``, ``v3``, ``v7`` (SentencePiece), ``tekken``, ``v7-tekken``, ``v11`` or ``v13`` (byte-level);
            or what stores one in the head and returns its size.
        architecture: ``llama`` or ``qwen2``.
        quantisation: Q4_0 or Q8_0, of every matrix.
        chat_template: Template to store in the file.
        seed: Seed of the weights.
        loud: Tokens whose output rows are larger by a factor, so that they are said, or avoided, more often.
        follows: After which token which one is said. Such a model costs what one of its shape costs and says what is
            known beforehand: layers add next to nothing, and the output row of each of these tokens is the embedding
            of the one before it. Not for a ``tied`` shape.
        claims: Values of `Shape` that the header claims against the truth of the tensors.
    """
    writer = gguf.GGUFWriter(path, architecture)
    size = _vocabulary(writer, vocabulary) if isinstance(vocabulary, str) else vocabulary(writer)
    _header(writer, replace(shape, **claims), size)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    random = np.random.default_rng(seed)
    tensors = _tensors(shape, size, biased=architecture == "qwen2")
    for name, dims in tensors.items():
        kind = _kind(name, dims, quantisation)
        writer.add_tensor_info(name, dims, np.dtype(np.float32), _bytes(dims, kind), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, dims in tensors.items():
        data = _noise(random, dims, _kind(name, dims, quantisation))
        if loud is not None and name in ("output.weight", "token_embd.weight"):
            _amplify(data, *loud, gguf.GGML_QUANT_SIZES[quantisation][1])
        if follows is not None:
            block_bytes = gguf.GGML_QUANT_SIZES[quantisation][1]
            if name == "token_embd.weight":
                said = {after: data[before].copy() for before, after in follows.items()}
            elif name == "output.weight":
                for after, row in said.items():
                    data[after] = row
            elif name.endswith(("attn_output.weight", "ffn_down.weight")):
                _amplify(data, range(len(data)), _HUSH, block_bytes)
        writer.write_tensor_data(data)
    writer.close()
    return path


def _kind(name: str, dims: tuple[int, ...], quantisation: gguf.GGMLQuantizationType) -> gguf.GGMLQuantizationType:
    """Matrices are quantised, but not the one that chooses between experts."""
    return quantisation if len(dims) > 1 and "gate_inp" not in name else gguf.GGMLQuantizationType.F32


def _tensors(shape: Shape, size: int, *, biased: bool) -> dict[str, tuple[int, ...]]:
    """Names and dimensions, slowest first, of every tensor."""
    kv = shape.width // shape.heads * shape.kv_heads
    all_of = {"token_embd.weight": (size, shape.width), "output_norm.weight": (shape.width,)}
    if not shape.tied:
        all_of["output.weight"] = (size, shape.width)
    for n in range(shape.layers):
        layer = {
            "attn_norm": (shape.width,),
            "attn_q": (shape.width, shape.width),
            "attn_k": (kv, shape.width),
            "attn_v": (kv, shape.width),
            "attn_output": (shape.width, shape.width),
            "ffn_norm": (shape.width,),
            **_feed_forward(shape),
        }
        if biased:
            sizes = {"attn_q.bias": shape.width, "attn_k.bias": kv, "attn_v.bias": kv}
            all_of |= {f"blk.{n}.{name}": (size,) for name, size in sizes.items()}
        all_of |= {f"blk.{n}.{name}.weight": dims for name, dims in layer.items()}
    return all_of


def _feed_forward(shape: Shape) -> dict[str, tuple[int, ...]]:
    if not shape.experts:
        wide, narrow = (shape.hidden, shape.width), (shape.width, shape.hidden)
        return {"ffn_gate": wide, "ffn_up": wide, "ffn_down": narrow}
    wide, narrow = (shape.experts, shape.hidden, shape.width), (shape.experts, shape.width, shape.hidden)
    return {
        "ffn_gate_inp": (shape.experts, shape.width),
        "ffn_gate_exps": wide,
        "ffn_up_exps": wide,
        "ffn_down_exps": narrow,
    }


def _bytes(dims: tuple[int, ...], kind: gguf.GGMLQuantizationType) -> int:
    per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    return int(np.prod(dims)) // per_block * block_bytes


def _noise(random: np.random.Generator, dims: tuple[int, ...], kind: gguf.GGMLQuantizationType) -> NDArray[Any]:
    """Random blocks of a small scale: activations stay finite through every layer."""
    if len(dims) == 1:
        return np.ones(dims, np.float32)
    if kind == gguf.GGMLQuantizationType.F32:
        return random.standard_normal(dims, np.float32)
    per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (int(np.prod(dims)) // per_block, block_bytes), dtype=np.uint8)
    step = 4.0 if kind == gguf.GGMLQuantizationType.Q4_0 else 64.0
    blocks[:, :2] = np.array([1 / (step * dims[1] ** 0.5)], np.float16).view(np.uint8)
    return blocks.reshape(dims[0], -1)


def _amplify(data: NDArray[Any], rows: range, factor: float, block_bytes: int) -> None:
    blocks = data[rows.start : rows.stop].reshape(len(rows), -1, block_bytes)
    scales = np.ascontiguousarray(blocks[:, :, :2]).view(np.float16) * np.float16(factor)
    blocks[:, :, :2] = scales.view(np.uint8)


def _header(writer: gguf.GGUFWriter, shape: Shape, size: int) -> None:
    writer.add_name("synthetic")
    writer.add_vocab_size(size)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-5)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(shape.active)


def _vocabulary(writer: gguf.GGUFWriter, name: str) -> int:
    """Store the vocabulary; return how many tokens it has."""
    data = files("mistral_common").joinpath("data")
    if name in CONTROLS:
        return _tekken(writer, json.loads(data.joinpath(TEKKEN_FILE).read_text("utf-8")), CONTROLS[name])
    pieces = SentencePieceProcessor(model_file=str(data.joinpath(SPM_FILES[name])))
    kinds = []
    for n in range(pieces.vocab_size()):
        kind = gguf.TokenType.NORMAL
        if pieces.is_unknown(n):
            kind = gguf.TokenType.UNKNOWN
        elif pieces.is_control(n):
            kind = gguf.TokenType.CONTROL
        elif pieces.is_byte(n):
            kind = gguf.TokenType.BYTE
        kinds.append(kind)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([pieces.id_to_piece(n).encode() for n in range(pieces.vocab_size())])
    writer.add_token_scores([pieces.get_score(n) for n in range(pieces.vocab_size())])
    writer.add_token_types(kinds)
    _specials(writer)
    return int(pieces.vocab_size())


def _tekken(writer: gguf.GGUFWriter, source: dict[str, Any], more: dict[int, str]) -> int:
    """Byte-level tokens as GPT-2 writes bytes: printable ones as themselves, the rest from U+0100 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shown = {byte: chr(byte) for byte in plain}
    shown |= {byte: chr(256 + n) for n, byte in enumerate(b for b in range(256) if b not in shown)}
    control = int(source["config"]["default_num_special_tokens"])
    names = {0: "<unk>", 1: "<s>", 2: "</s>", 3: "[INST]", 4: "[/INST]"} | more
    words = (b64decode(entry["token_bytes"]) for entry in source["vocab"][: TEKKEN_SIZE - control])
    tokens = [names.get(n, f"<SPECIAL_{n}>") for n in range(control)]
    tokens += ["".join(shown[byte] for byte in word) for word in words]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("tekken")
    writer.add_token_list([token.encode() for token in tokens])
    writer.add_token_types(
        [gguf.TokenType.CONTROL if n < control else gguf.TokenType.NORMAL for n in range(TEKKEN_SIZE)]
    )
    writer.add_token_merges([f"{shown[32]} {shown[116]}"])
    _specials(writer)
    return TEKKEN_SIZE


def _specials(writer: gguf.GGUFWriter) -> None:
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
