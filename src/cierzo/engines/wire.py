"""What goes to llama.cpp's server and what comes back, as bytes. It knows no socket and no process.

`request` writes the body of one ``POST /completion``. `Reader` turns the bytes of the answer, cut anywhere, into
`Reading`, `Token` and `End`. It also ends the answer at a stop text, which llama.cpp is not told of: when it holds
text back itself it forgets which token wrote what.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson

from cierzo.errors import CierzoError, EngineRefused, PromptTooLong
from cierzo.messages import Alternative, FinishReason, Prompt, Sampling, Token
from cierzo.schemas import for_llama

if TYPE_CHECKING:
    from cierzo.engines.vocabulary import Vocabulary

NOISE = 1e-7
"""Tokens so many times less probable than the best are left out first, which is below the rounding of the 32-bit
sums that follow. llama.cpp then sorts dozens of tokens instead of tens of thousands and decodes small models twice
as fast."""

IMPOSSIBLE = -1e9
"""llama.cpp writes the lowest float for a probability of zero."""

_REASONS: dict[str, FinishReason] = {"eos": "eos_token", "limit": "length", "word": "stop_sequence"}
_FINAL_FIELDS = ["stop", "stop_type", "tokens_predicted", "timings"]


def request(prompt: Prompt, sampling: Sampling, *, seed: int, slot: int, room: int) -> bytes:
    """Write the body of a completion request.

    Every sampler is said by value, since llama.cpp's defaults are its own. They run in the order of Transformers
    and TGI: repetition, temperature, top-k, top-p, min-p. One that is off is left out, which costs nothing.

    Args:
        prompt: Its ids are sent, never its text.
        sampling: What the person chose.
        seed: Seed to use; ``sampling.seed`` or one that was drawn.
        slot: Slot of llama.cpp to run in.
        room: Tokens that the answer may have at most.
    """
    order = ["penalties"] if sampling.repetition_penalty != 1 else []
    top_k, min_p = sampling.top_k, sampling.min_p
    if sampling.temperature == 0:
        order += ["top_k"]
        top_k = 1
    elif min_p > 0:
        order += ["temperature"] + ["top_k"] * (top_k > 0) + ["top_p"] * (sampling.top_p < 1) + ["min_p"]
    else:
        min_p = NOISE
        order += ["temperature", "min_p"] + ["top_k"] * (top_k > 0) + ["top_p"] * (sampling.top_p < 1)
    kept_to = {"json_schema": for_llama(sampling.json_schema)} if sampling.json_schema else {}
    return orjson.dumps(
        {
            **kept_to,
            "prompt": prompt.ids,
            "n_predict": room,
            "id_slot": slot,
            "stream": True,
            "return_progress": True,
            "cache_prompt": True,
            "response_fields": _FINAL_FIELDS,
            "n_probs": max(1, sampling.alternatives),
            "seed": seed,
            "samplers": order,
            "temperature": sampling.temperature,
            "top_k": top_k,
            "top_p": sampling.top_p,
            "min_p": min_p,
            "repeat_penalty": sampling.repetition_penalty,
            "repeat_last_n": len(prompt) + room,  # the whole context, as Transformers has it; -1 is refused here
            "frequency_penalty": 0,
            "presence_penalty": 0,
            "typical_p": 1,
            "dynatemp_range": 0,
            "xtc_probability": 0,
            "dry_multiplier": 0,
            "mirostat": 0,
            "stop": [],
        }
    )


def refusal(status: int, body: bytes) -> CierzoError:
    """Translate an error answer of llama.cpp's server."""
    try:
        error = orjson.loads(body)["error"]
        if error.get("type") == "exceed_context_size_error":
            return PromptTooLong(error["n_prompt_tokens"], error["n_ctx"] - 1)
        reason = str(error["message"]).strip().splitlines()[0]
    except (ValueError, KeyError, TypeError, IndexError):
        reason = f"status {status}"
    return EngineRefused(f"the engine refused the request ({reason[:300]}): change the request and ask again")


@dataclass(frozen=True, slots=True)
class Reading:
    """Progress of the prompt: ``done`` of ``total`` tokens are in the cache, ``cached`` of them from before."""

    done: int
    total: int
    cached: int


@dataclass(frozen=True, slots=True)
class End:
    """The answer ended. ``rate`` is llama.cpp's own tokens per second, None where it told none."""

    reason: FinishReason
    stop: str | None = None
    rate: float | None = None


