"""Downloads that go on by themselves, as answers do: begun by somebody, seen by everybody, until they end.

They belong to the process that serves and live in threads that do not keep it alive: what has come of a file when the
process ends is a good beginning of it, and the next download of the same file goes on there.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cierzo import catalog
from cierzo.errors import CierzoError, Conflict, NotFound, Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cierzo.downloads.fetching import Progress
    from cierzo.offered import Model

AT_ONCE = 2
"""Downloads at a time; more would only share the line."""

MOST = 16
"""Downloads that wait or go on."""

KEPT = 32
"""Downloads that have ended and are still told of."""

_LETTING_GO = 2.0
"""Seconds that threads get at the end; one that waits for a server that says nothing is left behind."""

_LOOK = 0.2
"""Seconds between two looks whether one that waits for its turn was cancelled."""

_RATED_OVER = 5.0
"""Seconds over which the speed is taken."""

State = Literal["waiting", "fetching", "checking", "done", "failed", "cancelled"]
_log = logging.getLogger("cierzo.pulling")

_ENDS = ("done", "failed", "cancelled")


class _CancelledError(Exception):
    """Raised inside a download that nobody wants any more."""


@dataclass(slots=True, eq=False)
class Download:
    """One download.

    Attributes:
        id: Names it among all of this process.
        model: What is fetched, as it was when it began.
        state: How it stands. ``waiting``: for its turn, or for another program that fetches the same file.
        done: Bytes so far.
        total: Bytes in all; 0 until the hub has said it.
        error: Why it failed.
    """

    id: str
    model: Model
    state: State = "waiting"
    done: int = 0
    total: int = 0
    error: CierzoError | None = None
    _seen: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=int(_RATED_OVER * 10)))

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.state in _ENDS

    @property
    def rate(self) -> float:
        """Bytes a second, lately; 0 where nothing comes."""
        if self.state != "fetching" or len(self._seen) < 2:  # noqa: PLR2004 - two points make a speed
            return 0.0
        (began, first), (_, last) = self._seen[0], self._seen[-1]
        return (last - first) / max(time.monotonic() - began, 1e-3)

    def tell(self, progress: Progress) -> None:
        """Take what the download says of itself.

        Raises:
            _CancelledError: It is to end.
        """
        if self.state == "cancelled":
            raise _CancelledError
        if progress.phase != self.state:
            self._seen.clear()
        self.state, self.done, self.total = progress.phase, progress.done, progress.total
        self._seen.append((time.monotonic(), progress.done))


class Downloads:
    """All downloads of one server.

    Args:
        home: Cierzo's home folder.
        pull: Fetches one model; tests give another.
    """

    def __init__(self, home: Path, pull: Callable[..., Model] = catalog.pull) -> None:
        self._home, self._pull = home, pull
        self._all: dict[str, Download] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(AT_ONCE)
        self._threads: set[threading.Thread] = set()
        self._closed = False

    def all(self) -> list[Download]:
        """Return those that go on and the last ones that ended, oldest first."""
        with self._lock:
            return list(self._all.values())

    def get(self, number: str) -> Download:
        """Return one.

        Raises:
            NotFound: There is none of that id, or it ended long ago.
        """
        with self._lock:
            if number not in self._all:
                raise NotFound(f"there is no download {number[:40]!r}: see which there are at /api/downloads")
            return self._all[number]

    def of(self, model: Model) -> Download | None:
        """Return the newest download of a model's file, if there is one."""
        with self._lock:
            return self._of(model)

    def start(self, model: Model) -> Download:
        """Begin to fetch a model, or return the download of it that goes on already.

        Raises:
            Conflict: The model is not from the hub, or here already.
            Overloaded: Too many wait.
        """
        if model.path is not None:
            raise Conflict(f"{model.name:.200} is on this machine already: there is nothing to download")
        if not model.repo:
            raise Conflict(f"{model.name:.200} is not from the hub: reinstall Cierzo to have it back")
        with self._lock:
            going = self._of(model)
            if going is not None and not going.is_over:
                return going
            over = [each for each in self._all.values() if each.is_over]
            if self._closed or len(self._all) - len(over) >= MOST:
                raise Overloaded(f"{MOST} downloads wait already: ask again when one has ended", retry_after=60)
            for old in over[: max(0, len(over) - KEPT + 1)] + ([going] if going else []):
                self._all.pop(old.id, None)
            download = Download(str(next(self._numbers)), model, total=model.size)
            self._all[download.id] = download
            thread = threading.Thread(target=self._wait_and_run, args=(download,), name="download", daemon=True)
            self._threads = {each for each in self._threads if each.is_alive()} | {thread}
            thread.start()
        return download

    def cancel(self, number: str) -> Download:
        """End one; what has come is kept, and the next download of the file goes on there. Over, it stays as it is.

        Raises:
            NotFound: There is none of that id.
        """
        download = self.get(number)
        with self._lock:
            if not download.is_over:
                download.state = "cancelled"
        return download

    async def close(self) -> None:
        """End all, and wait a little until their threads have let go."""
        with self._lock:
            self._closed = True
            for download in self._all.values():
                if not download.is_over:
                    download.state = "cancelled"
            threads = self._threads
        end = time.monotonic() + _LETTING_GO
        for each in threads:
            await asyncio.to_thread(each.join, max(0, end - time.monotonic()))

    def _of(self, model: Model) -> Download | None:
        place = catalog.place_of(model)
        return next((each for each in reversed(self._all.values()) if catalog.place_of(each.model) == place), None)

    def _wait_and_run(self, download: Download) -> None:
        while not self._turns.acquire(timeout=_LOOK):
            if download.is_over:
                return
        try:
            self._run(download)
        finally:
            self._turns.release()

    def _run(self, download: Download) -> None:
        def tell(progress: Progress) -> None:
            with self._lock:
                download.tell(progress)

        error: CierzoError | None = None
        try:
            if not download.is_over:
                self._pull(download.model, self._home, tell)
        except _CancelledError:
            return
        except CierzoError as failed:
            error = failed
        except Exception as unexpected:  # noqa: BLE001 - whoever looks is told of an end, whatever happens
            _log.error("a download failed unexpectedly", exc_info=unexpected)
            error = CierzoError(f"unexpected {type(unexpected).__name__}: look into the server's log")
        with self._lock:
            if not download.is_over:
                download.error = error
                download.state = "failed" if error else "done"
