"""What a scripted engine says: the values, and the TOML or JSON file that they may be read from.

It knows no engine: `cierzo.engines.scripted` plays what is written here. ``docs/scripted.md`` shows the file.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from cierzo.errors import (
    BadSetting,
    CierzoError,
    EngineDied,
    EngineRefused,
    ModelUnreadable,
    NotEnoughMemory,
    Overloaded,
)
from cierzo.messages import MAX_ALTERNATIVES, Alternative, Finish, Phase, Token, check_text

MAX_FILE = 4_000_000
"""Bytes of a script file."""

MAX_STEPS = 100_000
MAX_SECONDS = 3600.0
LOGPROB = -0.25
"""Of a token for which the script gives none: a probability of 78 %."""

MAX_SLOTS = 512
"""Answers at the same time; a script that does not say how many has as many."""

_WORDS = re.compile(r"\s*\S+|\s+$")
_BEYOND = 0x10000  # characters from here on take four bytes, and no Mistral vocabulary up to v7 has them whole


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing happens for ``seconds``; infinity hangs until somebody stops the stream."""

    seconds: float = math.inf


Step = Phase | Token | Finish | Wait | CierzoError


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: what happens, in order.

    Attributes:
        steps: Events are yielded, waits waited, errors raised. Without a `Finish` the stream ends as an engine
            would end it.
        first: Seconds before the first token.
        delay: Seconds before each further token.
        repeat: Whether the tokens start again after the last, so that only a bound or a person ends the answer.
        when: Give this reply only to a question that holds this text.
        disorder: Yield the steps exactly as they are, also after a `Finish`: for tests of what reads streams.
    """

    steps: tuple[Step, ...]
    first: float = 0.0
    delay: float = 0.0
    repeat: bool = False
    when: str = ""
    disorder: bool = False

    @classmethod
    def of(cls, steps: list[Step | str] | str, **options: Any) -> Reply:
        """Make one from events and texts; a string alone is cut into words, a string in a list is one token."""
        if isinstance(steps, str):
            return cls(cut(steps), **options)
        return cls(tuple(token_of(step) if isinstance(step, str) else step for step in steps), **options)


@dataclass(frozen=True, slots=True)
class Script:
    """Replies, and what the engine says that it is.

    Replies without ``when`` are given in turn, the last one for ever. ``slots`` is how many answers it says that it
    writes at the same time; it has no limit of its own.
    """

    replies: tuple[Reply, ...] = ()
    model: str = "scripted"
    context: int = 8192
    template: str = "v3"
    slots: int = MAX_SLOTS


def token_of(text: str, *, number: int | None = None, logprob: float = LOGPROB) -> Token:
    """Make a token; without a number, the same text always gets the same one."""
    return Token(2_000 + zlib.crc32(text.encode()) % 30_000 if number is None else number, text, logprob)


def cut(text: str) -> tuple[Token, ...]:
    """Cut a text into tokens as a model might: a word with the space before it, some characters in four pieces.

    The texts, joined, are ``text``. A character of four bytes becomes three empty tokens and one that completes
    it, as byte tokens do.
    """
    tokens: list[Token] = []
    for word in _WORDS.findall(text):
        for run in re.split(f"([{chr(_BEYOND)}-\U0010ffff])", word):
            if run and ord(run[0]) >= _BEYOND:
                numbers = [771 + byte for byte in run.encode()]
                tokens += [Token(number, "", LOGPROB) for number in numbers[:-1]]
                tokens.append(Token(numbers[-1], run, LOGPROB))
            elif run:
                tokens.append(token_of(run))
    return tuple(tokens)


def read(path: Path) -> Script:
    """Read a script file: JSON if its name ends so, otherwise TOML.

    Raises:
        BadSetting: It cannot be read or says something impossible; the sentence names the line.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE + 1)
    except OSError as denied:
        raise BadSetting(f"the script {path} cannot be read ({denied.strerror}): check the path") from None
    if len(raw) > MAX_FILE:
        raise BadSetting(f"the script {path} is larger than {MAX_FILE:,} bytes: shorten it")
    try:
        source = raw.decode()
        data = json.loads(source) if path.suffix.lower() == ".json" else tomllib.loads(source)
    except UnicodeDecodeError as broken:
        line = raw.count(b"\n", 0, broken.start) + 1
        raise BadSetting(f"the script {path}, line {line}: not UTF-8 text: save it as UTF-8") from None
    except json.JSONDecodeError as broken:
        raise BadSetting(f"the script {path}, line {broken.lineno}: not JSON: {broken.msg}") from None
    except tomllib.TOMLDecodeError as broken:
        raise BadSetting(f"the script {path}: not TOML: {broken}") from None
    except RecursionError:
        raise BadSetting(f"the script {path} is nested too deeply: flatten it") from None
    return _Reader(str(path), source).script(data)


