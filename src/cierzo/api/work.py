"""The answers under way: how many there may be, how each of them ends, and that the server can end in peace.

Every route of the API asks here. What comes out keeps the promise of a stream whatever the engine does: tokens,
then exactly one `Finish`, or an error of `cierzo.errors`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cierzo.errors import CierzoError, EngineDied, Overloaded
from cierzo.messages import Finish, Phase, Prompt, Sampling, Token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from cierzo.chat import Chat
    from cierzo.conversations import Conversations
    from cierzo.messages import StreamEvent
    from cierzo.telemetry import Telemetry

MOST = 512
"""Answers that may be under way, waiting ones included. The engine's own queue is shorter."""

SILENCE = 600.0
"""Seconds after which an engine that says nothing at all counts as dead. Reading a prompt reports progress."""

RECENT = 5.0
ASK_WITHIN = 5.0

_CUT = "the server is ending and cut this answer: ask again when it is back"
_log = logging.getLogger("cierzo.api")


@dataclass(slots=True, eq=False)
class _Answer:
    began: float = field(default_factory=time.monotonic)
    first: float = 0.0
    last: float = 0.0
    tokens: int = 0
    queued: bool = False
    finish: Finish | None = None
    reason: str = "cancelled"
    cut: bool = False
    patience: asyncio.Timeout | None = None

    def took(self) -> None:
        self.last = time.monotonic()
        self.first = self.first or self.last
        self.tokens += 1
        self.queued = False


