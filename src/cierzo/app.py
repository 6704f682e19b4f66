"""Puts it together: settings in, a chat out. Every entry (terminal, page, library) starts here."""

from __future__ import annotations

import asyncio
import sys
import webbrowser
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from cierzo import catalog
from cierzo.admission import Admission
from cierzo.chat import Chat
from cierzo.engines.hub import Hub
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.engines.llamaserver import LlamaServer
from cierzo.engines.openai import OpenAI
from cierzo.engines.options import Options, adapters
from cierzo.engines.scripted import Scripted
from cierzo.engines.tgi import Tgi
from cierzo.errors import BadSetting, CierzoError
from cierzo.switching import Switch

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from cierzo.conversations import Conversations
    from cierzo.engines.base import Engine
    from cierzo.settings import Settings
    from cierzo.telemetry import Telemetry


MEET_WITHIN = 5.0
"""Seconds that a server gets to say what it is before conversations are opened without it."""

_DRAWING = "drawing the page, which takes some seconds the first time"


def open_engine(settings: Settings) -> Engine:
    """Make the engine that ``settings.engine`` names. Nothing is loaded yet.

    Raises:
        BadSetting: No engine has this address.
        UnknownModel: No model has the name ``settings.model``.
        ModelError: The model's file cannot be used.
    """
    kind, _, rest = settings.engine.partition(":")
    if kind == "llamacpp" and not rest:
        model = catalog.find(settings.model, settings.home)
        return LlamaCpp(
            model,
            slots=settings.slots,
            context=settings.context,
            threads=settings.threads,
            options=_options(settings),
        )
    if kind == "scripted":
        return Scripted.load(rest)
    if kind == "hf":
        return _provided(settings)
    form, _, scheme = kind.partition("+")
    if form in ("llamacpp", "openai", "tgi") and scheme in ("http", "https"):
        return _served(form, settings)
    raise BadSetting(
        f"there is no engine {settings.engine!r:.200}: use llamacpp: (built in), llamacpp+http://HOST:PORT, "
        "openai+http://HOST[/v1], tgi+http://HOST, hf://OWNER/MODEL, or scripted:FILE"
    )


def _served(form: str, settings: Settings) -> Engine:
    """Make the engine that is a server elsewhere. What was not said is for the server to say."""
    key = settings.engine_key.get_secret_value()
    slots = settings.slots if "slots" in settings.model_fields_set else 0
    template, context = settings.template, settings.context
    if form == "openai":
        model = settings.model if "model" in settings.model_fields_set else ""
        return OpenAI(settings.engine, key, model=model, template=template, context=context, slots=slots)
    made = Tgi if form == "tgi" else LlamaServer
    return made(settings.engine, key, template=template, context=context, slots=slots)


def _provided(settings: Settings) -> Engine:
    """Make the engine that is a provider of Hugging Face; its address names the model."""
    return Hub(
        settings.engine,
        settings.engine_key.get_secret_value(),
        template=settings.template,
        context=settings.context,
        slots=settings.slots if "slots" in settings.model_fields_set else 0,
    )


def _options(settings: Settings) -> Options:
    """Gather what is chosen for the embedded engine.

    Raises:
        BadSetting: An adapter is not written as one, or several answers at a time are wanted of an engine that guesses.
    """
    guesses = settings.speculation == "ngram"
    if guesses and "slots" in settings.model_fields_set and settings.slots > 1:
        raise BadSetting(
            f"slots is {settings.slots}, but with speculation ngram one answer is written at a time: set slots to 1 or "
            "speculation to off"
        )
    return Options(
        kv_type=settings.kv_type,
        gpu_layers=None if settings.gpu_layers == "auto" else settings.gpu_layers,
        speculation=guesses,
        adapters=adapters(settings.lora),
    )


def open_chat(settings: Settings) -> Chat:
    """Make a chat on the engine and model of ``settings``. Raises what `open_engine` raises."""
    return Chat(open_engine(settings))


async def open_conversations(settings: Settings, chat: Chat, telemetry: Telemetry | None = None) -> Conversations:
    """Open the store that ``settings`` names, and what people do in it. Close its ``replies``, then its ``store``.

    Raises:
        BadSetting: ``database_url`` cannot be used.
        CierzoError: What `cierzo.store.Store.open` raises.
    """
    # The database's library takes a third of a second to import, and one answer in the terminal needs none.
    from cierzo.conversations import Conversations  # noqa: PLC0415
    from cierzo.replies import Replies  # noqa: PLC0415
    from cierzo.store import Store  # noqa: PLC0415

    store = await Store.open(settings)
    with suppress(CierzoError, TimeoutError):  # a server that is not there yet may come; until then a guess is used
        async with asyncio.timeout(MEET_WITHIN):
            await chat.meet()
    service = Conversations(chat, store, Replies(store, telemetry), Admission(chat.engine.describe().slots))
    service.switch = Switch(chat, settings, open_engine, service.turn_to)
    return service


def serve_page(settings: Settings, *, open_browser: bool) -> None:
    """Serve the page and the API until Ctrl+C or SIGTERM.

    Raises:
        BadSetting: The address is taken, or other machines could reach it and ``insecure`` is not set.
        CierzoError: What `open_engine`, `open_conversations` and `cierzo.page.drawn.drawn` raise.
    """
    from cierzo.api import serve  # noqa: PLC0415 - fastapi takes half a second to import, and only servers need it
    from cierzo.page import Front, drawn  # noqa: PLC0415 - the same

    def front(api: ASGIApp) -> Front:
        """Draw the page once the port is ours: it takes some seconds the first time, and nothing else is seen."""
        page = drawn(settings.home, begun=lambda: print(_DRAWING, file=sys.stderr, flush=True))  # noqa: T201
        return Front(api, page=page, host=settings.host)

    browser = webbrowser.open if open_browser else None
    opening = partial(open_conversations, settings)
    serve(open_chat(settings), settings, opening, name="Cierzo", front=front, opened=browser)


def serve_api(settings: Settings) -> None:
    """Serve the API, without the page, until Ctrl+C or SIGTERM.

    Raises:
        BadSetting: The address is taken, or other machines could reach it and ``insecure`` is not set.
        CierzoError: What `open_engine` and `open_conversations` raise.
    """
    from cierzo.api import serve  # noqa: PLC0415 - fastapi takes half a second to import, and only servers need it

    serve(open_chat(settings), settings, partial(open_conversations, settings), name="Cierzo's API")
