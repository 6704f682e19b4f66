"""Small GGUF files with random weights and the real vocabularies, for tests that need a file and no answers."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from cierzo.gguf_header import gpt2_bytes
from cierzo.prompt import template
from cierzo.templates import codec


def vocabulary(name: str) -> list[bytes]:
    """Return the tokens of a template's vocabulary, spelled as in a GGUF made by llama.cpp's own converter."""
    return [*_vocabulary(name)]


@cache
def _vocabulary(name: str) -> list[bytes]:
    known = codec(template(name))
    words = known._tokenizer.vocab()
    if known.template.kind == "spm":
        return [str(word).encode() for word in words]
    spelled = {byte: letter for letter, byte in gpt2_bytes().items()}
    return [
        (known.controls[i] if i in known.controls else "".join(spelled[byte] for byte in known.bytes_of(i))).encode()
        for i in range(len(words))
    ]


def write(path: Path, name: str = "v3", *, layers: int = 2, tensors: bool = True, **changes: Any) -> Path:
    """Write a file.

    ``changes`` are entries of the header, such as ``rope_freq_base=1e4`` or ``tokens=[…]``; ``floats`` by their keys.
    """
    tokens = changes.get("tokens") or vocabulary(name)
    writer = gguf.GGUFWriter(path, changes.get("architecture", "llama"))
    writer.add_name(changes.get("title", "Tiny"))
    writer.add_context_length(changes.get("context", 32_768))
    writer.add_block_count(layers)
    writer.add_embedding_length(changes.get("embedding", 64))
    writer.add_head_count(changes.get("heads", 4))
    floats = changes.get("floats", {})
    if "attention.head_count_kv" not in floats:
        writer.add_head_count_kv(changes.get("kv_heads", 2))
    for key, value in floats.items():  # numbers of a kind that no converter writes
        writer.add_float32(f"{writer.arch}.{key}", value)
    for key, add in (("sliding_window", writer.add_sliding_window), ("file_type", writer.add_file_type)):
        if key in changes:
            add(changes[key])
    if "chat_template" in changes:
        writer.add_chat_template(changes["chat_template"])
    writer.add_rope_freq_base(changes.get("rope_freq_base", 1e6))
    writer.add_tokenizer_model(changes.get("kind", "gpt2" if template(name).kind == "tekken" else "llama"))
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    if tensors:
        weights = np.zeros((64, 64), np.float32)
        writer.add_tensor("token_embd.weight", weights.astype(np.float16))
        quantized = gguf.quants.quantize(weights, gguf.GGMLQuantizationType.Q4_0)
        writer.add_tensor("output.weight", quantized, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
