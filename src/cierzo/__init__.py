"""Cierzo: a chat for Mistral models that hides nothing.

Two clients, the values that they speak of, and the errors that they raise::

    import cierzo

    with cierzo.Client() as client:
        print(client.ask("¿Quién eres?"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cierzo.errors import CierzoError
from cierzo.messages import Alternative, Finish, Message, Phase, Piece, Prompt, Sampling, Timings, Token

if TYPE_CHECKING:
    from cierzo.chat import Answer, PromptOptions
    from cierzo.client import AsyncClient, Client

__version__ = "0.1.0"

__all__ = [
    "Alternative",
    "Answer",
    "AsyncClient",
    "CierzoError",
    "Client",
    "Finish",
    "Message",
    "Phase",
    "Piece",
    "Prompt",
    "PromptOptions",
    "Sampling",
    "Timings",
    "Token",
]

_LATER = {
    "Answer": "cierzo.chat",
    "PromptOptions": "cierzo.chat",
    "AsyncClient": "cierzo.client",
    "Client": "cierzo.client",
}


def __getattr__(name: str) -> Any:
    # Every command imports this package first. Clients need the tokenizers, `cierzo --help` does not.
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'cierzo' has no attribute {name!r}")
