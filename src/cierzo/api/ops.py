"""The routes for whoever runs the server: is it alive, is it ready, how is it doing."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from cierzo.api.wire import json_response
from cierzo.api.work import Work


class Ready(BaseModel):
    """Whether the engine and the database answer."""

    status: Literal["ready", "busy", "loading", "ending", "failed"]
    model: str
    detail: str | None = None


def router(work: Work) -> APIRouter:
    """Make the routes."""
    api = APIRouter(tags=["Operations"])

    @api.get("/health", summary="Alive", response_class=PlainTextResponse)
    async def health() -> Response:
        """Answer 200 with nothing, as soon and as long as the process serves."""
        return Response(status_code=200, media_type="text/plain")

    @api.get("/", include_in_schema=False)
    async def root() -> Response:
        return Response(status_code=200, media_type="text/plain")

    @api.get("/ready", summary="Ready", response_model=Ready, responses={503: {"model": Ready}})
    async def ready() -> Response:
        """Ask the engine for a token, unless it has just given one; and ask the database."""
        model = work.chat.info.model
        if work.draining:
            return json_response({"status": "ending", "model": model}, 503, {"Retry-After": "5"})
        state = await work.ready()
        if state in ("ready", "busy"):
            return json_response({"status": state, "model": model})
        if state == "loading":
            return json_response({"status": "loading", "model": model}, 503, {"Retry-After": "2"})
        return json_response({"status": "failed", "model": model, "detail": state}, 503)

    @api.get("/metrics", summary="Metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Give the figures in Prometheus' text format."""
        return Response(work.telemetry.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return api
