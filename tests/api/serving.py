"""The API on a real socket, in a thread of its own, on any engine."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time

import httpx
import pytest
from quick import quick_folder

from cierzo import catalog
from cierzo.admission import WAITING, Admission
from cierzo.api.server import Server
from cierzo.api.work import Work
from cierzo.app import open_conversations
from cierzo.chat import Chat
from cierzo.engines.base import SILENCE
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.engines.script import Reply, Script
from cierzo.engines.scripted import Scripted
from cierzo.listening import listen
from cierzo.settings import Settings
from cierzo.telemetry import Telemetry

JSON = {"Content-Type": "application/json"}
HTTP = httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0))
"""One for all requests, since to make one takes longer than most requests; each has a connection of its own."""


class Live:
    """A server that runs, with a home of its own. Close it, or let the fixture do so."""

    def __init__(self, engine, **options):
        grace = options.pop("grace", 1.0)
        chosen = options.pop("settings", {})
        waiting = options.pop("waiting", WAITING)
        front = options.pop("front", None)
        self.engine = engine
        self.work = Work(Chat(engine), Telemetry(), **options)
        self.socket = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        opened = threading.Event()

        def announce():
            self.loop = asyncio.get_running_loop()
            opened.set()

        self.home = tempfile.TemporaryDirectory(
            dir=quick_folder()
        )  # a session's fixture comes before a test's own home
        settings = Settings.load({"port": 0, "grace": grace, "home": self.home.name, **chosen})

        async def opening(chat, telemetry):
            service = await open_conversations(settings, chat, telemetry)
            if waiting != WAITING:
                service.admission = Admission(chat.engine.describe().slots, waiting)
            return service

        self.server = Server(self.work, settings, opening, announce, front=front)
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],), daemon=True)
        self.thread.start()
        assert opened.wait(20)

    def take(self, engine, silence):
        """Answer with another engine from now on, and give up on it after so many seconds without an event."""
        self.engine = engine
        self.loop.call_soon_threadsafe(self.work.chat.turn_to, engine)
        until(lambda: self.work.chat.engine is engine)
        self.work._silence = self.work.service.replies._silence = silence
        return self

    def run(self, work):
        """Let the server's own event loop do something: a client there need not fight with it for the interpreter."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def post(self, path, body, **more):
        return HTTP.post(self.url + path, json=body, **more)

    def get(self, path, **more):
        return HTTP.get(self.url + path, **more)

    def put(self, path, body):
        return HTTP.put(self.url + path, json=body)

    def patch(self, path, body):
        return HTTP.patch(self.url + path, json=body)

    def delete(self, path):
        return HTTP.delete(self.url + path)

    def close(self):
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()
        self.socket.close()
        self.home.cleanup()


def until(condition, seconds=30.0):
    """Wait for a condition; return how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it never happened"
        time.sleep(0.005)
    return time.monotonic() - began


def slotted(slots, *replies):
    """An engine that says that it writes so many answers at a time."""
    return Scripted(script=Script(replies, slots=slots))


def asking(text="Hola", **more):
    return {"messages": [{"role": "user", "content": text}], **more}


def data_of(text):
    """The payloads of an event stream, in order, comments left out."""
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    return [block.removeprefix("data: ") for block in blocks]


@pytest.fixture(scope="session")
def leaving():
    """Servers that were told to end, which takes each a fifth of a second of waiting: nobody waits for the last few."""
    told = []
    yield told
    for server in told:
        server.close()


@pytest.fixture
def live(leaving):
    """Make servers that are told to end at the end."""
    made = []

    def make(engine, **options):
        made.append(Live(engine, **options))
        return made[-1]

    yield make
    for server in reversed(made):
        server.server.should_exit = True
        leaving.append(server)
    while len(leaving) > 3:
        leaving.pop(0).close()


@pytest.fixture(scope="session")
def common():
    """One server for all tests that only care what its engine does; ask for it by `lent`."""
    server = Live(Scripted())
    yield server
    server.close()


@pytest.fixture
def lent(common):
    """Lend the common server an engine: ``lent(engine, silence=60)``. At the end nothing of it may still run."""

    def lend(engine, silence=SILENCE):
        return common.take(engine, silence)

    yield lend
    until(lambda: common.work.running == len(common.work.service.replies) == common.engine.running == 0)


@pytest.fixture(scope="session")
def echo():
    """One server for all tests that only look at what it refuses; it repeats the question."""
    server = Live(Scripted(Reply.of("Hola.")))
    yield server
    server.close()


@pytest.fixture(scope="session")
def demo():
    """The demo model behind the API; one answer at a time, so that the same seed gives the same answer."""
    model = catalog.find("cierzo-demo", Settings.load().home)
    if model.path is None:
        pytest.skip("the demo model is not in this checkout")
    server = Live(LlamaCpp(model, slots=1, threads=1))
    until(lambda: server.get("/ready").json()["status"] == "ready", 60)
    yield server
    server.close()
