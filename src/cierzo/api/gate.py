"""The door: who may call, how much may come, how fast, and what every answer carries.

It reads ``scope["path"]`` and headers only. No browser page of another origin gets in: there is no CORS, a foreign
``Host`` or ``Origin`` is refused, and so is a body that is not declared as JSON.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from uvicorn.protocols.http.h11_impl import H11Protocol

from cierzo.api.wire import LEFT, Refusal, json_response
from cierzo.listening import Names

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from cierzo.telemetry import Telemetry

MOST_BODY = 2_000_000
"""Bytes of one request, as Text Generation Inference has it."""

MOST_FILE = 100_000_000
"""Bytes of a file of conversations, which its route reads by itself."""

FILES = ("/api/import",)

BODY_WITHIN = 30.0
"""Seconds in which a whole body has to come."""

HEAD_WITHIN = 10.0
"""Seconds in which the head of a request has to come."""

ALWAYS = ("/health", "/ready", "/metrics")
"""Answered while the server ends, too."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}

_log = logging.getLogger("cierzo.api")


class Gate:
    """ASGI application in front of another.

    Args:
        app: What stands behind.
        host: The address that is listened on.
        telemetry: Counts requests.
        refuse: Words a refusal for a path, as (path, status, sentence).
        ending: Says whether the server is ending.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        *,
        telemetry: Telemetry,
        refuse: Callable[[str, int, str], Refusal],
        ending: Callable[[], bool],
    ) -> None:
        self._app, self._telemetry, self._refuse, self._ending = app, telemetry, refuse, ending
        self._names = Names(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse it, or pass it on with limits on what comes and headers on what goes."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        call = _Call(send)
        try:
            if refusal := self._refusal(scope):
                await refusal(scope, receive, call.send)
            else:
                await self._pass(scope, receive, call)
        finally:
            self._note(scope, call)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        path, host = scope["path"], headers.get("host", "")
        origin = headers.get("origin")
        length = headers.get("content-length", "0")
        if not self._names.known(host):
            return self._no(path, 400, "this name is not one of this server's: use the address that it printed")
        if headers.get("sec-fetch-site") == "cross-site" or (
            origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        ):
            return self._no(path, 403, "a page of another site asked for this: call the API from a program")
        if not length.isdecimal() or int(length) > (MOST_FILE if path in FILES else MOST_BODY):
            return self._no(path, 413, too_long(path))
        if headers.get("content-encoding", "identity") != "identity":
            return self._no(path, 415, "compressed bodies are not read: send the JSON as it is")
        if self._ending() and not _begins_nothing(scope["method"], path):
            return self._no(path, 503, "the server is ending and begins nothing new: ask again when it is back")
        return None

    def _no(self, path: str, status: int, sentence: str) -> Response:
        refusal = self._refuse(path, status, sentence)
        again = {"Retry-After": "5"} if status == 503 else {}  # noqa: PLR2004 - HTTP's own number
        # What is left of the body is not read, so the connection cannot be used again.
        return json_response(refusal.body, status, {"Connection": "close", **again})

    async def _pass(self, scope: Scope, receive: Receive, call: _Call) -> None:
        """Read the body, in time and in bounds, then hand it on whole."""
        path, parts, got = scope["path"], [], 0
        if path in FILES:
            await self._app(scope, receive, call.send)
            return
        try:
            async with asyncio.timeout(BODY_WITHIN):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    parts.append(message.get("body", b""))
                    got += len(parts[-1])
                    if got > MOST_BODY or not message.get("more_body", False):
                        break
        except TimeoutError:
            slow = self._no(path, 408, f"the body did not come within {BODY_WITHIN:g} seconds: ask again")
            await slow(scope, receive, call.send)
            return
        if got > MOST_BODY:
            await self._no(path, 413, too_long(path))(scope, receive, call.send)
            return
        unread: list[Message] = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

        async def read() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, read, call.send)

    def _note(self, scope: Scope, call: _Call) -> None:
        """Count and log the end of a request: its route, never what it said."""
        route = getattr(scope.get("route"), "path", "other")  # with the names of ids in it, not the ids
        seconds = time.monotonic() - call.began
        self._telemetry.requested(route, call.status or LEFT, seconds)
        fields: dict[str, Any] = {
            "id": call.id,
            "method": scope["method"],
            "route": route,
            "status": call.status or LEFT,
            "seconds": round(seconds, 4),
            "whole": call.whole,
        }
        _log.info("request", extra={"fields": fields})


def too_long(path: str) -> str:
    """Say that a body is larger than may be."""
    return f"the body has more than {MOST_FILE if path in FILES else MOST_BODY:,} bytes: send less at once"


def _begins_nothing(method: str, path: str) -> bool:
    """Whether a request may be answered while the server ends: it looks, follows an answer, or stops one."""
    return path in ALWAYS or (path.startswith("/api/") and (method == "GET" or path.endswith("/stop")))


class _Call:
    """One request: its name, and how its answer went out."""

    def __init__(self, send: Send) -> None:
        self.id = f"req_{uuid.uuid4().hex}"
        self.began = time.monotonic()
        self.status = 0
        self.whole = False
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=list(message["headers"]))
            headers.update({**HEADERS, "X-Request-ID": self.id})
            message = {**message, "headers": headers.raw}
        elif not message.get("more_body", False):
            self.whole = True
        await self._send(message)


class PatientOnce(H11Protocol):
    """HTTP by h11 that waits `HEAD_WITHIN` seconds for the head of a request, and not for ever.

    uvicorn has no such limit: whoever opens connections and says nothing would hold them.
    """

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Go on waiting, unless the head is whole."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait(over=True)
        elif self._waiting is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._wait(over=True)
        super().connection_lost(exc)

    def _wait(self, *, over: bool = False) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        if not over:
            self._waiting = self.loop.call_later(HEAD_WITHIN, self._give_up)

    def _give_up(self) -> None:
        self._waiting = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
