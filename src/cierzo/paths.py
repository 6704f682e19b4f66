"""The messages that lead to a place in a conversation, as a prompt wants them, without reading them all each time.

What lies above a message never changes, once that message is whole; so paths are remembered, by owner.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from cierzo.errors import Conflict, NotFound
from cierzo.messages import Message

if TYPE_CHECKING:
    from cierzo.store import Store, StoredMessage

MOST = 256
"""Paths that are remembered."""

FEW = 4
"""Messages that are read one by one before the whole conversation is."""

WITH_IDS = 64
"""Messages, counted from the newest, that go into a prompt with the ids that the model wrote."""

Path = tuple[Message, ...]


class Paths:
    """Finds paths.

    Args:
        store: Where the messages are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[tuple[str | None, str, str], Path] = OrderedDict()  # by owner, conversation, last one

    async def to(self, leaf: str | None, conversation: str, *, owner: str | None) -> Path:
        """Return the messages from the first to ``leaf``, oldest first; none for None.

        Raises:
            NotFound: There is no such message in a conversation of that id that is this owner's.
            Conflict: It is an answer that is still being written.
        """
        newer: list[StoredMessage] = []
        at = leaf
        while at is not None and (owner, conversation, at) not in self._known and len(newer) < FEW:
            newer.append(await self._store.conversations.message(at, owner=owner))
            at = newer[-1].parent
        if any(message.conversation != conversation for message in newer):
            raise NotFound(f"there is no message {str(leaf)[:40]!r} in this conversation: read it again")
        if newer and newer[0].answer is not None and newer[0].answer.state == "writing":
            raise Conflict("the answer before this question is still being written: wait for its end, or stop it")
        older = self._known.get((owner, conversation, at or ""), ())
        if at is not None and not older:
            newer = list((await self._store.conversations.open(conversation, owner=owner)).path(leaf))[::-1]
        path = (*older, *[await self._message(each, owner, age) for age, each in enumerate(newer)][::-1])
        if leaf is not None:
            self._known[owner, conversation, leaf] = path
            self._known.move_to_end((owner, conversation, leaf))
            while len(self._known) > MOST:
                self._known.popitem(last=False)
        return path

    async def _message(self, stored: StoredMessage, owner: str | None, age: int) -> Message:
        """Return what a prompt is built of: a recent answer with the very ids that the model wrote."""
        if stored.answer is None or age >= WITH_IDS:
            return stored.message
        tokens = await self._store.replies.tokens(stored.id, owner=owner)
        return replace(stored.message, ids=tuple(token.id for token in tokens))


def system_of(path: Path) -> str:
    """Return the system prompt that counts at the end of a path; empty where there is none."""
    return next((message.text for message in reversed(path) if message.role == "system"), "")


def asking(path: Path, text: str) -> list[Message]:
    """Return what a prompt is made of for a question after a path: of its system prompts the last one counts."""
    system = system_of(path)
    first = [Message("system", system)] if system else []
    return [*first, *(message for message in path if message.role != "system"), Message("user", text)]
