"""The seam between Cierzo and whatever runs the model. It knows no template, no conversation, no face."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from cierzo.errors import CierzoError, EngineDied
from cierzo.messages import Finish, Phase, Prompt, Sampling, StreamEvent, Token

SILENCE = 600.0
"""Seconds after which an engine that says nothing at all counts as dead. Reading a prompt reports progress."""

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
        honours: Fields of `Sampling` that change its answers.
        details: What its tokens carry: some of ``ids``, ``logprobs``, ``alternatives``.
        where: Where it runs, in words for a person, such as ``in this process's child``.
    """

    engine: str
    model: str
    context: int
    template: str
    honours: frozenset[str] = SAMPLING_FIELDS
    details: frozenset[str] = frozenset({"ids", "logprobs", "alternatives"})
    where: str = ""


class Engine(Protocol):
    """Turns one prompt into a stream of events."""

    def describe(self) -> EngineInfo:
        """Say what it is. Cheap: loads nothing, asks nobody."""
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
    async with aclosing(stream):
        while True:
            try:
                async with asyncio.timeout(silence):
                    event = await anext(stream)
                if isinstance(event, Token):
                    event.text.encode()
                    for other in event.alternatives:
                        other.text.encode()
            except StopAsyncIteration:
                raise EngineDied("the engine's answer ended without saying why: ask again") from None
            except TimeoutError:
                raise EngineDied(f"the engine said nothing for {silence:g} seconds: ask again") from None
            except CierzoError:
                raise
            except Exception as error:  # noqa: BLE001 - an engine of somebody else may raise anything
                _log.exception("the engine raised what it must not")
                raise EngineDied(f"the engine failed unexpectedly ({type(error).__name__}): ask again") from None
            if not isinstance(event, Phase | Token | Finish):
                raise EngineDied(f"the engine said something that is no event ({type(event).__name__}): ask again")
            yield event
            if isinstance(event, Finish):
                return
