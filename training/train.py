"""Train the demo from a seed: make dialogues, batch them by length, predict the answers.

    python -m training.train --steps 5400 --out training/out/demo.pt --curve docs/demo-model-loss.png

Loss is counted on answer tokens and their end only. Nothing here depends on the clock, so the same seed, workers and
torch give the same file. On a CPU several processes of one thread train on dialogues of their own and average their
weights every few steps: they hardly wait for each other, which matters when other programs use the machine. A GPU is
used when there is one, by one process.
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
from matplotlib.figure import Figure
from torch import Tensor, distributed, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from training import corpus
from training.config import CONFIG
from training.facts import INTENTS, LANGUAGES
from training.model import Demo
from training.tokens import END_INST, encode

CHUNK = 6144
END_OF_CONTROL = 4

# Workers average their weights after this many steps.
MEET = 10

# The weight of the hint beside the answer's words.
HINT = 0.5

# So many dialogues of one turn, and of more, end a few tokens into their last answer: there it is decided what the
# answer is about, and that is what is hard to learn. The rest is learnt by heart from the others.
CUT = (0.6, 0.25)
CUT_AFTER = (3, 12)


@dataclass(frozen=True)
class Run:
    """What every worker of a run has to know. `size` is dialogues in one worker's batch."""

    steps: int
    seed: int
    size: int
    workers: int
    kept: list[int]
    meeting: Path
    out: Path
    curve: Path | None
    start: dict[str, Tensor] | None
    peak: float


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


class Subjects:
    """What each answer is about, in which language: a number that the network also learns to tell at `[/INST]`.

    The hint teaches what a question means sooner than the answer's words alone do. Its matrix is not exported.
    """

    def __init__(self) -> None:
        self._number: dict[str, int] = {}
        self.count = 0
        for intent in INTENTS.values():
            for lang in LANGUAGES:
                for texts in (intent.answers[lang], [intent.more[lang]] if intent.more else []):
                    self._number.update(dict.fromkeys(texts, self.count))
                    self.count += 1

    def of(self, turn: corpus.Turn) -> int:
        """The number of a turn's answer; one with a name in it counts as its intent's; -1 where words are repeated."""
        if turn.topic == corpus.REPEAT:
            return -1
        return self._number.get(turn.answer, self._number[INTENTS[turn.topic].answers[turn.lang][0]])


@dataclass(frozen=True)
class Batch:
    """Rows (B, T), which of them to predict (B, T), and subjects (B, T): -1 where no answer begins."""

    rows: Tensor
    written: Tensor
    subjects: Tensor


def batches(seed: int, size: int, vocabulary: Vocabulary, subjects: Subjects) -> Iterator[Batch]:
    """For ever; dialogues of like length together."""
    for chunk in range(10_000):
        rng = random.Random(seed * 10_007 + chunk)
        made = [
            prepared(rng, dialogue, vocabulary, subjects) for dialogue in corpus.dialogues(rng.randrange(2**31), CHUNK)
        ]
        made.sort(key=lambda columns: len(columns[0]))
        groups = [made[at : at + size] for at in range(0, len(made), size)]
        rng.shuffle(groups)
        for group in groups:
            yield padded(group)


Columns = tuple[list[int], list[bool], list[int]]


def prepared(rng: random.Random, dialogue: corpus.Dialogue, vocabulary: Vocabulary, subjects: Subjects) -> Columns:
    """One dialogue's rows, what is written, and subjects, each as long as the dialogue."""
    ids, written = dialogue.encoded()
    named = any(turn.topic.endswith("my_name") or turn.topic == corpus.REPEAT for turn in dialogue.turns)
    numbers = iter([subjects.of(turn) for turn in dialogue.turns])
    marks = [next(numbers) if token == END_INST else -1 for token in ids]
    rows = blur(rng, vocabulary.compact(ids), written, len(vocabulary.kept), named)
    if rng.random() < CUT[len(dialogue.turns) > 1] and not named:
        end = len(ids) - ids[::-1].index(END_INST) + rng.randint(*CUT_AFTER)
        rows, written, marks = rows[:end], written[:end], marks[:end]
    return rows, written, marks


