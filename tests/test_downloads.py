"""Downloads, from a hub on this machine: what comes, what is told meanwhile, and every way in which it fails."""

from __future__ import annotations

import errno
import hashlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hub_server import BLOCK, Hub, serve
from huggingface_hub import constants, hf_hub_download

from cierzo import downloads
from cierzo.downloads import Place, all_cached, begun, cached, download, fetching, remove, sha256_of
from cierzo.downloads.fetching import Progress
from cierzo.errors import DiskFull, DownloadFailed, ModelGated

PLACE = Place("org/model", "model.gguf")
KEY = (PLACE.repo, PLACE.file)
CONTENT = b"weights " * 400_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what HF_ENDPOINT does, which is read once, when huggingface_hub is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr(downloads, "_PATIENCE", 60.0)  # this machine may be busy with other tests
    monkeypatch.setattr(fetching, "_pause", lambda *_: None)
    monkeypatch.setattr(fetching, "_PACE", 0)  # every block is told of
    with serve() as server:
        point_to(server.url, monkeypatch)
        server.files[KEY] = CONTENT
        yield server


def pieces(hub: Hub, tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache").rglob("*.incomplete"))


def fresh(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)


def test_fetches_once_and_finds_it_again(hub: Hub, tmp_path: Path) -> None:
    assert cached(PLACE) is None
    told: list[Progress] = []
    path = download(PLACE, told.append)
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / "cache")
    assert sha256_of(path) == SHA256
    assert [told[0].done, told[0].phase] == [0, "fetching"]
    assert told[-1] == Progress("checking", len(CONTENT), len(CONTENT))
    assert [each.done for each in told if each.phase == "fetching"][-1] == len(CONTENT)
    asked = len(hub.asked)
    assert cached(PLACE) == path
    assert list(all_cached(".gguf")) == [PLACE]
    assert len(hub.asked) == asked
    download(PLACE)
    assert sum(line.startswith("GET /org") for line in hub.asked) == 1, hub.asked
    assert pieces(hub, tmp_path) == []


def test_other_programs_find_it(hub: Hub) -> None:
    assert hf_hub_download(PLACE.repo, PLACE.file, local_files_only=False) == str(download(PLACE))
    fetched_by_them = hf_hub_download(PLACE.repo, PLACE.file, local_files_only=True)
    assert cached(PLACE) == Path(fetched_by_them)


def test_what_the_hub_says_before(hub: Hub) -> None:
    known = downloads.ask(PLACE)
    assert (known.size, known.sha256) == (len(CONTENT), SHA256)
    assert [line.split()[0] for line in hub.asked] == ["HEAD"]


