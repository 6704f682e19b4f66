"""Write a checkpoint as GGUF for llama.cpp: architecture "llama", Q8_0 matrices, float32 norms, tokenizer inside.

Every token the corpus never used gets a copy of the `unseen` row, so the exported softmax is the trained one.
There is no output matrix: llama.cpp then uses the embedding, as the network does. Rotary pairs are neighbours in
model.py already, so q and k need no permutation.

    python -m training.export training/out/demo.pt src/cierzo/models/cierzo-demo.gguf
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from gguf.quants import quantize

from training.config import Config
from training.tokens import BOS, EOS, spm

# For programs that render prompts from text; Cierzo sends ids and does not use it. No <s> here: the engine adds it.
TEMPLATE = (
    "{%- set ns = namespace(system='') -%}"
    "{%- for m in messages -%}"
    "{%- if m.role == 'system' -%}{%- set ns.system = m.content + '\\n\\n' -%}"
    "{%- elif m.role == 'user' -%}{{ '[INST] ' + ns.system + m.content + '[/INST]' }}{%- set ns.system = '' -%}"
    "{%- elif m.role == 'assistant' -%}{{ ' ' + m.content + '</s>' }}"
    "{%- endif -%}{%- endfor -%}"
)

LAYER_NAMES = {
    "attention_norm": "attn_norm",
    "attention.q": "attn_q",
    "attention.k": "attn_k",
    "attention.v": "attn_v",
    "attention.o": "attn_output",
    "ffn_norm": "ffn_norm",
    "ffn.gate": "ffn_gate",
    "ffn.up": "ffn_up",
    "ffn.down": "ffn_down",
}


def full_embedding(compact: np.ndarray, kept: list[int], vocab: int) -> np.ndarray:
    """The compact table (kept + 1 rows) spread over the whole vocabulary: (vocab, dim)."""
    table = np.repeat(compact[-1:], vocab, axis=0)
    table[kept] = compact[:-1]
    return table


def tensors(weights: dict[str, np.ndarray], kept: list[int], config: Config) -> dict[str, np.ndarray]:
    """The weights under llama.cpp's names."""
    named = {
        "token_embd.weight": full_embedding(weights["embedding.weight"], kept, config.vocab),
        "output_norm.weight": weights["norm.weight"],
    }
    for layer in range(config.layers):
        for ours, theirs in LAYER_NAMES.items():
            named[f"blk.{layer}.{theirs}.weight"] = weights[f"layers.{layer}.{ours}.weight"]
    return named


def add_architecture(writer: GGUFWriter, config: Config) -> None:
    """What the engine needs to rebuild the network."""
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.hidden)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)


def add_tokenizer(writer: GGUFWriter) -> None:
    """Pieces, scores and kinds; text gets no space in front, because the ids we send carry their own."""
    model = spm()
    kinds = []
    for token in range(model.vocab_size()):
        if model.is_unknown(token):
            kinds.append(TokenType.UNKNOWN)
        elif model.is_control(token):
            kinds.append(TokenType.CONTROL)
        elif model.is_byte(token):
            kinds.append(TokenType.BYTE)
        else:
            kinds.append(TokenType.NORMAL)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([model.id_to_piece(token) for token in range(model.vocab_size())])
    writer.add_token_scores([model.get_score(token) for token in range(model.vocab_size())])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)


def export(checkpoint: Path, target: Path) -> None:
    """Read what train.py saved and write the GGUF."""
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    config = Config(**saved["config"])
    weights = {name: value.float().numpy() for name, value in saved["weights"].items()}
    writer = GGUFWriter(str(target), "llama")
    writer.add_name("cierzo-demo")
    writer.add_author("Cierzo authors")
    writer.add_license("apache-2.0")
    writer.add_languages(["es", "en", "fr"])
    writer.add_description("A very small Mistral-architecture model that talks about Mistral models and Cierzo.")
    for name, value in saved["facts"].items():
        writer.add_string(f"cierzo.training.{name}", str(value))
    add_architecture(writer, config)
    add_tokenizer(writer)
    for name, array in tensors(weights, saved["kept"], config).items():
        if array.ndim == 1:
            writer.add_tensor(name, array.astype(np.float32))
        else:
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(name, quantize(array.astype(np.float32), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a checkpoint as GGUF.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    export(arguments.checkpoint, arguments.target)
    print(f"{arguments.target}: {arguments.target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
