"""What a page shows: a branch of a conversation as HTML, and an answer as HTML while it is written.

The HTML is safe to place as it is; see `cierzo.rendering`. While an answer is written, only its last blocks go out
again, at most twenty times a second, and less often where reading the text takes long.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Self

from fastapi import APIRouter, Query, Response

from cierzo.api import rendered_types as types
from cierzo.api.conversations import OWNER, shown
from cierzo.api.conversations_types import Id
from cierzo.api.replies import OPENING, described_events, name_of
from cierzo.api.wire import EventStream, dumps, json_response, routes_worded
from cierzo.api.wording import ERRORS, refusal
from cierzo.errors import CierzoError, EngineDied, NotFound
from cierzo.messages import Token
from cierzo.rendering import Growing, render
from cierzo.replies import End

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from cierzo.api.work import Work
    from cierzo.messages import StreamEvent
    from cierzo.store import Branch

MOST = 100
EVERY = 0.05
"""Seconds between two updates of an answer."""

SHARE = 10
"""An update that took long to make is followed by a pause so many times as long: other answers want the processor."""

LONG = 5_000
"""Characters of a block that are read beside the event loop."""

_STREAM = """Server-sent events: `phase` (PhaseEvent), `html` (HtmlEvent) and as the last one `end` (EndEvent). The
first `html` has all that was written so far: whoever lost a stream asks again, and replaces what it shows. An `error`
event (ApiError) also ends it: the answer goes on, ask again. Lines that begin with a colon keep it alive."""


def router(work: Work) -> APIRouter:
    """Make the routes."""
    api = APIRouter(prefix="/api", tags=["For pages"], route_class=routes_worded(refusal), responses=ERRORS)

    @api.get("/conversations/{conversation}/branch", response_model=types.Branch, summary="Show a branch")
    async def branch(
        conversation: str,
        through: Annotated[
            Id | None, Query(description="a message: the branch that ends with it; else the head")
        ] = None,
        before: Annotated[Id | None, Query(description="a message of it: give those before this one")] = None,
        limit: Annotated[int, Query(ge=1, le=MOST)] = 30,
    ) -> Response:
        """Give the last messages of the branch in use, or of the one that ends with `through`, as HTML."""
        found = await work.service.store.branches.read(
            conversation, owner=OWNER, through=through, before=before, limit=limit
        )
        return json_response(await asyncio.to_thread(_shown, found))

    @api.get(
        "/replies/{reply}/html",
        responses=_described(),
        response_class=Response,
        summary="Follow an answer as HTML",
    )
    async def follow(reply: str) -> Response:
        """Give what it is so far, then what changes. Leaving does not stop the answer."""
        message = await work.service.store.conversations.message(reply, owner=OWNER)
        if message.answer is None:
            raise NotFound(f"the message {reply[:40]!r} is no answer of a model: name an answer")
        return EventStream(_updates(work, reply), refusal)

    return api


def _shown(branch: Branch) -> dict[str, Any]:
    messages = [
        {
            "message": place.message,
            "html": render(place.message.text, breaks=place.message.role != "assistant"),
            "siblings": place.siblings,
        }
        for place in branch.places
    ]
    return {"conversation": shown(branch.conversation), "messages": messages, "earlier": branch.earlier}


async def _updates(work: Work, reply: str) -> AsyncGenerator[bytes, None]:
    """Yield an answer as events; what comes between two updates goes into one."""
    yield OPENING
    text, tokens, pause = Growing(), 0, EVERY
    try:
        async with _Gathered(work.service.follow(reply, owner=OWNER)) as gathered:
            while True:
                news = await gathered.take()
                said = [event for event in news if isinstance(event, Token)]
                last = news[-1]
                if said or (isinstance(last, End) and not tokens):
                    began = time.monotonic()
                    first = await _add(text, "".join(token.text for token in said))
                    pause = max(EVERY, SHARE * (time.monotonic() - began))
                    tokens += len(said)
                    update = {"first": first, "blocks": text.blocks[first:], "tokens": tokens}
                    yield b"event: html\ndata: %b\n\n" % dumps(update)
                if not isinstance(last, Token):
                    yield b"event: %b\ndata: %b\n\n" % (name_of(last), dumps(last))
                if isinstance(last, End):
                    return
                await gathered.rest(pause)
    except CierzoError as error:
        yield b"event: error\ndata: %b\n\n" % dumps(refusal(error).body)


async def _add(text: Growing, more: str) -> int:
    """Add to a text; where its last block is long, beside the event loop."""
    if text.unsettled + len(more) > LONG:
        return await asyncio.to_thread(text.add, more)
    return text.add(more)


class _Gathered:
    """Events as they come, given out in the portions in which somebody asks for them."""

    def __init__(self, events: AsyncGenerator[tuple[int, StreamEvent | End], None]) -> None:
        self._events = events
        self._got: list[StreamEvent | End] = []
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await asyncio.wait([self._reading])

    async def rest(self, seconds: float) -> None:
        """Let events gather for so long, or until there are no more."""
        await asyncio.wait([self._reading], timeout=seconds)

    async def take(self) -> list[StreamEvent | End]:
        """Return what has come since the last time, at least one event. Raises what the events raise."""
        while not self._got:
            if self._reading.done():
                await self._reading
                raise EngineDied("the answer ended without saying why: ask again")
            self._news.clear()
            await self._news.wait()
        got, self._got = self._got, []
        return got

    async def _read(self) -> None:
        try:
            async with aclosing(self._events) as events:
                async for _, event in events:
                    self._got.append(event)
                    self._news.set()
        finally:
            self._news.set()


def _described() -> dict[int | str, dict[str, Any]]:
    names = ("PhaseEvent", "HtmlEvent", "EndEvent", "ApiError")
    return described_events(names, ("phase", "html", "end", "error"), _STREAM)
