"""What this machine has: memory, disk and processors. It knows no model."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

_CONTAINER = Path("/sys/fs/cgroup")

_COPIED = 2**26
"""Bytes that are copied at a time to measure memory: with their copy, more than most caches hold."""

_MOST_THREADS = 8
"""Threads that copy: no memory of a usual machine is busier with more."""

_MEASURED_FOR = 0.15
"""Seconds of copying."""


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


@functools.cache
def bandwidth() -> float:
    """Return the bytes a second that the processors read and write together, measured; 0 where memory is too short.

    Takes a quarter of a second the first time, and is remembered. Every token of an answer reads all weights, so on a
    processor this is what bounds the speed of answers. Other programs that work meanwhile make it less.
    """
    threads = min(machine().cpus, _MOST_THREADS)
    part = _COPIED // threads
    try:
        pairs = [(ctypes.create_string_buffer(part), ctypes.create_string_buffer(part)) for _ in range(threads)]
    except MemoryError:
        return 0.0

    def copy(pair: tuple[ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char]]) -> None:
        ctypes.memmove(pair[0], pair[1], part)  # it lets the other threads run

    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for each in (half for pair in pairs for half in pair):
            ctypes.memset(each, 1, part)  # pages that nobody has written are all one page, and that is in the cache
        end = time.perf_counter() + _MEASURED_FOR
        while (began := time.perf_counter()) < end:
            list(pool.map(copy, pairs))
            best = max(best, 2 * part * threads / (time.perf_counter() - began))
    return best
