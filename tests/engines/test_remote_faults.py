"""Every engine that is a server elsewhere, against a server that does everything wrong: see `misbehaviour`.

Each case ends in the right answer or in a typed error with the next step in words; what was said before stays; nothing
is asked again once a token has come; time and bytes are bounded; and no other host hears anything.
"""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

import pytest
from fault_server import ANSWER, BEGUN, DIALECTS, KEY, REPOSITORY, Dialect, Exchange, FaultServer
from misbehaviour import CASES, MEETINGS, Case

from cierzo.engines.base import Engine, orderly
from cierzo.engines.hub import Hub
from cierzo.engines.llamaserver import LlamaServer
from cierzo.engines.openai import OpenAI
from cierzo.engines.remote import Patience
from cierzo.engines.tgi import Tgi
from cierzo.errors import CierzoError, Overloaded
from cierzo.messages import Finish, Message, Sampling, Token
from cierzo.prompt import build

PATIENCE = Patience(connect=2.0, first=1.5, between=1.5, back_off=0.01)
PROMPT = build([Message("user", "What blows over Zaragoza?")], "v3", context=4096)
SAMPLING = Sampling(max_new_tokens=64, seed=7, alternatives=2)
LONGEST = 30.0
"""Seconds for one case while others run beside it."""

AT_ONCE = 12

MAKERS: dict[str, Callable[[str], Engine]] = {
    "openai, ids": lambda url: OpenAI(f"openai+{url}?takes=ids", KEY, template="v3", patience=PATIENCE),
    "openai, text": lambda url: OpenAI(f"openai+{url}/v1?takes=text", KEY, template="v3", patience=PATIENCE),
    "openai, messages": lambda url: OpenAI(f"openai+{url}?takes=messages", KEY, patience=PATIENCE),
    "hub": lambda url: Hub(f"hf://{REPOSITORY}?provider=together", KEY, hub=url, router=url, patience=PATIENCE),
    "tgi": lambda url: Tgi(f"tgi+{url}", KEY, template="v3", patience=PATIENCE),
    "llamacpp": lambda url: LlamaServer(f"llamacpp+{url}", KEY, template="v3", patience=PATIENCE),
}

every_engine = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)

FOREIGN = (
    "unexpectedly",
    "Traceback",
    "object has no attribute",
    "StopIteration",
    "JSONDecodeError",
    "aiohttp",
    "httpx",
    "not supported for task",
    "object at 0x",
)


@dataclass
class Outcome:
    """What a person saw of a case, and what the server did."""

    text: str
    error: BaseException | None
    seconds: float
    asked: int
    sent: int
    elsewhere: int


async def run(
    case: Case,
    dialect: Dialect,
    make: Callable[[str], Engine],
    *,
    meeting: bool = False,
    sampling: Sampling = SAMPLING,
) -> Outcome:
    """Ask for one answer of a server that does what the case says."""
    async with FaultServer(dialect, well) as other:
        there = FaultServer(dialect, well if meeting else case.act, case.act if meeting else None, other.url)
        async with there as server:
            engine = make(server.url)
            began, said, error, ended = time.monotonic(), [], None, False
            try:
                async with asyncio.timeout(LONGEST), aclosing(orderly(engine.stream(PROMPT, sampling))) as events:
                    async for event in events:
                        assert not ended, "nothing follows the finish"
                        said += [event.text] if isinstance(event, Token) else []
                        ended = isinstance(event, Finish)
            except (CierzoError, TimeoutError) as raised:
                error = raised
            seconds = time.monotonic() - began
            assert await server.alone(), "the server was told that nobody listens any more"
            assert server.broken is None, f"the fault itself failed: {server.broken!r}"
            await engine.close()
            exchanges = [*server.exchanges, *server.others]
            sent = max((exchange.sent for exchange in exchanges), default=0)
            return Outcome("".join(said), error, seconds, server.asked, sent, len(other.requests))


async def well(to: Exchange) -> None:
    await to.head(chunked=True)
    await to.body(to.whole())
    await to.over()


def complaint(case: Case, seen: Outcome) -> str:
    """Say what is wrong with what came of a case; nothing if it is as it must be."""
    wrong = {
        f"another host heard {seen.elsewhere} requests": seen.elsewhere > 0,
        f"it did not end within {LONGEST:g} s": isinstance(seen.error, TimeoutError),
        f"it ended well, with {seen.text[:80]!r}": case.end == "fails" and seen.error is None,
        f"it failed: {seen.error}": case.end == "right" and seen.error is not None,
        f"what was said is {seen.text[:80]!r}": not _is_said(case, seen.text),
        f"these are no words for a person: {seen.error!s:.300}": not _is_for_a_person(seen.error),
        f"the server was asked {seen.asked} times": seen.asked > case.asked,
        f"{seen.sent:,} bytes were taken": seen.sent > case.sent,
    }
    return next((words for words, is_so in wrong.items() if is_so), "")


