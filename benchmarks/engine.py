"""What the embedded engine costs: tokens per second that a caller sees over those that llama.cpp itself reports.

Run ``python benchmarks/engine.py``. It writes a Mistral-7B-shaped model of random weights (4.1 GB, removed at the
end) and uses the built-in model besides. Every figure is a ratio within this run, so a slow or busy machine changes
it little. Exit status 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import gguf
import synthetic

from cierzo.catalog import DEMO, Model, find
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.messages import Finish, Phase, Piece, Prompt, Sampling
from cierzo.settings import default_home

SEVEN_B_BYTES = 4_600_000_000
QUESTIONS = 24
"""Answers of the demo model are short; so many make a figure."""


@dataclass(frozen=True)
class Row:
    what: str
    bar: str
    measured: str
    good: bool


def prompt_of(ids: list[int]) -> Prompt:
    return Prompt((Piece("", tuple(ids), control=False),), "v3", leading_space=True)


def noise(count: int, seed: int) -> Prompt:
    return prompt_of([1, 3, *((n * 7919 + seed * 104_729) % 28_000 + 2000 for n in range(count)), 4])


async def ask(engine: LlamaCpp, prompt: Prompt, sampling: Sampling) -> Finish:
    finish = None
    async for event in engine.stream(prompt, sampling):
        finish = event
    assert isinstance(finish, Finish)
    return finish


async def ratio(engine: LlamaCpp, prompts: list[Prompt], sampling: Sampling) -> tuple[float, float]:
    """Return seen over reported, and the rate seen. Tokens after the first count, as both clocks start with it."""
    tokens = seen = reported = 0.0
    for prompt in prompts:
        finish = await ask(engine, prompt, sampling)
        if finish.answer_tokens > 2 and finish.timings.engine_rate:
            tokens += finish.answer_tokens - 1
            seen += finish.timings.decode
            reported += (finish.answer_tokens - 1) / finish.timings.engine_rate
    return reported / seen, tokens / seen


async def total(engine: LlamaCpp, prompts: list[Prompt], sampling: Sampling, at_once: int) -> float:
    """Tokens per second of wall time when ``at_once`` readers share the prompts."""
    waiting = iter(prompts)

    async def reader() -> int:
        return sum([(await ask(engine, prompt, sampling)).answer_tokens for prompt in waiting])

    began = time.perf_counter()
    tokens = sum(await asyncio.gather(*[reader() for _ in range(at_once)]))
    return tokens / (time.perf_counter() - began)


async def cancelled(engine: LlamaCpp, prompt: Prompt) -> float:
    """Leave while the prompt is read; return how long the next answer's first sign took."""
    async with contextlib.aclosing(engine.stream(prompt, Sampling(max_new_tokens=4))) as stream:
        async for event in stream:
            if isinstance(event, Phase) and event.name == "reading" and event.done > 0:
                break
    left = time.perf_counter()
    while any(slot.busy for slot in engine._slots.slots):  # noqa: ASYNC110, SLF001 - there is no public sign of it
        await asyncio.sleep(0.005)
    return time.perf_counter() - left


async def demo(model: Model) -> list[Row]:
    rows = []
    engine = LlamaCpp(model)
    plain = Sampling(max_new_tokens=120, seed=1)
    with_five = Sampling(max_new_tokens=120, seed=1, alternatives=5)
    prompts = [noise(12, seed) for seed in range(QUESTIONS)]
    try:
        await ratio(engine, prompts[:4], plain)
        for name, sampling in (("", plain), (", 5 alternatives per token", with_five)):
            value, rate = await ratio(engine, prompts, sampling)
            rows.append(Row(f"demo model{name}", ">= 0.75", f"{value:.3f} ({rate:.0f} tokens/s)", value >= 0.75))
        one = await total(engine, prompts, plain, 1)
        four = await total(engine, prompts, plain, 4)
        said = f"{four / one:.2f} ({one:.0f}, {four:.0f} tokens/s)"
        rows.append(Row("demo model, four answers at once over one", ">= 1.3", said, four / one >= 1.3))
    finally:
        await engine.close()
    return rows


async def large(model: Model) -> list[Row]:
    rows, name = [], model.name
    engine = LlamaCpp(model)
    try:
        first = await ask(engine, noise(4, 0), Sampling(max_new_tokens=2))
        print(f"{name}: loaded in {first.timings.load:.1f} s")
        for what, five in (("", 0), (", 5 alternatives per token", 5)):
            sampling = Sampling(temperature=0, max_new_tokens=24, alternatives=five)
            value, rate = await ratio(engine, [noise(8, 1 + five)], sampling)
            rows.append(Row(f"{name}{what}", ">= 0.95", f"{value:.3f} ({rate:.2f} tokens/s)", value >= 0.95))
        gone = await cancelled(engine, noise(1500, 3))
        rows.append(Row(f"{name}, slot free after leaving a prompt half read", "<= 1 s", f"{gone:.2f} s", gone <= 1))
    finally:
        await engine.close()
    return rows


def table(rows: list[Row]) -> int:
    """Print the rows; return the exit status."""
    width = max(len(row.what) for row in rows)
    for row in rows:
        print(f"{row.what:{width}}  {row.bar:>8}  {row.measured:24}  {'PASS' if row.good else 'FAIL'}")
    return 0 if all(row.good for row in rows) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a model of 245 MB instead of the 7B shape")
    parser.add_argument("--model", help="another small model than the built-in one: its GGUF file")
    args = parser.parse_args()
    rows = asyncio.run(demo(find(args.model or DEMO, default_home())))
    with tempfile.TemporaryDirectory(prefix="cierzo-bench-") as folder:
        if args.small:
            shape, kind, name = synthetic.MID, gguf.GGMLQuantizationType.Q8_0, "245 MB Q8_0"
        else:
            shape, kind, name = synthetic.MISTRAL_7B, gguf.GGMLQuantizationType.Q4_0, "7B-shaped Q4_0"
            if shutil.disk_usage(folder).free < SEVEN_B_BYTES:
                print(f"{folder} has no room for {SEVEN_B_BYTES / 1e9:.1f} GB: set TMPDIR, or say --small")
                return 1
        began = time.perf_counter()
        path = synthetic.write(Path(folder) / "bench.gguf", shape, quantisation=kind)
        print(f"{name}: {path.stat().st_size / 1e9:.2f} GB written in {time.perf_counter() - began:.0f} s")
        model = Model(name, name, "v3", 2048, path=path, size=path.stat().st_size, kv_bytes=shape.kv_bytes)
        rows += asyncio.run(large(model))
    return table(rows)


if __name__ == "__main__":
    sys.exit(main())