@dataclass(slots=True)
class Reader:
    """Turns the bytes of one answer into events.

    Args:
        sampling: Its stops and its number of alternatives are used.
        vocabulary: Finds the ids of a character that took several tokens.
        leading_space: Whether the first text loses the space that stands for no character.
    """

    sampling: Sampling
    vocabulary: Vocabulary
    leading_space: bool
    ended: bool = False
    _buffer: bytes = b""
    _counted: int = 0
    _control: Token | None = None
    _held: list[Token] = field(default_factory=list)

    def feed(self, chunk: bytes) -> list[Reading | Token | End]:
        """Take the next bytes; return what they complete. Nothing follows an `End`.

        Raises:
            EngineRefused: The engine ended the answer with an error.
        """
        *events, self._buffer = (self._buffer + chunk).split(b"\n\n")
        found: list[Reading | Token | End] = []
        for event in events:
            if event.startswith(b"data: ") and not self.ended:
                found += self.read(orjson.loads(event[6:]))
        return found

    def read(self, event: dict[str, Any]) -> list[Reading | Token | End]:
        """Take one event; return what it completes.

        Raises:
            EngineRefused: It is an error.
        """
        if "error" in event:
            raise refusal(200, orjson.dumps(event))
        if "prompt_progress" in event:
            progress = event["prompt_progress"]
            return [Reading(progress["processed"], progress["total"], progress["cache"])]
        if event["stop"]:
            return self._end(event)
        found: list[Reading | Token | End] = []
        before, self._control = self._control, None
        if before is not None:  # it was not the end token, for something follows it
            found += self._pass(before)
        for token in self._tokens(event):
            if not self.ended:
                found += self._pass(token)
        return found

    def _end(self, event: dict[str, Any]) -> list[Reading | Token | End]:
        reason = _REASONS.get(event["stop_type"], "length")
        found: list[Reading | Token | End] = []
        if self._control is not None and reason != "eos_token":
            found += self._pass(self._control)
        if self.ended:
            return found
        self.ended = True
        timings = event["timings"]
        written, spent = timings["predicted_n"], timings["predicted_ms"]
        # llama.cpp's clock starts when the first token is there, so that one is not among what it timed
        rate = (written - 1) / spent * 1000 if written > 1 and spent > 0 else None
        return [*found, *self._held, End(reason, rate=rate)]

    def _tokens(self, event: dict[str, Any]) -> list[Token]:
        """Make the tokens of one event: one, or all that a character took."""
        count, self._counted = event["tokens_predicted"] - self._counted, event["tokens_predicted"]
        raw, token = self._last(event)
        if count > 1:
            return self._several(token, raw, count)
        if not raw:
            self._control = token
            return []
        return [self._first(token)]

    def _last(self, event: dict[str, Any]) -> tuple[bytes, Token]:
        """Make the last token of an event, with its bytes. One that was guessed has no probability: llama.cpp checks
        that the model would have chosen it, and looks nothing up.
        """
        if "completion_probabilities" not in event:
            raw = event["content"].encode()
            return raw, Token(event["tokens"][-1], event["content"], special=not raw)
        entry = event["completion_probabilities"][0]
        raw = bytes(entry["bytes"])
        return raw, Token(
            entry["id"], raw.decode(errors="replace"), _logprob(entry), not raw, self._alternatives(entry)
        )

    def _several(self, last: Token, raw: bytes, count: int) -> list[Token]:
        pieces = self.vocabulary.split(raw, count, last.id)
        if pieces is None:
            return [self._first(last)]
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        tokens = [Token(number, decoder.decode(piece)) for number, piece in pieces[:-1]]
        tokens.append(replace(last, text=decoder.decode(pieces[-1][1], final=True), special=False))
        return [self._first(token) for token in tokens]

    def _first(self, token: Token) -> Token:
        """Drop the space before the first word; alternatives keep theirs, as the vocabulary writes them."""
        if not self.leading_space or not token.text:
            return token
        self.leading_space = False
        return replace(token, text=token.text.removeprefix(" "))

    def _alternatives(self, entry: dict[str, Any]) -> tuple[Alternative, ...]:
        wanted = entry["top_logprobs"][: self.sampling.alternatives]
        return tuple(
            Alternative(one["id"], self._shown(one["id"], bytes(one["bytes"])), max(IMPOSSIBLE, one["logprob"]))
            for one in wanted
        )

    def _shown(self, number: int, raw: bytes) -> str:
        """Write a token for a person: a control token by its name, a part of a character as ``<0xE2>``."""
        try:
            return raw.decode() if raw else self.vocabulary.name(number)
        except UnicodeDecodeError:
            return "".join(f"<0x{byte:02X}>" for byte in raw)

    def _pass(self, token: Token) -> list[Reading | Token | End]:
        """Let a token through, or hold it while its text may become a stop text."""
        if not self.sampling.stop:
            return [token]
        self._held.append(token)
        text = "".join(held.text for held in self._held)
        met = [(text.find(stop), stop) for stop in self.sampling.stop if stop in text]
        if met:
            place, stop = min(met, key=lambda found: found[0])
            self.ended = True
            return [*self._cut(place), End("stop_sequence", stop)]
        return list(self._release(len(text) - _possible(text, self.sampling.stop)))

    def _cut(self, place: int) -> list[Token]:
        """Return what is held, its text cut at ``place``; ids stay, also those that wrote the stop text."""
        cut = []
        for token in self._held:
            cut.append(replace(token, text=token.text[:place]))
            place = max(0, place - len(token.text))
        self._held.clear()
        return cut

    def _release(self, safe: int) -> list[Token]:
        """Return the held tokens that lie wholly within the first ``safe`` characters."""
        free = []
        while self._held and len(self._held[0].text) <= safe:
            safe -= len(self._held[0].text)
            free.append(self._held.pop(0))
        return free


def _possible(text: str, stops: tuple[str, ...]) -> int:
    """Return the length of the longest end of ``text`` with which one of ``stops`` begins."""
    longest = min(len(text), max(map(len, stops)) - 1)
    for size in range(longest, 0, -1):
        if any(stop.startswith(text[-size:]) for stop in stops):
            return size
    return 0


def _logprob(entry: dict[str, Any]) -> float | None:
    value = entry.get("logprob")
    return None if value is None or value < IMPOSSIBLE else float(value)