def _is_said(case: Case, text: str) -> bool:
    if case.open:  # nothing but text may become text
        return not any(other in text for other in ("None", "7", "[", "{"))
    return case.said.startswith(text) if case.end == "either" else text == case.said


def _is_for_a_person(error: BaseException | None) -> bool:
    """Whether a sentence says what happened and what to do, on one line, without foreign names and without the key."""
    words = str(error)
    if not isinstance(error, CierzoError):
        return True
    if isinstance(error, Overloaded) and not 0 <= error.retry_after <= 3600:
        return False
    foreign = any(name in words for name in (*FOREIGN, KEY))
    return words.isprintable() and ": " in words and len(words) < 700 and not foreign


async def all_of(cases: list[Case], dialect: Dialect, *, meeting: bool = False) -> list[str]:
    """Run cases side by side; return a line for each that went wrong."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case) -> str:
        async with room:
            try:
                seen = await run(case, dialect, MAKERS[dialect.name], meeting=meeting)
                said = complaint(case, seen)
            except Exception as error:  # noqa: BLE001 - an engine may raise anything, and the other cases go on
                said = f"{type(error).__name__}: {error}"
            return said and f"{case.name}: {said}"

    lines = await asyncio.gather(*map(one, cases))
    print(f"{dialect.name}: {len(cases)} {'ways to be met' if meeting else 'ways to answer'}")
    return [line for line in lines if line]


@every_engine
async def test_whatever_a_server_does_with_an_answer(dialect: Dialect) -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 100
    wrong = await all_of(CASES, dialect)
    assert not wrong, "\n".join(wrong)


@every_engine
async def test_whatever_a_server_says_of_itself(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cierzo.engines.llamaserver.LOADS_WITHIN", 0.5)
    monkeypatch.setattr("cierzo.engines.llamaserver.ARRIVES_WITHIN", 0.5)
    wrong = await all_of(MEETINGS, dialect, meeting=True)
    assert not wrong, "\n".join(wrong)


@every_engine
async def test_what_floods_takes_little_memory(dialect: Dialect) -> None:
    names = ("40 MB of: HTML", "a line of 40 mb", "a gzip bomb")
    floods = [case for case in CASES if case.name in names]
    assert len(floods) == 3
    await run(replace(floods[0], act=well), dialect, MAKERS[dialect.name])  # what is imported and kept is no matter
    gc.collect()
    tracemalloc.start()
    try:
        for case in floods:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            await run(case, dialect, MAKERS[dialect.name])
            assert tracemalloc.get_traced_memory()[1] - before < 24 * 2**20, case.name
    finally:
        tracemalloc.stop()


@every_engine
async def test_a_line_is_bounded_however_long_the_answer_may_be(dialect: Dialect) -> None:
    """Of an answer of 4,000 tokens more bytes may come than of a line; an event of many lines counts as one."""
    for case in (case for case in CASES if case.name in ("a line of 40 mb", "an event of many lines")):
        long = replace(SAMPLING, max_new_tokens=4000)
        seen = await run(case, dialect, MAKERS[dialect.name], sampling=long)
        assert not complaint(case, seen), case.name


@every_engine
async def test_who_stops_reading_ends_the_request(dialect: Dialect) -> None:
    """Both ways: by closing the stream, and by cancelling the task that reads it."""
    case = next(case for case in CASES if case.name == "silence in the middle")
    for cancel in (False, True):
        async with FaultServer(dialect, case.act) as server:
            engine = MAKERS[dialect.name](server.url)
            stream = engine.stream(PROMPT, SAMPLING)
            said = []

            async def read(stream=stream, said=said) -> None:
                async for event in stream:
                    said.extend([event.text] if isinstance(event, Token) else [])

            task = asyncio.create_task(read())
            async with asyncio.timeout(LONGEST):
                while "".join(said) != BEGUN:  # noqa: ASYNC110 - a list tells nobody
                    await asyncio.sleep(0.002)
            if cancel:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            else:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await stream.aclose()
            began = time.monotonic()
            assert await server.alone()
            assert time.monotonic() - began < 1
            await engine.close()


@every_engine
async def test_closing_the_engine_ends_its_streams(dialect: Dialect) -> None:
    case = next(case for case in CASES if case.name == "silence in the middle")
    async with FaultServer(dialect, case.act) as server:
        engine = MAKERS[dialect.name](server.url)

        async def read() -> str:
            said = ""
            try:
                async for event in orderly(engine.stream(PROMPT, SAMPLING)):
                    said += event.text if isinstance(event, Token) else ""
            except CierzoError as error:
                return f"{said}|{type(error).__name__}"
            return said

        task = asyncio.create_task(read())
        async with asyncio.timeout(LONGEST):
            while not server.exchanges or server.exchanges[0].sent < 500:  # noqa: ASYNC110
                await asyncio.sleep(0.002)
            await asyncio.sleep(0.05)
            await engine.close()
            await engine.close()
            assert await task == f"{BEGUN}|EngineDied"
        assert ANSWER.startswith(BEGUN)
