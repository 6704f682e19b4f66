"""The servers that speak OpenAI's language: how each is recognised, what it honours, and what it wants to be sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cierzo.engines.neutral import neutral, text_of
from cierzo.engines.refusals import refused
from cierzo.engines.served import window_of
from cierzo.errors import BadInput, EngineRefused, UnknownModel
from cierzo.model_names import template_of
from cierzo.templates import TEMPLATES

if TYPE_CHECKING:
    from cierzo.engines.base import EngineInfo
    from cierzo.engines.remote import Answered, Remote
    from cierzo.errors import CierzoError
    from cierzo.messages import Prompt, Sampling, Takes

_OK = 200
_SHOWN = 8
_NOT_FOUND = 404
_DENIED = (401, 403)
NO_IDS = frozenset({"logprobs", "alternatives"})
_ALL = NO_IDS | {"ids"}

_PLAIN = {
    "temperature": "temperature",
    "top_p": "top_p",
    "max_new_tokens": "max_tokens",
    "seed": "seed",
    "stop": "stop",
}
_MORE = {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repetition_penalty"}
LEGACY = {"alternatives": "logprobs"}
CHAT = {"alternatives": "top_logprobs"}
_LLAMA = {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repeat_penalty"}
USAGE = {"stream_options": {"include_usage": True}}

LEAST_TOP_P = 1e-4
"""Stands for a top-p of 0, which keeps one token and which most servers refuse."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of server.

    Attributes:
        title: Its name, for a person.
        takes: What of a prompt it is sent, where the model's template is known.
        names: For each thing that it may be sent, the fields of `Sampling` that it honours, by its own names.
        details: For each, what its tokens carry.
        extra: Fields that every request to ``/v1/completions`` has.
        extra_chat: The same for ``/v1/chat/completions``.
        slots: Answers that it is asked for at the same time, where it does not say how many it can write.
        alternatives: Most alternatives of a token.
        tokenizes: Whether it tells the tokens of a text.
        spaced: Whether an answer begins with the space that stands for no character.
        single: Whether each of its chunks is one token with its own text.
        continues: What makes it go on with the last message, an answer; None where it cannot.
        parts: Whether it keeps the text of a message apart from control tokens by itself.
    """

    title: str
    takes: Takes = "messages"
    names: Mapping[Takes, Mapping[str, str]] = field(default_factory=dict)
    details: Mapping[Takes, frozenset[str]] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    extra_chat: Mapping[str, Any] = field(default_factory=dict)
    slots: int = 4
    alternatives: int = 20
    tokenizes: bool = False
    spaced: bool = True
    single: bool = False
    continues: Mapping[str, Any] | None = None
    parts: bool = False


def names_of(kind: Kind) -> frozenset[str]:
    """Return every field of a sampling that a kind honours in some way."""
    return frozenset(name for names in kind.names.values() for name in names)


def _all(common: Mapping[str, str], legacy: Mapping[str, str], chat: Mapping[str, str]) -> dict[Takes, dict[str, str]]:
    return {"ids": {**common, **legacy}, "text": {**common, **legacy}, "messages": {**common, **chat}}


UNKNOWN = Kind(
    "an OpenAI-compatible server",
    names=_all(_PLAIN, {}, {}),
    details={"ids": frozenset(), "text": frozenset(), "messages": frozenset()},
)

KINDS: Mapping[str, Kind] = {
    "vllm": Kind(
        "vLLM",
        "ids",
        _all(_PLAIN | _MORE, LEGACY, CHAT),
        {"ids": _ALL, "text": _ALL, "messages": NO_IDS},
        {**USAGE, "return_token_ids": True, "return_tokens_as_token_ids": True},
        USAGE,
        slots=32,
        tokenizes=True,
        continues={"add_generation_prompt": False, "continue_final_message": True},
    ),
    "llamacpp": Kind(
        "llama-server",
        "ids",
        _all(_PLAIN | _LLAMA, LEGACY, CHAT),
        {"ids": _ALL, "text": _ALL, "messages": NO_IDS},
        {**USAGE, "return_progress": True, "timings_per_token": True, "cache_prompt": True},
        {**USAGE, "return_progress": True, "cache_prompt": True},
        tokenizes=True,
        continues={},
    ),
    "cierzo": Kind(
        "Cierzo",
        "ids",
        _all(_PLAIN | _MORE, LEGACY, CHAT),
        {"ids": _ALL, "text": _ALL, "messages": NO_IDS},
        {**USAGE, "return_token_ids": True, "return_tokens_as_token_ids": True},
        USAGE,
        spaced=False,
        single=True,
        continues={},
        parts=True,
    ),
    "sglang": Kind(
        "SGLang",
        "ids",
        _all(_PLAIN | _MORE, LEGACY, CHAT),
        {"ids": NO_IDS, "text": NO_IDS, "messages": NO_IDS},
        USAGE,
        USAGE,
        slots=32,
        continues={"continue_final_message": True},
    ),
    "ollama": Kind(
        "Ollama",
        names=_all(_PLAIN, {}, CHAT),
        details={"ids": frozenset(), "text": frozenset(), "messages": NO_IDS},
        extra=USAGE,
        extra_chat=USAGE,
        continues={},
    ),
    "mistral": Kind(
        "Mistral's API",
        names=_all({**_PLAIN, "seed": "random_seed"}, {}, {}),
        details={"ids": frozenset(), "text": frozenset(), "messages": frozenset()},
        slots=8,
        continues={"prefix": True},
        parts=True,
    ),
    "transformers": Kind(  # refuses a request with any field that it does not know
        "Transformers",
        names=_all(_PLAIN, {}, {}),
        details={"ids": frozenset(), "text": frozenset(), "messages": frozenset()},
        slots=1,
    ),
    "unknown": UNKNOWN,
}
"""By what they call themselves here."""

_OWNERS = {"vllm": "vllm", "llamacpp": "llamacpp", "cierzo": "cierzo", "sglang": "sglang", "library": "ollama"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of itself; empty, 0 or None where it does not."""

    kind: Kind
    model: str
    context: int = 0
    slots: int = 0
    template: str = ""
    version: str = ""
    honours: frozenset[str] | None = None
    details: frozenset[str] | None = None


