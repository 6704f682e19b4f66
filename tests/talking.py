"""A service to talk to, on any engine, with a real store; and engines that break every promise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from faults import FINE, bad, steps

from cierzo.admission import Admission
from cierzo.chat import Chat
from cierzo.conversations import Conversations
from cierzo.engines.base import Engine
from cierzo.engines.script import Wait
from cierzo.engines.scripted import Scripted
from cierzo.errors import EngineDied, EngineMissing, EngineRefused, ModelUnreadable, NotEnoughMemory, Overloaded
from cierzo.messages import Alternative, Finish, Phase, StreamEvent, Token
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


async def foreign() -> AsyncGenerator[Any, None]:
    yield Token(5, "a")
    raise ValueError("a secret of the user")


async def foreign_at_once() -> AsyncGenerator[Any, None]:
    raise KeyError("a secret of the user")
    yield


async def cancels_itself() -> AsyncGenerator[Any, None]:
    yield Token(5, "a")
    raise asyncio.CancelledError


async def out_of_time() -> AsyncGenerator[Any, None]:
    yield Token(5, "a")
    raise TimeoutError


async def nonsense() -> AsyncGenerator[Any, None]:
    yield Token(5, "a")
    yield "what"


async def half_a_character() -> AsyncGenerator[Any, None]:
    yield Token(5, "a")
    yield Token(6, "\ud83d")


async def half_an_alternative() -> AsyncGenerator[Any, None]:
    yield Token(5, "a", -1.0, alternatives=(Alternative(6, "\udc00", -2.0),))


async def negative() -> AsyncGenerator[Any, None]:
    yield Token(5, "a")
    yield Token(-1, "b")


async def no_text() -> AsyncGenerator[Any, None]:
    yield Token(5, None)  # type: ignore[arg-type] # that is the fault


async def strange_end() -> AsyncGenerator[Any, None]:
    yield Token(5, "a")
    yield Finish("bored")  # type: ignore[arg-type] # that is the fault


async def fails_to_close() -> AsyncGenerator[Any, None]:
    try:
        yield Token(5, "a")
        yield Finish("eos_token", answer_tokens=1)
    finally:
        raise RuntimeError("a secret of the user")


FAULTS: dict[str, Callable[[], Engine]] = {
    "nothing at all": steps(disorder=True),
    "phases only": steps(Phase("reading", 1, 2), disorder=True),
    "ends without a finish": steps("a", "b", disorder=True),
    "dies before the first token": steps(EngineDied("it died")),
    "dies after a phase": steps(Phase("reading", 1, 2), EngineDied("it died")),
    "dies in the middle": steps("a", EngineDied("it died")),
    "dies after many tokens": steps(*["a"] * 200, EngineDied("it died")),
    "refuses": steps(EngineRefused("it would not")),
    "is missing": steps(EngineMissing("there is none")),
    "has a broken model": steps(ModelUnreadable("broken")),
    "has no memory": steps("a", NotEnoughMemory("none left")),
    "is overloaded": steps(Overloaded("full", retry_after=1)),
    "hangs before the first token": steps(Wait()),
    "hangs in the middle": steps("a", Wait()),
    "says failed": steps("a", Finish("failed"), disorder=True),
    "raises something foreign": bad(foreign),
    "raises something foreign at once": bad(foreign_at_once),
    "cancels itself": bad(cancels_itself),
    "runs out of its own time": bad(out_of_time),
    "says something that is no event": bad(nonsense),
    "says half a character": bad(half_a_character),
    "says half a character beside": bad(half_an_alternative),
    "says a number that cannot be": bad(negative),
    "says no text": bad(no_text),
    "ends strangely": bad(strange_end),
}
ODD: dict[str, Callable[[], Engine]] = {
    "goes on after its finish": steps("a", FINE, "b", FINE, disorder=True),
    "raises after its finish": steps("a", FINE, EngineDied("late"), disorder=True),
    "a phase among the tokens": steps("a", Phase("reading", 1, 1), FINE, disorder=True),
    "nothing but a finish": steps(FINE, disorder=True),
    "fails to close": bad(fails_to_close),
}