def test_resumes_at_every_tenth(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut, and gone on with by a download that knows nothing of the first: no byte before the cut comes twice."""
    monkeypatch.setattr(fetching, "TRIES", 0)
    for tenth in range(1, 10):
        fresh(tmp_path)
        cut = len(CONTENT) * tenth // 10
        hub.break_after, hub.sent = cut, 0
        with pytest.raises(
            DownloadFailed, match=r"the connection broke \(RemoteProtocolError\): try again, it goes on"
        ):
            download(PLACE)
        assert cached(PLACE) is None
        there = begun(PLACE)
        assert 0 < there <= cut
        assert cut - there <= 2 * BLOCK
        told: list[Progress] = []
        assert download(PLACE, told.append).read_bytes() == CONTENT
        assert told[0] == Progress("fetching", there, len(CONTENT))
        assert hub.asked[-2].endswith(f"bytes={there}-"), hub.asked[-3:]
        assert hub.sent == cut + len(CONTENT) - there
        assert begun(PLACE) == 0
    print("\n9 cuts, each gone on with")


def test_a_broken_connection_is_taken_up_where_it_broke(hub: Hub) -> None:
    hub.break_after = 2_000_000
    assert download(PLACE).read_bytes() == CONTENT
    assert hub.sent < len(CONTENT) + 2 * BLOCK


def test_a_server_that_is_busy_is_asked_again(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def pause(seconds: float, _: Any) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            hub.get_faults.clear()

    monkeypatch.setattr(fetching, "_pause", pause)
    hub.get_faults[PLACE.repo] = (503, "")
    assert download(PLACE).read_bytes() == CONTENT
    assert waits == [1, 2, 4]
    hub.get_faults[PLACE.repo] = (403, "")
    remove(PLACE)
    with pytest.raises(DownloadFailed, match="answered with status 403"):
        download(PLACE)


def test_a_server_that_gives_the_whole_file_again(hub: Hub, tmp_path: Path) -> None:
    hub.break_after, hub.ignores_range = 1_000_000, True
    assert download(PLACE).read_bytes() == CONTENT
    assert hub.sent == 1_000_000 + len(CONTENT)


def test_what_progress_raises_ends_the_download_and_the_next_goes_on(hub: Hub) -> None:
    class Enough(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.done:
            raise Enough

    with pytest.raises(Enough):
        download(PLACE, stop)
    assert cached(PLACE) is None
    there = begun(PLACE)
    assert there > 0
    with ThreadPoolExecutor(1) as other:
        assert other.submit(download, PLACE).result(timeout=60).read_bytes() == CONTENT
    assert hub.asked[-2].endswith(f"bytes={there}-")


@pytest.mark.parametrize("damage", ["another", "longer", "a damaged beginning"])
def test_what_is_not_the_file_is_never_used(hub: Hub, tmp_path: Path, damage: str) -> None:
    if damage == "another":
        hub.etag = hashlib.sha256(b"what its owner published").hexdigest()
    else:
        hub.break_after = 1_000_000
        with pytest.raises(KeyboardInterrupt):
            download(PLACE, _interrupt_at(500_000))
        (piece,) = pieces(hub, tmp_path)
        with piece.open("r+b") as file:
            file.truncate(2 * len(CONTENT) if damage == "longer" else 500_000)
            file.write(b"\0" * 9)
    if damage == "longer":  # than the whole: that is seen before anything is fetched
        assert download(PLACE).read_bytes() == CONTENT
        return
    with pytest.raises(DownloadFailed, match=r"is not the file that the hub names .* thrown away: try again"):
        download(PLACE)
    assert cached(PLACE) is None
    assert pieces(hub, tmp_path) == []
    hub.etag = ""
    assert download(PLACE).read_bytes() == CONTENT


def _interrupt_at(count: int) -> Any:
    def tell(progress: Progress) -> None:
        if progress.done >= count:
            raise KeyboardInterrupt

    return tell


def test_a_small_file_is_checked_by_gits_hash(hub: Hub) -> None:
    hub.etag = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
    path = download(PLACE)
    assert path.read_bytes() == CONTENT
    assert sha256_of(path) == ""
    remove(PLACE)
    hub.files[KEY] = CONTENT + b"!"
    with pytest.raises(DownloadFailed, match="is not the file"):
        download(PLACE)


@pytest.mark.parametrize(
    ("fault", "kind", "advice"),
    [
        ((404, "RepoNotFound"), DownloadFailed, "there is no repository org/model"),
        ((401, ""), DownloadFailed, "there is no repository org/model, or it is private|answered with status 401"),
        ((404, "EntryNotFound"), DownloadFailed, "has no such file any more"),
        ((503, ""), DownloadFailed, "answered with status 503: try again later"),
        ((418, ""), DownloadFailed, "answered with status 418: try again later"),
    ],
)
def test_refusals_say_what_to_do(hub: Hub, fault: tuple[int, str], kind: type[Exception], advice: str) -> None:
    hub.faults[PLACE.repo] = fault
    with pytest.raises(kind, match=advice) as failed:
        download(PLACE)
    assert "\n" not in str(failed.value)


def test_gated_repositories_are_explained(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.faults[PLACE.repo] = (403, "GatedRepo")
    asks = (
        r"asks for an agreement: accept it at http://127.0.0.1:\d+/org/model, then run `hf auth login`; the token is "
    )
    with pytest.raises(ModelGated, match=asks + rf"kept in {tmp_path}/no token and goes to http://127.0.0.1:\d+ alone"):
        download(PLACE)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(ModelGated, match="your account has not made: accept it at http") as refused:
        download(PLACE)
    assert "hf_secret" not in str(refused.value)


def test_the_token_goes_to_the_hub_alone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the hub does it: the file itself lies on another host, to which one is redirected."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serve() as storage:
        storage.files[KEY] = CONTENT
        storage.break_after = 1_000_000
        hub.elsewhere = storage.url
        assert download(PLACE).read_bytes() == CONTENT
        assert len(storage.asked) == 2
        assert storage.asked[1].split()[-1].startswith("bytes=")
        assert set(storage.tokens) == {""}
        assert set(hub.tokens) == {"Bearer hf_secret"}


def test_no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    point_to("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(DownloadFailed, match=r"http://127.0.0.1:9 does not answer: check the network"):
        download(PLACE)
    assert cached(PLACE) is None


def test_a_server_that_is_no_hub(hub: Hub) -> None:
    hub.commit = ""
    with pytest.raises(DownloadFailed, match="does not answer: check the network and HF_ENDPOINT"):
        download(PLACE)


def test_an_etag_leads_nowhere_else(hub: Hub, tmp_path: Path) -> None:
    hub.etag = "../../../../escaped"
    with pytest.raises(DownloadFailed, match="does not answer"):
        download(PLACE)
    assert not list(tmp_path.rglob("*escaped*"))


def test_room_is_asked_for_what_is_missing(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        download(PLACE, _interrupt_at(len(CONTENT) // 2))
    free = len(CONTENT) - begun(PLACE)
    monkeypatch.setattr(downloads, "free_disk", lambda _: free - 1)
    with pytest.raises(DiskFull, match=r"takes 0.0 GB and .* has 0.0 GB free: make room, or set HF_HOME"):
        download(PLACE)
    monkeypatch.setattr(downloads, "free_disk", lambda _: free)
    assert download(PLACE).read_bytes() == CONTENT


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_disk_that_becomes_full(hub: Hub, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """It takes a part of a block and then no more, as disks do. With room again, what is there is gone on with."""
    written = 0
    write = fetching._write

    def nearly_full(file: Any, chunk: bytes) -> None:
        nonlocal written
        written += len(chunk)
        if written > 1_500_000:
            file.write(chunk[: len(chunk) // 3])
            raise OSError(number, "full")
        write(file, chunk)

    with monkeypatch.context() as full:
        full.setattr(fetching, "_write", nearly_full)
        with pytest.raises(DiskFull, match=r"takes no more \(full\): make room and try again, it goes on"):
            download(PLACE)
    assert cached(PLACE) is None
    assert begun(PLACE) > 1_400_000
    assert download(PLACE).read_bytes() == CONTENT
    assert hub.sent < len(CONTENT) * 1.6


def test_a_disk_whose_files_must_be_small(hub: Hub, tmp_path: Path) -> None:
    """The system's own refusal, in a process that may write no file so large."""
    code = f"""
import resource, signal
from cierzo.downloads import Place, download
from cierzo.errors import DiskFull
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    download(Place({PLACE.repo!r}, {PLACE.file!r}))
except DiskFull as full:
    print(full)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(download(Place({PLACE.repo!r}, {PLACE.file!r})))
"""
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "other"), "PYTHONPATH": ":".join(sys.path)}
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    sentence, path = seen.stdout.splitlines()
    assert "takes no more (File too large)" in sentence
    assert Path(path).is_relative_to(tmp_path / "other")  # HF_ENDPOINT and HF_HOME are the environment's
    assert Path(path).read_bytes() == CONTENT
    assert any("bytes=1000000-" in line for line in hub.asked), hub.asked
    assert seen.stderr == ""


