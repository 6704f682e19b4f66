"""Where an answer goes on from tokens that are there already: which they are, and when they are its end.

A model with another vocabulary reads the text that is there in tokens of its own.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from typing import TYPE_CHECKING

from cierzo.errors import BadInput, Conflict
from cierzo.messages import UNTOLD, Finish, Token
from cierzo.templates import codec
from cierzo.templates import template as named

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from cierzo.messages import Alternative, Prompt, StreamEvent
    from cierzo.store import StoredMessage
    from cierzo.templates import Codec

CONTINUED = ("length", "stopped", "interrupted", "failed")
"""How an answer may have ended that can be continued."""


def check_continued(old: StoredMessage, template: str, *, plain: bool) -> None:
    """Refuse to continue what cannot be continued.

    Args:
        old: What is to be continued.
        template: That of the model which is to go on.
        plain: Without a place and a token: where it was cut.

    Raises:
        Conflict: It is still being written.
        BadInput: It was not cut; or a token is meant, and the model that goes on has others.
    """
    if old.answer is None:
        raise BadInput("this message is no answer of a model: name an answer")
    if old.answer.state == "writing":
        raise Conflict("this answer is still being written: stop it first")
    if plain and old.answer.reason not in CONTINUED:
        raise BadInput("this answer is complete: ask for another one, or say from which token to go on")
    if not plain and old.answer.template != template:
        raise BadInput(
            "a model with other tokens wrote this answer: choose that model again, or ask for another answer"
        )


def retold(text: str, template: str) -> tuple[Token, ...]:
    """Return what another model said as tokens of this template's vocabulary, without the blanks at its end."""
    if not text.strip():
        return ()
    known = codec(named(template))
    decoder = getincrementaldecoder("utf-8")("replace")
    ids = known.assistant(text, ends=False)
    texts = [decoder.decode(known.bytes_of(token), final=not left) for left, token in zip(_down(ids), ids, strict=True)]
    if known.template.leading_space:
        texts[0] = texts[0].removeprefix(" ")
    return tuple(Token(token, said) for token, said in zip(ids, texts, strict=True))


def _down(ids: Sequence[int]) -> range:
    return range(len(ids) - 1, -1, -1)


def begin_with(tokens: Sequence[Token], at: int | None, token: int | None, template: str) -> tuple[Token, ...]:
    """Return the tokens to begin with: the first ``at``, then ``token``.

    Where ``at`` is None these are all, but for a character at their end that is not complete.

    Raises:
        BadInput: There is no such place or token, or it lies within a character or a stop text.
    """
    if at is not None and not 0 <= at <= len(tokens):
        raise BadInput(f"the answer has {len(tokens)} tokens: at must be between 0 and {len(tokens)}")
    known = codec(named(template))
    if token is not None and any(told.id == UNTOLD for told in tokens):
        raise BadInput("the engine that wrote this answer tells no token's number: choose a place without a token")
    kept = tuple(tokens if at is None else tokens[:at])
    while at is None and _torn(kept, known):
        kept = kept[:-1]
    if token is not None:
        _check_place(kept, known)
        kept = (*kept, _chosen(tokens, kept, token, known))
    _check_place(kept, known)
    return kept


def _check_place(kept: Sequence[Token], known: Codec) -> None:
    if torn := _torn(kept, known):
        raise BadInput(f"this place lies within {torn}: choose one before or after it")


def _torn(kept: Sequence[Token], known: Codec) -> str:
    """Return what it is that these tokens end in the middle of; empty where they can be gone on from."""
    if not kept or kept[-1].special or kept[-1].id == UNTOLD or kept[-1].id >= known.template.vocabulary:
        return ""
    silent = next((n for n, token in enumerate(reversed(kept)) if token.text or token.special), len(kept))
    try:
        said = b"".join(known.bytes_of(token.id) for token in kept[-max(1, silent) :]).decode()
    except UnicodeDecodeError:  # the last token of a character alone is no text, and yet ends it
        return "" if kept[-1].text else "a character that several tokens make up"
    if len(kept) <= max(1, silent) and known.template.leading_space:
        said = said.removeprefix(" ")
    cut = said != kept[-1].text and said.startswith(kept[-1].text)
    return "the text that stopped the answer" if cut else ""


def _chosen(tokens: Sequence[Token], kept: Sequence[Token], token: int, known: Codec) -> Token:
    """Return the token that a person chose to follow ``kept``, with its probability where the model told it."""
    there = tokens[len(kept)] if len(kept) < len(tokens) else None
    if there is not None and there.id == token:
        return there
    told = {other.id: other for other in there.alternatives} if there is not None else {}
    if not 0 <= token < known.template.vocabulary:
        raise BadInput(f"there is no token {token}: the vocabulary has {known.template.vocabulary}")
    special = token == known.eos
    text = "" if special else _text_of(token, told, known)
    if known.template.leading_space and not any(each.text or known.decode([each.id]) for each in kept):
        text = text.removeprefix(" ")  # SentencePiece's mark of a word's start, which stands for no character here
    return Token(
        token,
        text,
        told[token].logprob if token in told else None,
        special=special,
        alternatives=there.alternatives if there is not None else (),
    )


def _text_of(token: int, told: Mapping[int, Alternative], known: Codec) -> str:
    """Return what a chosen token says: as the engine told it, or else as the vocabulary has it."""
    try:
        text = "" if token in known.controls else known.bytes_of(token).decode()
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise BadInput(f"token {token} is a control token or a part of a character: choose another")
    return told[token].text if token in told else text


async def ended(prompt: Prompt) -> AsyncGenerator[StreamEvent, None]:
    """The stream of an answer whose last token was chosen, and was the end."""
    yield Finish("eos_token", prompt_tokens=len(prompt))


def ends(tokens: Sequence[Token], template: str) -> bool:
    """Whether the last of the tokens is the one that ends an answer."""
    return bool(tokens) and tokens[-1].id == codec(named(template)).eos
