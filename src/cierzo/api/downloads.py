"""Our own routes for downloads: begin one, see how it goes, end it. It goes on whether somebody looks or not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from cierzo import catalog
from cierzo.api.conversations_types import Error, Json
from cierzo.api.wire import json_response, routes_worded
from cierzo.api.wording import ERRORS, refusal
from cierzo.errors import UnknownModel

if TYPE_CHECKING:
    from pathlib import Path

    from cierzo import pulling
    from cierzo.offered import Model


class Start(BaseModel):
    """Which model to download."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(
        max_length=400, description="its `name` in `/api/models`, or a file of the hub: `hf:OWNER/REPO/FILE.gguf`"
    )


class Download(BaseModel):
    """One download, as it stands."""

    id: str
    model: str = Field(description="`name` of the model")
    state: Literal["waiting", "fetching", "checking", "done", "failed", "cancelled"] = Field(
        description="`waiting` for its turn or for another program that fetches the same file; the last three are ends"
    )
    bytes_done: int = Field(description="those of earlier tries too")
    bytes: int = Field(description="in all; 0 until the hub has said it")
    rate: float = Field(description="bytes a second, lately; 0 where nothing comes")
    seconds_left: float | None = Field(description="at that rate; null where nobody can say")
    error: Error | None = Field(description="why it failed")


class DownloadList(BaseModel):
    """The downloads that go on and the last ones that ended, oldest first."""

    downloads: list[Download]


def router(downloads: pulling.Downloads, home: Path) -> APIRouter:
    """Make the routes.

    Args:
        downloads: Those of this server.
        home: Cierzo's home folder.
    """
    api = APIRouter(prefix="/api", tags=["Models"], route_class=routes_worded(refusal), responses=ERRORS)

    @api.post("/downloads", status_code=201, response_model=Download, summary="Download a model")
    async def start(asked: Start) -> Response:
        """Begin it, or give the one that fetches the same file already. What an earlier one left is gone on with."""
        model = await asyncio.to_thread(named, asked.model, home)
        return json_response(shown(downloads.start(model)), status=201)

    @api.get("/downloads", response_model=DownloadList, summary="All downloads")
    async def listed() -> Response:
        """Say how each one stands. Ask again every second or so while one goes on."""
        return json_response({"downloads": [shown(each) for each in downloads.all()]})

    @api.get("/downloads/{download}", response_model=Download, summary="One download")
    async def one(download: str) -> Response:
        """Say how it stands."""
        return json_response(shown(downloads.get(download)))

    @api.delete("/downloads/{download}", response_model=Download, summary="End a download")
    async def cancel(download: str) -> Response:
        """End it. What has come is kept; one that is over stays as it is."""
        return json_response(shown(downloads.cancel(download)))

    return api


def named(name: str, home: Path) -> Model:
    """Find a model by its name. A path is none: who can reach the server need not learn which files it has.

    Raises:
        UnknownModel: There is no such name.
    """
    if not name.startswith(catalog.HUB) and ("/" in name or "\\" in name or name.endswith(".gguf")):
        raise UnknownModel(f"there is no model {name!r:.200}: see which there are at /api/models")
    return catalog.find(name, home)


def shown(download: pulling.Download) -> Json:
    """Return what a client sees of a download."""
    rate, left = download.rate, download.total - download.done
    return {
        "id": download.id,
        "model": download.model.name,
        "state": download.state,
        "bytes_done": download.done,
        "bytes": download.total,
        "rate": rate,
        "seconds_left": left / rate if rate else None,
        "error": None if download.error is None else refusal(download.error).body["error"],
    }
