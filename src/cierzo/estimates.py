"""What a machine can hold and about how fast it answers, said before a download: estimates, never promises.

Memory is the weights, the KV cache of a window and what is computed in (`cierzo.catalog.memory_needed`). Speed is the
roofline: a token cannot come before all weights that it needs, and what the cache holds, were read once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cierzo.catalog import LONG_WINDOW, WINDOW, memory_needed

if TYPE_CHECKING:
    from cierzo.machine import Machine
    from cierzo.offered import Model

_SLOWEST, _FASTEST = 0.4, 0.8
"""Shares of the measured bandwidth at which llama.cpp reads: with a busy machine and a window of 4,096 tokens, and at
its best. Measured on two cores: 4.28 tokens/s of a 7B model, at 0.65 (``docs/models.md``)."""

Fits = Literal["yes", "tight", "no"]
"""Whether a model fits: now; only when other programs are closed; not at all."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a model takes with one window.

    Attributes:
        context: Tokens of the window.
        memory: Bytes.
        fits: Whether this machine has them.
    """

    context: int
    memory: int
    fits: Fits


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second that an answer alone is written at, on the processors: about between these."""

    slowest: float
    fastest: float


def fits(memory: int, machine: Machine) -> Fits:
    """Say whether a machine has so much memory."""
    if memory <= machine.free_memory:
        return "yes"
    return "tight" if memory <= machine.memory else "no"


def needs(model: Model, machine: Machine) -> tuple[Need, ...]:
    """Say what a model takes with 4,096 tokens of window and with 32,768, or as many as it has.

    None for a file of which nothing is known but its name.
    """
    if not model.size:
        return ()
    windows = sorted({min(window, model.context or window) for window in (WINDOW, LONG_WINDOW)})
    if not model.kv_bytes:  # only the size is known
        windows = windows[:1]
    memory = [memory_needed(model, window) for window in windows]
    return tuple(Need(window, needed, fits(needed, machine)) for window, needed in zip(windows, memory, strict=True))


def speed(model: Model, bandwidth: float) -> Speed | None:
    """Estimate the speed of answers.

    Args:
        model: What answers.
        bandwidth: Bytes of memory that are read and written a second.

    Returns:
        None where the size or the bandwidth is not known.
    """
    read = model.active or model.size
    if not read or not bandwidth:
        return None
    window = min(WINDOW, model.context) * model.kv_bytes
    return Speed(_SLOWEST * bandwidth / (read + window), _FASTEST * bandwidth / read)
