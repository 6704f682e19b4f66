"""A turn: views no faster than a page can show them, and an engine that is free however it ends."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

import pytest

from cierzo.chat import Chat
from cierzo.engines.script import Reply, Step, Wait, cut
from cierzo.engines.scripted import Scripted
from cierzo.errors import EngineDied, EngineError, PromptTooLong
from cierzo.messages import Message, Phase, Prompt, Sampling
from cierzo.page.turn import CLOCK, FASTEST, TOGETHER, Turn, View

QUESTION = [Message("user", "hola")]


async def views_of(turn: Turn) -> list[View]:
    async with aclosing(turn.views()) as views:
        return [view async for view in views]


async def test_many_tokens_make_few_views_and_lose_nothing() -> None:
    text = "palabra " * 500
    scripted = Scripted(Reply.of(text, delay=0.001))
    views = await views_of(Turn(Chat(scripted), QUESTION, Sampling(max_new_tokens=1000)))
    assert len(views) <= views[-1].seconds / FASTEST + 2
    assert [view.over for view in views] == [False] * (len(views) - 1) + [True]
    assert all(views[-1].text.startswith(view.text) for view in views)
    last = views[-1]
    assert (last.text, last.tokens, last.error, last.stopped) == (text, len(cut(text)), None, False)
    assert last.finish is not None
    assert last.finish.reason == "eos_token"
    assert (scripted.running, Turn.running) == (0, 0)


async def test_the_clock_goes_on_while_nothing_happens() -> None:
    turn = Turn(Chat(Scripted(Reply.of([Phase("loading", 40, 100), Wait()]))), QUESTION, Sampling())
    async with aclosing(turn.views()) as views:
        seen = [await anext(views) for _ in range(3)]
    assert [view.phase for view in seen] == [Phase("loading", 40, 100)] * 3
    assert seen[2].seconds - seen[0].seconds >= CLOCK


@pytest.mark.parametrize("steps", [["uno ", "dos ", Wait()], [Phase("reading", 5, 10), Wait()]], ids=["text", "phase"])
async def test_stop_keeps_what_was_written(steps: list[Step | str]) -> None:
    scripted = Scripted(Reply.of(steps))
    turn = Turn(Chat(scripted), QUESTION, Sampling())
    seen = []
    async with aclosing(turn.views()) as views:
        async for view in views:
            seen.append(view)
            turn.stop()
    assert seen[-1].over
    assert seen[-1].stopped
    assert seen[-1].error is None
    assert seen[-1].text == "".join(step for step in steps if isinstance(step, str))
    assert scripted.running == 0


async def test_stop_before_it_began_asks_nothing() -> None:
    scripted = Scripted("nunca")
    turn = Turn(Chat(scripted), QUESTION, Sampling())
    turn.stop()
    assert [view.stopped for view in await views_of(turn)] == [True]
    assert not scripted.asked


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_whichever_way_it_ends_the_engine_is_free(how: str) -> None:
    scripted = Scripted(Reply.of("y sigue ", delay=0.01, repeat=True))
    turn = Turn(Chat(scripted), QUESTION, Sampling())
    if how == "close":
        views = turn.views()
        await anext(views)
        assert scripted.running == 1
        await views.aclose()
    else:
        task = asyncio.create_task(views_of(turn))
        await asyncio.sleep(0.2)
        assert scripted.running == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (scripted.running, Turn.running) == (0, 0)


async def test_errors_are_views_and_keep_what_was_written() -> None:
    scripted = Scripted(Reply.of(["uno ", EngineDied("it ended: ask again")]))
    last = (await views_of(Turn(Chat(scripted), QUESTION, Sampling())))[-1]
    assert last.text == "uno "
    assert str(last.error) == "it ended: ask again"
    long = [Message("user", "palabra " * 20_000)]
    last = (await views_of(Turn(Chat(scripted), long, Sampling())))[-1]
    assert isinstance(last.error, PromptTooLong)


async def test_a_fault_of_our_own_is_a_sentence_and_a_trace_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Chat):
        async def prompt(self, *_: object, **__: object) -> Prompt:
            raise RuntimeError("a secret detail")

    with caplog.at_level(logging.ERROR):
        (last,) = await views_of(Turn(Broken(Scripted()), QUESTION, Sampling()))
    assert isinstance(last.error, EngineError)
    assert "secret" not in str(last.error)
    assert "a secret detail" in caplog.text


async def test_what_the_window_left_out_is_counted() -> None:
    messages = [Message("user", "palabra " * 2500), Message("assistant", "bien"), Message("user", "palabra " * 2500)]
    last = (await views_of(Turn(Chat(Scripted("ya")), messages, Sampling())))[-1]
    assert last.dropped == 2


async def test_many_at_once_share_the_pace() -> None:
    scripted = Scripted(Reply.of("y sigue ", delay=0.002, repeat=True))
    turns = [Turn(Chat(scripted), QUESTION, Sampling(max_new_tokens=300)) for _ in range(40)]
    seen = await asyncio.gather(*[views_of(turn) for turn in turns])
    assert {views[-1].tokens for views in seen} == {300}
    assert len({views[-1].text for views in seen}) == 1
    interval = len(turns) / TOGETHER
    assert interval > 3 * FASTEST
    most = max(len(views) / (views[-1].seconds / interval + 2) for views in seen)
    assert most < 1.5, "each took more than its share"  # the last ones may go faster, when others have ended
    assert Turn.running == 0
