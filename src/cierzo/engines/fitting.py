"""How much of a model's window fits into memory, and how large a batch may be. Arithmetic only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cierzo.engines.options import DRAFT
from cierzo.errors import NotEnoughMemory

if TYPE_CHECKING:
    from cierzo.catalog import Model
    from cierzo.engines.options import Options

SMALLEST_WINDOW = 2048
ENGINE_BYTES = 96 * 2**20
"""What the process takes beside weights and cache: Python, llama.cpp's code, buffers of one batch."""

SHELF_BYTES = 2 * 2**30
WEIGHTS_PER_CELL = 32_000
"""A Mistral 7B in 4 bits has so many bytes of weights per byte of cache; for files of which nothing is known."""

SMALLEST_BATCH, LARGEST_BATCH = 4, 256
BATCH_BYTES = 20e9
"""Bytes of weights times tokens that one thread works through in well under a second; see docs/engine.md."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What fits.

    Attributes:
        window: Tokens that a prompt and its answer may have together.
        pool: Cells of KV cache that all answers share.
        cache: Bytes that these cells take.
        batch: Tokens that are worked through at once.
        shelf: Bytes of saved slots on disk.
    """

    window: int
    pool: int
    cache: int
    batch: int
    shelf: int


def fit(model: Model, size: int, *, context: int, slots: int, threads: int, free: int, options: Options) -> Fitted:
    """Fit the window and the pool into ``free`` bytes of memory.

    Args:
        model: Its window and its bytes of cache per token are used.
        size: Bytes of its file and of its adapters' files.
        context: Tokens of the window that must fit; 0 takes the model's own, or half of it, or half of that…
        slots: Answers that are written at the same time.
        threads: Processor threads.
        free: Bytes of memory that are free.
        options: The type of the cache, and whether tokens are guessed.

    Raises:
        NotEnoughMemory: It does not fit, with both figures.
    """
    cell = math.ceil((model.kv_bytes or max(1, size // WEIGHTS_PER_CELL)) * options.kv_share)
    window = context or model.context or SMALLEST_WINDOW
    while not context and window // 2 >= SMALLEST_WINDOW and size + ENGINE_BYTES + window * cell > free:
        window //= 2
    needed = size + ENGINE_BYTES + window * cell
    if needed > free:
        smaller = "" if options.kv_type != "f16" else "set CIERZO_KV_TYPE=q8_0, "
        raise NotEnoughMemory(
            f"{model.name} needs {_gigabytes(needed)} of memory for a window of {window} tokens and "
            f"{_gigabytes(free)} are free: close other programs, {smaller}set a smaller context, or choose a smaller "
            "model"
        )
    pool = window + min(window * (slots - 1), (free - needed) // 4 // cell)
    batch = 2 ** int(math.log2(max(1.0, BATCH_BYTES * threads / max(1, size))))
    least = max(SMALLEST_BATCH, slots)
    if options.speculation:  # llama.cpp ends all answers where one's guesses do not fit into a batch with the others'
        least = max(least, slots * (DRAFT + 1))
    return Fitted(window, pool, pool * cell, max(least, min(LARGEST_BATCH, batch)), min(SHELF_BYTES, free // 8))


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{size / 2**20:.0f} MB"
