"""Engines that break every promise of a stream, for all faces: by faults, which an answer fails of, and oddities."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from cierzo.engines.base import Engine, EngineInfo
from cierzo.engines.script import Reply, Wait
from cierzo.engines.scripted import Scripted
from cierzo.errors import EngineDied, EngineMissing, EngineRefused, ModelUnreadable, NotEnoughMemory, Overloaded
from cierzo.messages import Alternative, Finish, Phase, Prompt, Sampling, StreamEvent, Token


class Bad:
    """An engine whose stream is any asynchronous generator."""

    def __init__(self, said: Callable[[], AsyncGenerator[Any, None]]) -> None:
        self.said = said
        self.running = 0

    def describe(self) -> EngineInfo:
        return Scripted().describe()

    async def stream(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[StreamEvent, None]:
        self.running += 1
        try:
            async with aclosing(self.said()) as events:
                async for event in events:
                    yield event
        finally:
            self.running -= 1

    async def close(self) -> None:
        pass


def steps(*said: Any, **options: Any) -> Callable[[], Engine]:
    return lambda: Scripted(Reply.of(list(said), **options))


def bad(said: Callable[[], AsyncGenerator[Any, None]]) -> Callable[[], Engine]:
    return lambda: Bad(said)


async def raises_foreign() -> AsyncGenerator[Any, None]:
    yield Token(5, "a")
    raise ValueError("a secret of the user")


async def raises_foreign_at_once() -> AsyncGenerator[Any, None]:
    raise KeyError("a secret of the user")
    yield


async def says_nonsense() -> AsyncGenerator[Any, None]:
    yield Token(5, "a")
    yield "what"


async def never_a_number() -> AsyncGenerator[Any, None]:
    yield Token(5, "a", float("nan"))
    yield Token(6, "b", float("-inf"))
    yield Finish("eos_token", answer_tokens=2)


async def cancels_itself() -> AsyncGenerator[Any, None]:
    yield Token(5, "a")
    raise asyncio.CancelledError


async def out_of_time() -> AsyncGenerator[Any, None]:
    yield Token(5, "a")
    raise TimeoutError


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


FINE = Finish("eos_token", answer_tokens=1)
FAULTS: dict[str, Callable[[], Engine]] = {
    "nothing at all": steps(disorder=True),
    "phases only": steps(Phase("reading", 1, 2), disorder=True),
    "ends without a finish": steps("a", "b", disorder=True),
    "dies before the first token": steps(EngineDied("it died")),
    "dies after the first token": steps("a", EngineDied("it died")),
    "dies after a phase": steps(Phase("reading", 1, 2), EngineDied("it died")),
    "dies after many tokens": steps(*["a"] * 200, EngineDied("it died")),
    "refuses": steps(EngineRefused("it would not")),
    "is missing": steps(EngineMissing("there is none")),
    "has a broken model": steps(ModelUnreadable("broken")),
    "has no memory": steps(NotEnoughMemory("none left")),
    "is overloaded": steps(Overloaded("full", retry_after=1)),
    "is overloaded in the middle": steps("a", Overloaded("full", retry_after=1)),
    "hangs before the first token": steps(Wait()),
    "hangs in the middle": steps("a", Wait()),
    "says failed": steps("a", Finish("failed"), disorder=True),
    "says stopped": steps("a", Finish("stopped"), disorder=True),
    "raises something foreign": bad(raises_foreign),
    "raises something foreign at once": bad(raises_foreign_at_once),
    "says something that is no event": bad(says_nonsense),
    "cancels itself": bad(cancels_itself),
    "runs out of its own time": bad(out_of_time),
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
    "probabilities that are no numbers": bad(never_a_number),
    "nothing but a finish": steps(Finish("eos_token"), disorder=True),
    "fails to close": bad(fails_to_close),
}
