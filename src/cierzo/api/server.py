"""Puts the API together and serves it: one address, one model, and an end that cuts nobody off who can still finish."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from cierzo.api import conversations, downloads, engine, models, openai, ops, rendered, replies, tgi, transfers, wording
from cierzo.api.conversations_types import ApiError, EndEvent, PhaseEvent
from cierzo.api.gate import Gate, PatientOnce
from cierzo.api.openai_types import ChatChunk, CompletionAnswer, OpenAIError
from cierzo.api.rendered_types import HtmlEvent
from cierzo.api.tgi_types import StreamEvent, TgiError
from cierzo.api.wire import VERSION, Refusal, dumps
from cierzo.api.work import Work
from cierzo.listening import address_of, ending_quietly, listen, refuse_strangers
from cierzo.pulling import Downloads
from cierzo.telemetry import JsonLines, Telemetry

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from starlette.types import ASGIApp

    from cierzo.chat import Chat
    from cierzo.conversations import Conversations
    from cierzo.settings import Settings

    Opening = Callable[[Chat, Telemetry], Awaitable[Conversations]]

_NAMED = (
    *(ApiError, OpenAIError, TgiError),
    *(ChatChunk, CompletionAnswer, StreamEvent, PhaseEvent, EndEvent, HtmlEvent),
)
"""Models that the description of a route only names."""

MOST_CONNECTIONS = 1024
LAST_SECOND = 1
"""Seconds that connections get after the grace, to carry away what was said to them."""

SOON = 0.3
"""Seconds after which whoever ends it is told what is waited for."""

_FINISHING = "finishing the answers that are being written, at most {:g} s — press Ctrl+C again to end now"
_TITLE = "Cierzo"
_WORDS = """Chat with Mistral models, with nothing hidden.

