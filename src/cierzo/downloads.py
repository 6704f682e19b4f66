"""Files of the Hugging Face hub: the one that is here already, and fetching one that is not.

Knows repositories and files, not models. `huggingface_hub` costs 0.2 s to import and is imported at its first use.
"""

from __future__ import annotations

import errno
import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cierzo.errors import DownloadFailed
from cierzo.machine import free_disk

if TYPE_CHECKING:
    from collections.abc import Callable

_FULL = (errno.ENOSPC, errno.EDQUOT)

_PATIENCE = 10.0
"""Seconds to wait for the hub's first answer."""

_PACE = 0.1
"""Seconds between two reports of progress."""


def folder() -> Path:
    """Return the folder of the hub's cache, into which files are fetched. It may not be there yet."""
    from huggingface_hub import constants  # noqa: PLC0415 - 0.2 s that most commands need not pay

    return Path(constants.HF_HUB_CACHE)


def cached(repo: str, file: str) -> Path | None:
    """Return where a file lies in the hub's cache, or None. Asks no network."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - 0.2 s that most commands need not pay

    path = try_to_load_from_cache(repo, file)
    return Path(path) if isinstance(path, str) else None


def download(repo: str, file: str, size: int, progress: Callable[[int, int], None] | None = None) -> Path:
    """Fetch a file into the hub's cache and return its path. Blocks.

    A connection that breaks is taken up again where it broke, five times; a process that ends begins anew.

    Args:
        repo: Such as ``org/name``.
        file: Its name in the repository.
        size: Bytes that it should have, where the hub does not say; to see first whether there is room.
        progress: Called with the bytes so far and the bytes in all. What it raises ends the download.

    Raises:
        DownloadFailed: With the reason and what to do.
    """
    import httpx2  # noqa: PLC0415 - huggingface_hub's own client, whose errors it lets through
    from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_download, hf_hub_url  # noqa: PLC0415

    cache = folder()
    page = f"{constants.ENDPOINT}/{repo}"
    try:
        # Asked first, and once: hf_hub_download tries for 23 seconds before it says that there is no network.
        known = get_hf_file_metadata(hf_hub_url(repo, file), timeout=_PATIENCE)
        _check_room(cache, known.size or size, file)
        return Path(hf_hub_download(repo, file, tqdm_class=_bar(progress)))
    except errors.GatedRepoError:
        reason = f"{repo} asks for an agreement: accept it at {page}, then run `hf auth login`"
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        reason = f"there is no repository {repo}, or it is private: look at {page}, or run `hf auth login`"
    except (httpx2.ConnectError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        reason = f"{constants.ENDPOINT} does not answer: check the network and HF_ENDPOINT, then try again"
    except errors.EntryNotFoundError:
        reason = f"{repo} has no such file any more: see what there is at {page}"
    except errors.HfHubHTTPError as refused:
        reason = f"{constants.ENDPOINT} answered with status {refused.response.status_code}: try again later"
    except (httpx2.HTTPError, errors.XetDownloadError) as broken:
        reason = f"the connection broke ({type(broken).__name__}): try again"
    except OSError as failed:
        reason = _reason(failed, cache)
    raise DownloadFailed(f"{file} was not downloaded: {reason}")


def _check_room(cache: Path, size: int, file: str) -> None:
    free = free_disk(cache)
    if free < size:
        raise DownloadFailed(
            f"{file} was not downloaded: it takes {size / 1e9:.1f} GB and {cache} has {free / 1e9:.1f} GB free: "
            "make room, or set HF_HOME to a folder on another disk"
        )


def _reason(failed: OSError, cache: Path) -> str:
    if failed.errno in _FULL:
        return f"the disk is full: make room for {cache}, or set HF_HOME to a folder on another disk"
    if failed.errno is None:  # huggingface_hub's own: the file is not as long as it should be
        return "it came incomplete: try again"
    return f"{cache} cannot be written ({failed.strerror}): set HF_HOME to a folder that you may write"


def _bar(progress: Callable[[int, int], None] | None) -> Any:
    """Return the progress bar that huggingface_hub asks for: one that prints nothing and tells ``progress``."""
    from tqdm.std import tqdm  # type: ignore[import-untyped] # noqa: PLC0415 - comes with huggingface_hub

    class Bar(tqdm):  # type: ignore[misc] # it has no types
        monitor_interval = 0  # no thread of its own
        told: Bar | None = None

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "file": io.StringIO(), "disable": False, "leave": True})
            self.last = 0.0
            if Bar.told is None:
                Bar.told = self  # the hub's newer storage shows a second bar, with other figures
                self.tell()

        def update(self, n: float | None = 1) -> bool | None:
            drawn: bool | None = super().update(n)
            if Bar.told is self and (time.monotonic() - self.last >= _PACE or self.n == self.total):
                self.tell()
            return drawn

        def tell(self) -> None:
            """Tell where it stands: never from `display`, where tqdm holds a lock that an exception would keep."""
            self.last = time.monotonic()
            if progress is not None:
                progress(int(self.n), int(self.total or 0))

        def display(self, *_: Any, **__: Any) -> None:
            pass

    return Bar
