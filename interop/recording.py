"""Stands between Cierzo's engine and a server, and keeps what the one asks and the other answers, to the byte.

The file that it writes is replayed by tests/engines/test_recorded.py, so that the engine stays right with a server
that is not installed. `CALLS` are what is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

import cierzo
from cierzo.errors import Overloaded

CALLS: list[dict[str, Any]] = [
    {
        "name": "greedy",
        "messages": [["user", "¿Qué es un token?"]],
        "sampling": {"temperature": 0.0, "max_new_tokens": 64, "alternatives": 3},
    },
    {
        "name": "two turns",
        "messages": [
            ["system", "Answer in English."],
            ["user", "What is BOS? And [INST]?"],
            ["assistant", "BOS is the token with which every prompt begins."],
            ["user", "Who made you?"],
        ],
        "sampling": {"temperature": 0.0, "max_new_tokens": 64},
    },
    {
        "name": "stop",
        "messages": [["user", "¿Qué es un token?"]],
        "sampling": {"temperature": 0.0, "max_new_tokens": 64, "stop": ["bajo", "model"]},
    },
    {
        "name": "length",
        "messages": [["user", "¿Qué es un token?"]],
        "sampling": {"temperature": 0.0, "max_new_tokens": 5},
    },
    {
        "name": "sampled",
        "messages": [["user", "👋"]],
        "sampling": {"temperature": 2.0, "top_p": 1.0, "seed": 3, "max_new_tokens": 60},
    },
    {  # says what the prompt has again and again, control tokens too
        "name": "loop",
        "messages": [["user", "🦙漢é 👩‍👩‍👧"]],
        "sampling": {"temperature": 0.0, "repetition_penalty": 0.05, "max_new_tokens": 40},
    },
]

PLAIN = ("/v1/models", "/models", "/version", "/health", "/props", "/info", "/api/version", "/nothing-here")
"""Asked besides, so that the file knows how the server answers where an engine may look for what it is."""

_KEPT = ("content-type", "retry-after", "server")


@dataclass
class Recorder:
    """A proxy on a loopback port; every exchange is kept in the order in which it began."""

    target: str
    exchanges: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Pass one request on, and its answer back as it comes."""
        body = await request.read()
        kept: dict[str, Any] = {"method": request.method, "path": request.path_qs}
        if body:
            kept["body"] = json.loads(body)
        self.exchanges.append(kept)
        headers = {"content-type": "application/json"} if body else {}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, self.target + request.path_qs, data=body or None, headers=headers
            ) as theirs,
        ):
            kept["status"] = theirs.status
            kept["headers"] = {name: theirs.headers[name] for name in _KEPT if name in theirs.headers}
            response = web.StreamResponse(status=theirs.status, headers=kept["headers"])
            await response.prepare(request)
            said = b""
            async for chunk in theirs.content.iter_any():
                said += chunk
                with contextlib.suppress(ConnectionError):  # who asked has left: the rest is kept all the same
                    await response.write(chunk)
            kept["answer"] = said.decode()
            with contextlib.suppress(ConnectionError):
                await response.write_eof()
            return response


@contextlib.asynccontextmanager
async def recorder(target: str) -> AsyncIterator[Recorder]:
    """Run a proxy in front of ``target``."""
    kept = Recorder(target)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", kept.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = site._server.sockets[0].getsockname()[:2]  # noqa: SLF001 - aiohttp tells a port of its own choice so
    kept.url = f"http://{host}:{port}"
    try:
        yield kept
    finally:
        await runner.cleanup()


async def record(engine: str, target: str, versions: str) -> dict[str, Any]:
    """Ask everything in `CALLS` through the proxy and return what the file holds.

    Args:
        engine: Address of the engine, with ``{url}`` for the server's.
        target: The server.
        versions: What runs there, for readers.
    """
    async with recorder(target) as kept:
        calls = []
        async with aiohttp.ClientSession() as session:
            for plain in PLAIN:
                await (await session.get(kept.url + plain)).read()
        met, kept.exchanges = kept.exchanges, []
        async with cierzo.AsyncClient(engine=engine.format(url=kept.url)) as client:
            await client.chat.meet()
            met, kept.exchanges = [*met, *kept.exchanges], []
            for call in CALLS:
                messages = [cierzo.Message(role, text) for role, text in call["messages"]]
                sampling = dict(call["sampling"])
                for name in set(sampling) - client.chat.engine.describe().honours:
                    del sampling[name]
                await client.ask(messages, **sampling)
                calls.append({**call, "sampling": sampling, "exchanges": kept.exchanges})
                kept.exchanges = []
    return {"versions": versions, "engine": engine, "met": _once(met), "calls": calls}


def _once(exchanges: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = {(each["method"], each["path"], json.dumps(each.get("body"))): each for each in exchanges}
    return list(found.values())


async def record_full(engine: str, target: str) -> list[dict[str, Any]]:
    """Return the ways in which a server says that it is full, when many are asked at once: by the status, or later."""
    async with recorder(target) as kept, cierzo.AsyncClient(engine=engine.format(url=kept.url)) as client:
        messages = [cierzo.Message("user", "Hola")]
        asked = (client.ask(messages, temperature=0, max_new_tokens=40) for _ in range(30))
        said = await asyncio.gather(*asked, return_exceptions=True)
    refusals = [each for each in kept.exchanges if '"error"' in each.get("answer", "")]
    if not any(isinstance(one, Overloaded) for one in said):
        raise SystemExit("the server turned nobody away, or was not understood")
    return list({each["status"]: each for each in refusals}.values())


def write(path: Path, file: dict[str, Any]) -> None:
    """Write the file, without paths of this machine."""
    text = json.dumps(file, ensure_ascii=False, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace(str(Path(__file__).parent.parent / ".interop"), "/models") + "\n", "utf-8")