The routes of OpenAI's API and of Text Generation Inference, and our own for conversations that are kept, on one model.
`docs/api.md` has examples, and every place where something is refused or ignored."""


def application(work: Work, *, home: Path, host: str = "127.0.0.1") -> Gate:
    """Make the application, with its gate before it.

    Args:
        work: The answers. It is closed with the application.
        home: Cierzo's home folder.
        host: The address that is listened on, for the gate.
    """
    pulls = Downloads(home)

    @contextlib.asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await pulls.close()
            await work.close()

    app = FastAPI(
        title=_TITLE,
        version=VERSION,
        description=_WORDS,
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    routers = (
        openai.router(work),
        tgi.router(work),
        conversations.router(work),
        replies.router(work),
        rendered.router(work),
        engine.router(work),
        transfers.router(work),
        models.router(work, pulls, home),
        downloads.router(pulls, home),
        ops.router(work),
    )
    for router in routers:
        app.include_router(router)

    @app.exception_handler(HTTPException)
    async def nothing_here(request: Request, error: HTTPException) -> Response:
        path = request.scope["path"]
        sentence = {404: f"there is nothing at {path[:100]}", 405: f"{path[:100]} does not take {request.method}"}
        headers = dict(error.headers or {})
        refusal = refused(path, error.status_code, sentence.get(error.status_code, str(error.detail)))
        return Refusal(refusal.status, refusal.body, headers).response()

    _measure(work)
    app.add_route("/openapi.json", _described(app), include_in_schema=False)
    return Gate(app, host, telemetry=work.telemetry, refuse=refused, ending=lambda: work.draining)


def refused(path: str, status: int, sentence: str) -> Refusal:
    """Word a refusal as the family of routes does to which a path belongs."""
    if path.startswith("/v1"):
        return openai.refused(status, sentence)
    return wording.refused(status, sentence) if path.startswith("/api/") else tgi.refused(status, sentence)


def _described(app: FastAPI) -> Callable[[Request], Response]:
    """Make the route of the description, with errors and the events of streams, which FastAPI does not know of.

    To make it takes a fifth of a second, and most servers are never asked: so it is made for who asks first, in a
    thread, beside the answers.
    """
    made: list[bytes] = []
    one_at_a_time = threading.Lock()

    def description(_request: Request) -> Response:
        with one_at_a_time:
            if not made:
                known = app.openapi()["components"]["schemas"]
                for model in _NAMED:
                    schema = model.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
                    for name, part in {**schema.pop("$defs", {}), model.__name__: schema}.items():
                        known.setdefault(name, part)
                made.append(dumps(app.openapi()))
        return Response(made[0], media_type="application/json")

    return description


def _measure(work: Work) -> None:
    gauge = work.telemetry.gauge
    work.telemetry.labels(
        "cierzo_engine_info",
        "Which engine answers, and which model on it.",
        lambda: {"engine": work.chat.info.engine, "model": work.chat.info.model},
    )
    gauge("cierzo_slots", "Answers that the engine writes at the same time.", lambda: work.chat.info.slots)
    gauge("cierzo_replies_running", "Answers under way that have a slot.", lambda: work.running)
    gauge("cierzo_queue_depth", "Answers that wait for a slot.", lambda: work.queued)
    gauge("cierzo_engine_restarts", "Times that the engine was started again.", lambda: work.chat.engine_restarts)


class Server(uvicorn.Server):
    """A uvicorn that says when it is open, and that lets answers finish when it ends.

    Args:
        work: The answers that it serves.
        settings: Where to listen, and how long to wait at the end.
        opening: Opens the conversations, in this server's own event loop.
        announce: Called once, when requests are taken.
        front: Makes what stands before the API, out of the API.
    """

    def __init__(
        self,
        work: Work,
        settings: Settings,
        opening: Opening,
        announce: Callable[[], None],
        *,
        front: Callable[[ASGIApp], ASGIApp] | None = None,
    ) -> None:
        self._work, self._grace, self._opening, self._announce = work, settings.grace, opening, announce
        api = application(work, home=settings.home, host=settings.host)
        super().__init__(
            uvicorn.Config(
                front(api) if front else api,
                http=PatientOnce,
                ws="none",
                lifespan="on",
                log_level="error",
                access_log=False,  # the gate logs requests, without what stands in their addresses
                server_header=False,
                proxy_headers=False,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_graceful_shutdown=LAST_SECOND,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the conversations, begin to serve, then say so.

        Raises:
            CierzoError: They cannot be opened.
        """
        await self._work.open(self._opening)
        await super().startup(sockets)
        if self.started:
            self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse what is new, let finish what runs, cut what has not finished by then; then end."""
        busy = self._work.running + self._work.queued
        drain = asyncio.ensure_future(self._work.drain(self._grace))
        if busy and not (await asyncio.wait([drain], timeout=SOON))[0]:
            print(_FINISHING.format(self._grace), flush=True)  # noqa: T201 - else it seems to hang
        while not drain.done() and not self.force_exit:
            await asyncio.wait([drain], timeout=0.1)
        drain.cancel()
        if self.force_exit:
            self._work.cut()
            self.force_exit = False  # the lifespan ends in order: the engine's process is to be told
        await super().shutdown(sockets)


def serve(
    chat: Chat,
    settings: Settings,
    opening: Opening,
    *,
    name: str,
    front: Callable[[ASGIApp], ASGIApp] | None = None,
    opened: Callable[[str], object] | None = None,
) -> None:
    """Serve until Ctrl+C or SIGTERM, printing the address when requests are taken.

    Args:
        chat: What answers. It is closed at the end.
        settings: Where to listen.
        opening: Opens the conversations, which are closed at the end too.
        name: What the printed line calls it.
        front: Makes what stands before the API, out of the API.
        opened: Called with the address, in a thread of its own, when requests are taken.

    Raises:
        BadSetting: The address cannot be used, or other machines could reach it and that was not allowed.
        CierzoError: What ``opening`` raises.
    """
    refuse_strangers(settings)
    _log_as_json(settings.log)
    listening = listen(settings.host, settings.port)
    address = address_of(settings.host, listening.getsockname()[1])

    def announce() -> None:
        print(f"{name} is at {address} — press Ctrl+C to end", flush=True)  # noqa: T201 - this is its output
        if opened:
            threading.Thread(target=opened, args=(address,), daemon=True).start()

    with listening, contextlib.suppress(KeyboardInterrupt), ending_quietly():
        Server(Work(chat, Telemetry()), settings, opening, announce, front=front).run(sockets=[listening])


def _log_as_json(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    log = logging.getLogger("cierzo")
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(level.upper())
