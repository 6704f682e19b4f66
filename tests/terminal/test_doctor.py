"""What the doctor finds on machines that are not well."""

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from cierzo.chat import Chat
from cierzo.engines.script import Wait
from cierzo.engines.scripted import Scripted
from cierzo.errors import EngineMissing
from cierzo.settings import Settings
from cierzo.terminal import doctor


@pytest.fixture
def settings(tmp_path):
    return Settings.load({"home": tmp_path})


def trial(monkeypatch, status, stderr="", stdout=""):
    done = SimpleNamespace(returncode=status, stderr=stderr, stdout=stdout)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)


def test_a_library_that_loads(settings):
    check = doctor._library(settings)
    assert check.state == "ok"
    assert "it computes on the processor" in check.found or "layers go to it" in check.found


def test_what_it_computes_on(monkeypatch, settings):
    """No machine with a graphics card is at hand: what its library says is made up here, in the child's words."""
    processor = {"name": "CPU", "description": "EPYC", "kind": "CPU", "memory": 2**34}
    card = {"name": "CUDA0", "description": "NVIDIA RTX 3090", "kind": "GPU", "memory": 24 * 2**30}
    trial(monkeypatch, 0, stdout=json.dumps({"devices": [card, processor], "system": ""}))
    assert "knows NVIDIA RTX 3090 (CUDA0, 2" in doctor._library(settings).found
    off = settings.model_copy(update={"gpu_layers": 0})
    assert doctor._library(off).found.endswith("layers go to the processor, as gpu_layers is 0")
    trial(monkeypatch, 0, stdout=json.dumps({"devices": [processor], "system": ""}))
    assert doctor._library(settings).state == "ok"
    some = settings.model_copy(update={"gpu_layers": 20})
    assert (doctor._library(some).state, "gpu_layers is 20" in doctor._library(some).found) == ("warn", True)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the library brings its own")
def test_no_libgomp(monkeypatch, settings):
    monkeypatch.setattr(doctor, "_loads", lambda name: name != "libgomp.so.1")
    check = doctor._library(settings)
    assert (check.state, "libgomp.so.1 is missing" in check.found) == ("fail", True)
    assert "apt install libgomp1" in check.advice


def test_a_library_that_does_not_exist_for_the_loader():
    assert not doctor._loads("libnone-of-this-name.so.1")


def test_a_processor_that_is_too_old(monkeypatch, settings):
    trial(monkeypatch, -4)
    assert "AVX2" in doctor._library(settings).advice


def test_a_library_that_does_not_load(monkeypatch, settings):
    trial(monkeypatch, 1, "Traceback\nImportError: undefined symbol\n")
    check = doctor._library(settings)
    assert (check.state, check.found.endswith("ImportError: undefined symbol")) == ("fail", True)


def test_a_library_that_hangs_or_is_not_there(monkeypatch, settings):
    def hang(*_, **__):
        raise subprocess.TimeoutExpired("python", 120)

    monkeypatch.setattr(subprocess, "run", hang)
    assert doctor._library(settings).state == "fail"

    def missing(_):
        raise PackageNotFoundError

    monkeypatch.setattr(doctor, "version", missing)
    assert "not installed" in doctor._library(settings).found


def test_too_little_memory_is_a_warning(monkeypatch, tmp_path, settings):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"x")
    model = SimpleNamespace(name="m", size=10**12, template="v3", context=4096, kv_bytes=0, path=path, repo="")
    monkeypatch.setattr(doctor.catalog, "find", lambda *_: model)
    check = doctor._model(settings)
    assert (check.state, "choose a smaller model" in check.advice) == ("warn", True)


def test_a_model_that_is_not_here(settings):
    wanted = settings.model_copy(update={"model": "mistral-7b"})
    check = doctor._model(wanted)
    assert (check.state, check.advice) == ("fail", "download it: cierzo models pull mistral-7b")


def test_an_engine_that_fails_or_never_answers(monkeypatch, settings):
    failing = Scripted([EngineMissing("libgomp is missing: install it")])
    assert doctor._answer(lambda _: Chat(failing), settings).found == "libgomp is missing: install it"
    monkeypatch.setattr(doctor, "PATIENCE", 0.1)
    check = doctor._answer(lambda _: Chat(Scripted([Wait()])), settings)
    assert (check.state, check.found) == ("fail", "none within 0.1 s")


def test_a_home_that_cannot_be_written_is_a_warning(settings):
    check = doctor._home(settings.model_copy(update={"home": Path("/dev/null/home")}))
    assert check.state == "warn"
