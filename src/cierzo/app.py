"""Puts it together: settings in, a chat out. Every entry (terminal, page, library) starts here."""

from __future__ import annotations

import webbrowser
from functools import partial
from typing import TYPE_CHECKING

from cierzo import catalog
from cierzo.admission import Admission
from cierzo.chat import Chat
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.engines.scripted import Scripted
from cierzo.errors import BadSetting

if TYPE_CHECKING:
    from cierzo.conversations import Conversations
    from cierzo.engines.base import Engine
    from cierzo.settings import Settings
    from cierzo.telemetry import Telemetry


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
        return LlamaCpp(model, slots=settings.slots, context=settings.context, threads=settings.threads)
    if kind == "scripted":
        return Scripted.load(rest)
    raise BadSetting(f"there is no engine {settings.engine!r}: use llamacpp: (built in) or scripted:FILE")


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
    return Conversations(chat, store, Replies(store, telemetry), Admission(chat.engine.describe().slots))


def serve_page(settings: Settings, *, open_browser: bool) -> None:
    """Serve the page and the API until Ctrl+C or SIGTERM.

    Raises:
        BadSetting: The address is taken, or other machines could reach it and ``insecure`` is not set.
        CierzoError: What `open_engine`, `open_conversations` and `cierzo.page.drawn.drawn` raise.
    """
    from cierzo.api import serve  # noqa: PLC0415 - fastapi takes half a second to import, and only servers need it
    from cierzo.page import Front, drawn  # noqa: PLC0415 - the same

    front = partial(Front, page=drawn(settings.home), host=settings.host)
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
