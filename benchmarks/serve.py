"""What the API costs, as ratios measured in one run. See docs/api.md for the bars.

    python benchmarks/serve.py [model] [relay] [streams] [--streams 400] [--seconds 30]

``model``    tokens/s through the TGI and OpenAI streams over those of ``engine.stream`` alone, 1 and 8 clients.
``relay``    tokens/s with details through ``/v1/chat/completions``, the engine at zero delay, over bare Starlette.
``streams``  many streams of 20 tokens/s each: the time until all are complete over the ideal.

The server is a process of its own, as in life; so is the bare one. The client is the same raw one for all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

from cierzo import catalog
from cierzo.chat import Chat
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.messages import Sampling, Token
from cierzo.settings import Settings

RATE = 20
PROMPT = "<s>[INST] Cuéntame qué es un token.[/INST]"
BARE = """
import asyncio, sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

async def stream(request):
    count = int(request.query_params["n"])
    async def events():
        for _ in range(count):
            await asyncio.sleep(0)
            yield CHUNK
        yield b"data: [DONE]\\n\\n"
    return StreamingResponse(events(), media_type="text/event-stream")

CHUNK = bytes.fromhex(sys.argv[1])
app = Starlette(routes=[Route("/", stream, methods=["POST"])])
class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}", flush=True)
Server(uvicorn.Config(app, port=0, log_level="error", access_log=False)).run()
"""


@contextmanager
def process(*command: str) -> Iterator[int]:
    running = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", running.stdout.readline())
        assert found
        yield int(found[1])
    finally:
        running.terminate()
        running.wait(30)


async def tokens_of(port: int, path: str, body: dict[str, object]) -> int:
    """Read one stream to its end on a raw connection; return how many events came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    count = 0
    first = await reader.readline()
    assert b" 200 " in first, first + await reader.read(2000)
    tail = b""
    while chunk := await reader.read(2**18):
        chunk = tail + chunk
        count += chunk.count(b"data: {")
        tail = chunk[-6:]
        count -= tail.count(b"data: {")
    writer.close()
    return count


async def rate(port: int, path: str, body: dict[str, object], clients: int) -> float:
    """Tokens per second of so many clients at once."""
    began = time.perf_counter()
    counts = await asyncio.gather(*(tokens_of(port, path, body) for _ in range(clients)))
    return sum(counts) / (time.perf_counter() - began)


async def engine_rate(chat: Chat, sampling: Sampling, clients: int) -> float:
    prompt = await chat.raw(PROMPT)

    async def one() -> int:
        async with aclosing(chat.engine.stream(prompt, sampling)) as events:
            return sum([isinstance(event, Token) async for event in events])

    began = time.perf_counter()
    counts = await asyncio.gather(*(one() for _ in range(clients)))
    return sum(counts) / (time.perf_counter() - began)


async def model(rounds: int) -> bool:
    """Compare the wire with the engine alone, in turns, since the machine is not ours alone."""
    found = catalog.find("cierzo-demo", Settings.load().home)
    assert found.path is not None, "the demo model is not in this checkout"
    hot = 3.0  # so hot that the end token hardly ever comes: every answer has its 256 tokens
    sampling = Sampling(temperature=hot, max_new_tokens=256, top_p=1.0, seed=1, alternatives=5)
    chat = Chat(LlamaCpp(found, slots=8))
    parameters = {"max_new_tokens": 256, "temperature": hot, "seed": 1, "details": True, "top_n_tokens": 5}
    roads = {
        "TGI": ("/generate_stream", {"inputs": PROMPT, "parameters": parameters}),
        "OpenAI": (
            "/v1/completions",
            {"prompt": PROMPT, "max_tokens": 256, "temperature": hot, "seed": 1, "stream": True, "logprobs": 5},
        ),
    }
    os.environ["CIERZO_SLOTS"] = "8"
    reached = True
    with process("-m", "cierzo", "serve", "--port", "0") as port:
        for path, body in roads.values():
            await rate(port, path, body, 1)
        await engine_rate(chat, sampling, 1)
        for clients in (1, 8):
            ratios: dict[str, list[float]] = {name: [] for name in roads}
            alone = []
            for _ in range(rounds):
                alone.append(await engine_rate(chat, sampling, clients))
                for name, (path, body) in roads.items():
                    ratios[name].append(await rate(port, path, body, clients) / alone[-1])
            for name, values in ratios.items():
                middle = statistics.median(values)
                reached &= middle >= 0.8
                print(
                    f"model   {name:<7} {clients} clients  {middle:5.2f} of engine.stream "
                    f"({statistics.median(alone):,.0f} tokens/s)  bar 0.80  {'ok' if middle >= 0.8 else 'SHORT'}"
                )
    await chat.close()
    return reached


