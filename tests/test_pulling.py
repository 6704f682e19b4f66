"""Downloads that go on by themselves: one for each file, in turn, cancelled, failed, and let go at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cierzo.downloads.fetching import Progress
from cierzo.errors import CierzoError, Conflict, DiskFull, NotFound, Overloaded
from cierzo.offered import OFFERED, Model
from cierzo.pulling import AT_ONCE, KEPT, MOST, Download, Downloads

FIRST, SECOND, THIRD = OFFERED[:3]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.001)


class Hub:
    """Stands for the hub: every download tells its progress and waits until it may end."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.may_end = threading.Event()
        self.error: Exception | None = None

    def pull(self, model: Model, home: Path, tell: Callable[[Progress], None]) -> Model:
        self.began.append(model.name)
        done = 0
        while not self.may_end.wait(0.001):
            done = min(done + 1000, model.size)
            tell(Progress("fetching", done, model.size))
        if self.error:
            raise self.error
        tell(Progress("checking", model.size, model.size))
        return model


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def downloads(hub: Hub, tmp_path: Path) -> Downloads:
    return Downloads(tmp_path, hub.pull)


def test_one_goes_its_way(hub: Hub, downloads: Downloads) -> None:
    mine = downloads.start(FIRST)
    assert mine.total == FIRST.size
    until(lambda: mine.done > 10_000)
    assert (mine.state, mine.is_over, mine.error) == ("fetching", False, None)
    assert mine.rate > 0
    assert downloads.of(FIRST) is mine
    assert downloads.get(mine.id) is mine
    hub.may_end.set()
    until(lambda: mine.is_over)
    assert (mine.state, mine.done, mine.rate) == ("done", FIRST.size, 0)
    assert downloads.all() == [mine]


def test_one_for_each_file(hub: Hub, downloads: Downloads) -> None:
    mine = downloads.start(FIRST)
    assert downloads.start(FIRST) is mine
    until(lambda: mine.done > 0)
    assert downloads.start(FIRST) is mine
    assert hub.began == [FIRST.name]
    downloads.cancel(mine.id)
    again = downloads.start(FIRST)
    assert again is not mine
    assert downloads.all() == [again], "what ended makes room for what began"
    hub.may_end.set()
    until(lambda: again.state == "done")


def test_others_wait_for_their_turn(hub: Hub, downloads: Downloads) -> None:
    running = [downloads.start(model) for model in OFFERED[:AT_ONCE]]
    until(lambda: all(each.done for each in running))
    late, later = downloads.start(OFFERED[AT_ONCE]), downloads.start(OFFERED[AT_ONCE + 1])
    assert (late.state, later.state) == ("waiting", "waiting")
    assert downloads.cancel(late.id).state == "cancelled"
    downloads.cancel(running[0].id)
    until(lambda: later.done > 0)
    assert late.model.name not in hub.began
    hub.may_end.set()
    until(lambda: later.state == "done")


def test_cancelling_is_at_once_and_only_once(hub: Hub, downloads: Downloads) -> None:
    mine = downloads.start(FIRST)
    until(lambda: mine.done > 0)
    assert downloads.cancel(mine.id).state == "cancelled"
    done = mine.done
    hub.may_end.set()
    until(lambda: not any(thread.is_alive() for thread in downloads._threads))
    assert (mine.state, mine.done, mine.error) == ("cancelled", done, None)
    over = downloads.start(SECOND)
    until(lambda: over.is_over)
    assert downloads.cancel(over.id).state == "done"
    with pytest.raises(NotFound, match="there is no download '99'"):
        downloads.cancel("99")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(DiskFull("the disk is full: make room"), "the disk is full: make room"), (KeyError("x"), "unexpected KeyError")],
)
def test_a_failure_is_told(hub: Hub, downloads: Downloads, error: Exception, sentence: str) -> None:
    hub.error = error
    mine = downloads.start(FIRST)
    hub.may_end.set()
    until(lambda: mine.is_over)
    assert mine.state == "failed"
    assert isinstance(mine.error, CierzoError)
    assert str(mine.error).startswith(sentence)


def test_what_cannot_be_downloaded(downloads: Downloads, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="is on this machine already"):
        downloads.start(Model("x", "X", "v3", 1, path=tmp_path / "x.gguf"))
    with pytest.raises(Conflict, match="is not from the hub"):
        downloads.start(Model("x", "X", "v3", 1))


def _file(number: int) -> Model:
    return Model(f"hf:a/b/{number}.gguf", "", "", 0, repo="a/b", file=f"{number}.gguf")


async def test_bounds_and_the_end(hub: Hub, downloads: Downloads) -> None:
    hub.may_end.set()
    ended: list[Download] = []
    for number in range(KEPT + 10):
        ended.append(downloads.start(_file(number)))
        until(lambda: ended[-1].is_over)
    assert len(downloads.all()) == KEPT
    assert ended[0] not in downloads.all()
    hub.may_end.clear()
    going = [downloads.start(_file(100 + number)) for number in range(MOST)]
    with pytest.raises(Overloaded, match=f"{MOST} downloads wait already"):
        downloads.start(_file(999))
    assert downloads.start(going[0].model) is going[0]
    threads = set(downloads._threads)
    await downloads.close()
    assert {each.state for each in going} == {"cancelled"}
    assert not any(thread.is_alive() for thread in threads)
    with pytest.raises(Overloaded):
        downloads.start(_file(1000))
