"""What goes over the wire whatever the family of routes: JSON in, errors out, event streams, clients that leave.

Every answer is cancelled when its client leaves. Starlette's own streaming leaves a generator's ``finally`` to the
garbage collector; `EventStream` closes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, TypeVar

import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from cierzo.errors import CierzoError

T = TypeVar("T")

VERSION = metadata.version("cierzo")

KEEP_ALIVE = 10.0
"""Seconds after which a silent stream says that it is alive. By then its head has gone out, and its status is 200."""

STALLED = 60.0
"""Seconds that a client may leave its answer unread before it loses it."""

TOGETHER = 0.005
"""Seconds within which events go out in one packet. Slower than 200 tokens a second, each goes by itself, at once."""

MUCH = 65_536

LEFT = 499
"""Status, by nginx's custom, of a request whose client has gone. Nobody receives it; the log has it."""

_log = logging.getLogger("cierzo.api")


def dumps(value: Any) -> bytes:
    """Return JSON on one line, for every notion of a line.

    Some clients split a stream where Unicode ends lines too; the three such characters that JSON leaves as they
    are get escaped.
    """
    text = orjson.dumps(value)
    if b"\xe2\x80" in text or b"\xc2\x85" in text:
        text = text.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
        text = text.replace(b"\xc2\x85", b"\\u0085")
    return text


def event(value: Any) -> bytes:
    """Return one server-sent event."""
    return b"data: " + dumps(value) + b"\n\n"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as one family of routes words it."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        """Return it as a whole answer."""
        return json_response(self.body, self.status, self.headers)


Wording = Callable[[Exception], Refusal]
"""Words any error: of `cierzo.errors`, of validation, or one that nobody expected."""


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


def described_stream(words: str, chunk: type[BaseModel], error: type[BaseModel], *, last: str = "") -> dict[str, Any]:
    """Describe a stream for OpenAPI, event by event. ``last`` is the data of a last event that is no JSON, if any."""
    either = [{"$ref": f"#/components/schemas/{model.__name__}"} for model in (chunk, error)]
    data: dict[str, Any] = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"anyOf": either},
    }
    if last:
        data = {"type": "string", "anyOf": [{"const": last}, data]}
    schema = {"type": "object", "properties": {"data": data}, "required": ["data"], "description": words}
    return {"text/event-stream": {"schema": schema}}


def described_errors(error: type[BaseModel], statuses: Iterable[int]) -> dict[int | str, dict[str, Any]]:
    """Describe errors for OpenAPI, each by its status.

    The model is named and not given: FastAPI would make a validator of it for each status of each route, which is
    half of what a start of the server costs.
    """
    schema = {"$ref": f"#/components/schemas/{error.__name__}"}
    return {status: {"content": {"application/json": {"schema": schema}}} for status in statuses}


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return JSON."""
    return Response(dumps(value), status, headers, media_type="application/json")


class _Body(Request):
    """A request whose JSON is read strictly: no NaN, no lone surrogates, no nesting without end."""

    async def json(self) -> Any:
        return orjson.loads(await self.body())


