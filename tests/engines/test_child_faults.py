"""The engine's process is killed, stopped and starved at every moment; the parent goes on, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from driving import everything, first_token, greedy, our_children, prompt_of, until
from test_llamacpp import words

import cierzo
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.errors import CierzoError, EngineDied
from cierzo.messages import Phase, Sampling

PROMPT = prompt_of(1, 3, 1098, 4)
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT, signal.SIGSTOP]
WITHIN = 5.0
"""Seconds in which a running stream ends after its engine did."""


def guardian_of(engine):
    return (engine._supervisor.current or engine._supervisor.loading)._guardian.pid


def engine_of(engine):
    return (engine._supervisor.current or engine._supervisor.loading).engine.pid


async def at(engine, moment):
    """Bring the engine to a moment; return the task of a stream that runs then, or None."""
    if moment == "load":
        task = asyncio.create_task(everything(engine.stream(PROMPT, greedy(1))))
        await until(lambda: engine._supervisor.loading and engine._supervisor.loading.engine)
        return task
    await everything(engine.stream(PROMPT, greedy(1)))
    if moment == "idle":
        return None
    prompt = prompt_of(1, 3, *words(7000), 4) if moment == "prefill" else PROMPT
    reached = asyncio.Event()

    async def read():
        async with contextlib.aclosing(engine.stream(prompt, Sampling(max_new_tokens=4000, top_k=40))) as stream:
            async for event in stream:
                if not isinstance(event, Phase) or (moment == "prefill" and event.done > 300):
                    reached.set()

    task = asyncio.create_task(read())
    await reached.wait()
    return task


@pytest.mark.timeout(300)
@pytest.mark.parametrize("victim", ["engine", "guardian"])
@pytest.mark.parametrize("moment", ["load", "prefill", "decode", "idle"])
async def test_a_signal_at_any_moment(slow, short_tmp, victim, moment):
    """Two engines at a time, since most of it is waiting for what a watchdog sees and for the next start."""
    two = asyncio.Semaphore(2)
    cases = []

    async def case(number):
        async with two:
            await strike(slow, victim, moment, number)
        cases.append(number)

    async with asyncio.TaskGroup() as group:
        for number in SIGNALS:
            group.create_task(case(number))
    assert not our_children()
    print(f"{len(cases)} cases")
    assert len(cases) == len(SIGNALS)


async def strike(slow, victim, moment, number):
    """Send one signal to one process at a moment: what runs ends in time, and the engine comes back."""
    engine = LlamaCpp(slow, slots=2)
    try:
        task = await at(engine, moment)
        os.kill(engine_of(engine) if victim == "engine" else guardian_of(engine), number)
        struck = time.monotonic()
        if task is not None and not (victim == "guardian" and number == signal.SIGSTOP):
            async with asyncio.timeout(WITHIN):
                (end,) = await asyncio.gather(task, return_exceptions=True)
            # a load of milliseconds may be over before the signal comes; then the answer is a good one
            assert isinstance(end, CierzoError) or moment == "load", f"{number!r}: {end!r}"
            if moment != "load":
                assert isinstance(end, EngineDied), f"{number!r}: {end!r}"
            assert "\n" not in str(end)
        elif task is not None:  # a stopped guardian does no harm
            task.cancel()
            await asyncio.wait([task])
        ended = time.monotonic() - struck
        await answers_again(engine)
        print(f"{moment}, {victim}, {number.name}: stream ended after {ended:.2f} s")
    finally:
        await engine.close()


async def answers_again(engine):
    """Ask until it answers: right after a death the answer may still go to the dying process."""
    for _ in range(3):
        try:
            async with asyncio.timeout(15):
                return await everything(engine.stream(PROMPT, greedy(2)))
        except EngineDied:
            continue
    raise AssertionError("the engine did not come back")


@pytest.mark.timeout(240)
async def test_twenty_quick_restarts(tiny, short_tmp):
    engine = LlamaCpp(tiny)
    try:
        for _ in range(20):
            await everything(engine.stream(PROMPT, greedy(2)))
            os.kill(engine_of(engine), signal.SIGKILL)
            await until(lambda: engine._supervisor.current is None)
        await everything(engine.stream(PROMPT, greedy(2)))
        assert len(list(short_tmp.iterdir())) == 1
        assert len(our_children()) == 2
    finally:
        await engine.close()
    print("20 restarts")


async def test_it_comes_back_without_being_asked(tiny, short_tmp):
    engine = LlamaCpp(tiny)
    try:
        await everything(engine.stream(PROMPT, greedy(2)))
        before = engine_of(engine)
        os.kill(before, signal.SIGSEGV)
        async with asyncio.timeout(10):
            await until(lambda: engine._supervisor.current is not None and engine_of(engine) != before)
    finally:
        await engine.close()


async def test_several_streams_end_and_the_queue_goes_on(slow, short_tmp):
    engine = LlamaCpp(slow, slots=2)
    try:
        await everything(engine.stream(PROMPT, greedy(1)))
        running = [asyncio.create_task(everything(engine.stream(PROMPT, greedy(3000)))) for _ in range(2)]
        await until(lambda: len(engine._answers) == 2)
        waiting = [asyncio.create_task(everything(engine.stream(PROMPT, greedy(3)))) for _ in range(4)]
        await asyncio.sleep(0.05)
        os.kill(engine_of(engine), signal.SIGKILL)
        ends = await asyncio.gather(*running, return_exceptions=True)
        assert all(isinstance(end, EngineDied) and "SIGKILL" in str(end) for end in ends), ends
        for _, tokens, _ in await asyncio.gather(*waiting):
            assert len(tokens) == 3
    finally:
        await engine.close()


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux can limit another process")
async def test_out_of_memory_while_it_answers(slow, short_tmp):
    """The limit strikes at the next allocation, wherever that is; the next process has no limit."""
    engine = LlamaCpp(slow, slots=2)
    try:
        await everything(engine.stream(PROMPT, greedy(1)))
        held = psutil.Process(engine_of(engine)).memory_info().vms
        resource.prlimit(engine_of(engine), resource.RLIMIT_AS, (held, held))
        prompts = [prompt_of(1, *words(3000, seed=n)) for n in range(3)]
        async with asyncio.timeout(60):  # all of them: who still reads a long prompt would make the next one wait
            ends = await asyncio.gather(
                *[everything(engine.stream(p, greedy(3))) for p in prompts], return_exceptions=True
            )
        assert all(isinstance(end, (tuple, CierzoError)) for end in ends), ends
        print(f"{sum(isinstance(end, CierzoError) for end in ends)} of 3 answers ended with the process")
        await answers_again(engine)
    finally:
        await engine.close()
    assert not our_children()


def oom_score(process):
    score = Path(f"/proc/{process}/oom_score_adj")
    return int(score.read_text()) if score.exists() else None


async def test_the_kernel_prefers_the_engine(tiny, short_tmp):
    engine = LlamaCpp(tiny)
    try:
        await everything(engine.stream(PROMPT, greedy(1)))
        assert oom_score(engine_of(engine)) in (800, None)
        assert os.getsid(engine_of(engine)) != os.getsid(0), "Ctrl+C in the terminal must not reach it"
    finally:
        await engine.close()


PARENT = """
import asyncio, sys
from pathlib import Path
import tempfile
from cierzo.catalog import Model
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.messages import Piece, Prompt, Sampling, Token
tempfile.tempdir = sys.argv[2]

