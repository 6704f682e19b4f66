"""One question and its answer, as something to look at: views, never faster than a page can show them.

It knows no Gradio: `cierzo.page.shell` draws what comes from here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cierzo.errors import CierzoError, EngineError
from cierzo.messages import Finish, Phase, Token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from cierzo.chat import Chat
    from cierzo.messages import Message, Sampling

log = logging.getLogger(__name__)

FASTEST = 0.05
"""Seconds between two views at least: twenty a second, faster than anybody reads."""

TOGETHER = 250
"""Views a second for everybody together. Gradio took 31.8 s to show ten seconds of text to 100 people at 20 views
a second each, and 11.0 s at 5 (two cores); so the more people read, the fewer views each one gets."""

SHARE = 3
"""After a view that took t seconds to hand over, wait at least this many times t: a long conversation costs more."""

CLOCK = 0.5
"""Seconds after which a view comes although nothing new has: the clock goes on, and who has gone is noticed."""


@dataclass(frozen=True, slots=True)
class View:
    """What there is to see at one moment.

    Attributes:
        text: The answer so far.
        phase: What happens before the first token, if the engine has said so.
        tokens: How many have come.
        seconds: Since the question came.
        dropped: Earlier messages that the window had no room for.
        stopped: Whether a person stopped it.
        finish: How it ended; None while it runs, and after a stop or an error.
        error: What went wrong.
        over: Whether this is the last view.
    """

    text: str = ""
    phase: Phase | None = None
    tokens: int = 0
    seconds: float = 0.0
    dropped: int = 0
    stopped: bool = False
    finish: Finish | None = None
    error: CierzoError | None = None
    over: bool = False


class Turn:
    """A question on its way.

    Args:
        chat: What answers.
        messages: The conversation, the question last.
        sampling: How.
    """

    running = 0
    """How many there are in this process; the pace of all depends on it."""

    def __init__(self, chat: Chat, messages: Sequence[Message], sampling: Sampling) -> None:
        self._chat, self._messages, self._sampling = chat, messages, sampling
        self._started = time.monotonic()
        self._pieces: list[str] = []
        self._tokens = self._dropped = self._events = 0
        self._phase: Phase | None = None
        self._finish: Finish | None = None
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Stop the engine. The next view is the last one and holds what was written."""
        self._stopped = True
        if self._task:
            self._task.cancel()

    async def views(self) -> AsyncGenerator[View, None]:
        """Yield views, the last one with ``over``. Closing the generator stops the engine, too."""
        # The engine's stream is read by a task of its own, because Gradio closes or cancels this generator from
        # outside and at any moment. Whichever way it ends, the task is ended and awaited, and so the slot is free.
        Turn.running += 1
        task = self._task = asyncio.create_task(self._read())
        try:
            async for view in self._until(task):
                yield view
            yield self._view(over=True, error=self._failure(task))
        finally:
            Turn.running -= 1
            task.cancel()
            await asyncio.wait({task})

    async def _until(self, task: asyncio.Task[None]) -> AsyncGenerator[View, None]:
        seen, shown, cost = -1, time.monotonic(), 0.0
        while not task.done():
            await asyncio.wait({task}, timeout=max(FASTEST, Turn.running / TOGETHER, SHARE * cost))
            if task.done() or (seen == self._events and time.monotonic() - shown < CLOCK):
                continue
            seen, before = self._events, time.monotonic()
            yield self._view()
            shown = time.monotonic()
            cost = shown - before

    async def _read(self) -> None:
        if self._stopped:
            return
        prompt = await self._chat.prompt(self._messages, self._sampling)
        self._dropped = len(prompt.dropped)
        async with aclosing(self._chat.engine.stream(prompt, self._sampling)) as events:
            async for event in events:
                self._events += 1
                if isinstance(event, Token):
                    self._tokens += 1
                    self._pieces.append(event.text)
                elif isinstance(event, Phase):
                    self._phase = event
                else:
                    self._finish = event

    def _failure(self, task: asyncio.Task[None]) -> CierzoError | None:
        failure = None if task.cancelled() else task.exception()
        if failure is None or isinstance(failure, CierzoError):
            return failure
        # A fault of our own. The person gets a sentence, whoever runs the program gets the trace.
        log.error("an answer failed in a way that nobody foresaw", exc_info=failure)
        return EngineError("something went wrong inside Cierzo: ask again, and report it if it goes on")

    def _view(self, *, over: bool = False, error: CierzoError | None = None) -> View:
        return View(
            text="".join(self._pieces),
            phase=self._phase,
            tokens=self._tokens,
            seconds=time.monotonic() - self._started,
            dropped=self._dropped,
            stopped=self._stopped,
            finish=self._finish,
            error=error,
            over=over,
        )
