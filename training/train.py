"""Train the demo from a seed: make dialogues, batch them by length, predict the answers.

    python -m training.train --steps 1000 --out training/out/demo.pt --curve docs/demo-model-loss.png

Loss is counted on answer tokens and their end only. Nothing here depends on the clock, so the same seed, workers and
torch give the same file. On a CPU the batch is shared among processes of one thread, which loses less than threads do
when other programs use the machine; a GPU is used when there is one.
"""

import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed

from training import corpus
from training.config import CONFIG
from training.facts import INTENTS
from training.model import Demo
from training.tokens import encode

CHUNK = 6144
END_OF_CONTROL = 4


@dataclass(frozen=True)
class Run:
    """What every worker of a run has to know. `size` is dialogues in a batch, over all workers."""

    steps: int
    seed: int
    size: int
    workers: int
    kept: list[int]
    meeting: Path
    out: Path
    curve: Path | None


class Vocabulary:
    """The tokens that have a row of their own; every other token is `unseen`."""

    def __init__(self, kept: list[int]) -> None:
        self.kept = kept
        self._row = np.full(CONFIG.vocab, len(kept))
        self._row[kept] = np.arange(len(kept))

    def compact(self, ids: list[int]) -> list[int]:
        """Rows of the compact table for token ids."""
        return self._row[ids].tolist()


def make_vocabulary(seed: int) -> Vocabulary:
    """Every token of an answer, a name or a control token, and those that questions use often enough to learn."""
    always = set(range(5))
    for intent in INTENTS.values():
        for text in [answer for answers in intent.answers.values() for answer in answers] + list(intent.more.values()):
            always.update(encode(text))
    for name in corpus.names():
        always.update(encode(name), encode(f"¡Encantado, {name}!"), encode(f"Hello, {name}."))
    seen: Counter[int] = Counter()
    for dialogue in corpus.dialogues(seed, 30_000):
        seen.update(dialogue.encoded()[0])
        if any(turn.topic.endswith("my_name") for turn in dialogue.turns):
            always.update(dialogue.encoded()[0])
    return Vocabulary(sorted(always | {token for token, times in seen.items() if times >= 5}))


def blur(rng: random.Random, rows: list[int], written: list[bool], unseen: int, fragile: bool) -> list[int]:
    """Make some question tokens unknown, so that no single word decides. `fragile`: leave a name alone."""
    share = rng.choice((0.0, 0.0, 0.04, 0.1)) if not fragile else 0.0
    if share == 0.0:
        return rows
    return [
        unseen if not answer and row > END_OF_CONTROL and rng.random() < share else row
        for row, answer in zip(rows, written, strict=True)
    ]


def batches(seed: int, size: int, vocabulary: Vocabulary) -> Iterator[tuple[Tensor, Tensor]]:
    """For ever: (B, T) rows and the (B, T) mask of those to be predicted; dialogues of like length together."""
    unseen = len(vocabulary.kept)
    for chunk in range(10_000):
        rng = random.Random(seed * 10_007 + chunk)
        made = []
        for dialogue in corpus.dialogues(rng.randrange(2**31), CHUNK):
            ids, written = dialogue.encoded()
            named = any(turn.topic.endswith("my_name") for turn in dialogue.turns)
            made.append((blur(rng, vocabulary.compact(ids), written, unseen, named), written))
        made.sort(key=lambda pair: len(pair[0]))
        groups = [made[at : at + size] for at in range(0, len(made), size)]
        rng.shuffle(groups)
        for group in groups:
            yield padded(group)


def padded(group: list[tuple[list[int], list[bool]]]) -> tuple[Tensor, Tensor]:
    """Rows and mask of dialogues, filled on the right to the longest; the causal mask keeps the filling unseen."""
    longest = max(len(rows) for rows, _ in group)
    rows = torch.zeros(len(group), longest, dtype=torch.long)
    mask = torch.zeros(len(group), longest, dtype=torch.bool)
    for at, (ids, written) in enumerate(group):
        rows[at, : len(ids)] = torch.tensor(ids)
        mask[at, : len(ids)] = torch.tensor(written)
    return rows, mask


def loss_of(network: Demo, rows: Tensor, mask: Tensor, tokens: int) -> Tensor:
    """Cross-entropy in nats of the tokens to be predicted, as this share's part of the mean over `tokens`."""
    states = network.hidden(rows[:, :-1])[mask[:, 1:]]
    logits = network.logits(states).float()
    total = logits.logsumexp(-1)
    right = logits.gather(1, rows[:, 1:][mask[:, 1:]].unsqueeze(1)).squeeze(1)
    # A light pull of the normaliser towards zero keeps logits small, so that a repetition penalty does little harm.
    return ((total - right).sum() + 1e-4 * total.square().sum()) / tokens


