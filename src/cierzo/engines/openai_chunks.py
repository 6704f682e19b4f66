"""What a server that speaks OpenAI's language says, event by event, turned into tokens.

Four shapes come: token ids with their probabilities (vLLM), entries with ids and bytes (llama-server), entries of
text (OpenAI's own two shapes), and text alone. The texts of the tokens, joined, are always the text of the answer.
"""

from __future__ import annotations

import codecs
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cierzo.engines.account import Hearing, Told
from cierzo.engines.vocabulary import spelling
from cierzo.errors import EngineDied, EngineRefused
from cierzo.messages import UNTOLD, Alternative, FinishReason, Phase, Token
from cierzo.templates import codec, template

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cierzo.engines.base import EngineInfo
    from cierzo.messages import Prompt, Sampling

IMPOSSIBLE = -1e9
"""A log-probability below this stands for none: llama.cpp writes the lowest float for it."""

_ID = "token_id:"
_REASONS: dict[str, FinishReason] = {
    "stop": "eos_token",
    "eos_token": "eos_token",
    "eos": "eos_token",
    "stop_sequence": "stop_sequence",
    "length": "length",
    "tool_calls": "eos_token",
    "function_call": "eos_token",
}


class Chunks(Hearing):
    """Reads the events of one answer.

    Args:
        prompt: What was asked.
        sampling: Its number of alternatives is used.
        info: What the engine is.
        spaced: Whether the answer begins with a space that stands for no character.
        single: Whether each chunk is one token with its own text.
    """

    def __init__(
        self, prompt: Prompt, sampling: Sampling, info: EngineInfo, *, spaced: bool = True, single: bool = False
    ) -> None:
        self.exact = False
        self._single = single
        self._wanted = sampling.alternatives if "alternatives" in info.honours else 0
        self._ids = "ids" in info.details
        self._space = spaced and (prompt.leading_space or info.takes == "messages")
        self._codec = codec(template(info.template))
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._written = 0
        self._held: list[Token] = []

    def read(self, value: Any) -> list[Told]:
        """Read one event.

        Raises:
            EngineDied: The server gave the answer up.
            EngineRefused: Its filter ended the answer.
            ValueError, TypeError, KeyError, IndexError, AttributeError: It is no such event.
        """
        if not isinstance(value, dict):
            raise TypeError("an event is an object")
        self._count(value)
        progress = value.get("prompt_progress")
        if progress and not self._written:
            return [Phase("reading", int(progress["processed"]), int(progress["total"]))]
        choices = value.get("choices")
        if not choices or self.reason is not None:  # the count of tokens may come after the end; a token may not
            return []
        choice = choices[0]
        delta = choice.get("delta")
        text = _plain(delta.get("content") if isinstance(delta, dict) else choice.get("text"))
        said = self._tokens(text, choice, value)
        if ended := choice.get("finish_reason"):
            self._end(str(ended))
        return said

    def rest(self) -> list[Token]:
        """Return what was held back, after the last event."""
        held = [] if self.reason == "eos_token" else self._held
        self._held = []
        left = self._decoder.decode(b"", final=True)
        return [*held, Token(UNTOLD, left)] if left and not held else held

    def _count(self, value: Mapping[str, Any]) -> None:
        usage = value.get("usage")
        if isinstance(usage, dict):
            self.prompt_tokens = _count_of(usage.get("prompt_tokens"))
            self.answer_tokens = _count_of(usage.get("completion_tokens"))
            details = usage.get("prompt_tokens_details")
            self.cached = _count_of(details.get("cached_tokens")) or 0 if isinstance(details, dict) else 0
        timings = value.get("timings")
        if isinstance(timings, dict):
            written, spent = timings.get("predicted_n", 0), timings.get("predicted_ms", 0)
            # llama.cpp's clock starts when the first token is there, so that one is not among what it timed
            self.rate = (written - 1) / spent * 1000 if written > 1 and spent > 0 else None

    def _end(self, reason: str) -> None:
        if reason == "content_filter":
            raise EngineRefused("the server's filter ended the answer: change the question and ask again")
        if reason in ("abort", "error", "cancelled"):
            raise EngineDied(f"the server gave the answer up ({reason}): ask again")
        self.reason = _REASONS.get(reason, "eos_token")

    def _tokens(self, text: str, choice: Mapping[str, Any], value: Mapping[str, Any]) -> list[Told]:
        logprobs = choice.get("logprobs") or {}
        if self._ids and isinstance(choice.get("token_ids"), list):
            self.exact = True
            return self._of_ids(choice["token_ids"], logprobs, text)
        if entries := logprobs.get("content"):
            self.exact = True
            return self._of_entries(text, entries, value.get("timings"))
        if texts := logprobs.get("tokens"):
            self.exact = True
            if self._ids and all(name.startswith(_ID) for name in texts):
                return self._of_ids([_id_of(name) for name in texts], logprobs)
            return self._of_texts(text, texts, logprobs)
        return [self._first(Token(UNTOLD, text))] if text else []

    def _of_ids(self, ids: Sequence[int], logprobs: Mapping[str, Any], text: str = "") -> list[Told]:
        """Take tokens by their ids; their texts are the vocabulary's own, so no character is ever cut.

        Only a server whose chunks are single tokens with their very own text is taken at its word.
        """
        levels, tops = _column(logprobs, "token_logprobs", len(ids)), _column(logprobs, "top_logprobs", len(ids))
        found: list[Told] = []
        for number, level, top in zip(ids, levels, tops, strict=True):
            found += self._held
            self._held = []
            others = self._alternatives((_id_of(name), "", value) for name, value in (top or {}).items())
            if number in self._codec.controls or not 0 <= number < self._codec.template.vocabulary:
                self._held = [Token(number, "", _level(level), special=True, alternatives=others)]
                continue  # the end token, unless something follows it
            said = text if self._single else self._decoder.decode(self._codec.bytes_of(number))
            found.append(self._first(Token(number, said, _level(level), alternatives=others)))
        return found

    def _of_entries(self, text: str, entries: Sequence[Mapping[str, Any]], timings: Any) -> list[Told]:
        """Take tokens from entries of text, with ids where llama-server tells them."""
        if self._ids and all(isinstance(entry.get("id"), int) for entry in entries):
            return self._of_bytes(entries, timings)
        spread = _spread(text, [str(entry["token"]) for entry in entries])
        return [
            self._first(
                Token(
                    UNTOLD,
                    said,
                    _level(entry.get("logprob")),
                    alternatives=self._alternatives(
                        (UNTOLD, str(other["token"]), other["logprob"]) for other in entry.get("top_logprobs") or ()
                    ),
                )
            )
            for said, entry in zip(spread, entries, strict=True)
        ]

    def _of_bytes(self, entries: Sequence[Mapping[str, Any]], timings: Any) -> list[Told]:
        """Take llama-server's entries: one is a character where several tokens wrote it, with the last one's id."""
        counted = timings.get("predicted_n") if isinstance(timings, dict) else None
        count = 1 if counted is None or len(entries) > 1 else max(1, counted - self._written)
        self._written = counted if counted is not None else self._written + len(entries)
        found: list[Told] = []
        for entry in entries:
            found += self._held
            self._held = []
            raw, number = bytes(entry.get("bytes") or ()), entry["id"]
            tops = entry.get("top_logprobs") or ()
            others = self._alternatives((other["id"], "", other["logprob"]) for other in tops)
            token = Token(number, "", _level(entry.get("logprob")), not raw, others)
            if not raw:
                self._held = [token]
                continue
            pieces = spelling(self._codec).split(raw, count, number) if count > 1 else None
            for part, content in (pieces or [(number, raw)])[:-1]:
                found.append(self._first(Token(part, self._decoder.decode(content))))
            said = self._decoder.decode(pieces[-1][1] if pieces else raw)
            found.append(self._first(replace(token, text=said)))
        return found

    def _of_texts(self, text: str, texts: Sequence[str], logprobs: Mapping[str, Any]) -> list[Told]:
        levels, tops = _column(logprobs, "token_logprobs", len(texts)), _column(logprobs, "top_logprobs", len(texts))
        return [
            self._first(
                Token(
                    UNTOLD,
                    said,
                    _level(level),
                    alternatives=self._alternatives((UNTOLD, name, value) for name, value in (top or {}).items()),
                )
            )
            for said, level, top in zip(_spread(text, texts), levels, tops, strict=True)
        ]

    def _alternatives(self, told: Iterable[tuple[int, str, float]]) -> tuple[Alternative, ...]:
        """Make the alternatives, most probable first: as many as were asked for, whatever more are told."""
        if not self._wanted:
            return ()
        known = self._codec
        made = [
            Alternative(number, text if number == UNTOLD else spelled(number, known), max(IMPOSSIBLE, float(level)))
            for number, text, level in told
        ]
        return tuple(sorted(made, key=lambda other: -other.logprob)[: self._wanted])

    def _first(self, token: Token) -> Token:
        """Drop the space before the first word, which stands for no character."""
        if not self._space or not token.text:
            return token
        self._space = False
        return replace(token, text=token.text.removeprefix(" "))


