"""The page's server: where it may listen, what it says when it cannot, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from cierzo.chat import Chat
from cierzo.engines.scripted import Scripted
from cierzo.errors import BadSetting
from cierzo.listening import address_of, listen
from cierzo.page.server import serve
from cierzo.settings import Settings

SERVE = (
    "import sys; from cierzo.app import serve_page; from cierzo.settings import Settings; "
    "serve_page(Settings.load({'engine': sys.argv[1], 'port': 0}), open_browser=False)"
)


@contextmanager
def served(engine: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the page in a process of its own; give it and its address."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, engine], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            said = re.fullmatch(r"Cierzo is open at (http://127\.0\.0\.1:\d+) — press Ctrl\+C to end\n", line)
            assert said, (line, process.stderr and process.stderr.read())
            yield process, said[1]
        finally:
            process.kill()


def free_port() -> int:
    with socket.socket() as probing:
        probing.bind(("127.0.0.1", 0))
        return int(probing.getsockname()[1])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.20", "chat.lan"])
def test_beyond_loopback_only_when_that_was_said(host: str) -> None:
    with pytest.raises(BadSetting, match=r"can be reached from other machines .* --insecure"):
        serve(Chat(Scripted()), Settings.load({"host": host}), open_browser=False)


def test_a_taken_port_is_one_clear_line() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(BadSetting, match=rf"^port {port} is taken, .*--port 0$"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "sentence"),
    [
        ("203.0.113.7", "cannot listen on 203.0.113.7"),
        ("no.such.name.invalid", "there is no address"),
        ("a" * 300, "no address"),
    ],
)
def test_an_address_that_is_not_ours_is_one_clear_line(host: str, sentence: str) -> None:
    with pytest.raises(BadSetting, match=sentence):
        listen(host, 0)


def test_the_address_is_one_that_a_browser_opens() -> None:
    assert address_of("127.0.0.1", 80) == "http://127.0.0.1:80"
    assert address_of("0.0.0.0", 7860) == "http://127.0.0.1:7860"
    assert address_of("::1", 7860) == "http://[::1]:7860"


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl+C"])
def test_it_ends_at_once_with_pages_open_and_an_answer_under_way(sent: signal.Signals, tmp_path: Path) -> None:
    """Gradio's pages hold a connection open for as long as they live; with that, uvicorn alone never ends."""
    script = tmp_path / "slow.toml"
    script.write_text('[[reply]]\ntext = " y sigue"\ndelay = 0.05\nrepeat = true\n', "utf-8")
    with served(f"scripted:{script}") as (process, address), ExitStack() as ends:
        web = ends.enter_context(httpx.Client(base_url=address, timeout=30))
        for number in range(3):
            beat = ends.enter_context(web.stream("GET", f"/gradio_api/heartbeat/person{number}"))
            assert next(beat.iter_text()).startswith("data: ALIVE")
        fn = next(fn for fn in web.get("/config").json()["dependencies"] if fn["targets"][0][1] == "submit")
        data = ["no pares", [], "", 0.9, 8192, 0.9, 1.2]
        joined = web.post(
            "/gradio_api/queue/join", json={"data": data, "fn_index": fn["id"], "session_hash": "person0"}
        )
        assert joined.status_code == 200, joined.text
        answer = ends.enter_context(web.stream("GET", "/gradio_api/queue/data?session_hash=person0"))
        heard = ""
        for text in answer.iter_text():
            heard += text
            if heard.count("sigue") > 3:
                break
        started = time.monotonic()
        process.send_signal(sent)
        assert process.wait(15) == 0
        took = time.monotonic() - started
        print(f"\nended {took:.2f} s after {sent.name}, with 3 pages open and an answer under way")
        assert took < 5
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read() == ""
        assert process.stderr.read() == ""


def test_the_engines_process_ends_with_the_page() -> None:
    with served("llamacpp:") as (process, address):
        assert httpx.get(address).status_code == 200
        deadline = time.monotonic() + 30
        while not (children := psutil.Process(process.pid).children(recursive=True)):
            assert time.monotonic() < deadline, "the model did not begin to load by itself"
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        gone, alive = psutil.wait_procs(children, timeout=5)
        assert not alive
        assert gone


@pytest.mark.skipif(os.name != "posix", reason="fork and sockets as POSIX has them")
def test_a_port_is_free_again_at_once() -> None:
    port = free_port()
    for _ in range(2):
        with listen("127.0.0.1", port) as listening, socket.create_connection(("127.0.0.1", port)):
            accepted, _ = listening.accept()
            accepted.close()
