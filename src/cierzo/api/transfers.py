"""Our own routes for files of conversations: out and in."""

from __future__ import annotations

import asyncio
import tempfile
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from cierzo.api import conversations_types as types
from cierzo.api.conversations import OWNER
from cierzo.api.gate import MOST_FILE, too_long
from cierzo.api.wire import ClientGoneError, Download, json_response, routes_worded
from cierzo.api.wording import ERRORS, refusal
from cierzo.errors import BadInput
from cierzo.transfer import export_json, export_markdown, import_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

    from cierzo.api.work import Work
    from cierzo.store import Conversation

FILE_WITHIN = 600.0
"""Seconds in which a whole file has to come."""

IN_MEMORY = 1_000_000

Format = Literal["json", "markdown"]

_MEDIA = {"json": "application/json", "markdown": "text/markdown; charset=utf-8"}
_WORDS = "The file. `json` has everything and can be imported; `markdown`, the branch in use, is for reading"
_CONTENT = {"application/json": {"schema": {"type": "object"}}, "text/markdown": {"schema": {"type": "string"}}}
_WHOLE: dict[int | str, dict[str, Any]] = {200: {"description": _WORDS, "content": _CONTENT}}
_FILE = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}


class _TooLargeError(BadInput):
    status = 413


def router(work: Work) -> APIRouter:
    """Make the routes."""
    api = APIRouter(prefix="/api", tags=["Files"], route_class=routes_worded(refusal), responses=ERRORS)

    @api.get(
        "/conversations/{conversation}/export",
        responses=_WHOLE,
        response_class=Response,
        summary="One conversation as a file",
    )
    async def one(conversation: str, format: Format = "json") -> Response:  # noqa: A002 - its name in the address
        """Give it with everything that is known of every answer, or for reading."""
        return _file(work, [await work.service.store.conversations.get(conversation, owner=OWNER)], format)

    @api.get("/export", responses=_WHOLE, response_class=Response, summary="All conversations as a file")
    async def everything(format: Format = "json") -> Response:  # noqa: A002 - the same
        """Give all of them, those in the archive and in the bin too."""
        return _file(work, await work.service.store.transfer.listed(owner=OWNER), format)

    @api.post(
        "/import",
        status_code=201,
        response_model=types.Imported,
        openapi_extra=_FILE,
        summary="Add the conversations of a file",
    )
    async def added(request: Request) -> Response:
        """Check the whole file, then add all of it or nothing. Nothing is overwritten: twice makes copies."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise BadInput("the file must be sent as application/json")
        with tempfile.SpooledTemporaryFile(IN_MEMORY) as file:
            await _receive(request, file)
            done = await import_json(work.service.store, file, owner=OWNER)  # type: ignore[arg-type]  # it reads only
        return json_response({"conversations": done.conversations, "messages": done.messages}, 201)

    return api


def _file(work: Work, chosen: Sequence[Conversation], form: Format) -> Response:
    parts = (export_json if form == "json" else export_markdown)(work.service.store, chosen)
    name = f"conversations.{'json' if form == 'json' else 'md'}"
    return Download(parts, refusal, name=name, media_type=_MEDIA[form])


async def _receive(request: Request, file: IO[bytes]) -> None:
    size = 0
    try:
        async with asyncio.timeout(FILE_WITHIN):
            async for part in request.stream():
                size += len(part)
                if size > MOST_FILE:
                    raise _TooLargeError(too_long(request.scope["path"]))
                await asyncio.to_thread(file.write, part)
    except ClientDisconnect:
        raise ClientGoneError from None
    except TimeoutError:
        raise BadInput(f"the file did not come within {FILE_WITHIN:g} seconds: send it again") from None
    file.seek(0)
