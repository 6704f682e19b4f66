"""What a conversation costs: sending late in a long one, showing its end, and following a reply.

    python benchmarks/conversations.py [--url URL]

Ratios of one run, with the scripted engine. "Sending" is from the call to the stored question with its answer begun;
cold is the first time after a start, when nothing of the conversation is in memory. "Showing" is the route that a page
asks for the last 30 messages as HTML.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

import httpx

from cierzo.admission import Admission
from cierzo.api.server import application
from cierzo.api.work import Work
from cierzo.chat import Chat
from cierzo.conversations import Conversations
from cierzo.engines.script import Reply
from cierzo.engines.scripted import Scripted
from cierzo.messages import Message, Sampling, Token
from cierzo.replies import Replies
from cierzo.settings import Settings
from cierzo.store import Store
from cierzo.telemetry import Telemetry

LONG = 2_000
TRIES = 15
TOKENS = 2_000
WORDS = "¿Qué dice el manual de este aparato sobre la temperatura, y por qué es tan largo? "


async def service(store: Store, reply: Reply) -> Conversations:
    chat = Chat(Scripted(reply))
    await chat.prompt([Message("user", "opens the tokenizer")])
    return Conversations(chat, store, Replies(store), Admission(8))


async def filled(store: Store, messages: int) -> str:
    """A conversation of so many messages, of which the next one is the one to measure."""
    conversation = (await store.conversations.create(owner=None, title="long")).id
    parent = None
    for number in range(messages):
        role = ("user", "assistant")[number % 2]
        written = await store.conversations.append(
            conversation, owner=None, parent=parent, role=role, text=f"{number} {WORDS}"
        )
        parent = written.message.id
    return conversation


async def send(conversations: Conversations, conversation: str) -> float:
    began = time.perf_counter()
    asked = await conversations.ask(conversation, WORDS, owner=None)
    spent = time.perf_counter() - began
    async with aclosing(conversations.follow(asked.answer.id, owner=None)) as events:
        async for _ in events:
            pass
    while len(conversations.replies):  # noqa: ASYNC110 - until the answer is folded, so that one does not disturb the next
        await asyncio.sleep(0.005)
    return spent


async def sending(store: Store) -> bool:
    reply = Reply.of("Bien, gracias.")
    short, long = await filled(store, 8), await filled(store, LONG - 2)
    cold = {name: await send(await service(store, reply), name) for name in (short, long)}
    warm: dict[str, list[float]] = {short: [], long: []}
    conversations = await service(store, reply)
    for name in (short, long):
        await send(conversations, name)
    for _ in range(TRIES):
        for name, times in warm.items():
            times.append(await send(conversations, name))
    early, late = (statistics.median(warm[name]) for name in (short, long))
    print(f"sending the {LONG:,}th message over the 10th: {late / early:.2f} (bar 1.5), {1e3 * late:.1f} ms")
    print(f"the same, cold: {cold[long] / cold[short]:.2f}, {1e3 * cold[long]:.0f} ms")
    return late <= 1.5 * early


async def showing(store: Store, home: Path) -> bool:
    """The whole way of the request but for the socket, in turns."""
    conversations = await service(store, Reply.of("x"))

    async def opening(*_: object) -> Conversations:
        return conversations

    work = Work(conversations.chat, Telemetry())
    await work.open(opening)
    counts = (10, 1_000)
    names = {count: await filled(store, count) for count in counts}
    times: dict[int, list[float]] = {count: [] for count in counts}
    through = httpx.ASGITransport(application(work, home=home))
    async with httpx.AsyncClient(transport=through, base_url="http://127.0.0.1") as client:
        for _ in range(TRIES):
            for count, name in names.items():
                began = time.perf_counter()
                answer = await client.get(f"/api/conversations/{name}/branch?limit=30")
                times[count].append(time.perf_counter() - began)
                answer.raise_for_status()
    await conversations.replies.close()
    short, long = (statistics.median(times[count]) for count in counts)
    print(f"showing the end of 1,000 messages over one of 10: {long / short:.2f} (bar 3), {1e3 * long:.1f} ms")
    return long <= 3 * short


async def following(store: Store) -> None:
    conversations = await service(store, Reply.of(["palabra "] * 50, repeat=True))
    sampling = Sampling(max_new_tokens=TOKENS)
    prompt = await conversations.chat.prompt([Message("user", WORDS)])

    async def alone() -> float:
        began, count = time.perf_counter(), 0
        async with aclosing(conversations.chat.stream_prompt(prompt, sampling)) as events:
            async for event in events:
                count += isinstance(event, Token)
        return count / (time.perf_counter() - began)

    async def followed() -> float:
        conversation = (await store.conversations.create(owner=None)).id
        began, count = time.perf_counter(), 0
        asked = await conversations.ask(conversation, WORDS, owner=None, sampling=sampling)
        async with aclosing(conversations.follow(asked.answer.id, owner=None)) as events:
            async for _, event in events:
                count += isinstance(event, Token)
        return count / (time.perf_counter() - began)

    rates = [(await alone(), await followed()) for _ in range(5)]
    engine, reply = (statistics.median(each) for each in zip(*rates, strict=True))
    print(f"following a reply over the engine alone, no delay: {reply / engine:.2f} ({reply:,.0f} tokens/s)")


async def main() -> None:
    parser = argparse.ArgumentParser(description="Sending in long conversations, following replies.")
    parser.add_argument("--url", default="", help="an empty PostgreSQL database; without it SQLite in a new folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = await Store.open(Settings.load({"home": folder, "database_url": arguments.url}))
        try:
            reached = await sending(store)
            reached = await showing(store, Path(folder)) and reached
            await following(store)
        finally:
            await store.close()
    sys.exit(not reached)


if __name__ == "__main__":
    asyncio.run(main())
