"""The ``--json`` form of everything: one object a line, described in ``docs/terminal.md``.

Fields may be added within a version; a program that reads them ignores what it does not know.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from cierzo.errors import CierzoError
from cierzo.messages import Finish, Phase, Token

if TYPE_CHECKING:
    from cierzo.engines.base import EngineInfo
    from cierzo.messages import Message, Prompt, Sampling, StreamEvent
    from cierzo.prompt import Part

VERSION = 1


class Lines:
    """Writes events to a stream, each at once.

    Args:
        out: Where to. Characters that its encoding lacks are written as JSON escapes.
    """

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.ascii = (getattr(out, "encoding", None) or "").lower().replace("-", "") != "utf8"
        self.count = 0

    def write(self, event: str, **fields: Any) -> None:
        """Write one event."""
        line = json.dumps({"v": VERSION, "event": event, **fields}, ensure_ascii=self.ascii, allow_nan=False)
        self.out.write(line + "\n")
        self.out.flush()

    def start(self, info: EngineInfo, prompt: Prompt, sampling: Sampling) -> None:
        """Write the ``start`` of an answer."""
        self.write(
            "start",
            engine=info.engine,
            model=info.model,
            template=prompt.template,
            prompt_tokens=len(prompt),
            dropped=len(prompt.dropped),
            sampling=asdict(sampling),
        )

    def stream(self, event: StreamEvent, text: str = "") -> None:
        """Write an event of a stream; ``text`` is the whole answer, for its `Finish`."""
        if isinstance(event, Token):
            self.token(event)
        elif isinstance(event, Phase):
            self.write("phase", **asdict(event))
        else:
            self.finish(event, text)

    def token(self, token: Token) -> None:
        """Write one token."""
        alternatives = [{**asdict(other), "logprob": _finite(other.logprob)} for other in token.alternatives]
        fields = {**asdict(token), "logprob": _finite(token.logprob), "alternatives": alternatives}
        self.write("token", index=self.count, **fields)
        self.count += 1

    def finish(self, finish: Finish, text: str) -> None:
        """Write the end of an answer, with the whole of it."""
        self.write("finish", text=text, **asdict(finish))

    def prompt(self, prompt: Prompt, template: str, parts: list[Part]) -> None:
        """Write a whole prompt; ``template`` is the model's, also where the prompt is raw."""
        self.write(
            "prompt",
            template=template,
            raw=prompt.template == "raw",
            count=len(prompt),
            text=prompt.text,
            ids=list(prompt.ids),
            tokens=[{"id": part.id, "text": part.text, "control": part.control} for part in parts],
            kept=[_message(message) for message in prompt.kept],
            dropped=[_message(message) for message in prompt.dropped],
        )

    def error(self, error: CierzoError) -> None:
        """Write the last event of a command that failed."""
        self.write("error", error=type(error).__name__, message=str(error), status=error.status)


@contextmanager
def reported(lines: Lines | None) -> Iterator[None]:
    """Write an error that passes by as the last event too."""
    try:
        yield
    except CierzoError as error:
        if lines:
            lines.error(error)
        raise


def _message(message: Message) -> dict[str, str]:
    return {"role": message.role, "text": message.text}


def _finite(logprob: float | None) -> float | None:
    return logprob if logprob is None or math.isfinite(logprob) else None
