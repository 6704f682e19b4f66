"""The seam between Cierzo and whatever runs the model. It knows no template, no conversation, no face."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from cierzo.messages import Prompt, Sampling, StreamEvent

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
