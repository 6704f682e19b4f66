"""How long an engine may be silent, whoever reads it and however slowly."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest

from cierzo.engines.base import orderly
from cierzo.engines.script import Reply, Wait
from cierzo.engines.scripted import Scripted
from cierzo.errors import EngineDied
from cierzo.messages import Finish, Sampling, Token
from cierzo.prompt import raw


def stream(engine, silence):
    return orderly(engine.stream(raw("Hi", "v3", context=512), Sampling()), silence=silence)


async def test_only_one_silence_counts_and_not_all_together():
    async with aclosing(stream(Scripted(Reply.of(["a"] * 12, delay=0.1)), 0.6)) as events:
        assert isinstance([event async for event in events][-1], Finish)


async def test_while_nobody_reads_nothing_is_silent():
    async with aclosing(stream(Scripted(["a", "b"]), 0.2)) as events:
        assert isinstance(await anext(events), Token)
        await asyncio.sleep(0.7)
        assert [type(event) for event in [event async for event in events]] == [Token, Finish]


async def test_a_silence_after_tokens_ends_the_answer_and_not_its_reader():
    engine = Scripted(["a", Wait()])
    for _ in range(2):
        async with aclosing(stream(engine, 0.2)) as events:
            assert isinstance(await anext(events), Token)
            with pytest.raises(EngineDied, match=r"said nothing for 0\.2 seconds"):
                await anext(events)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert engine.running == 0


@pytest.mark.parametrize("silence", [0.05, 600], ids=["when its time is up too", "before"])
async def test_a_reader_that_is_cancelled_is_cancelled(silence):
    engine = Scripted([Wait()])

    async def read():
        async with aclosing(stream(engine, silence)) as events:
            await anext(events)

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    time.sleep(0.1)  # noqa: ASYNC251 - so that both are due when the loop goes on
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert engine.running == 0
