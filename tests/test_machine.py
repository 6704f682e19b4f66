"""What the machine has, in a container too."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
import pytest

from cierzo import machine as module
from cierzo.machine import free_disk, machine


def test_outside_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CONTAINER", tmp_path / "none")
    has = machine()
    assert has.memory == psutil.virtual_memory().total
    assert 0 < has.free_memory <= has.memory
    assert 1 <= has.cpus <= (psutil.cpu_count() or 1)


def test_a_container_that_allows_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CONTAINER", tmp_path)
    (tmp_path / "memory.max").write_text("1000000\n")
    for used, free in (("400000\n", 600_000), ("1000001\n", 0)):
        (tmp_path / "memory.current").write_text(used)
        assert (machine().memory, machine().free_memory) == (1_000_000, free)
    (tmp_path / "memory.max").write_text("max\n")
    assert machine().memory == psutil.virtual_memory().total


def test_the_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def usage(folder: Path) -> object:
        asked.append(folder)
        return shutil._ntuple_diskusage(10, 3, 7)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert free_disk(tmp_path / "a" / "b") == 7
    assert asked == [tmp_path]
