"""The bytes of one file over HTTP: gone on with where an earlier try stopped, checked, and only then given its name.

It knows nothing of models or repositories, and raises what httpx2, huggingface_hub and the system raise: the border is
`cierzo.downloads`. The token goes where the address leads and is left out when that redirects to another host.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cierzo.errors import DownloadFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk that takes no more. The last one: the file system has no files so large, as FAT32 over 4 GB."""

CHUNK = 2**20
"""Bytes that are hashed at a time."""

TRIES = 5
"""Times that the connection may break, or the server refuse for the moment, without a new byte."""

_PACE = 0.1
"""Seconds between two reports of progress."""

_LATER = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is.

    Attributes:
        phase: ``waiting`` while another program fetches the file, ``fetching``, then ``checking``.
        done: Bytes so far, those of earlier tries too.
        total: Bytes in all.
    """

    phase: Literal["waiting", "fetching", "checking"]
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Piece:
    """What is here of a file: always its beginning.

    Attributes:
        path: Where it is written.
        whole: Bytes that it will have.
        etag: What the hub says of its content: SHA-256, or Git's hash of a small file.
    """

    path: Path
    whole: int
    etag: str

    def size(self) -> int:
        """Return how many bytes are here."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def progress(self, phase: Literal["waiting", "fetching"]) -> Progress:
        """Say how far it is."""
        return Progress(phase, min(self.size(), self.whole), self.whole)


class _Paced:
    """Tells about ten times a second, and what has to be told at once."""

    def __init__(self, tell: Callable[[Progress], None]) -> None:
        self._tell, self._last = tell, float("-inf")

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last >= _PACE or progress.done == progress.total:
            self._last = now
            self._tell(progress)


def fetch(url: str, piece: Piece, tell: Callable[[Progress], None]) -> None:
    """Fetch what is missing. A connection that breaks is taken up again, `TRIES` times without a new byte.

    Args:
        url: On the hub; it may redirect.
        piece: Grows to its whole size. When this raises, what came is kept.
        tell: Called with the progress. What it raises ends it.

    Raises:
        DownloadFailed: The server sends more than the file has.
        httpx2.HTTPError: The connection broke for good, or the server refuses.
        OSError: The disk takes no more.
    """
    import httpx2  # noqa: PLC0415 - 0.1 s that most commands need not pay
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    paced = _Paced(tell)
    if piece.size() > piece.whole:
        piece.path.unlink()
    tries = 0
    tell(piece.progress("fetching"))
    while piece.size() < piece.whole or not piece.path.exists():
        before = piece.size()
        try:
            _fetch_once(url, piece, paced)
        except (httpx2.TransportError, HfHubHTTPError) as broken:
            if isinstance(broken, HfHubHTTPError) and broken.response.status_code not in _LATER:
                raise
            tries = 1 if piece.size() > before else tries + 1
            if tries > TRIES:
                raise
            _pause(2.0 ** (tries - 1), lambda: tell(piece.progress("fetching")))


def _fetch_once(url: str, piece: Piece, tell: Callable[[Progress], None]) -> None:
    from huggingface_hub import constants, get_session  # noqa: PLC0415
    from huggingface_hub.utils import (  # type: ignore[attr-defined] # noqa: PLC0415
        build_hf_headers,
        hf_raise_for_status,
    )

    done = piece.size()
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    with (
        piece.path.open("ab", buffering=0) as file,
        get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response,
    ):
        hf_raise_for_status(response)
        if done and not _goes_on_at(done, response):
            file.truncate(0)
            done = 0
        for chunk in response.iter_raw():
            done += len(chunk)
            if done > piece.whole:
                file.truncate(0)
                raise DownloadFailed(f"{url} sends more than the {piece.whole:,} bytes of the file: try again later")
            _write(file, chunk)
            tell(Progress("fetching", done, piece.whole))


def _goes_on_at(done: int, response: Any) -> bool:
    """Whether a server sends what was asked for; some give the whole file again."""
    said = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return response.status_code == 206 and said is not None and int(said[1]) == done  # noqa: PLR2004 - HTTP's own


def _write(file: Any, chunk: bytes) -> None:
    """Write all of it: a disk that is nearly full takes a part, and says so at the next."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


def _pause(seconds: float, tell: Callable[[], None]) -> None:
    """Wait, but let whoever cancels be heard."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        tell()
        time.sleep(min(left, _PACE))


def check(piece: Piece, tell: Callable[[Progress], None]) -> None:
    """Compare what came with what the hub said. What is wrong is thrown away.

    Raises:
        DownloadFailed: It is another file.
    """
    paced = _Paced(tell)
    kinds = {64: hashlib.sha256(), 40: hashlib.sha1(f"blob {piece.whole}\0".encode())}  # noqa: S324 - it is Git's
    hashed = kinds.get(len(piece.etag))
    done = 0
    with piece.path.open("rb") as file:
        while hashed and (block := file.read(CHUNK)):
            hashed.update(block)
            done += len(block)
            paced(Progress("checking", done, piece.whole))
    if piece.size() == piece.whole and (hashed is None or hashed.hexdigest() == piece.etag):
        return
    piece.path.unlink()
    raise DownloadFailed(
        "what came is not the file that the hub names (its SHA-256 is another), so it was thrown away: try again"
    )


def put(piece: Piece, place: Path) -> None:
    """Give a piece that was checked its name, in one step, once it is on the disk."""
    with piece.path.open("rb+") as file:
        os.fsync(file.fileno())
    # As every other file there, and not as private as a partial one need be.
    piece.path.chmod(stat.S_IMODE(place.parent.stat().st_mode) & 0o666)
    piece.path.replace(place)
