"""The seam between Cierzo and whatever runs the model. It knows no template, no conversation, no face."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, get_args

from cierzo.errors import CierzoError, EngineDied
from cierzo.messages import (
    Alternative,
    Finish,
    FinishReason,
    Phase,
    PhaseName,
    Prompt,
    Sampling,
    StreamEvent,
    Takes,
    Token,
)

SILENCE = 600.0
"""Seconds after which an engine that says nothing at all counts as dead. Reading a prompt reports progress."""

CLOSING = 5.0
"""Seconds that an engine may take to end a stream that is closed."""

_IDS = 2**31
_log = logging.getLogger("cierzo.engines")

SAMPLING_FIELDS = frozenset(
    {
        "temperature",
        "max_new_tokens",
        "top_p",
        "repetition_penalty",
        "top_k",
        "min_p",
        "seed",
        "stop",
        "alternatives",
    }
)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is and what it honours.

    Attributes:
        engine: Its kind, such as ``llamacpp`` or ``scripted``.
        model: Name of the model that it runs.
        context: The model's window, in tokens; the prompt and the answer share it.
        template: Name of the prompt template that the model was trained with.
        slots: Answers that it writes at the same time.
        honours: Fields of `Sampling` that change its answers.
        details: What its tokens carry: some of ``ids``, ``logprobs``, ``alternatives``.
        where: Where it runs, in words for a person, such as ``in this process's child``.
        takes: What of a `Prompt` goes to it: its ``ids``, its ``text``, or the ``messages`` that are in it.
        names: What a server calls fields of `Sampling`, where it calls them otherwise.
        version: Of the server's program, where it tells one.
    """

    engine: str
    model: str
    context: int
    template: str
    slots: int = 1
    honours: frozenset[str] = SAMPLING_FIELDS
    details: frozenset[str] = frozenset({"ids", "logprobs", "alternatives"})
    where: str = ""
    takes: Takes = "ids"
    names: Mapping[str, str] = field(default_factory=dict)
    version: str = ""


class Engine(Protocol):
    """Turns one prompt into a stream of events.

    One that is a server elsewhere has a coroutine ``meet()`` besides: see `meet`.
    """

    def describe(self) -> EngineInfo:
        """Say what it is, as far as it knows. Cheap: loads nothing, asks nobody."""
        ...

    def stream(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[StreamEvent, None]:
        """Yield phases, then tokens, then one `Finish`.

        ``aclose()`` on the generator, or cancelling the task that reads it, stops the work and frees the slot
        within a second.

        Raises:
            EngineError: The engine failed; what was yielded before stays good.
            ModelError: The model cannot be loaded.
            Overloaded: No waiting place is free.
        """
        ...

    async def close(self) -> None:
        """Free everything. Running streams end with `EngineDied`. May be called twice."""
        ...


async def meet(engine: Engine) -> EngineInfo:
    """Have an engine find out what it is, where it has to ask a server for that, and return what it says of itself.

    Costs nothing once it is done; after a failure it is tried anew.

    Raises:
        CierzoError: The server cannot be asked, or is none that is known.
    """
    finding = getattr(engine, "meet", None)
    if finding is not None:
        await finding()
    return engine.describe()


async def orderly(
    stream: AsyncGenerator[StreamEvent, None], *, silence: float = SILENCE
) -> AsyncGenerator[StreamEvent, None]:
    """Yield a stream as `Engine.stream` promises it, whatever its engine does. It is closed with this one.

    Args:
        stream: Of any engine.
        silence: Seconds without any event after which the engine counts as dead.

    Raises:
        CierzoError: What the stream raises; or `EngineDied`, where it hangs, ends without a `Finish`, says something
            that is no event or no text, or raises what it must not.
    """
    patience = _Patience(silence)
    try:
        while True:
            event = await _next(stream, patience)
            yield event
            if isinstance(event, Finish):
                return
    finally:
        patience.close()
        await _end(stream)


class _Patience:
    """Breaks off a wait for an engine that says nothing. One timer for a stream: one for each token costs too much."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.over = False
        self._loop = asyncio.get_running_loop()
        self._reader: asyncio.Task[Any] | None = None
        self._since = 0.0
        self._timer = self._loop.call_later(seconds, self._look)

    async def next(self, stream: AsyncGenerator[StreamEvent, None]) -> StreamEvent:
        self._reader, self._since = asyncio.current_task(), self._loop.time()
        try:
            return await anext(stream)
        finally:
            if self.over and self._reader is not None:
                self._reader.uncancel()
            self._reader = None

    def close(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        left = self._since + self.seconds - self._loop.time() if self._reader else self.seconds
        if left > 0 or self._reader is None:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self.over = True
            self._reader.cancel()


async def _next(stream: AsyncGenerator[StreamEvent, None], patience: _Patience) -> StreamEvent:
    try:
        event = await patience.next(stream)
    except StopAsyncIteration:
        raise EngineDied("the engine's answer ended without saying why: ask again") from None
    except CierzoError:
        raise
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        if not patience.over:  # nobody here wanted that
            raise EngineDied("the engine cut its answer off: ask again") from None
    except Exception as error:  # noqa: BLE001 - an engine of somebody else may raise anything
        if not patience.over:
            _log.exception("the engine raised what it must not")
            raise EngineDied(f"the engine failed unexpectedly ({type(error).__name__}): ask again") from None
    if patience.over:
        raise EngineDied(f"the engine said nothing for {patience.seconds:g} seconds: ask again")
    if not _is_sound(event):
        raise EngineDied(f"the engine said something that is no event ({type(event).__name__}): ask again")
    return event


def _is_sound(event: object) -> bool:
    """Whether this is an event that can be stored and shown."""
    if isinstance(event, Token):
        return _is_token(event) and all(map(_is_token, event.alternatives))
    if isinstance(event, Finish):
        return event.reason in get_args(FinishReason)
    return isinstance(event, Phase) and event.name in get_args(PhaseName)


def _is_token(one: object) -> bool:
    # For every token and each of its alternatives: a union would be made anew each time, and most texts are ASCII.
    if not (isinstance(one, (Token, Alternative)) and isinstance(one.text, str) and isinstance(one.id, int)):
        return False
    if not one.text.isascii():
        try:
            one.text.encode()
        except UnicodeEncodeError:  # half a character
            return False
    return 0 <= one.id < _IDS and (one.logprob is None or isinstance(one.logprob, (float, int)))


async def _end(stream: AsyncGenerator[StreamEvent, None]) -> None:
    """Close a stream. What it said stays good, however it takes its end."""
    try:
        async with asyncio.timeout(CLOSING):
            await stream.aclose()
    except Exception:  # noqa: BLE001 - as above
        _log.exception("the engine did not stop as it must")
