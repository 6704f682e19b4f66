"""Following a stream on a terminal: the phase with its clock before the first token, and Ctrl+C that stops it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from cierzo.errors import CierzoError, EngineDied
from cierzo.messages import Finish, Message, Phase, Timings, Token
from cierzo.terminal.language import say

if TYPE_CHECKING:
    from cierzo.chat import Chat
    from cierzo.messages import Sampling, StreamEvent
    from cierzo.terminal.render import Screen

TICK = 0.1
PATIENCE = 0.25
"""Seconds before the waiting is shown: what is quick needs no clock."""


@dataclass(slots=True)
class Heard:
    """What has come of an answer so far."""

    tokens: list[Token] = field(default_factory=list)
    finish: Finish | None = None
    started: float = field(default_factory=time.monotonic)
    times: list[float] = field(default_factory=list)  # when the first token came, and the last

    @property
    def text(self) -> str:
        """The token texts, joined."""
        return "".join(token.text for token in self.tokens)

    def add(self, token: Token) -> None:
        """Take one more token."""
        self.tokens.append(token)
        now = time.monotonic()
        self.times = [self.times[0] if self.times else now, now]

    def stop(self) -> Finish:
        """Note that a person ended it here, and return the finish that says so."""
        first, last = self.times or (self.started, self.started)
        timings = Timings(first_token=first - self.started, decode=last - first)
        self.finish = Finish("stopped", answer_tokens=len(self.tokens), timings=timings)
        return self.finish

    @property
    def stopped(self) -> bool:
        """Whether a person stopped it."""
        return self.finish is not None and self.finish.reason == "stopped"

    @property
    def message(self) -> Message:
        """The answer as the next prompt wants it; a NUL, which no message may hold, is replaced."""
        return Message("assistant", self.text.replace("\x00", "\ufffd"), tuple(token.id for token in self.tokens))


@asynccontextmanager
async def opened(chat: Chat) -> AsyncIterator[Chat]:
    """Begin to load the model, so that the prompt is made meanwhile; close the chat in the end."""
    try:
        await chat.start()
        yield chat
    finally:
        await chat.close()


async def asked(chat: Chat, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[StreamEvent, None]:
    """Yield an answer that nobody keeps.

    Raises:
        CierzoError: What `Chat.stream` raises; `EngineDied` where the engine ended it and says no more than that.
    """
    async with aclosing(chat.stream(messages, sampling)) as events:
        async for event in events:
            if isinstance(event, Finish) and event.reason in ("failed", "stopped"):  # a person stops it in `hear`
                raise EngineDied(f"the answer {event.reason} before its end: ask again")
            yield event


class Clock:
    """Shows what happens before the first token, with the seconds since the question."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.words = say("waiting")
        self._started = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        if self.screen.live:
            self._task = asyncio.create_task(self._tick())
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def phase(self, phase: Phase) -> None:
        """Say what is happening now."""
        known = phase.total > 0 or (phase.name == "queued" and phase.done > 0)
        done = phase.done * 100 // phase.total if phase.name == "loading" and phase.total else phase.done
        self.words = say(f"{phase.name}_at", done=done, total=phase.total) if known else say(phase.name)

    def stop(self) -> None:
        """Take the line away."""
        if self._task:
            self._task.cancel()
            self._task = None
        self.screen.clear()

    async def _tick(self) -> None:
        await asyncio.sleep(PATIENCE)
        while True:
            self.screen.status(f"{self.words} · {time.monotonic() - self._started:.1f} s")
            await asyncio.sleep(TICK)


async def hear(
    events: AsyncGenerator[StreamEvent, None],
    screen: Screen,
    show: Callable[[StreamEvent, Heard], None],
    *,
    waiting: str = "",
    torn: Callable[[], None] = lambda: None,
) -> Heard:
    """Follow a stream to its end, or until Ctrl+C, which closes it and frees the engine.

    Args:
        events: The stream; closed in any case.
        screen: Where the phase is shown.
        show: Called with every event, and what has come up to and with it.
        waiting: What is shown until the first event; otherwise that one waits for the model.
        torn: Called where the stream fails and something was said: what is told next is no part of it.

    Returns:
        What came. Its finish says ``stopped`` where a person stopped it; ``show`` gets that finish too.

    Raises:
        CierzoError: What the stream raises; what was shown before stays shown.
    """
    heard = Heard()
    with Clock(screen) as clock:
        clock.words = waiting or clock.words
        try:
            stopped = await interruptible(_follow(events, clock, heard, show))
        except CierzoError:
            if heard.tokens:
                torn()
            raise
        if stopped:
            clock.stop()
            show(heard.stop(), heard)
    return heard


async def attend(
    events: AsyncGenerator[StreamEvent, None], screen: Screen, show: Callable[[StreamEvent, Heard], None]
) -> Heard:
    """Follow a stream to its end, whatever is pressed: as `hear`, for an answer that somebody else stops."""
    heard = Heard()
    with Clock(screen) as clock:
        await _follow(events, clock, heard, show)
    return heard


async def _follow(
    events: AsyncGenerator[StreamEvent, None], clock: Clock, heard: Heard, show: Callable[[StreamEvent, Heard], None]
) -> None:
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Phase):
                clock.phase(event)
            else:
                clock.stop()
            if isinstance(event, Token):
                heard.add(event)
            elif isinstance(event, Finish):
                heard.finish = event
            show(event, heard)
            if heard.finish:
                return
    raise EngineDied("the engine's answer ended without saying why: ask again")


async def interruptible(work: Any) -> bool:
    """Run a coroutine; Ctrl+C cancels it, and nothing else.

    Returns:
        Whether Ctrl+C was pressed before it ended.
    """
    task = asyncio.ensure_future(work)
    pressed = False

    def press() -> None:
        nonlocal pressed
        pressed = True
        task.cancel()

    with on_interrupt(press):
        try:
            await task
        except asyncio.CancelledError:
            if not pressed:  # somebody cancelled us, not the answer
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                raise
            return True
    return False


@contextmanager
def on_interrupt(act: Callable[[], None]) -> Iterator[None]:
    """Call ``act`` in the event loop at Ctrl+C, instead of raising KeyboardInterrupt wherever the program is."""
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(act))
    except ValueError:  # not the main thread: nobody presses keys here
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