def padded(group: list[Columns]) -> Batch:
    """A batch, filled on the right to the longest; the causal mask keeps the filling unseen."""
    longest = max(len(rows) for rows, _, _ in group)
    rows = torch.zeros(len(group), longest, dtype=torch.long)
    written = torch.zeros(len(group), longest, dtype=torch.bool)
    subjects = torch.full((len(group), longest), -1, dtype=torch.long)
    for at, columns in enumerate(group):
        for target, column in zip((rows, written, subjects), columns, strict=True):
            target[at, : len(column)] = torch.tensor(column)
    return Batch(rows, written, subjects)


# One fused loop over tokens and vocabulary: a step takes three quarters of the time (0.69 s instead of 0.92 s).
@torch.compile(dynamic=True)
def answers(network: Demo, states: Tensor, rows: Tensor) -> Tensor:
    """Mean cross-entropy in nats of the tokens `rows` (N,) after `states` (N, dim)."""
    logits = network.logits(states).float()
    total = logits.logsumexp(-1)
    right = logits.gather(1, rows.unsqueeze(1)).squeeze(1)
    # A light pull of the normaliser towards zero keeps logits small, so that a repetition penalty does little harm.
    return (total - right).mean() + 1e-4 * total.square().mean()


def losses(network: Demo, hint: nn.Linear, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats: per answer token, and of the subjects."""
    # Plain matrix products are a third faster here than the kernel that PyTorch would choose on a CPU.
    with sdpa_kernel([SDPBackend.MATH]):
        states = network.hidden(batch.rows[:, :-1])
    words = answers(network, states[batch.written[:, 1:]], batch.rows[:, 1:][batch.written[:, 1:]])
    begins = batch.subjects[:, :-1] >= 0
    # Nothing to tell where only words are repeated: then a sum over nothing, which is 0.
    guessed, subjects = hint(states[begins]).float(), batch.subjects[:, :-1][begins]
    return words, nn.functional.cross_entropy(guessed, subjects, reduction="sum") / max(1, len(subjects))


def optimisers(network: Demo, hint: nn.Linear) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embedding, the norms and the hint."""
    matrices = [weight for weight in network.layers.parameters() if weight.ndim == 2]
    norms = [weight for weight in network.parameters() if weight.ndim == 1]
    return [
        torch.optim.Muon(matrices, lr=0.012, momentum=0.95, weight_decay=0.02),
        torch.optim.AdamW(
            [network.embedding.weight, *norms, *hint.parameters()], lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0
        ),
    ]


def rate(step: int, steps: int) -> float:
    """Share of the full learning rate: a short rise, level, then down in a line to almost nothing."""
    rise, fall = 60, int(steps * 0.6)
    return min((step + 1) / rise, 1.0, max((steps - step) / fall, 0.01))


def grown(weights: dict[str, Tensor], more: int, noise: float = 0.01) -> dict[str, Tensor]:
    """Give so many of the tokens that were `unseen` rows of their own, which begin as copies of its row."""
    table = weights["embedding.weight"]
    rows = table[-1:].repeat(more, 1) + noise * torch.randn(more, table.shape[1])
    return {**weights, "embedding.weight": torch.cat([table[:-1], rows, table[-1:]])}


def first(run: Run) -> Demo:
    """The network as the run finds it."""
    network = Demo(CONFIG, len(run.kept))
    if run.start is not None:
        network.load_state_dict(run.start)
    return network


def train(rank: int, run: Run) -> None:
    """Train on this worker's dialogues, meeting the others every `MEET` steps. Rank 0 reports and saves."""
    torch.manual_seed(run.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if run.workers > 1:
        torch.set_num_threads(1)
        distributed.init_process_group("gloo", init_method=f"file://{run.meeting}", rank=rank, world_size=run.workers)
    vocabulary, subjects = Vocabulary(run.kept), Subjects()
    network = first(run).to(device)
    hint = nn.Linear(CONFIG.dim, subjects.count).to(device)
    tools = optimisers(network, hint)
    full = [[group["lr"] for group in tool.param_groups] for tool in tools]
    stream = batches(run.seed + 1_000 * rank, run.size, vocabulary, subjects)
    points, read, start = [], 0, time.monotonic()
    for step, made in zip(range(run.steps), stream, strict=False):
        for tool, rates in zip(tools, full, strict=True):
            for group, top in zip(tool.param_groups, rates, strict=True):
                group["lr"] = run.peak * top * rate(step, run.steps)
        batch = Batch(made.rows.to(device), made.written.to(device), made.subjects.to(device))
        with torch.autocast(device, torch.bfloat16):
            words, subject = losses(network, hint, batch)
        (words + HINT * subject).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for tool in tools:
            tool.step()
            tool.zero_grad()
        last = step == run.steps - 1
        if run.workers > 1 and (step % MEET == MEET - 1 or last):
            average([*network.parameters(), *hint.parameters()], run.workers)
        read += batch.rows.numel() * run.workers
        if rank == 0 and (step % 20 == 0 or last):
            points.append((step, words.item()))
            spent = time.monotonic() - start
            shown = f"step {step} loss {words.item():.4f} subject {subject.item():.4f}"
            print(f"{shown} {read / spent:.0f} tokens/s {spent:.0f} s", flush=True)
        if rank == 0 and (step % 100 == 99 or last):
            dialogues = (step + 1) * run.size * run.workers
            save(network, vocabulary, {"seed": run.seed, "steps": step + 1, "dialogues": dialogues}, run.out)
    if rank == 0 and run.curve:
        draw(points, run.curve)


@torch.no_grad()
def average(weights: list[Tensor], workers: int) -> None:
    """Replace every worker's weights by their mean."""
    flat = torch.cat([weight.flatten() for weight in weights])
    distributed.all_reduce(flat)
    flat /= workers
    at = 0
    for weight in weights:
        weight.copy_(flat[at : at + weight.numel()].view_as(weight))
        at += weight.numel()


def save(network: Demo, vocabulary: Vocabulary, facts: dict[str, int], out: Path) -> None:
    """Weights, which token each row is, and how they came about."""
    out.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    torch.save({"config": asdict(CONFIG), "kept": vocabulary.kept, "weights": weights, "facts": facts}, out)


def draw(points: list[tuple[int, float]], target: Path) -> None:
    """The loss curve as a picture."""
    figure = Figure(figsize=(7, 3.5))
    axes = figure.subplots()
    axes.plot([step for step, _ in points], [loss for _, loss in points], linewidth=1)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per answer token)")
    axes.set_title("cierzo-demo: training loss")
    figure.tight_layout()
    figure.savefig(target, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("--steps", type=int, default=5400)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each; 1 with a GPU")
    parser.add_argument("--out", type=Path, default=Path("training/out/demo.pt"))
    parser.add_argument("--curve", type=Path)
    parser.add_argument("--start", type=Path, help="go on from the weights of an earlier run")
    parser.add_argument("--peak", type=float, default=1.0, help="share of the full learning rate at its highest")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    begun = torch.load(arguments.start, weights_only=True) if arguments.start else None
    kept = make_vocabulary(arguments.seed).kept
    weights = None
    if begun:
        more = sorted(set(kept) - set(begun["kept"]))
        kept, weights = begun["kept"] + more, grown(begun["weights"], len(more))
    print(f"{CONFIG.parameters} parameters, {len(kept)} tokens with their own row", flush=True)
    workers = 1 if torch.cuda.is_available() else arguments.workers
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        run = Run(
            steps=arguments.steps,
            seed=arguments.seed,
            size=arguments.batch,
            workers=workers,
            kept=kept,
            meeting=meeting,
            out=arguments.out,
            curve=arguments.curve,
            start=weights,
            peak=arguments.peak,
        )
        if workers == 1:
            train(0, run)
        else:
            torch.multiprocessing.spawn(train, args=(run,), nprocs=workers)


if __name__ == "__main__":
    main()
