"""The API without the page. `application` is the ASGI application, `serve` runs it."""

from __future__ import annotations

from cierzo.api.server import application, serve

__all__ = ["application", "serve"]
