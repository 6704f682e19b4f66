"""What several tests of prompts use."""

from __future__ import annotations

from typing import Any

from reference import request

from cierzo.messages import Message
from cierzo.prompt import TEMPLATES
from cierzo.templates import Codec

NAMES = tuple(TEMPLATES)
WIDE = 1_000_000


def says(*turns: tuple[str, str]) -> list[Message]:
    return [Message("assistant" if role == "prefix" else role, text) for role, text in turns]  # type: ignore[arg-type] # "prefix" is ours


def expected(tokenizer: Any, turns: list[tuple[str, str]]) -> tuple[int, ...]:
    return tuple(tokenizer.encode_chat_completion(request(turns)).tokens)


def spelled(known: Codec, text: str) -> list[int]:
    """Ids of a text as no tokenizer would cut it: byte by byte."""
    first = {known.bytes_of(i): i for i in reversed(range(known.template.vocabulary)) if i not in known.controls}
    space = " " if known.template.leading_space else ""
    return [first[bytes([byte])] for byte in (space + text).encode()]
