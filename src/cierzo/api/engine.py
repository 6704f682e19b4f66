"""Our own routes for what answers: which model on which engine, and changing it while chats go on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool

from cierzo.api import engine_types as types
from cierzo.api.gate import MOST_BODY, MOST_FILE
from cierzo.api.wire import json_response, routes_worded
from cierzo.api.wording import ERRORS, refusal
from cierzo.errors import CierzoError, Conflict
from cierzo.messages import MAX_ALTERNATIVES, MAX_STOP_LENGTH, MAX_STOPS, MAX_TEXT
from cierzo.store.records import MAX_TITLE
from cierzo.templates import is_of_file

if TYPE_CHECKING:
    from cierzo.api.work import Work

MEET_WITHIN = 2.0
"""Seconds for which an engine that is a server is asked what it is, where a page only looks."""

LIMITS = {
    "text": MAX_TEXT,
    "title": MAX_TITLE,
    "stops": MAX_STOPS,
    "stop_length": MAX_STOP_LENGTH,
    "alternatives": MAX_ALTERNATIVES,
    "request": MOST_BODY,
    "file": MOST_FILE,
}


def router(work: Work) -> APIRouter:
    """Make the routes."""
    api = APIRouter(prefix="/api", tags=["For pages"], route_class=routes_worded(refusal), responses=ERRORS)

    @api.get("/engine", response_model=types.EngineInfo, summary="What answers")
    async def engine() -> Response:
        """Say which model answers, on which engine, what it honours, how much may be sent, and what is coming."""
        with suppress(CierzoError, TimeoutError):  # what is known is told also while its server does not answer
            async with asyncio.timeout(MEET_WITHIN):
                await work.chat.meet()
        return json_response(_said(work))

    @api.put("/engine", response_model=types.EngineInfo, summary="Change what answers")
    async def change(asked: types.Change) -> Response:
        """Change to another model or engine, and answer when it answers. Answers under way finish on the old one.

        If the new one cannot be opened or does not answer, the old one stays. It holds until this program ends.
        """
        switch = work.service.switch
        if switch is None:
            raise Conflict("what answers here is fixed: start Cierzo with another --model or --engine")
        await run_in_threadpool(switch.permit, asked.model, asked.engine)
        await switch.to(model=asked.model, engine=asked.engine)
        return json_response(_said(work))

    return api


def _said(work: Work) -> dict[str, Any]:
    info, switch = work.chat.info, work.service.switch
    names = ("engine", "model", "context", "template", "slots", "where", "takes", "names", "version")
    said: dict[str, Any] = {name: getattr(info, name) for name in names}
    said["verified"] = not is_of_file(info.template)
    said |= {"honours": sorted(info.honours), "details": sorted(info.details), "limits": LIMITS}
    said |= {"changing": None, "chosen": None, "address": "", "addresses": []}
    if switch is not None:
        said |= {"chosen": switch.chosen, "address": switch.settings.engine, "addresses": switch.addresses}
        if switch.changing:
            phase = switch.phase
            known = phase is not None and phase.name == "loading" and phase.total > 0
            percent = phase.done * 100 // phase.total if phase is not None and known else None
            said["changing"] = {"to": switch.changing, "percent": percent}
    return said
