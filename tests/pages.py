"""The page on a real socket, in a thread of its own, on any engine."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from quick import quick_folder

from cierzo.api.server import Server
from cierzo.api.work import Work
from cierzo.app import open_conversations
from cierzo.chat import Chat
from cierzo.engines.base import Engine
from cierzo.listening import address_of, listen
from cierzo.page import Front
from cierzo.page.drawn import Drawn
from cierzo.settings import Settings
from cierzo.telemetry import Telemetry


@contextmanager
def page_served(page: Drawn, engine: Engine, **chosen: Any) -> Iterator[str]:
    """Serve the page over an engine on a free port, with a home of its own; give its address."""
    with tempfile.TemporaryDirectory(dir=quick_folder()) as home, listen("127.0.0.1", 0) as listening:
        settings = Settings.load({"port": 0, "grace": 1.0, "home": home, **chosen})
        is_open = threading.Event()
        front = partial(Front, page=page, host=settings.host)
        work = Work(Chat(engine), Telemetry())
        server = Server(work, settings, partial(open_conversations, settings), is_open.set, front=front)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            assert is_open.wait(60), "the server did not begin"
            yield address_of("127.0.0.1", listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(30)
        assert not thread.is_alive(), "the server did not end"
