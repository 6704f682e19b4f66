"""JSON schemas that an answer can be kept to: which are taken, and what the engine is given of them.

A schema comes from outside and becomes a grammar in the engine, so it is bounded here first: its bytes, its depth, how
often something repeats, how many ways there are. Of JSON Schema (https://json-schema.org/draft/2020-12) those keywords
are known that llama.cpp's grammar (https://github.com/guidance-ai/llguidance) keeps to; one that it would leave out is
refused, since an answer is to fit the whole schema. Nothing is ever fetched: a ``$ref`` stays within the document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NoReturn

import orjson

from cierzo.errors import BadSampling

ANY_OBJECT = '{"type":"object"}'
"""Any JSON object."""

MAX_BYTES = 65_536
MAX_DEPTH = 32
MAX_PARTS = 8_192
"""Most values in a schema, of every kind and at every depth."""

MAX_ITEMS = 1_024
MAX_ITEMS_IN_ALL = 4_096
"""Largest ``minItems`` and ``maxItems`` of one list, and of all together: llama.cpp writes each out."""

MAX_LENGTH = 65_536
MAX_PATTERN = 256
MAX_PATTERNS = 64
MAX_PATTERNS_AT_ONCE = 8
MAX_REPEATS = 256
"""Longest ``pattern`` in characters, how many there are, how many for one value, and the largest number in braces."""

MAX_WAYS = 256
"""Most ways to fit one value: branches of ``anyOf`` add up, and each of ``allOf`` multiplies them."""

MAX_NUMBER = 1e15

_NOTES = frozenset(
    ("$schema", "$comment", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly")
)
_TYPES = frozenset(("string", "number", "integer", "boolean", "null", "array", "object"))
_FORMATS = frozenset(
    ("date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid")
)  # all that llguidance has
_ONE, _MANY, _NAMED = ("items", "additionalProperties"), ("anyOf", "oneOf", "allOf", "prefixItems"), ("properties",)
_PLACES = ("$defs", "definitions")
_REPEAT = re.compile(r"\{(\d*),?(\d*)\}")

_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""Written as `json.dumps` does: where any white space may come, a small model writes nothing else."""


def _is_count(most: int) -> tuple[Callable[[Any], bool], str]:
    return lambda value: type(value) is int and 0 <= value <= most, f"a whole number from 0 to {most:,}"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= MAX_NUMBER


def _is_pattern(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > MAX_PATTERN:
        return False
    counts = [count for pair in _REPEAT.findall(value) for count in pair if count]
    return all(len(count) <= len(str(MAX_REPEATS)) and int(count) <= MAX_REPEATS for count in counts)


def _are_names(value: Any, among: frozenset[str] | None = None) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and (not among or name in among) for name in value)


_NUMBER = _is_number, f"a number of at most {MAX_NUMBER:.0e}"
_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "minLength": _is_count(MAX_LENGTH),
    "maxLength": _is_count(MAX_LENGTH),
    "minItems": _is_count(MAX_ITEMS),
    "maxItems": _is_count(MAX_ITEMS),
    "minimum": _NUMBER,
    "maximum": _NUMBER,
    "exclusiveMinimum": _NUMBER,
    "exclusiveMaximum": _NUMBER,
    "multipleOf": (lambda value: _is_number(value) and value > 0, f"a number over 0, at most {MAX_NUMBER:.0e}"),
    "pattern": (
        _is_pattern,
        f"a text of at most {MAX_PATTERN} characters in which nothing repeats over {MAX_REPEATS} times",
    ),
    "type": (
        lambda value: value != [] and _are_names([value] if isinstance(value, str) else value, _TYPES),
        f"one of {', '.join(sorted(_TYPES))} or a list of them",
    ),
    "format": (
        lambda value: isinstance(value, str) and value in _FORMATS,
        f"one of {', '.join(sorted(_FORMATS))}",
    ),
    "required": (_are_names, "a list of names"),
    "enum": (lambda value: isinstance(value, list) and bool(value), "a list of values"),
    "const": (lambda _: True, ""),
}


def canonical(schema: str | bytes | Mapping[str, Any]) -> str:
    """Check a schema and return it as one line of JSON, the order of its keys kept.

    Args:
        schema: JSON text, or what it stands for.

    Raises:
        BadSampling: It is no JSON, too large, refers to something else, or uses what an engine cannot keep to. The
            sentence names the place.
    """
    try:
        raw = orjson.dumps(schema) if isinstance(schema, Mapping) else schema
    except (TypeError, ValueError, RecursionError):
        raise BadSampling("json_schema is not JSON: write one object of JSON Schema") from None
    if not isinstance(raw, (str, bytes)):
        raise BadSampling(f"json_schema must be a JSON text or an object, not {type(schema).__name__}")
    return _canonical(raw)


@lru_cache(maxsize=64)
def _canonical(raw: str | bytes) -> str:
    size = len(raw) if isinstance(raw, bytes) else len(raw.encode(errors="replace"))
    if size > MAX_BYTES:
        raise BadSampling(f"json_schema has {size:,} bytes, at most {MAX_BYTES:,} are allowed: shorten it")
    try:
        schema = orjson.loads(raw)
    except ValueError:  # also for what is nested a thousand times, and for half a character
        raise BadSampling("json_schema is not JSON: write one object of JSON Schema") from None
    if not isinstance(schema, dict):
        raise BadSampling('json_schema must be an object such as {"type": "object"}')
    _Check(schema).all()
    return orjson.dumps(schema).decode()


