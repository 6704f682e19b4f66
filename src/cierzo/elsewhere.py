"""Replies that another process writes: this one follows and stops them through the store, and lets go when it ends."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from cierzo.errors import Conflict, Overloaded
from cierzo.underway import End, first_of

if TYPE_CHECKING:
    from cierzo.messages import StreamEvent
    from cierzo.store import Store, StoredMessage

POLL = 0.25
"""Seconds between two looks at a reply."""

ENDING = 5.0
"""Seconds after which it is worth asking a process that ends again: another one will be there."""


class Elsewhere:
    """Looks at them.

    Args:
        store: Where they are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._over = asyncio.Event()

    def let_go(self) -> None:
        """End what follows and what waits: the process ends, and the replies go on without it."""
        self._over.set()

    async def since(self, answer: str, *, owner: str | None, after: int) -> list[tuple[int, StreamEvent | End]]:
        """Return what the log has after number ``after``; the last is an `End` if it is over.

        Raises:
            NotFound: There is no such answer in a conversation of this owner.
            StoreUnavailable: The database does not answer.
        """
        page = await self._store.replies.events(answer, owner=owner, after=after)
        found: list[tuple[int, StreamEvent | End]] = list(enumerate(page.events, page.first))
        if page.done:
            found.append((page.logged + 1, end_of(await self._store.conversations.message(answer, owner=owner))))
        return found

    async def pause(self) -> None:
        """Wait until it is worth looking again.

        Raises:
            Overloaded: This process ends.
        """
        await first_of(time.monotonic() + POLL, self._over)
        if self._over.is_set():
            raise Overloaded("the program is ending: follow on when it is back, the answer goes on", retry_after=ENDING)

    async def stop(self, answer: str, *, owner: str | None, patience: float) -> StoredMessage:
        """Ask the process that writes a reply to stop it, and return it when it has ended.

        Args:
            answer: Which.
            owner: Whose.
            patience: Seconds to wait. A writer that lives answers within two; one that has died is found in seven.

        Raises:
            NotFound: There is no such answer in a conversation of this owner.
            Conflict: It still goes on then.
            Overloaded: This process ends meanwhile; the other one stops the reply all the same.
            StoreUnavailable: The database does not answer.
        """
        await self._store.replies.stop(answer, owner=owner)
        until = time.monotonic() + patience
        while True:
            message = await self._store.conversations.message(answer, owner=owner)
            if message.answer is None or message.answer.state == "done":
                return message
            if time.monotonic() > until:
                raise Conflict("another program writes this answer and has not stopped it when asked: stop it there")
            await self.pause()


def end_of(message: StoredMessage) -> End:
    """Return the end of an answer that is done."""
    assert message.answer is not None
    assert message.answer.reason is not None
    return End(message.answer.reason, message.answer.finish, message.answer.failure)