def _nameless(remote: Remote, listed: Answered) -> CierzoError:
    """Say what a server gave where its list of models should be."""
    if listed.status >= 400 and listed.status != _NOT_FOUND:  # noqa: PLR2004 - HTTP's own number
        return refused(remote.host, listed.status, listed.raw, remote.clean)
    if listed.value is not None:
        return EngineRefused(f"the server at {remote.host} does not say which models it has: name one with --model")
    what = "a web page" if listed.raw.lstrip().startswith(b"<") else "something that is no JSON"
    return EngineRefused(
        f"the server at {remote.host} gave {what} in the place of its models: check the engine's address, and that "
        "it is not that of a proxy or a login"
    )


async def facts_of(remote: Remote, model: str) -> Facts:
    """Ask a server what it is: its list of models, then routes that only one kind has.

    Args:
        remote: The server.
        model: The model that is wanted; empty takes the first that it lists.

    Raises:
        UnknownModel: It lists others only.
        EngineRefused: It wants another key, or lists none and none is wanted.
        CierzoError: It cannot be asked.
    """
    listed = await remote.ask("/v1/models")
    if listed.status in _DENIED:
        raise refused(remote.host, listed.status, listed.raw, remote.clean)
    cards = [card for card in _rows(listed.value) if isinstance(card.get("id"), str)]
    card = _chosen(cards, model, remote.host)
    name = str(card.get("id") or model)
    if not name:
        raise _nameless(remote, listed)
    owner = _owner_of(card, remote.host)
    kind, said = await _recognised(remote, owner)
    read = _READERS.get(kind)
    if read is not None:
        return read(KINDS[kind], name, card, said)
    window = window_of(card.get("max_model_len") or card.get("max_context_length"))
    return Facts(KINDS[kind], name, window, version=_short(said.get("version")))


def _owner_of(card: Mapping[str, Any], host: str) -> str:
    """Return the kind of a server by a model's card, or nothing where it does not show."""
    owner = str(card.get("owned_by"))
    if host.endswith("mistral.ai") or (owner == "mistralai" and "max_context_length" in card):
        return "mistral"
    if owner not in _OWNERS and isinstance(card.get("status"), dict):  # Transformers: whether the model is loaded
        return "transformers"
    return _OWNERS.get(owner, "")


async def _recognised(remote: Remote, kind: str) -> tuple[str, dict[str, Any]]:
    """Return the kind of a server, and what the route says that only this kind has."""
    for known, path, mark in _ROUTES:
        if kind in ("", known):
            answer = await remote.ask(path)
            if answer.status == _OK and isinstance(answer.value, dict) and mark in answer.value:
                return known, answer.value
    return kind or "unknown", {}


def _of_llama_server(kind: Kind, name: str, card: Mapping[str, Any], said: Mapping[str, Any]) -> Facts:
    settings = said.get("default_generation_settings")
    window = settings.get("n_ctx") if isinstance(settings, dict) else None
    meta = card.get("meta")
    window = window or (meta.get("n_ctx") if isinstance(meta, dict) else None)
    named = template_of(name) or template_of(str(said.get("model_path") or "")) or ""
    return Facts(
        kind, name, window_of(window), window_of(said.get("total_slots")), named, _short(said.get("build_info"))
    )


