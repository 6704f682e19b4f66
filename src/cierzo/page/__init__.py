"""The page in the browser: `Front` stands before the API and gives what the page is made of."""

from __future__ import annotations

from cierzo.page.drawn import drawn
from cierzo.page.front import Front

__all__ = ["Front", "drawn"]