def routes_worded(wording: Wording) -> type[APIRoute]:
    """Make the class of routes whose every error is worded by ``wording``."""

    class Worded(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handled(request: Request) -> Response:
                try:
                    return await handle(_Body(request.scope, request.receive))
                except ClientGoneError:
                    return Response(status_code=LEFT)
                except (CierzoError, RequestValidationError) as error:
                    return wording(error).response()
                except Exception as error:  # noqa: BLE001 - a client gets an answer whatever happens
                    unexpected(error)
                    return wording(error).response()

            return handled

    return Worded


def unexpected(error: Exception) -> None:
    """Log an error that no class of ours stands for: where it was raised, not what it says."""
    _log.error("unexpected error", exc_info=error)


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T], *others: Coroutine[Any, Any, None]) -> T:
    """Await ``work``, but only while the client listens.

    Args:
        receive: Of the request, whose body has been read.
        work: Cancelled, and waited for, when the client leaves.
        others: The same happens when one of these returns.

    Raises:
        ClientGoneError: The client left before the work was done.
    """
    task = asyncio.ensure_future(work)
    tasks: list[asyncio.Future[Any]] = [task, *map(asyncio.ensure_future, (_until_gone(receive), *others))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGoneError
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.wait(tasks)
        for each in tasks:
            if not each.cancelled():
                each.exception()  # looked at, so that asyncio does not complain of it


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Download(Response):
    """A file whose parts come from a generator, which is closed whatever happens.

    An error before the first part is a whole answer of its own; after it, the connection breaks, so that nobody
    takes half a file for a whole one.

    Args:
        parts: Yields bytes.
        wording: Words errors.
        name: What a browser calls the file: letters, digits, dots and dashes.
        media_type: What it is.
    """

    def __init__(self, parts: AsyncGenerator[bytes, None], wording: Wording, *, name: str, media_type: str) -> None:
        super().__init__(None, headers={"Content-Disposition": f'attachment; filename="{name}"'}, media_type=media_type)
        del self.headers["content-length"]
        self._parts, self._wording = parts, wording

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it to its end, or until the client leaves."""
        with contextlib.suppress(ClientGoneError):
            await while_connected(receive, self._send(scope, receive, send))

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = False
        try:
            async with aclosing(self._parts) as parts:
                async for part in parts:
                    if not began:
                        began = True
                        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        except CierzoError as error:
            if not began:
                await self._wording(error).response()(scope, receive, send)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class EventStream(Response):
    """Server-sent events from a generator, which is closed whatever happens.

    The status is that of the first error, if it comes before the first event and within `KEEP_ALIVE` seconds.
    Later errors are the last event. Either way there is exactly one end.

    Args:
        events: Yields whole events as bytes. Errors that it raises are worded.
        wording: Words them.
        headers: More headers.
    """

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[bytes, None], wording: Wording, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(None, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})})
        del self.headers["content-length"]
        self._events, self._wording = events, wording
        self._began = False
        self._sent = self._sending = 0.0
        self._waiting: list[bytes] = []
        self._size = 0
        self._something = asyncio.Event()
        self._line = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Play it to its end, or until the client leaves."""
        with contextlib.suppress(ClientGoneError):
            await while_connected(receive, self._play(scope, receive, send), self._push(send), self._watch(send))

    async def _play(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with aclosing(self._events) as events:
                async for chunk in events:
                    await self._say(send, chunk)
        except Exception as error:  # noqa: BLE001 - a stream gets its end whatever happens
            if not isinstance(error, CierzoError):
                unexpected(error)
            refusal = self._wording(error)
            if not self._began:
                self._began = True
                await refusal.response()(scope, receive, send)
                return
            await self._say(send, event(refusal.body))
        await self._flush(send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _say(self, send: Send, chunk: bytes) -> None:
        """Send a chunk at once, unless the last one has just gone: then it goes with those that follow."""
        self._waiting.append(chunk)
        self._size += len(chunk)
        if self._size > MUCH or time.monotonic() - self._sent >= TOGETHER:
            await self._flush(send)
        else:
            self._something.set()

    async def _flush(self, send: Send) -> None:
        async with self._line:
            if not self._waiting:
                return
            chunk = b"".join(self._waiting)
            self._waiting.clear()
            self._size = 0
            self._something.clear()
            self._sent = self._sending = time.monotonic()
            if not self._began:
                self._began = True
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            self._sending = 0.0

    async def _push(self, send: Send) -> None:
        """Send what has waited long enough."""
        while True:
            await self._something.wait()
            await asyncio.sleep(TOGETHER)
            await self._flush(send)

    async def _watch(self, send: Send) -> None:
        """Say now and then that the stream lives; return when the client has read nothing for too long."""
        began = time.monotonic()
        while True:
            await asyncio.sleep(KEEP_ALIVE / 4)
            now = time.monotonic()
            if self._sending:
                if now - self._sending > STALLED:
                    return
            elif now - (self._sent or began) >= KEEP_ALIVE:
                await self._say(send, b":\n\n")
