"""The dialogues answered by Transformers' own ``generate``, and whether its tokens are the embedded engine's.

Runs in the environment of transformers.txt:

    .interop/transformers/bin/python interop/generate.py .interop/cierzo-demo .interop/answers.json
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from agreement import ENOUGH, Agreement, load
from transformers import AutoModelForCausalLM, AutoTokenizer

MOST_TOKENS = 256


def greedy(model: transformers.PreTrainedModel, prompt: Sequence[int]) -> list[int]:
    """Return the tokens that follow, without the end token."""
    ids = torch.tensor([prompt])
    whole = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=MOST_TOKENS)
    written = whole[0, len(prompt) :].tolist()
    return written[:-1] if written[-1] == model.generation_config.eos_token_id else written


def compared(tokenizer: transformers.PreTrainedTokenizerBase, turn: Mapping[str, Any]) -> str:
    """Whether Transformers' template and tokenizer make the prompt that Cierzo made.

    Where somebody wrote ``[INST]``, Transformers makes the control token of it and Cierzo the text.
    """
    encoded = tokenizer.apply_chat_template(turn["messages"], tokenize=True, return_dict=True)["input_ids"]
    if encoded == turn["prompt"]:
        return "the same ids"
    text = "".join(message["content"] for message in turn["messages"])
    return "control tokens typed" if any(mark in text for mark in tokenizer.get_added_vocab()) else "other ids"


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer the dialogues with Transformers and compare.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("answers", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(arguments.checkpoint, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(arguments.checkpoint)
    began, agreement, rendered = time.monotonic(), Agreement(), Counter()
    for dialogue in load(arguments.answers):
        agreement.add(dialogue, [greedy(model, turn["prompt"]) for turn in dialogue["turns"]])
        for turn in dialogue["turns"]:
            rendered[compared(tokenizer, turn)] += 1
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, {time.monotonic() - began:.0f} s")
    print(f"generate: {agreement}")
    print(f"the checkpoint's template and tokenizer, prompts with Cierzo's ids or others: {dict(rendered)}")
    sys.exit(agreement.share < ENOUGH or rendered["other ids"] > 0)


if __name__ == "__main__":
    main()
