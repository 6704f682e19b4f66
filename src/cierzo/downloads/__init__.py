"""Files of the Hugging Face hub: those that are here already, fetching one that is not, removing one.

Knows repositories and files, not models. What is fetched lies in the hub's own cache, where every other program finds
it. huggingface_hub keeps nothing of a download that was broken off, so the bytes are fetched by
`cierzo.downloads.fetching`, and huggingface_hub puts the checked file in its place (see ``docs/decisions.md``).
It costs 0.2 s to import, at its first use.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cierzo.downloads.fetching import FULL, Piece, check, fetch, put
from cierzo.errors import DiskFull, DownloadFailed, ModelGated
from cierzo.machine import free_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cierzo.downloads.fetching import Progress

T = TypeVar("T")

MAIN = "main"
"""The revision that is meant where none is said."""

_PATIENCE = 10.0
"""Seconds to wait for the hub's first answer."""

_LOOK = 0.2
"""Seconds between two looks at a file that another program fetches."""

_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """One file of the hub.

    Attributes:
        repo: Such as ``org/name``.
        file: Its name in the repository, with its folders.
        revision: Branch, tag or commit.
    """

    repo: str
    file: str
    revision: str = MAIN

    def is_possible(self) -> bool:
        """Whether the hub could have such a file; what is not possible leads nowhere, on this machine or another."""
        parts = self.file.split("/")
        safe = all(part not in ("", ".", "..") and part.isprintable() for part in (*parts, *self.revision.split("/")))
        return bool(_NAME.fullmatch(self.repo)) and ".." not in self.repo and safe and "\\" not in self.file


@dataclass(frozen=True, slots=True)
class Known:
    """What the hub says about a file before it gives it.

    Attributes:
        size: Bytes.
        etag: SHA-256 of a large file; Git's own hash of a small one.
    """

    size: int
    etag: str

    @property
    def sha256(self) -> str:
        """The SHA-256, empty where the hub does not give it."""
        return self.etag if len(self.etag) == hashlib.sha256().digest_size * 2 else ""


def folder() -> Path:
    """Return the folder of the hub's cache, into which files are fetched. It may not be there yet."""
    from huggingface_hub import constants  # noqa: PLC0415 - 0.2 s that most commands need not pay

    return Path(constants.HF_HUB_CACHE)


def cached(place: Place) -> Path | None:
    """Return where a file lies in the hub's cache, or None. Asks no network."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - 0.2 s that most commands need not pay

    path = try_to_load_from_cache(place.repo, place.file, revision=place.revision)
    return Path(path) if isinstance(path, str) else None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 by which the hub's cache keeps a file; empty where it does not. Reads nothing of the file."""
    name = path.resolve().name
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else ""


def all_cached(suffix: str) -> Iterator[Place]:
    """Find the files in the hub's cache whose names end so, of every repository's main branch."""
    for repository in sorted(folder().glob("models--*--*")):
        try:
            snapshot = repository / "snapshots" / (repository / "refs" / MAIN).read_text().strip()
        except OSError:
            continue
        for path in sorted(snapshot.rglob(f"*{suffix}")):
            repo = repository.name.removeprefix("models--").replace("--", "/")
            yield Place(repo, path.relative_to(snapshot).as_posix())


def begun(place: Place) -> int:
    """Return how many bytes lie here of a download that was broken off."""
    return max((path.stat().st_size for path in _pieces(place)), default=0)


def ask(place: Place) -> Known:
    """Ask the hub about a file, and fetch nothing.

    Raises:
        ModelGated: Its owner wants an agreement first.
        DownloadFailed: With the reason and what to do.
    """
    return _bordered(place, lambda: _ask(place))


def download(place: Place, progress: Callable[[Progress], None] | None = None) -> Path:
    """Fetch a file into the hub's cache and return its path. Blocks.

    What was fetched before, by this process or one that was killed, is not fetched again. Nobody sees the file before
    it is whole and has the SHA-256 that the hub said. Where another program fetches it, that one is waited for.

    Args:
        place: Which one.
        progress: Called about ten times a second. What it raises ends the download; what has come stays for the next.

    Raises:
        ModelGated: Its owner wants an agreement first.
        DiskFull: There is not enough room.
        DownloadFailed: With the reason and what to do.
    """
    return _bordered(place, lambda: _download(place, progress or (lambda _: None)))


def remove(place: Place) -> int:
    """Take a file out of the hub's cache, in all its revisions, with what a broken download left; return bytes freed.

    Raises:
        DownloadFailed: The cache cannot be written.
    """
    from huggingface_hub import scan_cache_dir  # noqa: PLC0415 - 0.2 s that most commands need not pay
    from huggingface_hub.errors import CacheNotFound  # noqa: PLC0415

    freed = 0
    try:
        for piece in _pieces(place):
            freed += piece.stat().st_size
            piece.unlink()
        cache = scan_cache_dir(folder())
        mine = [
            file
            for repository in cache.repos
            if (repository.repo_id, repository.repo_type) == (place.repo, "model")
            for revision in repository.revisions
            for file in revision.files
            if file.file_path.relative_to(revision.snapshot_path).as_posix() == place.file
        ]
        freed += sum({file.blob_path: file.size_on_disk for file in mine}.values())
        cache.delete_files(*mine).execute()
    except CacheNotFound:
        pass
    except OSError as denied:
        raise DownloadFailed(
            f"{place.file} was not removed ({denied.strerror}): check who may write {folder()}"
        ) from None
    return freed


