"""The answers that a request waits for: when each may start, how it ends, and that the server can end in peace.

The plain routes ask here. Their answers take turns with those in conversations, in one queue. What comes out keeps
the promise of a stream whatever the engine does: tokens, then exactly one `Finish`, or an error of `cierzo.errors`.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from cierzo.engines.base import SILENCE, orderly
from cierzo.errors import CierzoError, EngineDied, Overloaded
from cierzo.messages import Finish, Phase, Prompt, Sampling, Token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from cierzo.admission import Ticket
    from cierzo.chat import Chat, Held
    from cierzo.conversations import Conversations
    from cierzo.engines.base import Engine
    from cierzo.telemetry import Telemetry

PLAIN = "api"
"""In the queue, the plain routes together are one of the people: theirs have no names."""

RECENT = 5.0
ASK_WITHIN = 5.0

_CUT = "the server is ending and cut this answer: ask again when it is back"
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Answer:
    began: float = field(default_factory=time.monotonic)
    first: float = 0.0
    last: float = 0.0
    tokens: int = 0
    finish: Finish | None = None
    reason: str = "cancelled"
    over: bool = False
    waiting: asyncio.Task[Any] | None = None

    def took(self) -> None:
        self.last = time.monotonic()
        self.first = self.first or self.last
        self.tokens += 1

    def finished(self, finish: Finish, waited: float) -> None:
        if finish.reason in ("failed", "stopped"):
            raise EngineDied(f"the answer {finish.reason} before its end: ask again")
        self.reason = finish.reason
        self.finish = replace(finish, timings=finish.timings.after(waited))

    def cut(self) -> None:
        """End it: now, if something is waited for, or before the next wait. Twice is as once."""
        if self.waiting is not None and not self.over:
            self.waiting.cancel()
        self.over = True

    async def unless_cut(self, step: Callable[[], Awaitable[T]]) -> T:
        if self.over:
            raise EngineDied(_CUT)
        self.waiting = task = asyncio.current_task()
        try:
            return await step()
        except asyncio.CancelledError:
            if not self.over or task is None or task.uncancel():
                raise  # the client left
            raise EngineDied(_CUT) from None
        finally:
            self.waiting = None


class Work:
    """All answers of one server.

    Args:
        chat: What answers.
        telemetry: Counts them.
        silence: Seconds without any event after which the engine counts as dead.

    Attributes:
        draining: Whether the server is ending: what runs may finish, nothing new begins.
    """

    def __init__(self, chat: Chat, telemetry: Telemetry, *, silence: float = SILENCE) -> None:
        self.chat, self.telemetry = chat, telemetry
        self.draining = False
        self._silence = silence
        self._answers: set[_Answer] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._spoke = float("-inf")
        self._speaker: Engine | None = None
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
        """How many answers of all kinds wait for their turn."""
        return sum(each.waiting for each in self._service.admissions) if self._service else 0

    @property
    def running(self) -> int:
        """How many answers of all kinds have their turn."""
        return sum(each.running for each in self._service.admissions) if self._service else 0

    async def answer(self, held: Held, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Token | Finish, None]:
        """Wait for a turn, then yield tokens and one `Finish`. Closing the generator stops the engine.

        Args:
            held: The engine that the prompt was made for. It is let go here.
            prompt: What the model is given.
            sampling: How the answer is made.

        Raises:
            Overloaded: Every place in the queue is taken, or the server ends.
            CierzoError: What the engine raises; or `EngineDied`, where it broke its promises or the server cut it.
        """
        self.service.replies.refuse_if_closing()
        ticket = self.service.admission.enter(PLAIN)
        ticket.after = held.let_go
        mine = _Answer()
        self._answers.add(mine)
        self._idle.clear()
        try:
            await mine.unless_cut(partial(_turn, ticket))
            waited = time.monotonic() - mine.began
            async with aclosing(orderly(held.stream_prompt(prompt, sampling), silence=self._silence)) as events:
                while mine.finish is None:
                    said = await mine.unless_cut(events.__anext__)
                    if isinstance(said, Token):
                        self._note(mine, held.engine)
                        yield said
                    elif isinstance(said, Finish):
                        mine.finished(said, waited)
            ticket.leave()  # who reads the end slowly keeps nobody waiting
            yield mine.finish
        except CierzoError as error:
            mine.reason = type(error).__name__
            raise
        finally:
            ticket.leave()
            self._answers.discard(mine)
            if not self._answers:
                self._idle.set()
            self.telemetry.ended(mine.reason, mine.tokens, mine.last - mine.first, mine.finish)

    def _note(self, mine: _Answer, engine: Engine) -> None:
        mine.took()
        self._spoke, self._speaker = mine.last, engine
        if mine.tokens == 1:
            self.telemetry.began(mine.first - mine.began)

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
        spoke = self._speaker is self.chat.engine and time.monotonic() - self._spoke < RECENT
        return "ready" if spoke else await self._ask_engine()

    async def _ask_engine(self) -> str:
        try:
            with self.chat.hold() as held:
                async with asyncio.timeout(ASK_WITHIN):
                    ready = getattr(held.engine, "ready", None)
                    if ready is None:
                        return await self._ask_for_a_token(held)
                    await ready()  # a server elsewhere, whose tokens may cost money
                    return "ready"
        except TimeoutError:
            return "the engine does not answer"
        except Overloaded:
            return "busy"
        except CierzoError as error:
            return str(error)

    async def _ask_for_a_token(self, held: Held) -> str:
        prompt = await held.raw("[INST]")
        async with aclosing(held.stream_prompt(prompt, Sampling(max_new_tokens=1))) as events:
            async for said in events:
                if not isinstance(said, Phase):
                    self._spoke, self._speaker = time.monotonic(), held.engine
                    return "ready"
                if said.name != "reading":
                    return "loading" if said.name == "loading" else "busy"
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
            answer.cut()


async def _turn(ticket: Ticket) -> None:
    async with aclosing(ticket.turn()) as turns:
        async for _ in turns:
            pass


async def whole(events: AsyncGenerator[Token | Finish, None]) -> tuple[list[Token], Finish]:
    """Fold a stream of `Work.answer` into its tokens and its end."""
    tokens: list[Token] = []
    async with aclosing(events):
        async for said in events:
            if isinstance(said, Finish):
                return tokens, said
            tokens.append(said)
    raise EngineDied("the engine's answer ended without saying why: ask again")