def spelled(number: int, known: Any) -> str:
    """Write a token for a person: its text, its name, or ``<0xE2>`` for a part of a character."""
    if not 0 <= number < known.template.vocabulary:
        return f"<{number}?>"
    content: bytes = known.bytes_of(number)
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "".join(f"<0x{byte:02X}>" for byte in content)


def _column(logprobs: Mapping[str, Any], name: str, count: int) -> list[Any]:
    """Return what is told of each token; nothing where it is not told of each."""
    told = logprobs.get(name)
    return told if isinstance(told, list) and len(told) == count else [None] * count


def _spread(text: str, texts: Sequence[str]) -> list[str]:
    """Give each token its share of the text that came with them, which alone is certain."""
    if "".join(texts) == text:
        return list(texts)
    return [*([""] * (len(texts) - 1)), text]


def _plain(content: Any) -> str:
    """Return the text of a chunk, where it is a string, nothing, or parts of which some are thoughts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if part.get("type", "text") == "text")
    if content is None:
        return ""
    if not isinstance(content, str):
        raise TypeError("a text is a string")
    return content


def _id_of(name: str) -> int:
    return int(name.removeprefix(_ID)) if name.startswith(_ID) else UNTOLD


def _level(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and value > IMPOSSIBLE else None


def _count_of(value: Any) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 2**31 else None
