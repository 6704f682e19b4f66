"""The fixtures of the API's tests; they lie in modules whose names no other folder's helpers share."""

from __future__ import annotations

from serve_process import start
from serving import demo, echo, leaving, live

__all__ = ["demo", "echo", "leaving", "live", "start"]
