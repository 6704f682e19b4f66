"""Our own route for models: which there are, what each one needs, and what this machine has."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from cierzo import catalog, downloads
from cierzo.api.conversations_types import Json
from cierzo.api.wire import json_response, routes_worded
from cierzo.api.wording import ERRORS, refusal
from cierzo.machine import free_disk, machine

if TYPE_CHECKING:
    from pathlib import Path


class Model(BaseModel):
    """One model that Cierzo knows."""

    name: str = Field(description="as `--model` takes it")
    title: str = Field(description="as people read it")
    repository: str = Field(description="on the Hugging Face hub; empty where it is not from there")
    file: str = Field(description="in that repository")
    bytes: int = Field(description="size of the file")
    license: str = Field(description="its SPDX name; empty where it is not known")
    context: int = Field(description="tokens of its window")
    template: str
    needed_memory: int = Field(
        description=f"bytes that it takes while it answers, about, with {catalog.WINDOW:,} tokens of window"
    )
    downloaded: bool = Field(description="whether its file is on this machine")


class Machine(BaseModel):
    """What this machine has."""

    memory: int = Field(description="bytes in all")
    free_memory: int = Field(description="bytes that programs can have now")
    free_disk: int = Field(description="bytes free where downloads go")
    cpus: int = Field(description="processor cores")


class ModelList(BaseModel):
    """The model that comes with Cierzo, the catalogue, and files of one's own; and the machine for them."""

    models: list[Model]
    machine: Machine


def router(home: Path) -> APIRouter:
    """Make the routes.

    Args:
        home: Cierzo's home folder, where files of one's own lie.
    """
    api = APIRouter(prefix="/api", tags=["Models"], route_class=routes_worded(refusal), responses=ERRORS)

    @api.get("/models", response_model=ModelList, summary="Which models there are")
    async def listed() -> Response:
        """Say what each one needs and whether it is here, and what this machine has. Asks no network."""
        return json_response(await asyncio.to_thread(_listed, home))

    return api


def _listed(home: Path) -> Json:
    has = machine()
    return {
        "models": [
            {
                "name": model.name,
                "title": model.title,
                "repository": model.repo,
                "file": model.file,
                "bytes": model.size,
                "license": model.license,
                "context": model.context,
                "template": model.template,
                "needed_memory": catalog.memory_needed(model),
                "downloaded": model.path is not None,
            }
            for model in catalog.models(home)
        ],
        "machine": {
            "memory": has.memory,
            "free_memory": has.free_memory,
            "free_disk": free_disk(downloads.folder()),
            "cpus": has.cpus,
        },
    }
