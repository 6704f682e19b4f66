"""One answer of a server elsewhere: the request, what has come of it, and how its events are heard."""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cierzo.engines.stops import StopFilter
from cierzo.errors import EngineRefused
from cierzo.messages import Finish, FinishReason, Phase, PhaseName, Prompt, Sampling, Timings, Token

if TYPE_CHECKING:
    from cierzo.engines.base import EngineInfo

SEEDS = 2**31 - 1
"""Seeds drawn here are below this: some servers keep them in 32 bits with a sign."""

LOOSE = 8
"""Where chunks of text stand for tokens, an answer may come in so many times more of them than it has tokens: a server
between may cut it anew."""


@dataclass(slots=True)
class Account:
    """One answer of a server: what was asked, when what happened, what has come.

    Attributes:
        prompt: What was asked.
        sampling: How.
        info: What the engine is, while it answers this.
        room: Tokens that the answer may have.
        seed: The one that is sent; None where the server takes none.
        exact: Whether what comes is tokens, and not chunks of text.
        came: Tokens, or chunks, that have come.
        full: Whether the server has said within the stream that it is full.
    """

    prompt: Prompt
    sampling: Sampling
    info: EngineInfo
    room: int
    seed: int | None
    exact: bool = True
    began: float = field(default_factory=time.monotonic)
    first: float = 0.0
    last: float = 0.0
    came: int = 0
    full: bool = False
    said: int = 0
    loaded: float = 0.0
    stops: StopFilter = field(init=False)

    def __post_init__(self) -> None:
        self.stops = StopFilter(self.sampling.stop)

    @classmethod
    def of(cls, prompt: Prompt, sampling: Sampling, info: EngineInfo, *, room: int) -> Account:
        """Open one, and draw a seed where the server takes one and none was asked for."""
        drawn = secrets.randbelow(SEEDS) if sampling.seed is None else sampling.seed
        return cls(prompt, sampling, info, room, drawn if "seed" in info.honours else None)

    def phase(self, name: PhaseName, done: int = 0, total: int = 0) -> Phase:
        """Return a phase with the time since the request."""
        return Phase(name, done, total, time.monotonic() - self.began)

    def take(self, token: Token) -> list[Token]:
        """Take the next token of the server; return those that are certain not to belong to a stop text.

        Raises:
            EngineRefused: It wrote more than it was allowed.
        """
        self.last = time.monotonic()
        self.first = self.first or self.last
        self.came += 1
        if self.came > self.room + LOOSE and (self.exact or self.came > self.room * LOOSE):
            raise EngineRefused(
                f"the server goes on after the {self.room} tokens that it was asked for, and was cut off: use another"
            )
        free = self.stops.push(token)
        self.said += len(free)
        return free

    def rest(self) -> list[Token]:
        """Return what was held back, once no more comes: it belongs to no stop text."""
        held = self.stops.flush()
        self.said += len(held)
        return held

    def finish(
        self,
        reason: FinishReason,
        *,
        prompt_tokens: int | None = None,
        cached: int = 0,
        answer_tokens: int | None = None,
        seed: int | None = None,
        rate: float | None = None,
    ) -> Finish:
        """Close it.

        Args:
            reason: As the server says it; a stop text that was met counts before it.
            prompt_tokens: As the server counts them; None takes the prompt's own.
            cached: How many of them it had already.
            answer_tokens: As the server counts them, where what came were chunks of text.
            seed: That it used; None takes the one that was sent.
            rate: Tokens per second while decoding, by its own clock.
        """
        now = time.monotonic()
        first = self.first or now
        timings = Timings(
            load=self.loaded,
            prefill=first - self.began - self.loaded,
            first_token=first - self.began,
            decode=self.last - self.first,
            engine_rate=rate,
        )
        counted = answer_tokens if answer_tokens is not None and not self.exact else self.said
        return Finish(
            "stop_sequence" if self.stops.met is not None else reason,
            len(self.prompt) if prompt_tokens is None else prompt_tokens,
            cached,
            counted,
            timings,
            self.seed if seed is None else seed,
            self.stops.met,
            sent=self.info.takes,
        )


Told = Phase | Token


class Hearing(ABC):
    """Turns the events of one answer into phases and tokens.

    Attributes:
        reason: How the answer ended; None before its end.
        prompt_tokens: As the server counts them, None where it does not.
        answer_tokens: The same for the answer.
        cached: Tokens of the prompt that it had already.
        rate: Its own tokens per second while decoding.
        seed: That it used, None where it does not say.
        exact: Whether what came so far were tokens, and not chunks of text.
    """

    reason: FinishReason | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    cached: int = 0
    rate: float | None = None
    seed: int | None = None
    exact: bool = True

    @abstractmethod
    def read(self, value: Any) -> list[Told]:
        """Read one event, which is any JSON.

        Raises:
            CierzoError: The server gave the answer up.
            ValueError, TypeError, KeyError, IndexError, AttributeError: It is no such event.
        """

    def rest(self) -> list[Token]:
        """Return what was held back, after the last event."""
        return []


@dataclass(frozen=True, slots=True)
class Asking:
    """One request: where to, what, and who hears the answer."""

    path: str
    body: Any
    hearing: Hearing
    alternatives: int = 0
