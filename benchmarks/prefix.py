"""How much of a conversation is read again with every turn.

Run ``python benchmarks/prefix.py``. Turn 10 of a chat has to read its own new tokens and at most eight more, alone
and when chats that share a system prompt take turns. These are counts, not times. Exit status 1 if a bar is missed.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from pathlib import Path

import synthetic
from engine import Row, prompt_of, table

from cierzo.catalog import Model
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.messages import Sampling, Token

BAR = 8
TURNS = 10


def words(count: int, seed: int) -> list[int]:
    dice = random.Random(seed)
    return [dice.randrange(2000, 30_000) for _ in range(count)]


async def talk(model: Model, chats: int, system: int, question: int) -> Row:
    """Let chats take turns; report the most tokens that any turn after the first read beyond its own."""
    engine = LlamaCpp(model)
    head = [1, 3, *words(system, 0)]
    said = {chat: [*head, *words(question, 1 + chat), 4] for chat in range(chats)}
    worst = 0
    try:
        for turn in range(TURNS):
            for chat, ids in said.items():
                answer, finish = [], None
                async for event in engine.stream(prompt_of(ids), Sampling(temperature=0, max_new_tokens=16)):
                    if isinstance(event, Token):
                        answer.append(event.id)
                    finish = event
                new = [2, 3, *words(question, 100 * turn + chat), 4]
                if turn:
                    worst = max(worst, finish.prompt_tokens - finish.cached_tokens - len(new))
                said[chat] = ids + answer + new
    finally:
        await engine.close()
    what = f"{chats} chats" if chats > 1 else "one chat"
    name = f"{what}, system prompt of {system} tokens, turns of {question}: read beyond the new turn"
    return Row(name, f"<= {BAR}", f"{worst} tokens", worst <= BAR)


async def all_rows(model: Model) -> list[Row]:
    cases = [(1, 200, 30), (2, 200, 30), (2, 20, 100), (2, 400, 8), (7, 200, 30)]
    return [await talk(model, *case) for case in cases]


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="cierzo-bench-") as folder:
        path, shape = synthetic.write(Path(folder) / "tiny.gguf"), synthetic.TINY
        model = Model("tiny", "tiny", "v3", shape.context, path=path, size=path.stat().st_size, kv_bytes=shape.kv_bytes)
        return table(asyncio.run(all_rows(model)))


if __name__ == "__main__":
    sys.exit(main())
