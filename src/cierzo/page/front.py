"""What the page is made of, in front of the API: whatever is no part of the page is the API's.

It reads ``scope["path"]`` and headers only, and knows nothing of chats. All of it is files, so nothing of Gradio's
server is there: no queue, no uploads, no API of its own.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import re
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response

from cierzo.listening import Names
from cierzo.page.drawn import Drawn

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

POLICY = (
    "default-src 'self'; "
    "script-src 'self' {scripts}; "  # the two scripts that stand in the page, by their hashes
    "style-src 'self' 'unsafe-inline'; "  # Gradio's parts bring their own styles
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
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}

OURS = re.compile(r"/cierzo/([a-z0-9-]+\.(?:js|css|svg|png))")
GRADIOS = re.compile(r"/assets/([A-Za-z0-9_.-]+\.(?:js|css|svg|png|woff2))")
NAMED = {"/manifest.webmanifest": "manifest.webmanifest", "/favicon.ico": "icon-192.png"}
"""Files of ours that stand at an address of their own."""

TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
}

NO_API = b'{"named_endpoints":{},"unnamed_endpoints":{}}'
"""What Gradio's front end is told of Gradio's API when it asks: there is none."""

FOR_EVER = "public, max-age=31536000, immutable"
"""Gradio names its files after what is in them."""

ASK_AGAIN = "no-cache"
PACKED = re.compile(r"\bgzip\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))")
"""In the header that says what a client can read: gzip, unless it is refused there."""

SMALL = 500
"""Bytes below which packing a file saves nothing."""


class Front:
    """ASGI application that gives the page, and passes everything else on.

    Args:
        app: The API.
        page: The page as Gradio has drawn it.
        host: The address that is listened on.
    """

    def __init__(self, app: ASGIApp, page: Drawn, host: str) -> None:
        self._app = app
        self._names = Names(host)
        self._drawn = {
            "/": (page.html.encode(), "text/html; charset=utf-8"),
            "/theme.css": (page.theme.encode(), TYPES[".css"]),
            "/gradio_api/info": (NO_API, "application/json"),
        }
        self._policy = POLICY.format(scripts=" ".join(page.scripts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give a part of the page, or ask the API."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        response = self._part(scope["path"], headers)
        if response is None:
            await self._app(scope, receive, send)
            return
        if not self._names.known(headers.get("host", "")):
            response = PlainTextResponse("this address is not one of this page's: use the one that it printed\n", 400)
        response.headers.update({**HEADERS, "Content-Security-Policy": self._policy})
        await response(scope, receive, send)

    def _part(self, path: str, headers: Headers) -> Response | None:
        if path in self._drawn:
            return _answer(*self._drawn[path], ASK_AGAIN, headers)
        if path in NAMED:
            return _file(resources.files(__package__) / "web" / NAMED[path], ASK_AGAIN, headers)  # type: ignore[arg-type]
        if ours := OURS.fullmatch(path):
            return _file(resources.files(__package__) / "web" / ours[1], ASK_AGAIN, headers)  # type: ignore[arg-type]
        if gradios := GRADIOS.fullmatch(path):
            return _file(_gradio() / "assets" / gradios[1], FOR_EVER, headers)
        return None


@lru_cache
def _gradio() -> Path:
    """Find the folder of Gradio's front end, without importing Gradio."""
    found = importlib.util.find_spec("gradio")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "templates" / "frontend"


def _file(path: Path, caching: str, headers: Headers) -> Response:
    try:
        return _answer(_read(path), TYPES[path.suffix], caching, headers)
    except OSError:
        return PlainTextResponse("there is nothing here\n", 404)


@lru_cache(maxsize=256)
def _read(path: Path) -> bytes:
    return path.read_bytes()


def _answer(body: bytes, kind: str, caching: str, headers: Headers) -> Response:
    tag, packed = _packed(body)
    said = {"Cache-Control": caching, "ETag": tag, "Vary": "Accept-Encoding"}
    if headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=said)
    if PACKED.search(headers.get("accept-encoding", "")) and len(packed) < len(body):
        return Response(packed, media_type=kind, headers={**said, "Content-Encoding": "gzip"})
    return Response(body, media_type=kind, headers=said)


@lru_cache(maxsize=256)
def _packed(body: bytes) -> tuple[str, bytes]:
    tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
    return tag, gzip.compress(body, mtime=0) if len(body) > SMALL else body
