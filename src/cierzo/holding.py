"""An engine for as long as somebody needs it: it may be replaced meanwhile, and ends when the last one lets go.

What is written with an engine holds it, from the making of the prompt to the end of the stream. So a prompt never goes
to another engine than the one that it was made for, and an engine that was replaced ends once nobody holds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from cierzo.engines.base import Engine
    from cierzo.messages import Prompt, Sampling, StreamEvent

_BLOCK = 2**20
_log = logging.getLogger("cierzo.chat")


class Use:
    """One engine, from its first use to its end.

    Args:
        engine: The engine. It is closed here.
        after: The use that this one follows, where its engine may begin only when that one has ended: two models at
            once may be more than the memory holds.

    Attributes:
        gone: Set when the engine is closed.
    """

    def __init__(self, engine: Engine, after: Use | None = None) -> None:
        self.engine = engine
        self.gone = asyncio.Event()
        self._after = after
        self._held = 0
        self._retired = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._hash: asyncio.Task[str] | None = None
        self._enough = threading.Event()

    @property
    def held(self) -> int:
        """How many hold it."""
        return self._held

    @property
    def model_hash(self) -> str:
        """SHA-256 of the model's file in hex; empty where there is no file here, or while it is being computed."""
        return self._hash.result() if self._hash and self._hash.done() and not self._hash.cancelled() else ""

    def start(self) -> None:
        """Begin to load the model, if the engine can do that ahead, and to hash its file. Returns at once."""
        start = getattr(self.engine, "start", None)
        if start is not None and not self._waits():
            start()
        file = getattr(self.engine, "file", None)
        if file is not None and self._hash is None:
            self._hash = asyncio.create_task(asyncio.to_thread(_sha256, file, self._enough))

    def stream(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[StreamEvent, None]:
        """Yield what the engine's stream yields, once the engine may begin."""
        return self._later(prompt, sampling) if self._waits() else self.engine.stream(prompt, sampling)

    async def _later(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[StreamEvent, None]:
        assert self._after is not None
        await self._after.gone.wait()
        async with contextlib.aclosing(self.engine.stream(prompt, sampling)) as events:
            async for event in events:
                yield event

    def _waits(self) -> bool:
        return self._after is not None and not self._after.gone.is_set()

    def take(self) -> None:
        """Count one more who holds it."""
        self._held += 1

    def let_go(self) -> None:
        """Count one less; the last one ends an engine that was replaced. Any thread may call it."""
        self._held -= 1
        if self._retired and not self._held and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whatever ran in it
                self._loop.call_soon_threadsafe(self._end)

    def retire(self) -> None:
        """Take no part any more: end as soon as nobody holds it."""
        self._retired, self._loop = True, asyncio.get_running_loop()
        if not self._held:
            self._end()

    def _end(self) -> None:
        task = asyncio.ensure_future(self._close_logged())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close_logged(self) -> None:
        try:
            await self.close()
        except Exception:  # noqa: BLE001 - nobody waits for it, and what replaced it goes on
            _log.exception("an engine that was replaced did not close as it must")

    async def close(self) -> None:
        """End the engine, whoever holds it. May be called twice."""
        self._enough.set()
        try:
            await self.engine.close()
            if self._hash is not None:
                await asyncio.wait([self._hash])
        finally:
            self.gone.set()


class Hold:
    """Keeps a `Use` from ending: until it is let go, or forgotten.

    To forget it counts too, since a generator that is dropped before its first step runs none of its ``finally``.
    """

    __slots__ = ("_over", "use")

    def __init__(self, use: Use) -> None:
        self.use, self._over = use, False
        use.take()

    def let_go(self) -> None:
        """Hold it no longer. May be called twice."""
        if not self._over:
            self._over = True
            self.use.let_go()

    def __del__(self) -> None:
        self.let_go()


def _sha256(file: Path, enough: threading.Event) -> str:
    """Return the hash of a file; empty if it cannot be read, or if it was ``enough`` before the end."""
    digest = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            while block := opened.read(_BLOCK):
                if enough.is_set():
                    return ""
                digest.update(block)
    except OSError:
        return ""  # the engine says what is wrong with the file
    return digest.hexdigest()
