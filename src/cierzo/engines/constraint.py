"""Whether llama.cpp really keeps an answer to its JSON schema, which it does not say in the answer itself.

Where it cannot, it says so on standard error and writes on as if no schema had been asked for. And a schema can keep
it busy for longer than anybody waits. Both end the answer with an error here.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

from cierzo.errors import BadSampling, EngineError, EngineRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from cierzo.engines.supervisor import Running
    from cierzo.messages import FinishReason

STUCK_AFTER = 30.0
"""Seconds without a sign of any answer after which a schema is held to have stuck the engine: it is ended."""

LOOK_EVERY = 0.25
_HEARD_WITHIN = 0.05


class Constraint:
    """Watches over one answer that is kept to a schema.

    Args:
        running: The engine's process.
        alone: Whether no other answer is kept to a schema now; then what llama.cpp complains of is this one.
        silence: Seconds since anything was heard of any answer.
    """

    def __init__(self, running: Running, alone: Callable[[], bool], silence: Callable[[], float]) -> None:
        self.stuck = False
        self._running, self._alone, self._silence = running, alone, silence
        self._complaints = running.complaints
        self._sole = True
        self._text: list[str] = []
        self._watch = asyncio.create_task(self._until_stuck())

    def heard(self, text: str) -> None:
        """Take a token's text.

        Raises:
            BadSampling: llama.cpp has given the schema up.
        """
        self._text.append(text)
        self._sole = self._sole and self._alone()
        if self._sole:
            self._check()

    async def ended(self, reason: FinishReason) -> None:
        """See that what was written is JSON, and all of it where the model says so.

        Raises:
            BadSampling: llama.cpp has given the schema up meanwhile.
        """
        await asyncio.sleep(_HEARD_WITHIN)  # standard error is another pipe than the answer's
        if reason == "eos_token":
            try:
                json.loads("".join(self._text))
            except (ValueError, RecursionError):
                self._give_up("it wrote something else")
        if self._sole or reason == "length":
            self._check()

    def close(self) -> None:
        """Watch no longer."""
        self._watch.cancel()

    def blame(self, fate: EngineError) -> EngineError:
        """Return the error for an engine that has ended: another than its ``fate`` where this schema has stuck it."""
        if not self.stuck:
            return fate
        return EngineRefused(
            f"the engine was busy with the JSON schema for {STUCK_AFTER:.0f} seconds and was ended: use a simpler one "
            "(fewer patterns and repetitions); the engine starts anew"
        )

    def _check(self) -> None:
        if self._running.complaints > self._complaints:
            self._give_up(self._running.complaint)

    def _give_up(self, why: str) -> None:
        raise BadSampling(f"json_schema cannot be kept to by llama.cpp ({why[:200]}): use a simpler schema")

    async def _until_stuck(self) -> None:
        began = time.monotonic()
        while min(self._silence(), time.monotonic() - began) < STUCK_AFTER:  # noqa: ASYNC110 - silence tells nobody
            await asyncio.sleep(LOOK_EVERY)
        self.stuck = self._running.hung = True
        self._running.kill()


def complaint_of(line: bytes) -> str:
    """Return the reason in a line of llama.cpp that says that a schema is given up; empty for any other line."""
    _, found, reason = line.decode(errors="replace").partition("llg error: ")
    return reason.rpartition("JSON schema: ")[2].strip() or "it said no reason" if found else ""