def _ask(place: Place) -> Known:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url  # noqa: PLC0415

    # Asked first, and once: hf_hub_download tries for 23 seconds before it says that there is no network.
    said = get_hf_file_metadata(hf_hub_url(place.repo, place.file, revision=place.revision), timeout=_PATIENCE)
    if not said.commit_hash or not said.etag or said.size is None or not re.fullmatch(r"[\w.-]+", said.etag):
        raise _NotTheHubError
    return Known(said.size, said.etag)


def _download(place: Place, progress: Callable[[Progress], None]) -> Path:
    from filelock import Timeout  # noqa: PLC0415 - comes with huggingface_hub
    from huggingface_hub import hf_hub_download, hf_hub_url  # noqa: PLC0415
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined] # noqa: PLC0415

    known = _ask(place)
    blob = _repository(place) / "blobs" / known.etag
    piece = Piece(blob.with_name(f"{known.etag}.{_mark(place)}.incomplete"), known.size, known.etag)
    lock = folder() / ".locks" / _repository(place).name / f"{known.etag}.lock"  # the one that huggingface_hub takes
    lock.parent.mkdir(parents=True, exist_ok=True)
    blob.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(WeakFileLock(lock, timeout=_LOOK))
                break
            except Timeout:
                progress(piece.progress("waiting"))
        if not blob.exists():
            _check_room(known.size - piece.size(), known.size, place.file)
            fetch(hf_hub_url(place.repo, place.file, revision=place.revision), piece, progress)
            check(piece, progress)
            put(piece, blob)
    return Path(hf_hub_download(place.repo, place.file, revision=place.revision))  # it finds the blob, and links it


def _repository(place: Place) -> Path:
    return folder() / f"models--{place.repo.replace('/', '--')}"


def _mark(place: Place) -> str:
    """Tell a file's piece from those of other files: it has to be found before the hub has said its hash."""
    return hashlib.sha256(f"{place.revision}/{place.file}".encode()).hexdigest()[:8]


def _pieces(place: Place) -> list[Path]:
    return list((_repository(place) / "blobs").glob(f"*.{_mark(place)}.incomplete"))


def _check_room(needed: int, size: int, file: str) -> None:
    free = free_disk(folder())
    if free < needed:
        raise DiskFull(
            f"{file} was not downloaded: it takes {size / 1e9:.1f} GB and {folder()} has {free / 1e9:.1f} GB free: "
            "make room, or set HF_HOME to a folder on another disk"
        )


class _NotTheHubError(Exception):
    pass


def _bordered(place: Place, act: Callable[[], T]) -> T:
    """Do it, and say in our own words what went wrong."""
    import httpx2  # noqa: PLC0415 - huggingface_hub's own client, whose errors it lets through
    from huggingface_hub import constants, errors  # noqa: PLC0415

    page = f"{constants.ENDPOINT}/{place.repo}"
    try:
        return act()
    except errors.GatedRepoError:
        raise ModelGated(f"{place.file} was not downloaded: {_agreement(place, page)}") from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        reason = f"there is no repository {place.repo}, or it is private: look at {page}, or run `hf auth login`"
    except (httpx2.ConnectError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, _NotTheHubError):
        reason = f"{constants.ENDPOINT} does not answer: check the network and HF_ENDPOINT, then try again"
    except errors.EntryNotFoundError:
        reason = f"{place.repo} has no such file any more: see what there is at {page}"
    except errors.HfHubHTTPError as refused:
        reason = f"{constants.ENDPOINT} answered with status {refused.response.status_code}: try again later"
    except (httpx2.HTTPError, httpx2.InvalidURL) as broken:
        reason = f"the connection broke ({type(broken).__name__}): try again, it goes on where it stopped"
    except OSError as failed:
        if failed.errno in FULL:
            raise DiskFull(
                f"{place.file} was not downloaded: the disk of {folder()} takes no more ({failed.strerror}): make room "
                "and try again, it goes on where it stopped; or set HF_HOME to a folder on another disk"
            ) from None
        reason = f"{folder()} cannot be written ({failed.strerror}): set HF_HOME to a folder that you may write"
    raise DownloadFailed(f"{place.file} was not downloaded: {reason}")


def _agreement(place: Place, page: str) -> str:
    from huggingface_hub import constants, get_token  # noqa: PLC0415

    if get_token():
        return (
            f"{place.repo} asks for an agreement that your account has not made: accept it at {page}, and see that "
            "your token may read gated repositories"
        )
    return (
        f"{place.repo} asks for an agreement: accept it at {page}, then run `hf auth login`; the token is kept in "
        f"{constants.HF_TOKEN_PATH} and goes to {constants.ENDPOINT} alone"
    )
