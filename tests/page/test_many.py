"""Many people at once: nobody waits unseen behind a limit of Gradio's."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from cierzo.chat import Chat
from cierzo.engines.script import Reply
from cierzo.engines.scripted import Scripted
from cierzo.listening import address_of, listen
from cierzo.page.server import Server
from cierzo.page.shell import Page

PEOPLE = 45
"""More than the forty events that Gradio's queue lets run by itself."""


@pytest.mark.filterwarnings("ignore:.*(no_silent_downcasting|copy keyword is deprecated)")  # Gradio asks pandas so
async def test_more_people_than_gradio_would_serve_are_all_answered_at_once() -> None:
    scripted = Scripted(Reply.of("hola a todos", first=3.0, delay=0.01))
    is_open = asyncio.Event()
    with listen("127.0.0.1", 0) as listening:
        server = Server(Page(Chat(scripted)), "127.0.0.1", is_open.set)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        await is_open.wait()
        address = address_of("127.0.0.1", listening.getsockname()[1])
        limits = httpx.Limits(max_connections=2 * PEOPLE)
        async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as web:
            config = (await web.get("/config")).json()
            fn = next(fn["id"] for fn in config["dependencies"] if fn["targets"][0][1] == "submit")
            answers = asyncio.gather(*[ask(web, fn, f"person{number}") for number in range(PEOPLE)])
            most = 0
            while not answers.done():
                most = max(most, scripted.running)
                await asyncio.sleep(0.02)
            assert await answers == ["hola a todos"] * PEOPLE
        server.should_exit = True
        await serving
    print(f"\n{most} of {PEOPLE} answers ran at once")
    assert most == PEOPLE
    assert len(scripted.asked) == PEOPLE


async def ask(web: httpx.AsyncClient, fn: int, session: str) -> str:
    """Ask as the page does, and put its updates together again."""
    data = [f"soy {session}", [], "", 0.9, 256, 0.9, 1.2]
    joined = await web.post("/gradio_api/queue/join", json={"data": data, "fn_index": fn, "session_hash": session})
    joined.raise_for_status()
    text = ""
    async with web.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as stream:
        async for line in stream.aiter_lines():
            if not line.startswith("data:"):
                continue
            message = json.loads(line[5:])
            if message["msg"] == "process_completed":
                assert message["success"], message
                shown = message["output"]["data"][0]
                text = shown[-1]["content"][0]["text"]
            if message["msg"] == "close_stream":
                break
    return text
