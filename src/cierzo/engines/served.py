"""An engine that is a server elsewhere: what it is is found out by asking, and its answers are accounted for here."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import orjson

from cierzo.engines.account import Account, Asking, Hearing, Told
from cierzo.engines.refusals import in_stream, refused
from cierzo.engines.remote import PATIENCE, TRIES, Patience, Remote
from cierzo.errors import (
    BadSampling,
    BadSetting,
    BadText,
    CierzoError,
    EngineDied,
    EngineError,
    EngineRefused,
    Overloaded,
    PromptTooLong,
)
from cierzo.messages import Phase, Prompt, Sampling, StreamEvent
from cierzo.templates import TEMPLATES

if TYPE_CHECKING:
    from cierzo.engines.base import EngineInfo

UNMET_CONTEXT = 4096
"""Tokens of the window of a server that does not say."""

LARGEST_WINDOW = 2**30

AFTERWARDS = 1.0
"""Seconds that a server gets to say how many tokens it counted, after it has said how the answer ended."""

_DONE = b"[DONE]"
_FAILED = 500
_RAW = "raw"


class Served(ABC):
    """Base of the engines that are servers.

    Args:
        url: Where the server is.
        key: For it, or empty.
        unmet: What is said of it before it was asked.
        patience: How long it may take.
    """

    sign_of_life = "/health"
    """A route that any such server answers at once."""

    def __init__(self, url: str, key: str, unmet: EngineInfo, patience: Patience = PATIENCE) -> None:
        self._remote = Remote(url, key, patience)
        self._info = unmet
        self._met = False
        self._meeting = asyncio.Lock()

    def describe(self) -> EngineInfo:
        """Say what it is, as far as it is known."""
        return self._info

    async def meet(self) -> None:
        """Ask the server what it is, unless it has said so. After an answer that failed it is asked again.

        Raises:
            CierzoError: It cannot be asked, or is no server of this kind.
        """
        if self._met:
            return
        async with self._meeting:
            if not self._met:
                self._info = await self._find_out()
                self._met = True

    async def ready(self) -> None:
        """Ask the server for a sign of life, which costs it next to nothing.

        Raises:
            CierzoError: It gives none, or what `meet` raises.
        """
        await self.meet()
        answer = await self._remote.ask(self.sign_of_life)
        if answer.status >= _FAILED:
            raise refused(self._remote.host, answer.status, answer.raw, self._remote.clean)

    async def stream(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[StreamEvent, None]:
        """Yield phases, tokens and one `Finish`; see `cierzo.engines.base.Engine.stream`.

        Raises:
            EngineDied: The server cannot be reached, or its answer broke off.
            EngineRefused: It said no, or what it says is no answer.
            Overloaded: It is busy.
            BadSampling: It cannot do what is asked.
        """
        if not len(prompt):
            raise BadText("the prompt is empty: write something first")
        began = time.monotonic()
        try:
            async for phase in self._arriving(began):
                yield phase
            if prompt.template not in (_RAW, self._info.template):
                raise EngineRefused(f"the server at {self._remote.host} has another model now: ask again")
            account = Account.of(prompt, sampling, self._info, room=self._room(prompt, sampling))
            account.loaded = time.monotonic() - began
            account.began = began
            async with aclosing(self._answer(account)) as events:
                async for event in events:
                    yield event
        except (EngineError, Overloaded):
            self._met = False  # it may be another one when it is back
            raise

    async def close(self) -> None:
        """End running streams with `EngineDied` and let go of every connection. May be called twice."""
        await self._remote.close()

    async def _arriving(self, began: float) -> AsyncGenerator[Phase, None]:  # noqa: ARG002 - for those that load
        """Meet the server; yield phases while it loads its model, for those that tell."""
        await self.meet()
        return
        yield  # no phase: a generator all the same

    @abstractmethod
    async def _find_out(self) -> EngineInfo:
        """Ask the server what it is."""

    @abstractmethod
    def _asking(self, account: Account) -> Asking:
        """Write the request for one answer."""

    async def _answer(self, account: Account) -> AsyncGenerator[StreamEvent, None]:
        """Have one answer written; asked anew where a server finds only within its stream that it is full."""
        for again in range(TRIES):
            if again:
                await asyncio.sleep(self._remote.patience.back_off * 2 ** (again - 1))
            account.full = False
            try:
                async with aclosing(self._asked(account)) as events:
                    async for event in events:
                        yield event
            except Overloaded:
                if not account.full or account.came or again == TRIES - 1:
                    raise
            else:
                return

    async def _asked(self, account: Account) -> AsyncGenerator[StreamEvent, None]:
        """Send one request, and give its answer."""
        asking = self._asking(account)
        hearing = asking.hearing
        yield account.phase("reading", 0, len(account.prompt))
        reading = self._remote.events(asking.path, asking.body, tokens=account.room, alternatives=asking.alternatives)
        async with aclosing(reading) as events:
            async for data in events:
                if data == _DONE:
                    break
                for said in self._heard(account, hearing, data):
                    yield said
                if account.stops.met is not None:
                    break
                if hearing.reason is not None:
                    await self._afterwards(hearing, events)
                    break
        for event in self._last(account, hearing):
            yield event

    def _heard(self, account: Account, hearing: Hearing, data: bytes) -> list[Told]:
        """Read one event; return what it says that is certain.

        Raises:
            CierzoError: It is an error, or nothing that a server of this kind says.
        """
        out: list[Told] = []
        try:
            value = orjson.loads(data)
            if isinstance(value, dict) and value.get("error"):
                error = in_stream(self._remote.host, value, self._remote.clean)
                account.full = isinstance(error, Overloaded)
                raise error
            told = hearing.read(value)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError):
            raise EngineRefused(
                f"the server at {self._remote.host} says what no {self._kind_of_server()} says: check its address"
            ) from None
        account.exact = hearing.exact
        for said in told:
            if isinstance(said, Phase):
                out.append(account.phase(said.name, said.done, said.total))
            elif account.stops.met is None:
                out += account.take(said)
        return out

    async def _afterwards(self, hearing: Hearing, events: AsyncGenerator[bytes, None]) -> None:
        """Read what a server says after the end: how many tokens it counted. It may as well say nothing, or break."""
        with suppress(CierzoError, TimeoutError, ValueError, TypeError, KeyError, IndexError, AttributeError):
            async with asyncio.timeout(AFTERWARDS):
                async for data in events:
                    if data == _DONE:
                        return
                    hearing.read(orjson.loads(data))

    def _last(self, account: Account, hearing: Hearing) -> Iterator[StreamEvent]:
        """Yield what was held back, and the end.

        Raises:
            EngineDied: The server never said how the answer ended.
        """
        if account.stops.met is None:
            for said in hearing.rest():
                yield from account.take(said)
        if account.stops.met is None:
            yield from account.rest()
        if hearing.reason is None and account.stops.met is None:
            raise EngineDied(f"the answer of the server at {self._remote.host} broke off: ask again")
        yield account.finish(
            hearing.reason or "stop_sequence",
            prompt_tokens=hearing.prompt_tokens,
            cached=hearing.cached,
            answer_tokens=hearing.answer_tokens,
            seed=hearing.seed,
            rate=hearing.rate,
        )

    def _kind_of_server(self) -> str:
        """Return what it should be, for a person."""
        return f"{self._info.engine} server"

    def _room(self, prompt: Prompt, sampling: Sampling) -> int:
        """Return how many tokens the answer may have.

        Raises:
            PromptTooLong: None.
        """
        room = self._info.context - len(prompt)
        if room < 1:
            raise PromptTooLong(len(prompt), self._info.context - 1)
        return min(room, sampling.max_new_tokens)

    def _check_alternatives(self, asked: int, most: int) -> None:
        """Refuse to ask for more alternatives than the server reports.

        Raises:
            BadSampling: With the bound.
        """
        if asked > most:
            raise BadSampling(
                f"the server at {self._remote.host} reports at most {most} alternatives of a token, not {asked}: "
                "ask for fewer"
            )


def known_template(name: str) -> str:
    """Return the name of a template that was set, or the empty one.

    Raises:
        BadSetting: There is no such template.
    """
    if name and name not in TEMPLATES:
        raise BadSetting(f"CIERZO_TEMPLATE is {name!r:.60}: use one of {', '.join(TEMPLATES)}, or leave it empty")
    return name


def window_of(value: Any) -> int:
    """Return a count that a server tells, where it is one; otherwise 0."""
    return value if isinstance(value, int) and 0 < value <= LARGEST_WINDOW else 0
