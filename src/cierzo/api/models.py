"""Our own routes for models: which there are, what each one needs, what this machine has for it, and removing one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from cierzo import catalog, downloads, estimates
from cierzo.api.conversations_types import Json
from cierzo.api.downloads import Download, named, shown
from cierzo.api.wire import json_response, routes_worded
from cierzo.api.wording import ERRORS, refusal
from cierzo.errors import Conflict
from cierzo.machine import bandwidth, free_disk, machine

if TYPE_CHECKING:
    from pathlib import Path

    from cierzo import pulling
    from cierzo.api.work import Work


class Need(BaseModel):
    """Memory that a model takes with one window, about."""

    context: int = Field(description="tokens of the window")
    memory: int = Field(description="bytes: weights, KV cache at 16 bits, and what is computed in")
    fits: Literal["yes", "tight", "no"] = Field(
        description="into this machine's free memory; `tight`: only when other programs are closed"
    )


class Speed(BaseModel):
    """Tokens a second, between about these: an estimate from this machine's measured memory, for its processors."""

    slowest: float
    fastest: float


class Model(BaseModel):
    """One model that Cierzo knows."""

    name: str = Field(description="as `--model` takes it")
    title: str = Field(description="as people read it")
    repository: str = Field(description="on the Hugging Face hub; empty where it is not from there")
    revision: str = Field(description="branch, tag or commit of the repository")
    file: str = Field(description="in that repository")
    bytes: int = Field(description="size of the file")
    sha256: str = Field(description="of the file that is here, where the hub gave it; else empty")
    license: str = Field(description="its SPDX name; empty where it is not known")
    context: int = Field(description="tokens of its window; 0 where it is not known")
    template: str
    needed_memory: int = Field(
        description=f"bytes that it takes while it answers, about, with {catalog.WINDOW:,} tokens of window"
    )
    needs: list[Need] = Field(description="the same, and with a long window")
    speed: Speed | None
    downloaded: bool = Field(description="whether its file is on this machine")
    bytes_begun: int = Field(description="bytes that a download which was broken off has left here")
    download: Download | None = Field(description="its newest download, if this server has begun one")
    in_use: bool = Field(description="whether it answers here")
    removable: bool = Field(description="whether there is something of it here that can be removed")


class Machine(BaseModel):
    """What this machine has."""

    memory: int = Field(description="bytes in all")
    free_memory: int = Field(description="bytes that programs can have now")
    free_disk: int = Field(description="bytes free where downloads go")
    cpus: int = Field(description="processor cores")
    bandwidth: float = Field(description="bytes of memory that they read and write a second, measured once")


class ModelList(BaseModel):
    """The model that comes with Cierzo, the catalogue, and other files that are here; and the machine for them."""

    models: list[Model]
    machine: Machine


class Removed(BaseModel):
    """What was removed."""

    model: str
    freed: int = Field(description="bytes")


def router(work: Work, pulls: pulling.Downloads, home: Path) -> APIRouter:
    """Make the routes.

    Args:
        work: Knows what answers.
        pulls: The downloads of this server.
        home: Cierzo's home folder, where files of one's own lie.
    """
    api = APIRouter(prefix="/api", tags=["Models"], route_class=routes_worded(refusal), responses=ERRORS)

    @api.get("/models", response_model=ModelList, summary="Which models there are")
    async def listed() -> Response:
        """Say what each one needs and whether it is here, and what this machine has. Asks no network.

        The first time it measures the memory, for a quarter of a second.
        """
        return json_response(await asyncio.to_thread(_listed, home, pulls, work.chat.info.model))

    @api.delete("/models/{model:path}", response_model=Removed, summary="Remove a model")
    async def removed(model: str) -> Response:
        """Remove its file from this machine, and what a broken download of it has left. Not one that is in use."""
        there = await asyncio.to_thread(named, model, home)
        if there.name == work.chat.info.model:
            raise Conflict(f"{there.name:.200} is in use: choose another model first")
        going = pulls.of(there)
        if going is not None and not going.is_over:
            raise Conflict(f"{there.name:.200} is being downloaded: end that first")
        freed = await asyncio.to_thread(catalog.remove, there, home)
        return json_response({"model": there.name, "freed": freed})

    return api


def _listed(home: Path, pulls: pulling.Downloads, in_use: str) -> Json:
    has = machine()
    measured = bandwidth()
    models = []
    for model in catalog.models(home):
        begun = downloads.begun(catalog.place_of(model)) if model.repo and not model.path else 0
        speed = estimates.speed(model, measured)
        download = pulls.of(model) if model.repo else None
        models.append(
            {
                "name": model.name,
                "title": model.title,
                "repository": model.repo,
                "revision": model.revision if model.repo else "",
                "file": model.file,
                "bytes": model.size,
                "sha256": model.sha256,
                "license": model.license,
                "context": model.context,
                "template": model.template,
                "needed_memory": catalog.memory_needed(model),
                "needs": [
                    {"context": need.context, "memory": need.memory, "fits": need.fits}
                    for need in estimates.needs(model, has)
                ],
                "speed": speed and {"slowest": speed.slowest, "fastest": speed.fastest},
                "downloaded": model.path is not None,
                "bytes_begun": begun,
                "download": download and shown(download),
                "in_use": model.name == in_use,
                "removable": model.name not in (catalog.DEMO, in_use) and (model.path is not None or begun > 0),
            }
        )
    disk = free_disk(downloads.folder())
    return {
        "models": models,
        "machine": {
            "memory": has.memory,
            "free_memory": has.free_memory,
            "free_disk": disk,
            "cpus": has.cpus,
            "bandwidth": measured,
        },
    }
