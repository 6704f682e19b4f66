"""Downloads, from a hub on this machine: what comes, what is told meanwhile, and every way in which it fails."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, serve
from huggingface_hub import constants

from cierzo.downloads import cached, download
from cierzo.errors import DownloadFailed

REPO, FILE = "org/model", "model.gguf"
CONTENT = b"weights " * 400_000


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what HF_ENDPOINT does, which is read once, when huggingface_hub is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr("cierzo.downloads._PATIENCE", 60.0)  # this machine may be busy with other tests
    with serve() as server:
        point_to(server.url, monkeypatch)
        server.files[REPO, FILE] = CONTENT
        yield server


def test_fetches_once_and_finds_it_again(hub: Hub, tmp_path: Path) -> None:
    assert cached(REPO, FILE) is None
    told: list[tuple[int, int]] = []
    path = download(REPO, FILE, 0, lambda done, total: told.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / "cache")
    assert told[0][0] < len(CONTENT)
    assert told[-1] == (len(CONTENT), len(CONTENT))
    asked = len(hub.asked)
    assert cached(REPO, FILE) == path
    assert len(hub.asked) == asked
    download(REPO, FILE, 0)
    assert sum(line.startswith("GET /org") for line in hub.asked) == 1, hub.asked


def test_a_broken_connection_is_taken_up_where_it_broke(hub: Hub) -> None:
    content = hub.files[REPO, FILE] = b"weights " * 2_000_000
    hub.break_after = 11_000_000
    assert download(REPO, FILE, 0).read_bytes() == content
    assert any("bytes=10485760-" in line for line in hub.asked), hub.asked


def test_what_progress_raises_ends_the_download(hub: Hub, tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done:
            raise Enough

    with pytest.raises(Enough):
        download(REPO, FILE, 0, stop)
    assert cached(REPO, FILE) is None
    assert not list((tmp_path / "cache").rglob("*.incomplete"))
    with ThreadPoolExecutor(1) as other:  # tqdm's lock is free again, for every thread
        assert other.submit(download, REPO, FILE, 0).result(timeout=60).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        ((403, "GatedRepo"), r"asks for an agreement: accept it at http://127.0.0.1:\d+/org/model, then run"),
        ((404, "RepoNotFound"), "there is no repository org/model"),
        ((401, ""), "there is no repository org/model, or it is private|answered with status 401"),
        ((404, "EntryNotFound"), "has no such file any more"),
        ((503, ""), "answered with status 503: try again later"),
        ((418, ""), "answered with status 418: try again later"),
    ],
)
def test_refusals_say_what_to_do(hub: Hub, fault: tuple[int, str], advice: str) -> None:
    hub.faults[REPO] = fault
    with pytest.raises(DownloadFailed, match=advice) as failed:
        download(REPO, FILE, 0)
    assert "\n" not in str(failed.value)


def test_no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    point_to("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(DownloadFailed, match=r"http://127.0.0.1:9 does not answer: check the network"):
        download(REPO, FILE, 0)
    assert cached(REPO, FILE) is None


def test_a_server_that_is_no_hub(hub: Hub) -> None:
    hub.commit = ""
    with pytest.raises(DownloadFailed, match="does not answer: check the network and HF_ENDPOINT"):
        download(REPO, FILE, 0)


def test_no_room(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 1, 1))  # type: ignore[attr-defined] # the class has no public name
    with pytest.raises(DownloadFailed, match=r"takes 0.0 GB and .* has 0.0 GB free: make room, or set HF_HOME"):
        download(REPO, FILE, 0)


@pytest.mark.parametrize(
    ("failure", "advice"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full: make room for"),
        (PermissionError(errno.EACCES, "Permission denied"), r"cannot be written \(Permission denied\): set HF_HOME"),
        (OSError("Consistency check failed"), "it came incomplete: try again"),
    ],
)
def test_what_the_system_refuses(hub: Hub, monkeypatch: pytest.MonkeyPatch, failure: OSError, advice: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr("huggingface_hub.file_download.http_get", fail)
    with pytest.raises(DownloadFailed, match=advice):
        download(REPO, FILE, 0)


def test_the_hub_of_the_environment_is_asked(hub: Hub, tmp_path: Path) -> None:
    code = f"from cierzo.downloads import download; print(download({REPO!r}, {FILE!r}, 0))"
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "other"), "PYTHONPATH": ":".join(sys.path)}
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert Path(seen.stdout.strip()).is_relative_to(tmp_path / "other")
    assert seen.stderr == ""
