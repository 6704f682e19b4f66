"""What a server does not say of itself and can be tried: whether its model has our tokens, and what it takes.

Trying costs a token or two, so it is done only with servers of no known kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cierzo.engines.openai_kinds import CHAT, LEGACY, NO_IDS, Kind
from cierzo.templates import codec, template

if TYPE_CHECKING:
    from cierzo.engines.remote import Remote

_OK = 200
_TEXT = "the wind, 2026: otra vez el cierzo baja por el Ebro"
_COMPARED = 8
"""Tokens at the end of `_TEXT` that are compared; at its start, servers differ in the space before the first word."""


async def spells_alike(remote: Remote, model: str, name: str) -> bool | None:
    """Say whether the model behind a vLLM or a llama-server has the tokens of a template.

    Returns:
        None where the server does not tell its tokens.
    """
    asked = {"model": model, "prompt": _TEXT, "add_special_tokens": False}
    asked |= {"content": _TEXT, "add_special": False, "parse_special": False}
    answer = await remote.ask("/tokenize", asked)
    told = answer.value.get("tokens") if isinstance(answer.value, dict) else None
    if answer.status != _OK or not isinstance(told, list):
        return None
    ours = await asyncio.to_thread(lambda: codec(template(name)).encode(_TEXT))
    return told[-_COMPARED:] == ours[-_COMPARED:]


async def probed(remote: Remote, kind: Kind, model: str, name: str) -> Kind:
    """Try what a server of no known kind takes and tells.

    Args:
        remote: The server.
        kind: What is known of it.
        model: Which of its models.
        name: Of the model's template; empty where it is not known, and then only messages can be sent.
    """
    said = {"messages": [{"role": "user", "content": "."}]}
    logprobs = {"logprobs": True, "top_logprobs": 1}
    chat = _choice(await remote.ask("/v1/chat/completions", _asked(model, said | logprobs)))
    names, details = dict(kind.names), dict(kind.details)
    if isinstance(chat.get("logprobs"), dict) and chat["logprobs"].get("content"):
        names["messages"] = {**names["messages"], **CHAT}
        details["messages"] = NO_IDS
    if not name:
        return replace(kind, names=names, details=details)
    ids = await asyncio.to_thread(lambda: [*codec(template(name)).start, *codec(template(name)).encode(_TEXT)])
    for more in ({"logprobs": 1}, {}):
        answer = await remote.ask("/v1/completions", _asked(model, {"prompt": ids, **more}))
        usage = answer.value.get("usage") if isinstance(answer.value, dict) else None
        if not isinstance(usage, dict) or usage.get("prompt_tokens") != len(ids):
            continue
        if isinstance(_choice(answer).get("logprobs"), dict):
            names["ids"] = {**names["ids"], **LEGACY}
            details["ids"] = NO_IDS
        return replace(kind, takes="ids", names=names, details=details)
    return replace(kind, names=names, details=details)


def _asked(model: str, more: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": model, "max_tokens": 1, "temperature": 0, **more}


def _choice(answer: Any) -> dict[str, Any]:
    """Return the first choice of an answer, or nothing where it is none."""
    choices = answer.value.get("choices") if answer.status == _OK and isinstance(answer.value, dict) else None
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
