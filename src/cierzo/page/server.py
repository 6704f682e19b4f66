"""Serves the page: one address, one model, and a quick end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import threading
import webbrowser
from typing import TYPE_CHECKING

import gradio as gr
import uvicorn
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from gradio.routes import App
from starlette.routing import Mount

from cierzo.errors import BadSetting
from cierzo.page.gate import MOST_BODY, Gate
from cierzo.page.shell import Page, stylesheet
from cierzo.page.theme import theme

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from cierzo.chat import Chat
    from cierzo.settings import Settings

PATIENCE = 1
"""Seconds that open connections get at the end. A page that is merely open holds one for as long as it lives."""


def serve(chat: Chat, settings: Settings, *, open_browser: bool) -> None:
    """Serve the page until Ctrl+C or SIGTERM, printing its address when it can be opened.

    The model begins to load at once, and the page can be used meanwhile.

    Args:
        chat: What answers. It is closed at the end.
        settings: Where to listen.
        open_browser: Whether to open the address in the browser of this machine.

    Raises:
        BadSetting: The address cannot be used, or other machines could reach it and that was not allowed.
    """
    if not settings.is_loopback() and not settings.insecure:
        raise BadSetting(
            f"{settings.host} can be reached from other machines and the page asks for no password: "
            "use 127.0.0.1, or say --insecure if everybody there may use it"
        )
    listening = listen(settings.host, settings.port)
    address = address_of(settings.host, listening.getsockname()[1])

    def announce() -> None:
        print(f"Cierzo is open at {address} — press Ctrl+C to end", flush=True)  # noqa: T201 (this is its output)
        if open_browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    async def serving() -> None:
        # The page is made inside the loop: outside of one, Gradio makes loops of its own and never closes them.
        await Server(Page(chat), settings.host, announce, log=settings.log).serve(sockets=[listening])

    with listening, contextlib.suppress(KeyboardInterrupt), _ending_quietly():
        asyncio.run(serving())


class Server(uvicorn.Server):
    """A uvicorn that says when it is open, and that lets go of Gradio's endless connections when it ends.

    Args:
        page: What is served. Its chat is started and closed with the server.
        host: The address that is listened on, for the gate.
        announce: Called once, when the page can be opened.
        log: Least level that is logged.
    """

    def __init__(self, page: Page, host: str, announce: Callable[[], None], *, log: str = "warning") -> None:
        self._page, self._announce = page, announce
        self._app = application(page)
        super().__init__(
            uvicorn.Config(
                Gate(self._app, host),
                log_level=log,
                access_log=False,  # Gradio's session keys stand in its addresses
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=PATIENCE,
                lifespan="on",
                ws="none",
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve, then say so."""
        await super().startup(sockets)
        if self.started:
            self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop the answers and end the connections that pages hold open; then the rest."""
        self._page.stop_all()
        for route in self._app.routes:
            if isinstance(route, Mount) and isinstance(route.app, App):
                route.app.stop_event.set()
        await super().shutdown(sockets)


def application(page: Page) -> FastAPI:
    """Make the application behind the gate: Gradio, and a chat that lives as long as the application."""

    @contextlib.asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        await page.chat.start()
        try:
            yield
        finally:
            await page.chat.close()

    app = FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    # With a policy of the parent's, Gradio adds none of its own (it would reflect any origin).
    app.add_middleware(CORSMiddleware, allow_origins=[])
    gr.mount_gradio_app(
        app,
        page.blocks,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=MOST_BODY,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        i18n=page.words,
        theme=theme(),
        css=stylesheet(),
    )
    return app


def listen(host: str, port: int) -> socket.socket:
    """Take the address.

    Raises:
        BadSetting: It is taken, not this machine's, or not allowed.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError):
        raise BadSetting(f"there is no address {host!r}: use 127.0.0.1") from None
    try:
        if os.name == "posix":  # on Windows this would let two programs share the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen(2048)
    except OSError as refused:
        listening.close()
        raise BadSetting(_why_not(refused, host, port)) from None
    return listening


def address_of(host: str, port: int) -> str:
    """Give the address that a person opens."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{name}:{port}"


def _why_not(refused: OSError, host: str, port: int) -> str:
    if refused.errno == errno.EADDRINUSE:
        return f"port {port} is taken, perhaps by another Cierzo: choose one with --port, or any free one with --port 0"
    if refused.errno == errno.EACCES:
        return f"port {port} is kept for the system: choose one above 1023 with --port"
    return f"cannot listen on {host} ({refused.strerror}): use 127.0.0.1"


@contextlib.contextmanager
def _ending_quietly() -> Iterator[None]:
    """Let SIGTERM end the program with status 0. uvicorn sends itself the signal again once everything is closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
