"""What n-gram speculation gains: tokens per second with it over without it, one answer alone and four at once.

Run ``python benchmarks/speculation.py``. Two tasks: *edit* says a text of 200 tokens again with every 25th replaced,
and *chat* says 200 new tokens, among which at each 25th place come four that the question had too, where they went
on otherwise, so that each such place is guessed wrongly. The demo model cannot edit a text, and no other model is at
hand. So both tasks are done by models whose answers are known beforehand (``follows`` in `synthetic`): they compute
what a network of their shape computes and have its speed, but what share of guesses is right is decided here and not
by a model. The demo model chats besides, with its own answers. Arms take turns within one run; the table has ratios
of medians.

One thread computes, and what counts is the processor time of the engine's process, which other programs on a busy
machine do not lengthen. With one thread it is the time that a person waits on an idle machine.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import synthetic

from cierzo.catalog import DEMO, Model, find
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.engines.options import Options
from cierzo.messages import Finish, Message, Piece, Prompt, Sampling, Token
from cierzo.prompt import build
from cierzo.settings import default_home

LENGTH, EVERY, SHARED = 200, 25, 4
FIRST = 2000
"""Below are control and byte tokens."""

SMALL = synthetic.Shape(layers=6, width=512, heads=8, kv_heads=4, hidden=1536, context=4096)
QUESTIONS = (
    "What is temperature?",
    "How do I stop an answer?",
    "What are logprobs?",
    "Where are my conversations kept?",
    "What is the KV cache?",
    "Tell me about yourself.",
    "What does top-p do?",
    "How do I use another model?",
)


@dataclass(frozen=True)
class Task:
    """What is asked, by turns, and the answer where it is known."""

    name: str
    prompts: list[Prompt]
    sampling: Sampling
    answer: tuple[int, ...] = ()


KNOWN = Sampling(temperature=0, max_new_tokens=LENGTH)


def prompt_of(ids: list[int]) -> Prompt:
    return Prompt((Piece("", (1, 3, *ids, 4), control=False),), "v3", leading_space=True)


def edit() -> Task:
    """Say the question's text again, every 25th token replaced."""
    text = list(range(FIRST, FIRST + LENGTH))
    new = [token + LENGTH if n % EVERY == EVERY - 1 else token for n, token in enumerate(text)]
    return Task("edit", [prompt_of(text)], KNOWN, tuple(new))


def chat() -> Task:
    """Say new things; every 25 tokens four come that the question had, followed there by something else."""
    answer = list(range(FIRST, FIRST + LENGTH))
    asked: list[int] = []
    for n in range(0, LENGTH, EVERY):
        asked += [*answer[n : n + SHARED], *range(FIRST + 2 * LENGTH + 20 * n, FIRST + 2 * LENGTH + 20 * n + 12)]
    return Task("chat", [prompt_of(asked)], KNOWN, tuple(answer))


def model(folder: Path, shape: synthetic.Shape, task: Task) -> Model:
    """Write the model that does this task."""
    follows = dict(zip((4, *task.answer), (*task.answer, 2), strict=True))
    path = synthetic.write(folder / f"{task.name}.gguf", shape, follows=follows)
    size = path.stat().st_size
    return Model(task.name, f"{size / 1e6:.0f} MB", "v3", 4096, path=path, size=size, kv_bytes=shape.kv_bytes)


async def ask(engine: LlamaCpp, prompt: Prompt, sampling: Sampling) -> tuple[list[int], Finish]:
    ids, finish = [], None
    async for event in engine.stream(prompt, sampling):
        if isinstance(event, Token):
            ids.append(event.id)
        finish = event
    assert isinstance(finish, Finish)
    return ids, finish


def spent(engine: LlamaCpp) -> float:
    """Seconds of processor time that the engine's process has taken."""
    running = engine._supervisor.current  # noqa: SLF001 - nothing else needs to know
    assert running is not None
    assert running.engine is not None
    times = running.engine.cpu_times()
    return times.user + times.system


async def rate(engine: LlamaCpp, prompts: list[Prompt], task: Task) -> float:
    """Tokens per second of processor time, for prompts that are asked at once."""
    began = spent(engine)
    answers = await asyncio.gather(*(ask(engine, prompt, task.sampling) for prompt in prompts))
    took = spent(engine) - began
    for ids, _ in answers:
        assert not task.answer or tuple(ids) == task.answer, "an answer is not the known one"
    return sum(finish.answer_tokens for _, finish in answers) / took


async def compare(engine_model: Model, task: Task, rounds: int) -> list[str]:
    """Measure one task: alone and four at once, without, with guessing in as many slots, and with it in one slot."""
    arms = {
        "off": LlamaCpp(engine_model, slots=4, threads=1),
        "ngram": LlamaCpp(engine_model, slots=4, threads=1, options=Options(speculation=True)),
        "ngram, one slot": LlamaCpp(engine_model, slots=1, threads=1, options=Options(speculation=True)),
    }
    arms["ngram"]._count = 4  # noqa: SLF001 - an engine that guesses takes one slot, and here is measured why
    seen: dict[tuple[str, int], list[float]] = {}
    try:
        for engine in arms.values():  # the first answers read the file and the question
            await asyncio.gather(*(ask(engine, task.prompts[n % len(task.prompts)], task.sampling) for n in range(4)))
        for turn in range(rounds):
            for name, engine in arms.items():
                for at_once in (1, 4):
                    asked = [task.prompts[(turn + n) % len(task.prompts)] for n in range(at_once)]
                    seen.setdefault((name, at_once), []).append(await rate(engine, asked, task))
    finally:
        for engine in arms.values():
            await engine.close()
    typical = {key: statistics.median(values) for key, values in seen.items()}
    rows = []
    what = f"{task.name}, {engine_model.title}"
    for at_once in (1, 4):
        off, on, one = (typical[name, at_once] for name in arms)
        rows.append(f"| {what} | {at_once} | {off:.0f} | {on:.0f} ({on / off:.2f}) | {one:.0f} ({one / off:.2f}) |")
    return rows


async def everything(folder: Path, rounds: int) -> None:
    """Print the table, row by row."""
    for shape in (SMALL, synthetic.MID):
        for task in (edit(), chat()):
            made = model(folder, shape, task)
            print(*await compare(made, task, rounds), sep="\n", flush=True)
            assert made.path is not None
            made.path.unlink()
    demo = find(DEMO, default_home())
    if demo.path is not None:
        prompts = [build([Message("user", question)], "v3", context=demo.context) for question in QUESTIONS]
        task = Task("free chat", prompts, Sampling(seed=1))
        print(*await compare(replace(demo, title="demo model"), task, 8 * rounds), sep="\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print("| task, model | answers at once | off | ngram | ngram, one slot |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="cierzo-bench-") as folder:
        asyncio.run(everything(Path(folder), args.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