@lru_cache(maxsize=64)
def for_llama(schema: str) -> dict[str, Any]:
    """Return a schema as llama.cpp is given it: without notes for people, and with how white space is written."""
    made: dict[str, Any] = _without_notes(orjson.loads(schema))
    return {"x-guidance": _COMPACT, **made}


def _without_notes(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NOTES or key.startswith("x-"):
            continue
        if key in (*_NAMED, *_PLACES):
            made[key] = {name: _without_notes(each) for name, each in value.items()}
        elif key in _MANY:
            made[key] = [_without_notes(each) for each in value]
        else:
            made[key] = _without_notes(value) if key in _ONE else value
    return made


class _Check:
    """One look through a schema. Depth comes first, so that everything else may recurse."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        self.items = self.patterns = 0
        self.parts: list[Any] = []
        self.counted: dict[int, tuple[int, int] | None] = {}

    def all(self) -> None:
        self.shape()
        self.part(self.schema, "")
        for each in self.parts:
            self.ways(each)

    def shape(self) -> None:
        """See how large and how deep it is, level by level."""
        level: list[Any] = [self.schema]
        depth = parts = 0
        while level:
            depth, parts = depth + 1, parts + len(level)
            if depth > MAX_DEPTH:
                raise BadSampling(f"json_schema is nested over {MAX_DEPTH} times: make it flatter")
            if parts > MAX_PARTS:
                raise BadSampling(f"json_schema has over {MAX_PARTS:,} parts: shorten it")
            inner: list[Any] = []
            for value in level:
                inner += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            level = inner

    def part(self, schema: Any, place: str) -> None:
        """See that one schema uses known keywords, and each as it must be used."""
        if isinstance(schema, bool):
            return
        if not isinstance(schema, dict):
            _wrong(place, "a schema is an object, true or false")
        self.parts.append(schema)
        for key, value in schema.items():
            if key not in _NOTES and not key.startswith("x-"):
                for where, each in self.within(key, value, f"{place}/{key}"):
                    self.part(each, where)

    def within(self, key: str, value: Any, here: str) -> list[tuple[str, Any]]:
        """Return the schemas below a keyword, or see that it has a value of its kind."""
        if key in _ONE:
            return [(here, value)]
        if key in _MANY:
            if not isinstance(value, list) or not value:
                _wrong(here, "a list of schemas is expected")
            return [(f"{here}/{n}", each) for n, each in enumerate(value)]
        if key in (*_NAMED, *_PLACES):
            if not isinstance(value, dict):
                _wrong(here, "an object of schemas is expected")
            return [(f"{here}/{name}", each) for name, each in value.items()]
        if key == "$ref":
            self.target(value, here)
        elif key not in _VALUES:
            _wrong(here, "no engine here can keep to that: leave it out")
        elif not _VALUES[key][0](value):
            _wrong(here, f"{_VALUES[key][1]} is expected")
        else:
            self.count(key, value, here)
        return []

    def count(self, key: str, value: Any, here: str) -> None:
        """Add up what only together is too much."""
        self.items += value if key in ("minItems", "maxItems") else 0
        self.patterns += key == "pattern"
        if self.items > MAX_ITEMS_IN_ALL:
            _wrong(here, f"all minItems and maxItems together are over {MAX_ITEMS_IN_ALL:,}")
        if self.patterns > MAX_PATTERNS:
            _wrong(here, f"there are over {MAX_PATTERNS} patterns")

    def target(self, reference: Any, here: str) -> Any:
        """Return what a ``$ref`` points to; it stays within the document and names a definition."""
        if reference == "#":
            return self.schema
        if isinstance(reference, str):
            start, *path = reference.split("/")
            if start == "#" and len(path) == 2 and path[0] in _PLACES:  # noqa: PLR2004 - a place and a name
                place, name = self.schema.get(path[0]), path[1].replace("~1", "/").replace("~0", "~")
                if isinstance(place, dict) and name in place:
                    return place[name]
        return _wrong(here, "a $ref must be # or the path of a definition that is here, such as #/$defs/item")

    def ways(self, schema: Any) -> tuple[int, int]:
        """Count the ways to fit one value, and the patterns that hold for it at once.

        A schema that stands for itself and nothing else is refused.
        """
        if not isinstance(schema, dict):
            return 1, 0
        if id(schema) not in self.counted:
            self.counted[id(schema)] = None  # being counted: who comes here meanwhile has gone in a circle
            count, patterns = 1, int("pattern" in schema)
            with_it = [self.target(schema["$ref"], "/$ref")] if "$ref" in schema else []
            for ways, held in map(self.ways, with_it + schema.get("allOf", [])):
                count, patterns = count * ways, patterns + held
            for either in (schema[key] for key in ("anyOf", "oneOf") if key in schema):
                each = [self.ways(branch) for branch in either]
                count *= sum(ways for ways, _ in each)
                patterns += max(held for _, held in each)
            self.counted[id(schema)] = count, patterns
        found = self.counted[id(schema)]
        if found is None:
            raise BadSampling("json_schema has a $ref that leads back to itself without an object or list between")
        if found[0] > MAX_WAYS:
            raise BadSampling(f"json_schema allows over {MAX_WAYS} ways to fit one value: use fewer anyOf and allOf")
        if found[1] > MAX_PATTERNS_AT_ONCE:
            raise BadSampling(f"json_schema has over {MAX_PATTERNS_AT_ONCE} patterns that hold at once: use fewer")
        return found


def _wrong(place: str, what: str) -> NoReturn:
    raise BadSampling(f"json_schema at {place[:200] or '/'}: {what}")
