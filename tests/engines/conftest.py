"""Small models of random weights, written here, and the engine on them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from driving import OTHERS, SLOW, model_of, our_children, synthetic

from cierzo.engines.llamacpp import LlamaCpp


@pytest.fixture(scope="module", autouse=True)
def others():
    OTHERS.update(our_children())


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def tiny(folder):
    return model_of(synthetic.write(folder / "tiny.gguf"))


@pytest.fixture(scope="session")
def slow(folder):
    return model_of(synthetic.write(folder / "slow.gguf", SLOW), SLOW)


@pytest.fixture
def short_tmp(tmp_path_factory, monkeypatch):
    """A folder for temporary files of this test alone, to see that nothing is left in it."""
    place = Path("/tmp") / f"cz{os.getpid()}"
    place.mkdir(exist_ok=True)
    monkeypatch.setattr("tempfile.tempdir", str(place))
    yield place
    left = list(place.iterdir())
    assert not left, f"left behind: {left}"
    place.rmdir()


@pytest.fixture
async def engine(tiny, short_tmp):
    made = LlamaCpp(tiny)
    yield made
    await made.close()
    assert not our_children()
