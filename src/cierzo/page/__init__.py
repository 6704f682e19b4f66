"""The page in the browser. `serve` is all that the rest of Cierzo needs of it."""

from __future__ import annotations

from cierzo.page.server import serve

__all__ = ["serve"]
