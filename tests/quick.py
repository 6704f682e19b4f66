"""Where tests keep what needs no disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

MEMORY, ENOUGH = Path("/dev/shm"), 2 * 1024**3


def quick_folder() -> str | None:
    """Return a folder in memory if there is one with room; None for the usual place.

    What is written outlives a killed process there as it does on a disk; only the power must stay on. Nothing is run
    from there: many machines forbid it.
    """
    roomy = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH
    return str(MEMORY) if roomy else None
