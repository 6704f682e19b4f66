"""Errors as our own routes word them: ``{"error": {"type", "message"}}`` with the error's own status."""

from __future__ import annotations

from typing import Any

from fastapi.exceptions import RequestValidationError

from cierzo.api.conversations_types import ApiError
from cierzo.api.wire import Refusal, described_errors
from cierzo.errors import BadInput, CierzoError, NotFound

STATUSES = (400, 403, 404, 405, 408, 409, 413, 415, 422, 429, 500, 502, 503, 507)

ERRORS = described_errors(ApiError, STATUSES)
"""For ``/openapi.json``."""

_AGAIN = 5.0


def refusal(error: Exception) -> Refusal:
    """Word any error."""
    if isinstance(error, RequestValidationError):
        return _worded(BadInput.status, BadInput.__name__, _wrong(error))
    if isinstance(error, CierzoError):
        kind = next(each.__name__ for each in type(error).__mro__ if each.__module__ == CierzoError.__module__)
        return _worded(error.status, kind, str(error), getattr(error, "retry_after", None))
    sentence = f"unexpected {type(error).__name__}: look into the server's log"
    return _worded(500, CierzoError.__name__, sentence)


def refused(status: int, sentence: str) -> Refusal:
    """Word what is refused before a route could say anything."""
    return _worded(status, NotFound.__name__ if status == NotFound.status else "Refused", sentence)


def _worded(status: int, kind: str, sentence: str, again: float | None = None) -> Refusal:
    if status == 503 and again is None:  # noqa: PLR2004 - HTTP's own number
        again = _AGAIN
    headers = {} if again is None else {"Retry-After": str(max(1, round(again)))}
    return Refusal(status, {"error": {"type": kind, "message": sentence}}, headers)


def _wrong(error: RequestValidationError) -> str:
    """Say what is wrong first, without repeating what was sent."""
    first = error.errors()[0]
    place = [part for part in first["loc"] if part not in ("body", "query", "path", "header")]
    if first["type"] == "json_invalid" or not place:
        return "the body is not what this route takes: send one JSON object as application/json"
    name = ".".join(str(part) for part in place if isinstance(part, int) or _is_name(part))[:80]
    if first["type"] == "extra_forbidden":
        return f"there is no field {name!r} here: leave it out" if name else "a field is not known here: leave it out"
    return f"{name or 'a value'} cannot be used ({first['msg'][:1].lower()}{first['msg'][1:]}): change it"


def _is_name(part: Any) -> bool:
    return isinstance(part, str) and part.replace("-", "_").isidentifier()
