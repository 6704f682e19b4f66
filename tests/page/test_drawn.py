"""The page that is drawn once: when it is drawn, what is kept, and what happens where it cannot be."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from pace import Pace

from cierzo.errors import PageNotDrawn
from cierzo.page import drawn
from cierzo.page.drawn import Drawn

drawing = importlib.import_module("cierzo.page.drawn")  # the module: its function has the same name
SOURCE = Path(drawing.__file__).parents[2]


@pytest.fixture
def drawings(page_kept: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let no process draw: what was drawn before stands for it. Returns a list that has an entry for each time."""
    said, times = page_kept.read_text("utf-8"), []

    def draw() -> str:
        times.append(1)
        return said

    monkeypatch.setattr(drawing, "_draw", draw)
    return times


def cache(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "cache").iterdir())


def test_it_is_drawn_once(tmp_path: Path, drawings: list[int], page_drawn: Drawn) -> None:
    home = tmp_path / "not" / "there"
    said: list[str] = []
    assert [drawn(home, begun=lambda: said.append("drawing")) for _ in range(3)] == [page_drawn] * 3
    assert len(drawings) == len(said) == 1
    (kept,) = cache(home)
    assert re.fullmatch(r"page-[0-9a-f]{16}\.json", kept)


def test_a_kept_page_takes_no_process(
    tmp_path: Path, page_kept: Path, page_drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = with_page(tmp_path, page_kept)
    monkeypatch.setattr(subprocess, "Popen", None)
    began = time.monotonic()
    assert drawn(home) == page_drawn
    print(f"\nread in {1000 * (time.monotonic() - began):.0f} ms")


def with_page(home: Path, page_kept: Path) -> Path:
    """Put the page into a home, so that nothing needs to be drawn."""
    (home / "cache").mkdir()
    shutil.copy(page_kept, home / "cache")
    return home


def broken(whole: str) -> Iterator[str]:
    """Files that are no drawn page, most of them what a full disk or a killed program leaves."""
    yield from (whole[: len(whole) * part // 12] for part in range(12))
    yield from ("null", "[]", "{}", '"text"', "1", "\ufeff" + whole, whole + "}", "<html>")
    parts = json.loads(whole)
    yield from (json.dumps({name: value for name, value in parts.items() if name != gone}) for gone in parts)
    yield from (json.dumps({**parts, name: value}) for name in ("config", "entries") for value in (None, 1, [], "x"))
    yield from (json.dumps({**parts, "entries": entries}) for entries in (["a.js"], ["a.css"], [None], {}))


def test_a_file_that_is_not_whole_is_mended(
    tmp_path: Path, page_kept: Path, drawings: list[int], page_drawn: Drawn
) -> None:
    home = with_page(tmp_path, page_kept)
    place = home / "cache" / page_kept.name
    cases = list(broken(page_kept.read_text("utf-8")))
    for number, text in enumerate(cases, 1):
        place.write_text(text, "utf-8")
        assert drawn(home) == page_drawn, text[:60]
        assert len(drawings) == number, f"not drawn again: {text[:60]!r}"
        assert place.read_text("utf-8") == page_kept.read_text("utf-8")
    place.write_bytes(b"\xff\xfe\x00")
    assert drawn(home) == page_drawn
    print(f"\n{len(cases) + 1} broken files, all mended")
    assert cache(home) == [page_kept.name]


def test_pages_of_other_versions_are_removed_and_nothing_else(
    tmp_path: Path, page_kept: Path, drawings: list[int]
) -> None:
    (tmp_path / "cache").mkdir()
    for name in ("page-0123456789abcdef.json", "page-old.json", "models.json", "mine.txt"):
        (tmp_path / "cache" / name).write_text("x", "utf-8")
    drawn(tmp_path)
    assert cache(tmp_path) == ["mine.txt", "models.json", page_kept.name]


def test_what_it_is_drawn_from_names_it(page_kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new Gradio, another word or another slider: each draws anew."""
    assert page_kept.name == f"page-{drawing._key()}.json"
    monkeypatch.setattr(drawing.metadata, "version", lambda _: "99.0")
    assert drawing._key() not in page_kept.name
    monkeypatch.undo()
    for part in ("shell.py", "theme.py", "words/en.json", "words/es.json", "words/fr.json"):
        folder = tmp_path / part.replace("/", "-")
        shutil.copytree(Path(drawing.__file__).parent, folder)
        monkeypatch.setattr(drawing.resources, "files", lambda _, folder=folder: folder)
        assert drawing._key() in page_kept.name
        with (folder / part).open("a", encoding="utf-8") as file:
            file.write("\n")
        assert drawing._key() not in page_kept.name, f"{part} does not count"
        monkeypatch.undo()


@pytest.mark.parametrize("home", ["/dev/null/home", "/proc/none"])
def test_where_nothing_can_be_kept_it_is_drawn_each_time(home: str, drawings: list[int], page_drawn: Drawn) -> None:
    assert [drawn(Path(home)) for _ in range(2)] == [page_drawn] * 2
    assert len(drawings) == 2


def test_where_the_folder_is_taken_it_is_drawn_each_time(
    tmp_path: Path, page_kept: Path, drawings: list[int], page_drawn: Drawn
) -> None:
    (tmp_path / "cache" / page_kept.name).mkdir(parents=True)
    assert [drawn(tmp_path) for _ in range(2)] == [page_drawn] * 2
    assert len(drawings) == 2
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "cache").write_text("a file", "utf-8")
    assert drawn(tmp_path / "file") == page_drawn


def test_many_that_begin_at_once_do_not_break_each_other(
    tmp_path: Path, page_kept: Path, page_drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, together, got = page_kept.read_text("utf-8"), threading.Barrier(8), []

    def draw() -> str:
        together.wait(10)
        return said

    monkeypatch.setattr(drawing, "_draw", draw)
    threads = [threading.Thread(target=lambda: got.append(drawn(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert got == [page_drawn] * 8
    assert cache(tmp_path) == [page_kept.name]


GRADIOS = {
    "raises": "raise RuntimeError('a secret detail')",
    "is none": "raise ImportError('No module named gradio')",
    "ends": "import os; os._exit(3)",
    "is killed": "import os; os.kill(os.getpid(), 9)",
    "says nothing": "import sys; sys.exit(0)",
    "says something else": "import sys; print('Running on local URL: x'); sys.exit(0)",
    "says a list": "import sys; print('[1]'); sys.exit(0)",
    "says no text": "import sys; sys.stdout.buffer.write(b'\\xff\\xfe'); sys.exit(0)",
}


@pytest.mark.parametrize("code", GRADIOS.values(), ids=GRADIOS)
def test_a_gradio_that_cannot_is_one_sentence(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "gradio.py").write_text(code, "utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "lib"), str(SOURCE)]))
    with pytest.raises(PageNotDrawn) as refused:
        drawn(tmp_path / "home")
    assert str(refused.value) == drawing.NOT_DRAWN
    assert "\n" not in str(refused.value)
    assert [record.message for record in caplog.records] == ["drawing the page failed"]
    if "secret" in code:
        assert "a secret detail" in caplog.records[0].fields["said"]
    assert not (tmp_path / "home" / "cache").exists()


def test_a_gradio_that_takes_for_ever_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gradio.py").write_text("import time; time.sleep(60)", "utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(SOURCE)]))
    monkeypatch.setattr(drawing, "WITHIN", 0.5)
    with pytest.raises(PageNotDrawn):
        drawn(tmp_path / "home")
    assert [child for child in psutil.Process().children() if "cierzo.page.shell" in child.cmdline()] == []


SEES_SOCKETS = """
import os, socket
real = socket.socket.connect
def connect(self, place):
    if self.family != socket.AF_UNIX:
        with open(os.environ["SEEN"], "a") as file:
            file.write(f"{place}\\\\n")
    return real(self, place)
socket.socket.connect = connect
"""


def test_the_same_is_drawn_anywhere_and_nobody_is_asked(
    tmp_path: Path, page_drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither variables of Gradio's nor files that lie where one stands have a say, and no connection is made."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "sitecustomize.py").write_text(SEES_SOCKETS, "utf-8")
    (tmp_path / "stand").mkdir()
    for name in ("gradio", "fastapi", "json", "cierzo", "random"):
        (tmp_path / "stand" / f"{name}.py").write_text("raise SystemExit('a file of this folder was run')", "utf-8")
    foreign = {
        "GRADIO_ROOT_PATH": "/evil",
        "GRADIO_VIBE_MODE": "1",
        "GRADIO_SHARE": "True",
        "GRADIO_ANALYTICS_ENABLED": "True",
        "GRADIO_CDN_ROOT": "http://evil.example",
        "SPACE_ID": "evil/space",
        "SPACE_HOST": "evil.example",
        "OAUTH_CLIENT_ID": "evil",
        "HF_ENDPOINT": "http://evil.example",
        "PYTHONIOENCODING": "ascii",
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "lib"), str(SOURCE)]),
        "SEEN": str(tmp_path / "seen"),
        "LANG": "C",
    }
    for name, value in foreign.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path / "stand")
    began = time.monotonic()
    there = drawn(tmp_path / "home")
    print(f"\ndrawn in {time.monotonic() - began:.1f} s")
    number = re.compile(r'"app_id":\d+')  # a new one each time
    assert number.sub("", there.html) == number.sub("", page_drawn.html)
    assert there.theme == page_drawn.theme
    assert not (tmp_path / "seen").exists(), (tmp_path / "seen").read_text("utf-8")


# --- the program -------------------------------------------------------------------------------------------------

GRACE = 1.0


DRAWING = "drawing the page, which takes some seconds the first time\n"


class Program:
    """`cierzo` in a process of its own, told to open no browser."""

    def __init__(self, home: Path, *flags: str, port: int = 0) -> None:
        command = (sys.executable, "-m", "cierzo", "--no-open", "--engine", "scripted:", "--port", f"{port}", *flags)
        variables = {**os.environ, "CIERZO_HOME": str(home), "CIERZO_GRACE": str(GRACE)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdout=pipe, stderr=pipe, text=True, env=variables, start_new_session=True
        )
        self.address = ""

    def opened(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        said = re.fullmatch(r"Cierzo is at (http://127\.0\.0\.1:\d+) — press Ctrl\+C to end\n", line)
        assert said, (line, self.process.communicate())
        self.address = said[1]
        return self.address

    def end(self, sent: signal.Signals) -> tuple[int, float, str]:
        """Tell it to end; return its status, the seconds it would take on a free machine, and what it said."""
        with Pace() as pace:
            began = time.monotonic()
            self.process.send_signal(sent)
            out, err = self.process.communicate(timeout=60)
            seconds = time.monotonic() - began
        return self.process.returncode, seconds / pace.factor, out + err


Begin = Callable[..., Program]


@pytest.fixture
def program(tmp_path: Path, page_kept: Path) -> Iterator[Begin]:
    """Begin `cierzo` with a page that was drawn before; whatever still runs at the end is killed."""
    begun: list[Program] = []

    def begin(*flags: str, home: Path | None = None, port: int = 0) -> Program:
        if home is None:
            home = tmp_path / f"home{len(begun)}"
            home.mkdir()
            with_page(home, page_kept)
        begun.append(Program(home, *flags, port=port))
        return begun[-1]

    yield begin
    for each in begun:
        each.process.kill()
        each.process.communicate()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl+C"])
def test_it_says_where_it_is_and_ends_when_told(program: Begin, sent: signal.Signals) -> None:
    """Also with an answer under way and a page open, which holds its connections for as long as it lives."""
    running = program()
    address = running.opened()
    with httpx.Client(base_url=address, timeout=30) as web:
        assert "<gradio-app" in web.get("/").text
        made = web.post("/api/conversations", json={}).json()["id"]
        asked = web.post(f"/api/conversations/{made}/messages", json={"text": "palabra " * 500}).json()
        with web.stream("GET", f"/api/replies/{asked['answers'][0]['id']}/html") as answer:
            for line in answer.iter_lines():
                if line == "event: html":
                    break
            status, seconds, said = running.end(sent)
    print(f"\nended {seconds:.2f} s after {sent.name}, with a page open and an answer under way")
    assert status == 0
    assert re.fullmatch(r"finishing the answers that are being written, at most 1 s — [^\n]*\n", said)
    assert seconds < GRACE + 2
    assert not psutil.pid_exists(running.process.pid)


def test_a_second_one_on_the_same_port_gets_a_sentence(program: Begin) -> None:
    port = int(program().opened().rpartition(":")[2])
    second = program(port=port)
    out, err = second.process.communicate(timeout=60)
    assert (second.process.returncode, out) == (2, "")
    assert err.count("\n") == 1
    assert f"port {port} is taken, perhaps by another Cierzo" in err


def test_two_that_begin_at_once_on_a_new_home_both_open(program: Begin, tmp_path: Path) -> None:
    home = tmp_path / "new"
    both = [program(home=home) for _ in range(2)]
    pages = [httpx.get(each.opened(), timeout=30).text for each in both]
    assert all("<gradio-app" in page for page in pages)
    assert len(cache(home)) == 1


def test_ctrl_c_while_it_is_drawn_ends_it_quietly(program: Begin, tmp_path: Path) -> None:
    running = program(home=tmp_path / "new").process
    deadline = time.monotonic() + 60
    while not (drawing := psutil.Process(running.pid).children()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err.strip()) == (0, "", DRAWING.strip())
    assert psutil.wait_procs(drawing, timeout=10)[1] == []


SERVES_WITHOUT = """
import sys, threading, urllib.request
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from pages import page_served
from cierzo.engines.scripted import Scripted
from cierzo.page import drawn
with page_served(drawn(Path(sys.argv[2])), Scripted()) as address:
    for path in ("/", "/theme.css", "/cierzo/main.js", "/gradio_api/info", "/api/engine", sys.argv[3]):
        assert urllib.request.urlopen(address + path).status == 200
print([name for name in ("gradio", "pandas", "numpy", "PIL", "gradio_client", "xllamacpp") if name in sys.modules])
import psutil
print(psutil.Process().memory_info().rss // 2**20)
"""


def test_the_server_never_imports_gradio(tmp_path: Path, page_kept: Path, page_drawn: Drawn) -> None:
    entry = re.search(r'src="\.?/?(assets/[^"]+\.js)"', page_drawn.html)
    assert entry
    home = with_page(tmp_path, page_kept)
    command = [sys.executable, "-c", SERVES_WITHOUT, str(Path(__file__).parent.parent), str(home), f"/{entry[1]}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    heavy, megabytes = done.stdout.splitlines()
    print(f"\nthe server's process has {megabytes} MiB after giving the page")
    assert heavy == "[]"
