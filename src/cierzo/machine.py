"""What this machine has: memory, disk and processors. It knows no model."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

_CONTAINER = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Machine:
    """Bytes, and a count.

    Attributes:
        memory: All there is, or all that the container allows if that is less.
        free_memory: What a new process may have of it.
        cpus: Processor cores; two threads of one core count once where the system tells.
    """

    memory: int
    free_memory: int
    cpus: int


def machine() -> Machine:
    """Look at this machine, now."""
    memory = psutil.virtual_memory()
    total, free = int(memory.total), int(memory.available)
    with contextlib.suppress(OSError, ValueError):
        limit = int((_CONTAINER / "memory.max").read_text())
        total, free = min(total, limit), min(free, limit - int((_CONTAINER / "memory.current").read_text()))
    return Machine(total, max(0, free), psutil.cpu_count(logical=False) or psutil.cpu_count() or 1)


def free_disk(folder: Path) -> int:
    """Return the bytes that are free on the disk of a folder, or where the folder would be made."""
    there = next((each for each in (folder, *folder.parents) if each.is_dir()), folder)
    return shutil.disk_usage(there).free
