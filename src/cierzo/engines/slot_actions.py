"""What llama.cpp is asked of its slots: to save, restore or erase one, and whether one is at work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

if TYPE_CHECKING:
    from cierzo.engines.slots import Step
    from cierzo.engines.supervisor import Running


async def slot_action(running: Running, step: Step) -> dict[str, Any] | None:
    """Ask llama.cpp to do one step; None if it did not."""
    assert running.session is not None
    url = f"{running.url}/slots/{step.slot}?action={step.action}"
    async with running.session.post(url, data=orjson.dumps({"filename": step.file})) as response:
        return dict(orjson.loads(await response.read())) if response.status == 200 else None  # noqa: PLR2004


async def is_processing(running: Running, number: int) -> bool:
    """Ask llama.cpp whether a slot is at work; a process that does not answer is at work on nothing."""
    assert running.session is not None
    try:
        async with running.session.get(f"{running.url}/slots") as response:
            slots = orjson.loads(await response.read())
            return any(slot["id"] == number and slot["is_processing"] for slot in slots)
    except (aiohttp.ClientError, OSError, RuntimeError, ValueError, TypeError, KeyError):
        return False
