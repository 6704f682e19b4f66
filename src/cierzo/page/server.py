"""Serves the page: one address, one model, and a quick end."""

from __future__ import annotations

import asyncio
import contextlib
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

from cierzo.listening import address_of, ending_quietly, listen, refuse_strangers
from cierzo.page.gate import MOST_BODY, Gate
from cierzo.page.shell import Page, stylesheet
from cierzo.page.theme import theme

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

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
    refuse_strangers(settings)
    listening = listen(settings.host, settings.port)
    address = address_of(settings.host, listening.getsockname()[1])

    def announce() -> None:
        print(f"Cierzo is open at {address} — press Ctrl+C to end", flush=True)  # noqa: T201 (this is its output)
        if open_browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    async def serving() -> None:
        # The page is made inside the loop: outside of one, Gradio makes loops of its own and never closes them.
        await Server(Page(chat), settings.host, announce, log=settings.log).serve(sockets=[listening])

    with listening, contextlib.suppress(KeyboardInterrupt), ending_quietly():
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
