"""The values that everything else speaks of: message, prompt, sampling, token, finish.

They are plain and frozen: no id of a conversation, no socket, no widget. Two with the same content are equal.
A stream is: ``Phase`` events, then ``Token`` events, then exactly one ``Finish``; or an exception from
`cierzo.errors`. The token texts, joined, are the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import chain
from typing import Any, Literal, Self, cast

from cierzo.errors import BadSampling, BadText
from cierzo.schemas import canonical

Role = Literal["system", "user", "assistant"]

MAX_TEXT = 2_000_000
"""Longest text of one message, in characters. TGI refuses bodies over 2,000,000 bytes; so do we."""

MAX_ALTERNATIVES = 20
"""Most alternatives per token: what OpenAI's ``top_logprobs`` allows."""

MAX_STOPS = 16
MAX_STOP_LENGTH = 256


def check_text(text: str, *, what: str = "the message", empty: bool = False) -> str:
    """Return ``text`` if it can be stored, sent and shown; otherwise say what to do.

    Args:
        text: Any string that came from outside.
        what: How the error calls it.
        empty: Whether an empty text is allowed.

    Raises:
        BadText: It is empty, longer than `MAX_TEXT`, or holds NUL or a lone surrogate.
    """
    if not empty and not text.strip():
        raise BadText(f"{what} is empty: write something first")
    if len(text) > MAX_TEXT:
        raise BadText(f"{what} has {len(text):,} characters, at most {MAX_TEXT:,} are allowed: shorten it")
    if "\x00" in text:
        raise BadText(f"{what} holds a NUL character at position {text.index(chr(0))}: remove it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as broken:
        raise BadText(
            f"{what} holds half a character (a lone surrogate) at position {broken.start}: remove it or paste it again"
        ) from None
    return text


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: who speaks and what was said.

    ``ids`` are the token ids with which a model wrote the text. They are a memory, not content: two messages
    with the same role and text are equal. `cierzo.prompt` uses them when they decode to the text, so that the
    next prompt continues the very tokens that the KV cache holds.
    """

    role: Role
    text: str
    ids: tuple[int, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.role not in ("system", "user", "assistant"):
            raise BadText(f"a message's role is system, user or assistant, not {self.role!r}")
        check_text(self.text, what=f"the {self.role} message", empty=self.role != "user")


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of a prompt: either plain text, or one control token such as ``[INST]``."""

    text: str
    ids: tuple[int, ...]
    control: bool


@dataclass(frozen=True, slots=True)
class Prompt:
    """What goes to the model, made once.

    Attributes:
        pieces: The prompt in order. Texts joined show it; ids joined are it.
        template: Name of the template that made it, such as ``v3``; ``raw`` for a string that the user wrote.
        kept: Messages that are in it, oldest first.
        dropped: Messages that the window had no room for, oldest first.
        leading_space: Whether the answer's first token carries a space that stands for no character
            (SentencePiece marks the start of a word so); an engine removes it from the first token's text.
        ids: The token ids, in order: those of the pieces, joined once, since everything on the way asks for them.
    """

    pieces: tuple[Piece, ...]
    template: str
    kept: tuple[Message, ...] = ()
    dropped: tuple[Message, ...] = ()
    leading_space: bool = False
    ids: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple(chain.from_iterable(piece.ids for piece in self.pieces)))

    @property
    def text(self) -> str:
        """The prompt as a person reads it, control tokens by their names."""
        return "".join(piece.text for piece in self.pieces)

    def __len__(self) -> int:
        return len(self.ids)


