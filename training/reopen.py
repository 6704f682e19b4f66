"""A GGUF of the demo back into a checkpoint, to go on training from it.

    python -m training.reopen src/cierzo/models/cierzo-demo.gguf training/out/start.pt

Matrices come back as Q8_0 kept them. The row that most tokens share is `unseen`; every other token has its own.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize

from training.config import CONFIG
from training.export import LAYER_NAMES


def compact(table: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """The whole table (vocab, dim) as its own rows and, last, `unseen`; and the tokens that have a row of their own."""
    _, first, groups, counts = np.unique(table, axis=0, return_index=True, return_inverse=True, return_counts=True)
    shared = int(counts.argmax())
    kept = np.flatnonzero(groups.reshape(-1) != shared)
    return np.concatenate([table[kept], table[first[shared]][None]]), kept.tolist()


def reopen(source: Path) -> dict[str, object]:
    """The checkpoint that `training.export` could have made the file from, but for what Q8_0 rounded off."""
    reader = GGUFReader(source)
    arrays = {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    table, kept = compact(arrays["token_embd.weight"])
    weights = {"embedding.weight": table, "norm.weight": arrays["output_norm.weight"]}
    for layer in range(CONFIG.layers):
        for ours, theirs in LAYER_NAMES.items():
            weights[f"layers.{layer}.{ours}.weight"] = arrays[f"blk.{layer}.{theirs}.weight"]
    tensors = {name: torch.from_numpy(value.astype(np.float32)) for name, value in weights.items()}
    return {"config": asdict(CONFIG), "kept": kept, "weights": tensors, "facts": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a checkpoint of a GGUF.")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    arguments.target.parent.mkdir(parents=True, exist_ok=True)
    saved = reopen(arguments.source)
    torch.save(saved, arguments.target)
    print(f"{arguments.target}: {len(saved['kept'])} tokens with a row of their own")  # type: ignore[arg-type] # a list


if __name__ == "__main__":
    main()
