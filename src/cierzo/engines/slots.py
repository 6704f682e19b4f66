"""Who may run now, in which slot of llama.cpp, and which old work that slot can go on from.

llama.cpp can choose slots by itself, but it moves a conversation's cache to any other that shares a quarter of it,
so chats with one system prompt take it from each other; and when the answers that run outgrow the shared cache, it
ends all of them. So the choice is made here. This file does arithmetic only; it knows no socket.

A request reserves its prompt and the longest answer it may have, so what runs always fits the **pool** of cells
that all slots share. A **slot** keeps the tokens of its last answer. What is in danger of being overwritten and
might be wanted again is saved first to the **shelf**: a file per conversation, the oldest removed first.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Ids = tuple[int, ...]

SLACK = 4
"""Tokens that may be lost without a copy: reading them again costs less."""

WORTH_SHARING = 16
"""Tokens in common from which a new conversation goes on from another's beginning instead of an empty slot."""

MOST_SAVED = 256
"""Saved conversations, whatever their size: every request is compared with each."""


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens both begin with. Bisects on slices, which compare at C speed."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(slots=True)
class Slot:
    """One of llama.cpp's slots and what its cells hold, as far as is known here."""

    number: int
    held: Ids = ()
    busy: bool = False
    reserved: int = 0
    used: int = 0
    saved: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to ask of llama.cpp before a request: ``save``, ``restore`` or ``erase`` a slot.

    ``held`` is what the slot holds when it is saved.
    """

    action: str
    slot: int
    file: str = ""
    held: Ids = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A slot to run in, taken until `Slots.release`, and the steps that make it ready."""

    slot: Slot
    steps: tuple[Step, ...]


@dataclass(slots=True)
class Slots:
    """The slots, the pool and the shelf.

    Args:
        count: Slots that llama.cpp has.
        pool: Cells that they share, in tokens.
        shelf_bytes: Most bytes of saved conversations.
    """

    count: int
    pool: int
    shelf_bytes: int
    slots: list[Slot] = field(default_factory=list)
    _shelf: dict[str, tuple[Ids, int]] = field(default_factory=dict)
    _clock: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.slots = [Slot(number) for number in range(self.count)]

    def fits(self, need: int) -> bool:
        """Whether a request for ``need`` tokens can run beside those that run now."""
        busy = [slot.reserved for slot in self.slots if slot.busy]
        return len(busy) < self.count and sum(busy) + need <= self.pool

    def take(self, prompt: Ids, need: int) -> Plan:
        """Choose a slot for ``prompt`` and mark it busy. `fits` must have said yes."""
        idle = [slot for slot in self.slots if not slot.busy]
        best = max(idle, key=lambda slot: (common_prefix(slot.held, prompt), -len(slot.held), -slot.used))
        kept = common_prefix(best.held, prompt)
        file, shelved = self._best_saved(prompt)
        steps: list[Step] = []
        if shelved > kept + SLACK or (kept < WORTH_SHARING and len(best.held) - kept > SLACK):
            best = min(idle, key=lambda slot: (len(slot.held) > 0, slot.used))
        if shelved > kept + SLACK:
            steps += self._save(best)
            steps.append(Step("restore", best.number, file))
            best.held, best.saved = self._shelf[file][0], file
        elif len(best.held) - common_prefix(best.held, prompt) > SLACK:
            steps += self._save(best)
        steps += self._make_room(need, best)
        best.busy, best.reserved, best.used = True, need, next(self._clock)
        return Plan(best, tuple(steps))

    def release(self, slot: Slot, held: Ids) -> None:
        """Give a slot back, which now holds ``held``."""
        if held != slot.held:
            slot.saved = ""
        slot.busy, slot.reserved, slot.held = False, 0, held

    def saved(self, file: str, held: Ids, size: int) -> list[str]:
        """Note that a file was written; return the files that have to go for it, oldest first."""
        self._shelf[file] = (held, size)
        gone = []
        while len(self._shelf) > MOST_SAVED or sum(size for _, size in self._shelf.values()) > self.shelf_bytes:
            oldest = next(iter(self._shelf))
            gone.append(oldest)
            self.forget(oldest)
        return gone

    def forget(self, file: str) -> None:
        """A file is gone or cannot be read."""
        self._shelf.pop(file, None)
        for slot in self.slots:
            if slot.saved == file:
                slot.saved = ""

    def _best_saved(self, prompt: Ids) -> tuple[str, int]:
        best = max(self._shelf, key=lambda file: common_prefix(self._shelf[file][0], prompt), default="")
        if not best:
            return "", 0
        self._shelf[best] = self._shelf.pop(best)  # the last is the most recently wanted
        return best, common_prefix(self._shelf[best][0], prompt)

    def _save(self, slot: Slot) -> list[Step]:
        """Save what a slot holds unless it is short or saved already."""
        if len(slot.held) <= SLACK or slot.saved:
            return []
        for file, (held, _) in list(self._shelf.items()):  # an earlier turn of the same conversation
            if len(held) <= len(slot.held) and slot.held[: len(held)] == held:
                self.forget(file)
        slot.saved = f"{next(self._clock)}.slot"
        return [Step("save", slot.number, slot.saved, slot.held)]

    def _make_room(self, need: int, chosen: Slot) -> list[Step]:
        """Free cells of idle slots, the longest unused first, until the request's reservation fits."""
        steps: list[Step] = []
        others = sorted((s for s in self.slots if s is not chosen and not s.busy and s.held), key=lambda s: s.used)
        room = self.pool - need - sum(slot.reserved for slot in self.slots if slot.busy)
        room -= sum(len(slot.held) for slot in others)
        for slot in others:
            if room >= 0:
                break
            steps += self._save(slot)
            steps.append(Step("erase", slot.number))
            room += len(slot.held)
            slot.held, slot.saved = (), ""
        return steps


class Line:
    """The queue before the slots: first come, first served, with a bounded number of places."""

    def __init__(self, places: int) -> None:
        self.places = places
        self._waiting: deque[asyncio.Event] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def full(self) -> bool:
        """Whether no waiting place is left."""
        return len(self._waiting) >= self.places

    def join(self) -> asyncio.Event:
        """Take the last place. The event is set whenever it is worth looking again."""
        mine = asyncio.Event()
        self._waiting.append(mine)
        return mine

    def place(self, mine: asyncio.Event) -> int:
        """Return how many stand before this one."""
        return self._waiting.index(mine)

    def leave(self, mine: asyncio.Event) -> None:
        """Give the place up, to run or because nobody waits any more."""
        self._waiting.remove(mine)
        self.wake()

    def wake(self) -> None:
        """Something changed: let everyone look."""
        for event in self._waiting:
            event.set()
