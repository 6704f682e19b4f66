"""Write a GGUF file of Mistral's architecture as a Hugging Face checkpoint, with its tokenizer.

Transformers and vLLM read the result, so that other people's programs can compute the very model that Cierzo's own
engine computes. The weights are those of the file, dequantised to float32: what the two then say differs by rounding.

    python interop/export.py src/cierzo/models/cierzo-demo.gguf .interop/cierzo-demo
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mistral_common
import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from sentencepiece import SentencePieceProcessor

TOKENIZER = Path(mistral_common.__file__).parent / "data" / "mistral_instruct_tokenizer_240323.model.v3"
UNK, BOS, EOS = 0, 1, 2

# What training/export.py writes into the file, with the <s> that llama.cpp adds by itself.
TEMPLATE = (
    "{{- bos_token -}}"
    "{%- set ns = namespace(system='') -%}"
    "{%- for m in messages -%}"
    "{%- if m.role == 'system' -%}{%- set ns.system = m.content + '\\n\\n' -%}"
    "{%- elif m.role == 'user' -%}{{- '[INST] ' + ns.system + m.content + '[/INST]' -}}{%- set ns.system = '' -%}"
    "{%- elif m.role == 'assistant' -%}{{- ' ' + m.content + eos_token -}}"
    "{%- endif -%}{%- endfor -%}"
)

WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def name_of(theirs: str) -> str:
    """Return Transformers' name for llama.cpp's name of a weight.

    >>> name_of("blk.3.attn_q.weight")
    'model.layers.3.self_attn.q_proj.weight'
    """
    parts = theirs.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{LAYER[parts[2]]}.weight"
    return f"{WHOLE[parts[0]]}.weight"


def halves(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's order of the rows of Q and K; the shape stays (heads * head size, width).

    Rotary positions turn pairs of numbers. llama.cpp's pairs are neighbours, Transformers' are number i of each half
    of the head; convert_hf_to_gguf.py goes the other way with ``reshape(heads, 2, size // 2, width).swapaxes(1, 2)``.
    """
    rows, width = matrix.shape
    return matrix.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def weights(reader: GGUFReader, heads: int, kv_heads: int) -> dict[str, np.ndarray]:
    """Return all weights as float32, by Transformers' names, rows first."""
    found = {}
    for tensor in reader.tensors:
        value = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if ".attn_q." in tensor.name or ".attn_k." in tensor.name:
            value = halves(value, heads if ".attn_q." in tensor.name else kv_heads)
        found[name_of(tensor.name)] = np.ascontiguousarray(value)
    return found


def config_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what config.json says of the architecture; ``facts`` are the file's keys."""
    of = {key.removeprefix("llama."): value for key, value in facts.items() if key.startswith("llama.")}
    heads = of["attention.head_count"]
    return {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_size": of["embedding_length"],
        "intermediate_size": of["feed_forward_length"],
        "num_hidden_layers": of["block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": of["attention.head_count_kv"],
        "head_dim": of.get("rope.dimension_count", of["embedding_length"] // heads),
        "max_position_embeddings": of["context_length"],
        "rms_norm_eps": of["attention.layer_norm_rms_epsilon"],
        "rope_parameters": {"rope_type": "default", "rope_theta": of["rope.freq_base"]},
        "vocab_size": of["vocab_size"],
        "sliding_window": None,
        "hidden_act": "silu",
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "dtype": "float32",
    }


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write float32 arrays in the format of safetensors: length of the header, header in JSON, the numbers."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [place, place + tensor.nbytes],
        }
        place += tensor.nbytes
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(written)) + written)
        for tensor in tensors.values():
            file.write(tensor.astype("<f4").tobytes())


def merges(pieces: Mapping[str, int]) -> Iterable[tuple[str, str]]:
    """Yield the pairs that byte pair encoding joins, first those that made the earlier pieces.

    SentencePiece numbers its pieces in the order in which they were joined and does not keep of what; every way of
    cutting a piece into two others counts.
    """
    for piece in pieces:
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        joined = [cut for cut in cuts if cut[0] in pieces and cut[1] in pieces]
        yield from sorted(joined, key=lambda cut: (pieces[cut[0]], pieces[cut[1]]))


def tokenizer_json(model: SentencePieceProcessor) -> dict[str, Any]:
    """Return the tokenizer in the format of the ``tokenizers`` library.

    Text gets no space in front by itself, for the template writes it: the same ids as mistral-common's come out.
    """
    vocabulary = {model.id_to_piece(token): token for token in range(model.vocab_size())}
    control = [token for token in vocabulary.values() if model.is_control(token) or model.is_unknown(token)]
    normal = {
        piece: token
        for piece, token in vocabulary.items()
        if token not in set(control) and not model.is_byte(token) and not model.is_unused(token)
    }
    # the single characters come last in the file, and nothing made them
    ranked = dict(sorted(normal.items(), key=lambda entry: (-model.get_score(entry[1]), entry[1])))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(model.id_to_piece(token), token) for token in control],
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": False},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [list(pair) for pair in merges(ranked)],
        },
    }


def _added(text: str, token: int) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token, "content": text, **plain, "special": True}


def export(source: Path, target: Path) -> None:
    """Write the checkpoint of the GGUF file ``source`` into the folder ``target``."""
    reader = GGUFReader(source)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    model = SentencePieceProcessor(model_file=str(TOKENIZER))
    if [model.id_to_piece(token) for token in range(model.vocab_size())] != facts["tokenizer.ggml.tokens"]:
        raise SystemExit(f"{source} has another tokenizer than Mistral's v3: only that one is written")
    config = config_of(facts)
    tensors = weights(reader, config["num_attention_heads"], config["num_key_value_heads"])
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    target.mkdir(parents=True, exist_ok=True)
    write_safetensors(target / "model.safetensors", tensors)
    _write(target / "config.json", config)
    ends = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": UNK}
    _write(target / "generation_config.json", {**ends, "do_sample": True})  # or transformers serve is always greedy
    _write(target / "tokenizer.json", tokenizer_json(model))
    _write(
        target / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "clean_up_tokenization_spaces": False,
            "model_max_length": config["max_position_embeddings"],
        },
    )
    (target / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    shutil.copyfile(TOKENIZER, target / "tokenizer.model.v3")


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a GGUF file as a Hugging Face checkpoint.")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    export(arguments.source, arguments.target)
    print(f"{arguments.target}: {sum(file.stat().st_size for file in arguments.target.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
