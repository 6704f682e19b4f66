"""What a server elsewhere says when it says no, in one sentence for a person with the next step in it."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import orjson

from cierzo.errors import CierzoError, EngineRefused, Overloaded, PromptTooLong

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_WORDS = 300
LONGEST_AFTER = 3600.0
"""Seconds that ``Retry-After`` may ask for; whoever asks for a thousand years means something else."""

_SERVER = 500
BUSY = (429, 503)
_MEANINGS = {
    401: ("wants another key", "set CIERZO_ENGINE_KEY to one of that server"),
    402: ("wants to be paid", "see to it with whoever runs it"),
    403: ("does not allow this", "check the key, and what it is good for"),
    404: ("has no such route or model", "check the engine's address and --model"),
    405: ("has no such route", "check the engine's address"),
    413: ("finds the request too large", "shorten the conversation"),
}
"""What an error's status means, and what to do."""


def refused(host: str, status: int, body: bytes, clean: Callable[[str], str]) -> CierzoError:
    """Translate an answer with an error's status.

    Args:
        host: Whose it is.
        status: HTTP's.
        body: Whatever came with it.
        clean: Takes secrets out of the server's words.
    """
    if (measured := _too_long(body)) is not None:
        return PromptTooLong(*measured)
    words = clean(plain_words(body))
    said = f" ({words})" if words else ""
    if status in _MEANINGS:
        what, advice = _MEANINGS[status]
        return EngineRefused(f"the server at {host} {what}{said}: {advice}")
    if status >= _SERVER:
        return EngineRefused(
            f"the server at {host} failed with status {status}{said}: look into its log, and ask again"
        )
    return EngineRefused(
        f"the server at {host} refused the request{said or f' (status {status})'}: change it and ask again"
    )


def _too_long(body: bytes) -> tuple[int, int] | None:
    """Return how many tokens a prompt has, and how many may be, where llama-server says so."""
    try:
        error = orjson.loads(body)["error"]
        if error["type"] == "exceed_context_size_error":
            return int(error["n_prompt_tokens"]), int(error["n_ctx"]) - 1
    except (ValueError, TypeError, KeyError):
        pass
    return None


def in_stream(host: str, error: Any, clean: Callable[[str], str]) -> CierzoError:
    """Translate an error that came in a stream, also as its first event: vLLM may only then find that it is full."""
    words = clean(_one_line(_message(error) or "no reason was given"))
    inner = error.get("error") if isinstance(error, dict) else None
    if isinstance(inner, dict) and inner.get("code") in BUSY:
        return Overloaded(f"the server at {host} is busy ({words}): ask again in a moment", retry_after=1.0)
    return EngineRefused(f"the server at {host} ended the answer with an error ({words}): ask again")


def plain_words(body: bytes) -> str:
    """Return what an error's body says, on one line of at most `LONGEST_WORDS`; empty where it says nothing plain."""
    try:
        said = _message(orjson.loads(body[: 2**16]))
    except ValueError:
        text = body[: 2**12].decode(errors="replace").strip()
        said = "a web page" if text.startswith("<") else text
    return _one_line(said)


def _message(value: Any) -> str:
    """Find the sentence in the shapes that servers give errors: OpenAI's, TGI's, FastAPI's."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return _message(value[0]) if value else ""
    if isinstance(value, dict):
        for name in ("error", "message", "detail", "msg"):
            if value.get(name):
                return _message(value[name])
    return ""


def _one_line(said: str) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in said)
    line = re.sub(r"\s+", " ", printable).strip().rstrip(".")
    return line if len(line) <= LONGEST_WORDS else line[: LONGEST_WORDS - 1] + "…"


def retry_after(header: str | None) -> float | None:
    """Return the seconds that ``Retry-After`` asks for, as a number or as a date; None where it says nothing."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        pass
    else:
        return min(max(0.0, seconds), LONGEST_AFTER) if math.isfinite(seconds) else None
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(0.0, seconds), LONGEST_AFTER)
