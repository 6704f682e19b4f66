"""The kinds of value that a file is made of, each taken only if it is one; otherwise a sentence names the place."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any, NoReturn

from cierzo.errors import BadInput
from cierzo.messages import check_text
from cierzo.store.records import is_id

MAX_ROWS = 1_048_576
"""Longest list within a message: tokens of an answer or of its prompt."""

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_INT32 = 2**31 - 1


def wrong(place: str, what: str) -> NoReturn:
    """Raise the error that names the place."""
    raise BadInput(f"the file is broken at {place} ({what}): nothing was imported")


def record(value: Any, names: tuple[str, ...], place: str, *, newer: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return ``value`` if it is an object with exactly these fields; ``newer`` ones are null where a file is older."""
    if type(value) is not dict:
        wrong(place, "an object is expected")
    given: dict[str, Any] = {**dict.fromkeys(newer), **value}
    for name in names:
        if name not in given:
            wrong(place, f'"{name}" is missing')
    for name in given:
        if name not in names:
            wrong(place, f"nothing is known of {name!r:.60}")
    return given


def rows(value: Any, place: str, most: int = MAX_ROWS) -> list[Any]:
    """Return ``value`` if it is a list that is not too long."""
    if type(value) is not list:
        wrong(place, "a list is expected")
    if len(value) > most:
        wrong(place, f"it has {len(value):,} entries, at most {most:,} are allowed")
    return value


def text(value: Any, place: str, most: int | None = None, *, nul: bool = False) -> str:
    """Return ``value`` if it is a text that the store can hold."""
    if type(value) is not str:
        wrong(place, "a text is expected")
    if most is not None and len(value) > most:
        wrong(place, f"it has {len(value):,} characters, at most {most:,} are allowed")
    try:
        check_text(value.replace("\0", "") if nul else value, what="it", empty=True)
    except BadInput as refused:
        wrong(place, str(refused).partition(":")[0])
    return value


def one_of(value: Any, allowed: tuple[str, ...], place: str) -> Any:
    """Return ``value`` if it is one of these words."""
    if type(value) is not str or value not in allowed:
        wrong(place, f"one of {', '.join(allowed)} is expected")
    return value


def identity(value: Any, place: str) -> str:
    """Return ``value`` if it can be an id."""
    if type(value) is not str or not is_id(value):
        wrong(place, "an id is expected")
    return value


def flag(value: Any, place: str) -> bool:
    """Return ``value`` if it is true or false."""
    if type(value) is not bool:
        wrong(place, "true or false is expected")
    return value


def whole(value: Any, place: str, most: int = _INT32) -> int:
    """Return ``value`` if it is a whole number that is not negative."""
    if type(value) is not int or not 0 <= value <= most:
        wrong(place, f"a whole number from 0 to {most:,} is expected")
    return value


def number(value: Any, place: str, least: float = 0.0) -> float:
    """Return ``value`` if it is a finite number."""
    if type(value) is int and abs(value) < 2**53:
        value = float(value)
    if type(value) is not float or not math.isfinite(value) or value < least:
        wrong(place, "a number is expected" if least < 0 else "a number of 0 or more is expected")
    return value


def moment(value: Any, place: str) -> datetime:
    """Return ``value`` if it is a date as `date` writes it."""
    if type(value) is str and _MOMENT.fullmatch(value):
        try:
            found = datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
        except ValueError:
            found = None
        if found is not None and found >= _EARLIEST:
            return found
    wrong(place, "a date such as 2026-11-22T18:30:00.000000Z is expected")


def date(value: datetime) -> str:
    """Write a date, in UTC and with microseconds."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
