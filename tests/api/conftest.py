"""The fixtures of the API's tests; `serving` has them, under a name that no other folder's helpers share."""

from __future__ import annotations

from serving import demo, echo, live

__all__ = ["demo", "echo", "live"]