@pytest.mark.parametrize(
    ("failure", "advice"),
    [(PermissionError(errno.EACCES, "Permission denied"), r"cannot be written \(Permission denied\): set HF_HOME")],
)
def test_what_the_system_refuses(hub: Hub, monkeypatch: pytest.MonkeyPatch, failure: OSError, advice: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(fetching, "_write", fail)
    with pytest.raises(DownloadFailed, match=advice):
        download(PLACE)


def test_two_at_a_time_fetch_it_once(hub: Hub) -> None:
    """The second waits and tells how far the first is; it takes what that one has brought."""
    both, told = threading.Event(), list[Progress]()

    def second(progress: Progress) -> None:
        told.append(progress)
        both.set()

    def wait(place: int) -> None:
        if place >= 10 * BLOCK:
            assert both.wait(60)

    hub.before_block = wait
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(download, PLACE)
        while not begun(PLACE):
            pass
        assert pool.submit(download, PLACE, second).result(timeout=60) == first.result(timeout=60)
    assert hub.sent == len(CONTENT)
    assert told[0].phase == "waiting"
    assert told[0].total == len(CONTENT)


def test_removes_one_file_and_no_other(hub: Hub, tmp_path: Path) -> None:
    other = Place(PLACE.repo, "other.gguf")
    hub.files[other.repo, other.file] = b"other"
    download(PLACE)
    download(other)
    assert remove(PLACE) == len(CONTENT)
    assert (cached(PLACE), sha256_of(download(other))) == (None, hashlib.sha256(b"other").hexdigest())
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()) < 10_000
    with pytest.raises(KeyboardInterrupt):
        download(PLACE, _interrupt_at(1))
    there = begun(PLACE)
    assert remove(PLACE) == there > 0
    assert begun(PLACE) == 0
    fresh(tmp_path)
    assert remove(PLACE) == 0


@pytest.mark.parametrize(
    "place",
    [
        Place("org", "f.gguf"),
        Place("../x", "f.gguf"),
        Place("a/..", "f.gguf"),
        Place("a/b/c", "f.gguf"),
        Place("a/b", "../f.gguf"),
        Place("a/b", "/f.gguf"),
        Place("a/b", "x//f.gguf"),
        Place("a/b", "f\n.gguf"),
        Place("a/b", "..\\f.gguf"),
        Place("a/b", "f.gguf", "../../x"),
        Place("a/b", "f.gguf", ""),
        Place("a b/c", "f.gguf"),
    ],
)
def test_places_that_cannot_be(place: Place) -> None:
    assert not place.is_possible()
    assert Place("a/b", "x/f.gguf", "refs/pr/1").is_possible()
