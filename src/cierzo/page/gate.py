"""What may come in, and what every answer carries: the door of the page, in front of Gradio.

It reads ``scope["path"]`` and headers only, and knows nothing of chats.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

from cierzo.listening import Names

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY = 16 * 2**20
"""Bytes of one request. The page sends its whole conversation along with a question; Gradio itself takes any size."""

POLICY = (
    "default-src 'self'; "
    "script-src 'self' 'unsafe-inline'; "  # Gradio's first page holds its configuration in a script
    "style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; "
    "media-src 'self' data: blob:; "
    "font-src 'self' data:; "
    "connect-src 'self'; "
    "object-src 'none'; "
    "base-uri 'self'; "
    "form-action 'self'; "
    "frame-ancestors 'none'"
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}

OPEN = re.compile(
    r"(GET|HEAD) /(|config/?|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon.*|static/.*|assets/.*)"
    r"|(GET|HEAD) /gradio_api/(heartbeat/[^/]+|queue/data|startup-events|theme\.css|info/?|app_id/?)"
    r"|POST /gradio_api/(queue/join|run/predict|cancel|reset)/?"
)
"""The part of Gradio that the page needs. Uploading, files, proxying, run history, its API and the rest are shut."""


class Gate:
    """ASGI application in front of another.

    Args:
        app: What stands behind.
        host: The address that is listened on.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self._names = Names(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse it, or pass it on with a limit on what comes and headers on what goes."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        send = _with_headers(send)
        if refusal := self._refusal(scope):
            await refusal(scope, receive, send)
            return
        await self._limited(scope, receive, send)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._names.known(host):
            return PlainTextResponse("this address is not one of this page's: use the one that it printed\n", 400)
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return PlainTextResponse("another site asked for this: open the page itself\n", 403)
        if not OPEN.fullmatch(f"{scope['method']} {scope['path']}"):
            return PlainTextResponse("there is nothing here\n", 404)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MOST_BODY:
            return _too_long()
        return None

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        got = 0
        began = False

        async def counted() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > MOST_BODY:
                raise _TooLongError
            return message

        async def noted(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except _TooLongError:
            if not began:
                await _too_long()(scope, receive, send)


class _TooLongError(Exception):
    """The body went on past the limit, whatever its header had said."""


def _too_long() -> PlainTextResponse:
    return PlainTextResponse(f"more than {MOST_BODY:,} bytes: send less at once, or begin a new conversation\n", 413)


def _with_headers(send: Send) -> Callable[[Message], Awaitable[None]]:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message["headers"])
            headers.update(HEADERS)
            message["headers"] = headers.raw
        await send(message)

    return sending
