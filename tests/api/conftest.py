"""The fixtures of the API's tests; they lie in modules whose names no other folder's helpers share."""

from __future__ import annotations

from serve_process import start
from serving import common, demo, echo, leaving, lent, live

__all__ = ["common", "demo", "echo", "leaving", "lent", "live", "start"]
