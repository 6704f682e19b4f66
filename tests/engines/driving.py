"""Prompts for models of random weights, how to read a stream, and the processes that an engine has."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import synthetic

from cierzo.catalog import Model
from cierzo.messages import Finish, Phase, Piece, Prompt, Sampling, Token

SLOW = synthetic.Shape(layers=6, width=512, heads=8, kv_heads=4, hidden=1536, context=8192, tied=True)
"""Slow enough for something to happen while it reads a prompt of thousands of tokens."""


OTHERS = set()
"""Processes of an engine that other files' tests share; it was there before the first test of the file that runs."""


def prompt_of(*ids, leading_space=False):
    return Prompt((Piece("", tuple(ids), control=False),), "v3", leading_space=leading_space)


def model_of(path, shape=synthetic.TINY, **changes):
    values = {"context": shape.context, "kv_bytes": shape.kv_bytes, "size": path.stat().st_size} | changes
    return Model(path.stem, path.stem, "v3", path=path, **values)


async def everything(stream):
    """Read a stream to its end: phases, tokens, finish."""
    async with contextlib.aclosing(stream):
        events = [event async for event in stream]
    phases = [event for event in events if isinstance(event, Phase)]
    tokens = [event for event in events if isinstance(event, Token)]
    assert isinstance(events[-1], Finish)
    assert events == [*phases, *tokens, events[-1]], "phases, then tokens, then one finish"
    assert events[-1].answer_tokens == len(tokens)
    return phases, tokens, events[-1]


async def first_token(stream):
    async for event in stream:
        if isinstance(event, Token):
            return event
    raise AssertionError("no token came")


async def until(condition):
    while not condition():  # noqa: ASYNC110 - what is waited for is in another process or tells nobody
        await asyncio.sleep(0.002)


def greedy(count, **more):
    return Sampling(temperature=0, max_new_tokens=count, **more)


def our_children():
    """Processes below this one that run the child's file, but for those of other tests' engines."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process not in OTHERS and any(part.endswith("child.py") for part in process.cmdline()):
                found.append(process)
    return found
