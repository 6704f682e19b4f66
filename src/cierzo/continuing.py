"""Where an answer goes on from tokens that are there already: which they are, and when they are its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cierzo import prompt as prompts
from cierzo.errors import BadInput
from cierzo.messages import Finish, Token
from cierzo.templates import codec
from cierzo.templates import template as named

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from cierzo.messages import Prompt, StreamEvent


def begin_with(tokens: Sequence[Token], at: int | None, token: int | None, template: str) -> tuple[Token, ...]:
    """Return the tokens to begin with: the first ``at``, then ``token``.

    Raises:
        BadInput: There is no such place or token, or it lies within a character.
    """
    kept = tuple(tokens if at is None else tokens[:at])
    if at is not None and not 0 <= at <= len(tokens):
        raise BadInput(f"the answer has {len(tokens)} tokens: at must be between 0 and {len(tokens)}")
    if kept and not kept[-1].text and not kept[-1].special:
        raise BadInput("this place lies within a character that several tokens make up: choose one before or after it")
    return kept if token is None else (*kept, _chosen(tokens, len(kept), token, template))


def _chosen(tokens: Sequence[Token], place: int, token: int, template: str) -> Token:
    """Return the token that a person chose for a place, with its probability where the model told it."""
    there = tokens[place] if place < len(tokens) else None
    if there is not None and there.id == token:
        return there
    told = {other.id: other for other in there.alternatives} if there is not None else {}
    known = codec(named(template))
    if not 0 <= token < known.template.vocabulary:
        raise BadInput(f"there is no token {token}: the vocabulary has {known.template.vocabulary}")
    special = token == known.eos
    text = "" if special else told[token].text if token in told else prompts.decode([token], template)
    if not special and (not text or "\ufffd" in text):
        raise BadInput(f"token {token} is a control token or a part of a character: choose another")
    if place == 0:
        text = text.removeprefix(" ")  # SentencePiece's mark of a word's start, which stands for no character here
    return Token(
        token,
        text,
        told[token].logprob if token in told else None,
        special=special,
        alternatives=there.alternatives if there is not None else (),
    )


async def ended(prompt: Prompt) -> AsyncGenerator[StreamEvent, None]:
    """The stream of an answer whose last token was chosen, and was the end."""
    yield Finish("eos_token", prompt_tokens=len(prompt))


def ends(tokens: Sequence[Token], template: str) -> bool:
    """Whether the last of the tokens is the one that ends an answer."""
    return bool(tokens) and tokens[-1].id == codec(named(template)).eos
