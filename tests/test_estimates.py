"""What is said of a model before it is fetched: what it takes, whether it fits, about how fast it will be."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from gguf_files import write

from cierzo import catalog, machine
from cierzo.estimates import fits, needs, speed
from cierzo.machine import Machine
from cierzo.offered import OFFERED, Model

GB = 10**9
SMALL = Machine(16 * GB, 8 * GB, 4)
KNOWN = {model.name: model for model in OFFERED}


@pytest.mark.parametrize(
    ("memory", "said"), [(8 * GB, "yes"), (8 * GB + 1, "tight"), (16 * GB, "tight"), (16 * GB + 1, "no"), (0, "yes")]
)
def test_memory_is_free_or_could_be_or_is_not_there(memory: int, said: str) -> None:
    assert fits(memory, SMALL) == said


def test_weights_and_cache_for_two_windows() -> None:
    short, long = needs(KNOWN["mistral-7b"], SMALL)
    assert (short.context, long.context) == (4_096, 32_768)
    assert long.memory - short.memory == (32_768 - 4_096) * 128 * 1024  # 32 layers, 8 heads of 128, twice, 2 bytes
    assert (short.fits, long.fits) == ("yes", "tight")
    assert [need.context for need in needs(KNOWN["mistral-7b-v0.1"], SMALL)] == [4_096, 8_192]
    assert [need.fits for need in needs(KNOWN["mixtral-8x7b"], SMALL)] == ["no", "no"]
    assert [need.context for need in needs(replace(KNOWN["mistral-7b"], context=2_048), SMALL)] == [2_048]


def test_a_file_of_which_little_is_known() -> None:
    """Of a file of the hub that is not here there is a name, and once the hub was asked, a size."""
    unknown = Model("hf:a/b/c.gguf", "c.gguf", "", 0)
    assert needs(unknown, SMALL) == ()
    assert speed(unknown, 20e9) is None
    (need,) = needs(replace(unknown, size=4 * GB), SMALL)
    assert 4 * GB < need.memory < 4.5 * GB
    assert speed(replace(unknown, size=4 * GB), 20e9) is not None


def test_speed_is_a_range_around_what_was_measured() -> None:
    """4.28 tokens/s of a 7B model of 4.08 GB, on two cores whose memory copies 26 GB a second (docs/models.md)."""
    said = speed(replace(KNOWN["mistral-7b"], size=4_080_000_000), 26e9)
    assert said is not None
    assert said.slowest < 4.28 < said.fastest
    assert said.fastest < 3 * said.slowest
    assert speed(KNOWN["mistral-7b"], 0) is None


def test_a_mixture_of_experts_reads_those_that_answer(tmp_path: Path) -> None:
    mixtral, large = KNOWN["mixtral-8x7b"], KNOWN["mistral-small"]
    assert mixtral.size > large.size
    fast, slow = speed(mixtral, 50e9), speed(large, 50e9)
    assert fast is not None
    assert slow is not None
    assert fast.fastest > slow.fastest
    assert mixtral.active / mixtral.size == pytest.approx(12.9 / 46.7, abs=0.01)
    plain = catalog.find(write(tmp_path / "plain.gguf"), tmp_path)
    assert 0 < plain.active < plain.size, "of a dense model all weights but the rows of other tokens"


def test_bandwidth_is_measured_once_and_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    machine.bandwidth.cache_clear()
    monkeypatch.setattr(machine, "_MEASURED_FOR", 0.05)
    first = machine.bandwidth()
    assert 0.2e9 < first < 5e12
    began = time.perf_counter()
    assert machine.bandwidth() == first
    assert time.perf_counter() - began < 0.01
    machine.bandwidth.cache_clear()
    monkeypatch.setattr(machine.ctypes, "create_string_buffer", _none)
    assert machine.bandwidth() == 0
    machine.bandwidth.cache_clear()


def _none(_: int) -> None:
    raise MemoryError
