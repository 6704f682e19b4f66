"""A log of an answer, and what it is folded into at the end: one text, its phases with their numbers, its tokens."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from cierzo.errors import BadText
from cierzo.messages import Phase, StreamEvent, Token
from cierzo.store.packing import pack_events, pack_ids, pack_tokens, unpack_events, unpack_ids, unpack_tokens
from cierzo.store.schema import events


async def logged_events(connection: AsyncConnection, answer: str) -> list[StreamEvent]:
    """Return what the log of an answer that is being written holds."""
    query = select(events.c.body).where(events.c.message == answer).order_by(events.c.first)
    bodies = (await connection.execute(query)).scalars().all()
    return [event for body in bodies for event in unpack_events(body)]


def text_of(logged: Sequence[StreamEvent]) -> str:
    """Return what a log says. A NUL of the model, which no message may hold, becomes U+FFFD; in its token it stays."""
    return "".join(event.text for event in logged if isinstance(event, Token)).replace("\0", "\ufffd")


def folded(logged: Sequence[StreamEvent]) -> tuple[str, bytes, bytes]:
    """Return the text, the phases with their numbers, and the tokens, the last two packed.

    Raises:
        BadText: It is too much to be read back.
    """
    tokens = [event for event in logged if isinstance(event, Token)]
    phases = [(number, event) for number, event in enumerate(logged, 1) if isinstance(event, Phase)]
    numbers = pack_ids([number for number, _ in phases])
    header = len(numbers).to_bytes(4, "big")
    packed = header + numbers + pack_events([phase for _, phase in phases])
    return text_of(tokens), packed, pack_tokens(tokens)


def readable(logged: list[StreamEvent]) -> list[StreamEvent]:
    """Return the log, or as much of it as can be read back: the first half, or the first half of that, and so on."""
    try:
        folded(logged)
    except BadText:
        return readable(logged[: len(logged) // 2])
    return logged


def unfolded(phases: bytes, tokens: bytes) -> list[StreamEvent]:
    """Undo `folded`: each phase at its number, tokens in the places between."""
    size = int.from_bytes(phases[:4], "big")
    placed = dict(zip(unpack_ids(phases[4 : 4 + size]), unpack_events(phases[4 + size :]), strict=True))
    rest = iter(unpack_tokens(tokens))
    found: list[StreamEvent] = []
    while (following := placed.get(len(found) + 1) or next(rest, None)) is not None:
        found.append(following)
    return found