def script(folder: Path, *, delay: float, tokens: int) -> str:
    words = [{"text": " palabra", "id": 7, "logprob": -0.5, "alternatives": [{"text": " x", "id": 8}] * 5}] * 50
    path = folder / "script.json"
    reply = {"tokens": words, "repeat": True, "delay": delay}
    path.write_text(json.dumps({"reply": [reply], "context": tokens + 100}), "utf-8")
    return f"scripted:{path}"


async def relay(folder: Path, rounds: int) -> bool:
    """Compare with Starlette that streams the very same bytes and does nothing else."""
    count, clients = 4000, 8
    body = {"messages": [{"role": "user", "content": "Hola"}], "max_tokens": count, "stream": True}
    body |= {"logprobs": True, "top_logprobs": 5}
    with process("-m", "cierzo", "serve", "--port", "0", "--engine", script(folder, delay=0, tokens=count)) as port:
        chunk = await _one_chunk(port, {**body, "max_tokens": 3})
        with process("-c", BARE, chunk.hex()) as bare:
            pairs = []
            for _ in range(rounds):
                plain = await rate(bare, f"/?n={count}", {}, clients)
                pairs.append((await rate(port, "/v1/chat/completions", body, clients), plain))
    ours, plain = (statistics.median(values) for values in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(
        f"relay   {ours:,.0f} tokens/s with 5 alternatives each ({len(chunk)} bytes); bare Starlette {plain:,.0f}; "
        f"{ratio:.2f}  bar 0.35  {'ok' if ratio >= 0.35 else 'SHORT'}"
    )
    return ratio >= 0.35


async def _one_chunk(port: int, body: dict[str, object]) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps(body).encode()
    head = "POST /v1/chat/completions HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    said = await reader.read()
    writer.close()
    return next(part + b"\n\n" for part in said.split(b"\n\n") if b"palabra" in part)


async def streams(folder: Path, many: int, seconds: float) -> bool:
    """Run many streams at the speed of reading."""
    count = int(RATE * seconds)
    body = {"messages": [{"role": "user", "content": "Hola"}], "max_tokens": count, "stream": True}
    engine = script(folder, delay=1 / RATE, tokens=count)
    with process("-m", "cierzo", "serve", "--port", "0", "--engine", engine) as port:
        await tokens_of(port, "/v1/chat/completions", {**body, "max_tokens": 2})
        began = time.perf_counter()
        counts = await asyncio.gather(*(tokens_of(port, "/v1/chat/completions", body) for _ in range(many)))
        taken = time.perf_counter() - began
    whole = sum(got == count + 2 for got in counts)
    ratio = taken / seconds
    reached = ratio <= 1.2 and whole == many
    print(
        f"streams {whole} of {many} complete, {RATE} tokens/s each for {seconds:g} s: {taken:.1f} s, "
        f"{ratio:.2f} of ideal  bar 1.20  {'ok' if reached else 'SHORT'}"
    )
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["model", "relay", "streams"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=30)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reached = True
        if "model" in asked.what:
            reached &= asyncio.run(model(asked.rounds))
        if "relay" in asked.what:
            reached &= asyncio.run(relay(folder, asked.rounds))
        if "streams" in asked.what:
            reached &= asyncio.run(streams(folder, asked.streams, asked.seconds))
    sys.exit(not reached)


if __name__ == "__main__":
    main()