_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 5.0),
    "max_new_tokens": (1, 131_072),
    "top_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 10.0),
    "top_k": (0, 200_000),
    "min_p": (0.0, 1.0),
    "alternatives": (0, MAX_ALTERNATIVES),
    "seed": (0, 2**32 - 2),  # llama.cpp keeps 2**32 - 1 for "choose one"
}
_WHOLE = ("max_new_tokens", "top_k", "alternatives", "seed")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. The notebook's names and defaults, whatever the engine calls them.

    Attributes:
        temperature: 0 takes the most probable token (greedy); 1 samples from the model's own probabilities.
        max_new_tokens: Most tokens that the answer may have.
        top_p: Sample from the smallest set of tokens whose probabilities sum to this (Holtzman et al. 2019,
            arXiv 1904.09751). 1 turns it off; 0 keeps one token.
        repetition_penalty: Divides the positive logits of tokens already in the context, multiplies the
            negative ones (Keskar et al. 2019, arXiv 1909.05858). 1 turns it off.
        top_k: Sample from the k most probable tokens. 0 turns it off.
        min_p: Drop tokens less probable than this fraction of the most probable one. 0 turns it off.
        seed: Seed of the random numbers; None lets the engine choose, and `Finish.seed` reports it.
        stop: Texts that end the answer; the text itself is not part of the answer.
        alternatives: How many of the most probable tokens each `Token` reports.
        json_schema: JSON Schema that the answer is kept to, as text or as an object (see `cierzo.schemas`); None
            lets the model write what it likes. An answer that ``max_new_tokens`` cut short is a piece of JSON.

    Raises:
        BadSampling: A value is not a number or outside its range; the sentence names both.
    """

    temperature: float = 0.9
    max_new_tokens: int = 256
    top_p: float = 0.95
    repetition_penalty: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    alternatives: int = 0
    json_schema: str | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if name == "seed" and value is None:
                continue
            object.__setattr__(self, name, _number(name, value, low, high))
        object.__setattr__(self, "stop", _stops(self.stop))
        if self.json_schema is not None:
            object.__setattr__(self, "json_schema", canonical(self.json_schema))

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """Make one from names and values; names that are None keep their default.

        Raises:
            BadSampling: An unknown name, or a value that `Sampling` refuses.
        """
        known = {f.name for f in fields(cls)}
        for name in values:
            if name not in known:
                raise BadSampling(f"there is no sampling value {name!r}: use one of {', '.join(sorted(known))}")
        return cls(**{name: value for name, value in values.items() if value is not None})


def _number(name: str, value: object, low: float, high: float) -> float | int:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadSampling(f"{name} must be a number between {low:g} and {high:g}, not {value!r}")
    if not low <= value <= high:  # neither infinities nor NaN are
        shown = repr(value) if isinstance(value, float) or abs(value) < 2**64 else "a number that large"
        raise BadSampling(f"{name} must be between {low:g} and {high:g}, not {shown}")
    if name in _WHOLE:
        if value != int(value):
            raise BadSampling(f"{name} must be a whole number between {low:g} and {high:g}, not {value!r}")
        return int(value)
    return float(value)


def _stops(value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise BadSampling(f"stop must be a list of texts, not {value!r}")
    if len(value) > MAX_STOPS:
        raise BadSampling(f"stop has {len(value)} texts, at most {MAX_STOPS} are allowed")
    for text in value:
        if not isinstance(text, str) or not 0 < len(text) <= MAX_STOP_LENGTH:
            raise BadSampling(f"each stop text has between 1 and {MAX_STOP_LENGTH} characters, not {text!r:.60}")
        check_text(text, what="a stop text", empty=True)
    return tuple(cast("Sequence[str]", value))


UNTOLD = 0
"""Id of a token where the engine tells none. In every vocabulary it is ``<unk>``, which no answer has."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that the model might have said instead. ``logprob`` as in `Token`."""

    id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer.

    Attributes:
        id: Its number in the model's vocabulary; `UNTOLD` where the engine tells none.
        text: The characters it completes; empty where it is part of a character that a later token completes,
            or a control token. Never half a character.
        logprob: Natural logarithm of its probability, from the model's own logits before any sampler; None
            where the engine does not report it.
        special: Whether it is a control token.
        alternatives: The most probable tokens at this place, most probable first.
    """

    id: int
    text: str
    logprob: float | None = None
    special: bool = False
    alternatives: tuple[Alternative, ...] = ()


PhaseName = Literal["queued", "loading", "reading"]


@dataclass(frozen=True, slots=True)
class Phase:
    """What happens before the first token.

    Attributes:
        name: ``queued`` (for a slot), ``loading`` (the model) or ``reading`` (the prompt, called prefill).
        done: Tokens read, percent loaded, or place in the queue.
        total: Of how many; 0 where it is not known.
        seconds: Time since the request came.
    """

    name: PhaseName
    done: int = 0
    total: int = 0
    seconds: float = 0.0


MEASURABLE = 0.1
"""Seconds of decoding below which a count of tokens says nothing of the speed: they may have come in one packet."""

Takes = Literal["ids", "text", "messages"]
"""What of a prompt can go to an engine."""

FinishReason = Literal["eos_token", "stop_sequence", "length", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds spent in each part of an answer, measured where the stream is read.

    ``first_token`` counts from the request; ``decode`` from the first token to the last. ``engine_rate`` is the
    engine's own count of tokens per second while decoding, None where it reports none.
    """

    queue: float = 0.0
    load: float = 0.0
    prefill: float = 0.0
    first_token: float = 0.0
    decode: float = 0.0
    engine_rate: float | None = None

    def after(self, waited: float) -> Timings:
        """Return them with the seconds for which the request waited before the engine had it."""
        return replace(self, queue=self.queue + waited, first_token=self.first_token + waited)


@dataclass(frozen=True, slots=True)
class Finish:
    """How an answer ended.

    Attributes:
        reason: ``eos_token`` (the model ended it), ``stop_sequence``, ``length`` (max_new_tokens or the window),
            ``stopped`` (a person did), ``failed``.
        prompt_tokens: Length of the prompt.
        cached_tokens: How many of those the KV cache already held.
        answer_tokens: Tokens written, the end token not counted.
        timings: Where the time went.
        seed: Seed that was used, also where none was asked for; None where the engine does not report it.
        stop: The stop text that was met, if one was.
        kept: How many of ``answer_tokens`` it began with, written before.
        sent: What of the prompt went to the engine.
        rate: Tokens per second while decoding, None where nobody can tell: the engine's own count, or else the tokens
            after the first over ``timings.decode``, where that is at least `MEASURABLE`.
    """

    reason: FinishReason
    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0
    timings: Timings = Timings()
    seed: int | None = None
    stop: str | None = None
    kept: int = field(default=0, compare=False)
    sent: Takes = field(default="ids", compare=False)
    rate: float | None = field(init=False, compare=False)

    def __post_init__(self) -> None:
        times, timed = self.timings, self.answer_tokens - self.kept - 1
        rate = times.engine_rate
        if rate is None and timed > 0 and times.decode >= MEASURABLE:
            rate = timed / times.decode
        object.__setattr__(self, "rate", rate)


def content(value: Sampling | Finish) -> dict[str, Any]:
    """Return what makes two of them equal, as plain values: what is kept of one, and what stands in files."""
    same = {field.name for field in fields(value) if field.compare}
    return {name: each for name, each in asdict(value).items() if name in same}


StreamEvent = Phase | Token | Finish
