"""A service to talk to, on any engine, with a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cierzo.admission import Admission
from cierzo.chat import Chat
from cierzo.conversations import Conversations
from cierzo.engines.base import Engine
from cierzo.engines.scripted import Scripted
from cierzo.messages import StreamEvent
from cierzo.replies import End, Replies
from cierzo.settings import Settings
from cierzo.store import Store


class Talk(Conversations):
    """The service, its own conversation, and short ways to follow answers in it."""

    here: str

    async def log(self, answer: str, after: int = 0) -> list[tuple[int, StreamEvent | End]]:
        async with asyncio.timeout(30):
            return [each async for each in self.follow(answer, owner=None, after=after)]

    async def end(self, answer: str) -> End:
        """Check that a log is in order, and return how it ended."""
        log = await self.log(answer)
        assert [number for number, _ in log] == list(range(1, len(log) + 1))
        assert [isinstance(event, End) for _, event in log] == [False] * (len(log) - 1) + [True]
        end = log[-1][1]
        assert isinstance(end, End)
        return end

    async def text(self, answer: str) -> str:
        return (await self.store.conversations.message(answer, owner=None)).text


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.01)


@asynccontextmanager
async def talking(
    where: Path | Settings, engine: Engine | None = None, *, running: int = 4, waiting: int = 64, **options: Any
) -> AsyncGenerator[Talk]:
    """Open a service; what it is opened on stays after it."""
    store = await Store.open(where if isinstance(where, Settings) else Settings.load({"home": where}))
    chat = Chat(engine or Scripted("Hola, soy yo."))
    talk = Talk(chat, store, Replies(store, **options), Admission(running, waiting))
    talk.here = (await store.conversations.create(owner=None)).id
    try:
        yield talk
    finally:
        await talk.replies.close()
        await chat.close()
        await store.close()