def _of_cierzo(kind: Kind, name: str, _: Mapping[str, Any], said: Mapping[str, Any]) -> Facts:
    named = str(said.get("template"))
    return Facts(
        kind,
        name,
        window_of(said.get("context")),
        window_of(said.get("slots")),
        named if named in TEMPLATES else "",
        honours=frozenset(map(str, said.get("honours") or ())) & frozenset(kind.names["ids"]),
        details=frozenset(map(str, said.get("details") or ())) & kind.details["ids"],
    )


_READERS = {"llamacpp": _of_llama_server, "cierzo": _of_cierzo}
_ROUTES = (
    ("cierzo", "/api/engine", "honours"),
    ("llamacpp", "/props", "default_generation_settings"),
    ("ollama", "/api/version", "version"),
    ("sglang", "/get_server_info", "version"),
    ("vllm", "/version", "version"),
)
"""Routes that only one kind has, and what stands in their answer. Ollama is asked before vLLM: its ``/version`` is
``/api/version``."""


def _chosen(cards: list[dict[str, Any]], model: str, host: str) -> dict[str, Any]:
    """Return the card of the model that is wanted; an empty one where the server lists none."""
    if not cards:
        return {}
    if not model:
        return cards[0]
    for card in cards:
        names = [card["id"], *(card["aliases"] if isinstance(card.get("aliases"), list) else [])]
        if model in names or f"{model}:latest" in names:
            return card
    has = ", ".join(str(card["id"])[:80] for card in cards[:_SHOWN]) + (", …" if len(cards) > _SHOWN else "")
    raise UnknownModel(f"the server at {host} has no model {model!r:.100}: it has {has}; name one with --model")


def _rows(value: Any) -> list[dict[str, Any]]:
    rows = value.get("data") if isinstance(value, dict) else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _short(value: Any) -> str:
    return value[:60] if isinstance(value, str) else ""


def asked_of(
    kind: Kind, info: EngineInfo, prompt: Prompt, sampling: Sampling, *, seed: int | None, room: int, known: str = ""
) -> Any:
    """Write a request. Everything that the server honours is said by value, since its defaults are its own.

    Stop texts are not sent: `cierzo.engines.stops` says why.

    Args:
        kind: Of the server.
        info: What the engine is.
        prompt: What is asked.
        sampling: How.
        seed: To send; None sends none.
        room: Tokens that the answer may have.
        known: The model's template; empty where it is not known.

    Raises:
        BadInput: The prompt cannot be sent in the way that this server takes.
    """
    names = {name: theirs for name, theirs in kind.names[info.takes].items() if name in info.honours}
    top_p = 1.0 if sampling.temperature == 0 else max(LEAST_TOP_P, sampling.top_p)  # greedy takes no top-p elsewhere
    values: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": top_p,
        "max_new_tokens": room,
        "seed": seed,
        "top_k": sampling.top_k or -1,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "alternatives": max(1, sampling.alternatives),  # with none some servers tell no probability at all
    }
    body: dict[str, Any] = {"model": info.model, "stream": True}
    body |= {names[name]: value for name, value in values.items() if name in names and value is not None}
    if kind is KINDS["llamacpp"]:
        body |= {"repeat_last_n": len(prompt) + room, "samplers": _LLAMA_ORDER, "typical_p": 1.0}
    if info.takes == "messages":
        if "alternatives" in names:
            body["logprobs"] = True
        return body | dict(kind.extra_chat) | _messages(kind, prompt, "" if kind.parts else known)
    if info.takes == "ids":
        return {**body, **kind.extra, "prompt": prompt.ids}
    return {**body, **kind.extra, "prompt": text_of(prompt, info.template)}


_LLAMA_ORDER = ["penalties", "temperature", "top_k", "top_p", "min_p"]
"""The order of Transformers, as `cierzo.engines.wire` has it."""


def _messages(kind: Kind, prompt: Prompt, marks: str) -> dict[str, Any]:
    """Write the messages; names of the control tokens of template ``marks`` are parted in them.

    A server makes one string of them all and obeys the names that it finds in it, whoever typed them.
    """
    if not prompt.kept:
        raise BadInput("this engine takes messages only, and this prompt is made of tokens: ask with messages instead")
    said: list[dict[str, Any]] = [
        {"role": message.role, "content": neutral(message.text, marks) if marks else message.text}
        for message in prompt.kept
    ]
    if prompt.kept[-1].role != "assistant":
        return {"messages": said}
    if kind.continues is None:
        raise BadInput("the server of this engine cannot go on with an answer: ask for another one")
    if "prefix" in kind.continues:
        said[-1] |= kind.continues  # Mistral's API says it in the message
        return {"messages": said}
    return {"messages": said, **kind.continues}
