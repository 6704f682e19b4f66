"""Replies whose process has died: found by their silence, and marked ``interrupted``.

A process that writes a reply gives the store a sign of life about every second. What counts is how long no new sign
was seen while this process looked: neither the clocks of other machines matter, nor that one of them, or the
database, or this process stood still for a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from cierzo.errors import CierzoError

if TYPE_CHECKING:
    from collections.abc import Container

    from cierzo.store import Store, Unfinished

LOOK = 1.0
"""Seconds between two looks."""

DEAD = 5.0
"""Seconds of silence after which a writer counts as dead."""

CREDIT = 2.0
"""Most seconds of silence that one look can add: whoever stood still for a minute has not seen a minute of silence."""

_SAME = 0.1
_log = logging.getLogger("cierzo.replies")


class Orphans:
    """Looks for them.

    Args:
        store: Where replies are.
        mine: Ids of those that this process writes.
    """

    def __init__(self, store: Store, mine: Container[str]) -> None:
        self._store, self._mine = store, mine
        self._silent: dict[str, tuple[float, float]] = {}  # id: when its last sign was given, silence since it was seen
        self._looked = time.monotonic()

    async def watch(self) -> None:
        """Look, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK)

    async def look(self) -> None:
        """Look once, and end the replies that have been silent too long."""
        wall, now = time.time(), time.monotonic()
        passed, self._looked = min(now - self._looked, CREDIT), now
        try:
            found = await self._store.replies.unfinished()
        except CierzoError:
            self._silent.clear()  # nobody could give a sign while the store did not answer
            return
        before, self._silent = self._silent, {}
        for each in found:
            sign = wall - each.idle
            last, silence = before.get(each.message, (sign, -passed))
            silence = silence + passed if abs(sign - last) < _SAME else 0.0
            self._silent[each.message] = (sign, silence)
            if silence >= DEAD and each.message not in self._mine:
                await self._end(each)

    async def _end(self, orphan: Unfinished) -> None:
        try:
            if await self._store.replies.interrupt(orphan.message):
                _log.warning("a reply was interrupted", extra={"fields": {"reply": orphan.message}})
        except CierzoError:
            pass  # it was removed meanwhile, or the store does not answer: the next look sees
        except Exception:  # noqa: BLE001 - one damaged log must not keep the others waiting
            _log.exception("a reply could not be interrupted")
