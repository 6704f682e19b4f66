"""What the engines that are servers cost, over the raw stream of the same server, in one run.

    python benchmarks/engines.py [--rounds 8]

For each: tokens/s of ``engine.stream`` over those of a minimal client that posts the very same request to the very same
server and only counts events; and the time to the first token that the engine adds. Both take turns, so that a slow or
busy machine changes the figures little. The servers run the demo model: llama.cpp's own, as a process, and ours. For
Hugging Face's providers a small hub of our own says that llama.cpp's server is one.
Exit status 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing, asynccontextmanager

import aiohttp
from aiohttp import web
from serve import process

from cierzo import catalog
from cierzo.chat import Chat
from cierzo.engines.account import Account
from cierzo.engines.base import meet
from cierzo.engines.hub import Hub
from cierzo.engines.llamaserver import LlamaServer
from cierzo.engines.openai import OpenAI
from cierzo.engines.served import Served
from cierzo.engines.tgi import Tgi
from cierzo.messages import Finish, Message, Prompt, Sampling, Token
from cierzo.settings import Settings

RATE_BAR, FIRST_BAR = 0.85, 0.015
QUESTIONS = ("Cuéntame qué es un token.", "¿Qué es un modelo de Mistral?", "¿Quién eres y qué sabes hacer?")
PLAIN = Sampling(max_new_tokens=200, alternatives=5)

PROVIDED = "hf://mistralai/Mistral-7B-Instruct-v0.3?provider=together"

LLAMA_SERVER = """
import sys, threading, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = sys.argv[1], ["127.0.0.1"], 0
params.n_parallel, params.verbosity, params.ui = 1, 0, False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
threading.Event().wait()
"""


@dataclasses.dataclass
class Run:
    """Of one answer: seconds to the first token, tokens after it, seconds for those."""

    first: float
    tokens: int
    decode: float


async def raw(url: str, path: str, body: object) -> Run:
    """Read one stream and only count: an event with a token in it is one with a probability in it."""
    began = time.perf_counter()
    first = last = 0.0
    tokens = 0
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True), read_bufsize=2**18) as session,
        session.post(url + path, **({"data": body} if isinstance(body, bytes) else {"json": body})) as response,
    ):
        async for line in response.content:
            if b"logprob" in line and b'"logprobs":null' not in line:
                last = time.perf_counter()
                first = first or last
                tokens += 1
    return Run(first - began, tokens - 1, last - first)


async def ours(engine: Served, prompt: Prompt, sampling: Sampling) -> Run:
    began = time.perf_counter()
    first = last = 0.0
    tokens = 0
    async with aclosing(engine.stream(prompt, sampling)) as events:
        async for event in events:
            if isinstance(event, Token):
                last = time.perf_counter()
                first = first or last
                tokens += 1
            elif isinstance(event, Finish):
                assert event.reason in ("length", "eos_token")
    return Run(first - began, tokens - 1, last - first)


@asynccontextmanager
async def offering_hub() -> AsyncIterator[str]:
    """Serve a hub on which every model has a provider; give its address."""

    async def card(request: web.Request) -> web.Response:
        offer = {"status": "live", "providerId": "x", "task": "conversational"}
        name = request.path.removeprefix("/api/models/")
        return web.json_response({"id": name, "inferenceProviderMapping": {"together": offer}})

    app = web.Application()
    app.router.add_get("/{path:.*}", card)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def compare(name: str, engine: Served, url: str, rounds: int) -> bool:
    """Measure in turns; print one line; return whether both bars are reached."""
    info = await meet(engine)
    prompts = [await Chat(engine).prompt([Message("user", question)], PLAIN) for question in QUESTIONS]
    pairs: list[tuple[Run, Run]] = []
    for turn in range(-1, rounds):
        for prompt in prompts:
            sampling = dataclasses.replace(PLAIN, seed=turn + 2)
            asking = engine._asking(Account.of(prompt, sampling, info, room=PLAIN.max_new_tokens))  # noqa: SLF001 - the very same request
            plain = raw(url, asking.path, asking.body)
            if turn % 2:
                theirs, own = await plain, await ours(engine, prompt, sampling)
            else:
                own, theirs = await ours(engine, prompt, sampling), await plain
            if turn >= 0 and min(own.tokens, theirs.tokens) > 0:  # the first turn is for warming up
                pairs.append((own, theirs))
    await engine.close()
    rates = [sum(run.tokens for run in runs) / sum(run.decode for run in runs) for runs in zip(*pairs, strict=True)]
    ratio = statistics.median((o.tokens / o.decode) / (t.tokens / t.decode) for o, t in pairs)
    added = statistics.median(o.first - t.first for o, t in pairs)
    good = ratio >= RATE_BAR and added <= FIRST_BAR
    print(
        f"{name:28}  {ratio:5.2f} ({rates[0]:,.0f} of {rates[1]:,.0f} tokens/s)  bar {RATE_BAR}   "
        f"first token {1000 * added:+5.1f} ms  bar {1000 * FIRST_BAR:.0f} ms   {'PASS' if good else 'FAIL'}",
        flush=True,
    )
    return good


async def main(rounds: int) -> bool:
    model = catalog.find(catalog.DEMO, Settings.load().home)
    assert model.path is not None, "the demo model is not in this checkout"
    os.environ |= {"CIERZO_SLOTS": "1", "CIERZO_THREADS": "1"}
    with ExitStack() as servers:
        theirs = f"http://127.0.0.1:{servers.enter_context(process('-c', LLAMA_SERVER, str(model.path)))}"
        own = f"http://127.0.0.1:{servers.enter_context(process('-m', 'cierzo', 'serve', '--port', '0'))}"
        async with offering_hub() as hub:
            engines = {
                "llamacpp+http, llama-server": (LlamaServer(f"llamacpp+{theirs}"), theirs),
                "openai+http, llama-server": (OpenAI(f"openai+{theirs}"), theirs),
                "openai messages, llama-server": (OpenAI(f"openai+{theirs}?takes=messages"), theirs),
                "hf, llama-server": (Hub(PROVIDED, "a-token", hub=hub, router=theirs), theirs),
                "openai+http, Cierzo": (OpenAI(f"openai+{own}"), own),
                "tgi+http, Cierzo": (Tgi(f"tgi+{own}"), own),
            }
            return all([await compare(name, engine, url, rounds) for name, (engine, url) in engines.items()])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    sys.exit(not asyncio.run(main(parser.parse_args().rounds)))