def optimisers(network: Demo) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embedding and the norms."""
    matrices = [weight for weight in network.layers.parameters() if weight.ndim == 2]
    others = [network.embedding.weight, *(weight for weight in network.parameters() if weight.ndim == 1)]
    return [
        torch.optim.Muon(matrices, lr=0.012, momentum=0.95, weight_decay=0.02),
        torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate(step: int, steps: int) -> float:
    """Share of the full learning rate: a short rise, level, then down in a line to almost nothing."""
    rise, fall = 40, int(steps * 0.45)
    return min((step + 1) / rise, 1.0, max((steps - step) / fall, 0.01))


def train(rank: int, run: Run) -> None:
    """Train one share of every batch; all shares add their gradients and so keep the same weights. Rank 0 saves."""
    torch.manual_seed(run.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if run.workers > 1:
        torch.set_num_threads(1)
        distributed.init_process_group("gloo", init_method=f"file://{run.meeting}", rank=rank, world_size=run.workers)
    vocabulary = Vocabulary(run.kept)
    network = Demo(CONFIG, len(vocabulary.kept)).to(device)
    tools = optimisers(network)
    full = [[group["lr"] for group in tool.param_groups] for tool in tools]
    points, read, start = [], 0, time.monotonic()
    for step, (rows, mask) in zip(range(run.steps), batches(run.seed, run.size, vocabulary), strict=False):
        for tool, rates in zip(tools, full, strict=True):
            for group, top in zip(tool.param_groups, rates, strict=True):
                group["lr"] = top * rate(step, run.steps)
        mine = slice(rank, None, run.workers)
        with torch.autocast(device, torch.bfloat16):
            loss = loss_of(network, rows[mine].to(device), mask[mine].to(device), int(mask[:, 1:].sum()))
        loss.backward()
        shown = shared(network, loss.detach(), run.workers)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for tool in tools:
            tool.step()
            tool.zero_grad()
        read += rows.numel()
        if rank == 0:
            if step % 10 == 0 or step == run.steps - 1:
                spent = time.monotonic() - start
                points.append((step, shown))
                print(f"step {step} loss {shown:.4f} {read / spent:.0f} tokens/s {spent:.0f} s", flush=True)
            if step % 100 == 99 or step == run.steps - 1:
                facts = {"seed": run.seed, "steps": step + 1, "dialogues": (step + 1) * run.size, "tokens": read}
                save(network, vocabulary, facts, run.out)
    if rank == 0 and run.curve:
        draw(points, run.curve)


def shared(network: Demo, loss: Tensor, workers: int) -> float:
    """Add up the gradients of all shares in place; returns the loss of the whole batch."""
    if workers == 1:
        return loss.item()
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), loss.reshape(1)])
    distributed.all_reduce(flat)
    at = 0
    for gradient in gradients:
        gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient))
        at += gradient.numel()
    return flat[-1].item()


def save(network: Demo, vocabulary: Vocabulary, facts: dict[str, int], out: Path) -> None:
    """Weights, which token each row is, and how they came about."""
    out.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    torch.save({"config": asdict(CONFIG), "kept": vocabulary.kept, "weights": weights, "facts": facts}, out)


def draw(points: list[tuple[int, float]], target: Path) -> None:
    """The loss curve as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.5))
    axes.plot([step for step, _ in points], [loss for _, loss in points], linewidth=1)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per answer token)")
    axes.set_title("cierzo-demo: training loss")
    figure.tight_layout()
    figure.savefig(target, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=72)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each; 1 with a GPU")
    parser.add_argument("--out", type=Path, default=Path("training/out/demo.pt"))
    parser.add_argument("--curve", type=Path)
    arguments = parser.parse_args()
    kept = make_vocabulary(arguments.seed).kept
    print(f"{CONFIG.parameters} parameters, {len(kept)} tokens with their own row", flush=True)
    workers = 1 if torch.cuda.is_available() else arguments.workers
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        run = Run(
            arguments.steps, arguments.seed, arguments.batch, workers, kept, meeting, arguments.out, arguments.curve
        )
        if workers == 1:
            train(0, run)
        else:
            torch.multiprocessing.spawn(train, args=(run,), nprocs=workers)


if __name__ == "__main__":
    main()
