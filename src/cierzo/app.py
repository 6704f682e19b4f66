"""Puts it together: settings in, a chat out. Every entry (terminal, page, library) starts here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cierzo import catalog
from cierzo.chat import Chat
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.engines.scripted import Scripted
from cierzo.errors import BadSetting

if TYPE_CHECKING:
    from cierzo.engines.base import Engine
    from cierzo.settings import Settings


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


def serve_page(settings: Settings, *, open_browser: bool) -> None:
    """Serve the page until Ctrl+C or SIGTERM.

    Raises:
        BadSetting: The address is taken, or other machines could reach it and ``insecure`` is not set.
        CierzoError: What `open_engine` raises.
    """
    from cierzo.page import serve  # noqa: PLC0415 - gradio takes seconds to import, and only the page needs it

    serve(open_chat(settings), settings, open_browser=open_browser)


def serve_api(settings: Settings) -> None:
    """Serve the API, without the page, until Ctrl+C or SIGTERM.

    Raises:
        BadSetting: The address is taken, or other machines could reach it and ``insecure`` is not set.
        CierzoError: What `open_engine` raises.
    """
    from cierzo.api import serve  # noqa: PLC0415 - fastapi takes half a second to import, and only servers need it

    serve(open_chat(settings), settings)