_ERRORS: dict[str, type[CierzoError]] = {
    "error": EngineRefused,
    "die": EngineDied,
    "unreadable": ModelUnreadable,
    "memory": NotEnoughMemory,
}
_FAULTS = (*_ERRORS, "overloaded", "hang")
_REPLY_KEYS = ("when", "first", "delay", "repeat", "disorder", "phases", "text", "tokens", "fail", "finish")


@dataclass(slots=True)
class _Reader:
    """Turns what a file says into values, and knows at which line it is for the sake of the error."""

    path: str
    source: str
    reply: int = -1
    starts: list[int] = field(default_factory=list)

    def script(self, data: Any) -> Script:
        if not isinstance(data, dict):
            self._fail("", "must be a table with a list of replies, [[reply]]")
        self._known(data, ("reply", "model", "context", "template", "slots"))
        replies = data.get("reply", [])
        if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
            self._fail("reply", "must be a list of tables, [[reply]]")
        self.starts = [match.start() for match in re.finditer(r"(?m)^[ \t]*\[\[[ \t]*reply[ \t]*\]\]", self.source)]
        if self.path.lower().endswith(".json"):
            self.starts = _json_items(self.source, "reply")
        model, template = (self._text(data, key, getattr(Script(), key)) for key in ("model", "template"))
        context = int(self._number(data, "context", Script().context, 16, 1_048_576))
        slots = int(self._number(data, "slots", MAX_SLOTS, 1, MAX_SLOTS))
        return Script(
            tuple(self._reply(number, reply) for number, reply in enumerate(replies)), model, context, template, slots
        )

    def _reply(self, number: int, data: dict[str, Any]) -> Reply:
        self.reply = number
        self._known(data, _REPLY_KEYS)
        if "text" in data and "tokens" in data:
            self._fail("tokens", "stands beside text: give one of them")
        phases = [self._phase(phase) for phase in self._list(data, "phases")]
        said: list[Step] = [*cut(self._text(data, "text", ""))]
        said += [self._step(step) for step in self._list(data, "tokens")]
        if len(said) > MAX_STEPS:
            self._fail("tokens" if "tokens" in data else "text", f"has {len(said):,} tokens, at most {MAX_STEPS:,}")
        end = [self._finish(data["finish"])] if "finish" in data else []
        steps = (*phases, *self._failing(said, data), *end)
        reply = Reply(
            steps,
            first=self._number(data, "first", 0.0, 0.0, MAX_SECONDS),
            delay=self._number(data, "delay", 0.0, 0.0, MAX_SECONDS),
            repeat=self._flag(data, "repeat"),
            when=self._text(data, "when", ""),
            disorder=self._flag(data, "disorder"),
        )
        if reply.repeat and (not any(isinstance(step, Token) for step in steps) or {"fail", "finish"} & set(data)):
            self._fail("repeat", "needs tokens to repeat, and neither fail nor finish")
        return reply

    def _failing(self, said: list[Step], data: dict[str, Any]) -> list[Step]:
        """Put the fault at its place among the tokens; what would have followed is never said."""
        if "fail" not in data:
            return said
        fail = {"kind": data["fail"]} if isinstance(data["fail"], str) else data["fail"]
        if not isinstance(fail, dict) or fail.get("kind") not in _FAULTS:
            self._fail("fail", f"must be one of {', '.join(_FAULTS)}, or a table with kind, after and message")
        after = int(self._number(fail, "after", len(said), 0, MAX_STEPS))
        kind, text = fail["kind"], self._text(fail, "message", f"the script says {fail['kind']}: ask again")
        if kind == "hang":
            return [*said[:after], Wait()]
        if kind == "overloaded":
            return [*said[:after], Overloaded(text, retry_after=self._number(fail, "retry_after", 1.0, 0.0, 3600.0))]
        return [*said[:after], _ERRORS[kind](text)]

    def _step(self, data: Any) -> Step:
        if isinstance(data, str):
            return token_of(self._clean(data, "tokens"))
        if isinstance(data, dict) and set(data) == {"wait"}:
            return Wait(self._number(data, "wait", 0.0, 0.0, MAX_SECONDS))
        if not isinstance(data, dict) or "text" not in data:
            self._fail(
                "tokens", "holds texts, tables with text, id, logprob, special, alternatives, or { wait = seconds }"
            )
        self._known(data, ("text", "id", "logprob", "special", "alternatives"))
        text = self._text(data, "text", "")
        number = int(self._number(data, "id", token_of(text).id, 0, 2**31 - 1))
        return Token(
            number,
            text,
            self._number(data, "logprob", LOGPROB, -1e9, 0.0),
            special=self._flag(data, "special"),
            alternatives=self._alternatives(data),
        )

    def _alternatives(self, data: dict[str, Any]) -> tuple[Alternative, ...]:
        given = self._list(data, "alternatives")
        if len(given) > MAX_ALTERNATIVES:
            self._fail("alternatives", f"has {len(given)} entries, at most {MAX_ALTERNATIVES}")
        found = []
        for entry in given:
            if not isinstance(entry, dict):
                self._fail("alternatives", "holds tables with text, id and logprob")
            self._known(entry, ("text", "id", "logprob"))
            text = self._text(entry, "text", "")
            number = int(self._number(entry, "id", token_of(text).id, 0, 2**31 - 1))
            found.append(Alternative(number, text, self._number(entry, "logprob", -3.0, -1e9, 0.0)))
        return tuple(sorted(found, key=lambda entry: -entry.logprob))

    def _phase(self, data: Any) -> Phase:
        if not isinstance(data, dict) or data.get("name") not in ("queued", "loading", "reading"):
            self._fail("phases", "holds tables whose name is queued, loading or reading")
        self._known(data, ("name", "done", "total", "seconds"))
        done, total = (int(self._number(data, key, 0, 0, 10**9)) for key in ("done", "total"))
        return Phase(data["name"], done, total, self._number(data, "seconds", 0.0, 0.0, MAX_SECONDS))

    def _finish(self, reason: Any) -> Finish:
        if reason not in ("eos_token", "stop_sequence", "length", "stopped", "failed"):
            self._fail("finish", "must be eos_token, stop_sequence, length, stopped or failed")
        return Finish(reason)

    def _known(self, data: dict[str, Any], keys: tuple[str, ...]) -> None:
        for key in data:
            if key not in keys:
                self._fail(key, f"is not known here: use {', '.join(keys)}")

    def _list(self, data: dict[str, Any], key: str) -> list[Any]:
        value = data.get(key, [])
        return value if isinstance(value, list) else self._fail(key, "must be a list")

    def _flag(self, data: dict[str, Any], key: str) -> bool:
        value = data.get(key, False)
        return value if isinstance(value, bool) else self._fail(key, "must be true or false")

    def _number(self, data: dict[str, Any], key: str, default: float, low: float, high: float) -> float:
        value = data.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            self._fail(key, f"must be a number between {low:g} and {high:g}, not {value!r:.40}")
        return value

    def _text(self, data: dict[str, Any], key: str, default: str) -> str:
        value = data.get(key, default)
        return (
            self._clean(value, key) if isinstance(value, str) else self._fail(key, f"must be a text, not {value!r:.40}")
        )

    def _clean(self, text: str, key: str) -> str:
        try:
            return check_text(text, what=key, empty=True)
        except CierzoError as refused:
            return self._fail("", str(refused))

    def _fail(self, key: str, complaint: str) -> NoReturn:
        """Refuse, at the line where ``key`` first stands within the reply being read (the files keep no positions)."""
        start = self.starts[self.reply] if 0 <= self.reply < len(self.starts) else 0
        place = (
            re.compile(rf"(?<![\w-])[\"']?{re.escape(key)}[\"']?\s*[=:\]]").search(self.source, start) if key else None
        )
        line = self.source.count("\n", 0, place.start() if place else start) + 1
        raise BadSetting(f"the script {self.path}, line {line}: {key} {complaint}".replace(":  ", ": "))


def _json_items(source: str, key: str) -> list[int]:
    """Find where each item of the list called ``key`` begins, in characters."""
    opening = re.search(rf'"{key}"\s*:\s*\[\s*', source)
    if not opening:
        return []
    starts, place, decoder = [], opening.end(), json.JSONDecoder()
    while place < len(source) and source[place] != "]":
        starts.append(place)
        _, place = decoder.raw_decode(source, place)
        between = re.compile(r"[\s,]*").match(source, place)
        place = between.end() if between else place
    return starts