class Work:
    """All answers of one server.

    Args:
        chat: What answers.
        telemetry: Counts them.
        most: How many there may be at once.
        silence: Seconds without any event after which the engine counts as dead.

    Attributes:
        draining: Whether the server is ending: what runs may finish, nothing new begins.
    """

    def __init__(self, chat: Chat, telemetry: Telemetry, *, most: int = MOST, silence: float = SILENCE) -> None:
        self.chat, self.telemetry = chat, telemetry
        self.draining = False
        self._most, self._silence = most, silence
        self._answers: set[_Answer] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._spoke = float("-inf")
        self._asking: asyncio.Task[str] | None = None
        self._service: Conversations | None = None

    @property
    def service(self) -> Conversations:
        """What people do in conversations. There is none before `open`."""
        assert self._service is not None
        return self._service

    async def open(self, make: Callable[[Chat, Telemetry], Awaitable[Conversations]]) -> None:
        """Open the store, see to answers that another process left behind, and begin to load the model.

        Raises:
            CierzoError: What ``make`` raises; then there is nothing to close.
        """
        self._service = await make(self.chat, self.telemetry)
        self._service.replies.start()
        await self.chat.start()

    async def close(self) -> None:
        """Mark what still runs, free the engine, and let go of the store."""
        if self._service is None:
            return
        try:
            await self._service.replies.close()
            await self.chat.close()
        finally:
            await self._service.store.close()

    @property
    def queued(self) -> int:
        """How many answers wait for a slot."""
        queue = self._service.admission.waiting if self._service else 0
        return queue + sum(answer.queued for answer in self._answers)

    @property
    def running(self) -> int:
        """How many answers are being written, or their prompts read."""
        queue = self._service.admission.running if self._service else 0
        return queue + sum(not answer.queued for answer in self._answers)

    async def answer(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Token | Finish, None]:
        """Yield tokens, then one `Finish`. Closing the generator stops the engine.

        Raises:
            Overloaded: Too many are under way.
            CierzoError: What the engine raises; or `EngineDied`, where it broke its promises or the server ends.
        """
        if len(self._answers) >= self._most:
            raise Overloaded(f"{self._most} answers are under way already: ask again in a moment", retry_after=2)
        mine = _Answer()
        self._answers.add(mine)
        self._idle.clear()
        try:
            async with aclosing(self.chat.stream_prompt(prompt, sampling)) as events:
                while not mine.finish:
                    said = await self._next(mine, events)
                    if isinstance(said, Phase):
                        mine.queued = said.name == "queued"
                        continue
                    self._note(mine, said)
                    yield said
        except CierzoError as error:
            mine.reason = type(error).__name__
            raise
        finally:
            self._answers.discard(mine)
            if not self._answers:
                self._idle.set()
            self.telemetry.ended(mine.reason, mine.tokens, mine.last - mine.first, mine.finish)

    async def _next(self, mine: _Answer, events: AsyncGenerator[StreamEvent, None]) -> StreamEvent:
        if mine.cut:
            raise EngineDied(_CUT)
        try:
            async with asyncio.timeout(self._silence) as mine.patience:
                return await anext(events)
        except StopAsyncIteration:
            raise EngineDied("the engine's answer ended without saying why: ask again") from None
        except TimeoutError:
            if mine.cut:
                raise EngineDied(_CUT) from None
            raise EngineDied(f"the engine said nothing for {self._silence:g} seconds: ask again") from None
        except CierzoError:
            raise
        except Exception as error:  # noqa: BLE001 - an engine of somebody else may raise anything
            _log.exception("the engine raised what it must not")
            raise EngineDied(f"the engine failed unexpectedly ({type(error).__name__}): ask again") from None
        finally:
            mine.patience = None

    def _note(self, mine: _Answer, said: Token | Finish) -> None:
        if isinstance(said, Token):
            mine.took()
            self._spoke = mine.last
            if mine.tokens == 1:
                self.telemetry.began(mine.first - mine.began)
        elif isinstance(said, Finish):
            if said.reason in ("failed", "stopped"):
                raise EngineDied(f"the answer {said.reason} before its end: ask again")
            mine.finish, mine.reason = said, said.reason
        else:
            raise EngineDied(f"the engine said something that is no event ({type(said).__name__}): ask again")

    async def ready(self) -> str:
        """Ask the engine for one token, unless it has just given one; and the database. Askers at a time share it.

        Returns:
            ``ready``, ``loading``, ``busy`` (ready, with every slot taken), or one line that says what is wrong.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> str:
        try:
            async with asyncio.timeout(ASK_WITHIN):
                await self.service.store.ready()
        except TimeoutError:
            return "the database does not answer"
        except CierzoError as error:
            return str(error)
        return "ready" if time.monotonic() - self._spoke < RECENT else await self._ask_engine()

    async def _ask_engine(self) -> str:
        try:
            async with asyncio.timeout(ASK_WITHIN):
                prompt = await self.chat.raw("[INST]")
                async with aclosing(self.chat.stream_prompt(prompt, Sampling(max_new_tokens=1))) as events:
                    async for said in events:
                        if not isinstance(said, Phase):
                            self._spoke = time.monotonic()
                            return "ready"
                        if said.name != "reading":
                            return "loading" if said.name == "loading" else "busy"
        except TimeoutError:
            return "the engine does not answer"
        except Overloaded:
            return "busy"
        except CierzoError as error:
            return str(error)
        return "the engine's answer ended without saying why"

    async def drain(self, grace: float) -> None:
        """Let the answers under way finish, at most ``grace`` seconds; then cut them."""
        self.draining = True
        await asyncio.gather(self._drain(grace), self.service.replies.close(grace))

    async def _drain(self, grace: float) -> None:
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            self._cut()

    def cut(self) -> None:
        """End every answer now: those in conversations are marked, the others end with an error that says why."""
        self.service.replies.cut()
        self._cut()

    def _cut(self) -> None:
        for answer in self._answers:
            answer.cut = True
            if answer.patience is not None and not answer.patience.expired():
                answer.patience.reschedule(0)


async def whole(events: AsyncGenerator[Token | Finish, None]) -> tuple[list[Token], Finish]:
    """Fold a stream of `Work.answer` into its tokens and its end."""
    tokens: list[Token] = []
    async with aclosing(events):
        async for said in events:
            if isinstance(said, Finish):
                return tokens, said
            tokens.append(said)
    raise EngineDied("the engine's answer ended without saying why: ask again")
