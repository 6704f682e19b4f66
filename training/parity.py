"""Does llama.cpp compute what the trained network computes? The likeliest next token, position by position.

The PyTorch side runs in float32; the file holds Q8_0. Each dialogue is forced token by token: its ids up to a
position go in as the prompt, and the one token generated there with no randomness is compared.

    python -m training.parity training/out/demo.pt src/cierzo/models/cierzo-demo.gguf
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import xllamacpp

from training import corpus
from training.config import Config
from training.model import Demo
from training.train import Vocabulary


@contextmanager
def server(model: Path) -> Iterator[xllamacpp.Server]:
    """A llama.cpp server in this process, one sequence at a time."""
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx = 2048
    params.n_parallel = 1
    params.cpuparams.n_threads = 2
    params.ui = False
    running = xllamacpp.Server(params)
    time.sleep(0.5)  # dropped before its loop starts, the server deadlocks
    yield running


def top_token(running: xllamacpp.Server, ids: list[int]) -> tuple[int, float]:
    """The likeliest next token after `ids`, and its log-probability."""
    answer = running.handle_completions(
        {"prompt": ids, "max_tokens": 1, "temperature": 0.0, "logprobs": 1, "cache_prompt": True, "ignore_eos": False,
         "repeat_penalty": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    )  # fmt: skip
    entries = answer["choices"][0]["logprobs"]["content"]
    best = entries[0]["top_logprobs"][0]
    return best["id"], best["logprob"]


def load(checkpoint: Path) -> tuple[Demo, Vocabulary]:
    """The trained network, ready to compute."""
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    network = Demo(Config(**saved["config"]), kept=len(saved["kept"]))
    network.load_state_dict(saved["weights"])
    return network.eval(), Vocabulary(saved["kept"])


@torch.no_grad()
def compare(
    network: Demo, vocabulary: Vocabulary, running: xllamacpp.Server, dialogues: list
) -> tuple[int, int, float]:
    """Positions where both agree, positions compared, and the largest difference of log-probability where they do."""
    same = total = 0
    widest = 0.0
    for ids, written in dialogues:
        compact = torch.tensor([vocabulary.compact(ids)])
        logprobs = network.logits(network.hidden(compact))[0].log_softmax(-1)
        for position in range(len(ids) - 1):
            if not written[position + 1]:
                continue
            token, logprob = top_token(running, ids[: position + 1])
            ours = int(logprobs[position].argmax())
            agree = vocabulary.compact([token])[0] == ours
            same, total = same + agree, total + 1
            if agree:
                widest = max(widest, abs(float(logprobs[position, ours]) - logprob))
    return same, total, widest


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare PyTorch with llama.cpp.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--dialogues", type=int, default=50)
    arguments = parser.parse_args()
    network, vocabulary = load(arguments.checkpoint)
    dialogues = [d.encoded() for d in corpus.dialogues(seed=987_654, count=arguments.dialogues)]
    with server(arguments.model) as running:
        same, total, widest = compare(network, vocabulary, running, dialogues)
    print(f"parity: {same}/{total} = {same / total:.2%}; largest log-probability difference {widest:.4f}")


if __name__ == "__main__":
    main()