async def main():
    path = Path(sys.argv[1])
    engine = LlamaCpp(Model("m", "m", "v3", 8192, path=path, size=path.stat().st_size, kv_bytes=6144))
    ids = tuple(range(2000, 9000)) if sys.argv[3] == "prefill" else (1, 3, 1098, 4)
    if sys.argv[3] == "load":
        engine.start()
        while not (engine._supervisor.loading and engine._supervisor.loading.engine):
            await asyncio.sleep(0.001)
        print("now", flush=True)
        await asyncio.sleep(60)
    async for event in engine.stream(Prompt((Piece("", ids, False),), "v3"), Sampling(max_new_tokens=4000, top_k=40)):
        if isinstance(event, Token) or (sys.argv[3] == "prefill" and event.done > 300):
            print("now", flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("moment", ["load", "prefill", "decode"])
@pytest.mark.parametrize("stopped", [None, "guardian"])
def test_nothing_is_left_when_the_parent_is_killed(slow, short_tmp, moment, stopped):
    source = Path(cierzo.__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(slow.path), str(short_tmp), moment],
        env=os.environ | {"PYTHONPATH": str(source)},
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"now\n"
        family = psutil.Process(parent.pid).children(recursive=True)
        assert len(family) == 2
        if stopped:
            os.kill(min(process.pid for process in family), signal.SIGSTOP)
        parent.kill()
    _, alive = psutil.wait_procs(family, timeout=8)
    for process in alive:
        process.kill()
    assert not alive
    print(f"parent killed during {moment}, {stopped or 'nothing'} stopped: nothing left")


async def test_a_stream_that_is_read_slowly_is_not_taken_for_a_hung_engine(tiny, short_tmp):
    engine = LlamaCpp(tiny)
    try:
        stream = engine.stream(PROMPT, greedy(500))
        await first_token(stream)
        await asyncio.sleep(6)
        assert engine._supervisor.current is not None
        await stream.aclose()
        await everything(engine.stream(PROMPT, greedy(3)))
    finally:
        await engine.close()
