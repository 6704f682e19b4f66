"""Asks llama.cpp, for a model that is not Mistral's, to run the chat template in its file and to tokenize plain texts.

Both are bounded in time and in what they may answer. What the texts are is `cierzo.engines.file_template`'s business.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from cierzo.engines.failures import CRASHES
from cierzo.engines.wire import refusal
from cierzo.errors import CierzoError, EngineDied, EngineRefused, ModelUnreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cierzo.engines.file_codec import FileCodec
    from cierzo.engines.supervisor import Running, Supervisor

WITHIN = 5.0
"""Seconds that llama.cpp may take to run a template on marks, or to tokenize a prompt."""

MOST_BYTES = 2**25
"""Most bytes of one of its answers."""

_REASON = re.compile(r"^Error: (?:Jinja Exception: )?(.+)$", re.MULTILINE)
_LOOK_EVERY, _NOTICED = 0.2, 3.0


class Scribe:
    """The process that has loaded the file, as somebody who writes.

    Args:
        codec: The vocabulary of the file.
        supervisor: Of the process.
        title: How errors call the file.
    """

    def __init__(self, codec: FileCodec, supervisor: Supervisor, title: str) -> None:
        self._codec = codec
        self._supervisor = supervisor
        self._title = title
        self._start: tuple[int, ...] | None = None
        self._broken = ""

    async def apply(self, body: dict[str, Any]) -> str:
        """Have the template write messages.

        Raises:
            EngineRefused: It refuses them, or writes too much.
            ModelError: The model cannot be loaded, or the template does not end.
            EngineDied: The process ended meanwhile.
        """
        return str((await self._ask("/apply-template", body))["prompt"])

    async def start(self) -> tuple[int, ...]:
        """Return what the tokenizer puts before every prompt. Raises as `apply`."""
        if self._start is None:
            ids = await self._tokenize("", add_special=True)
            self._start = tuple(ids[:1]) if ids[:1] == [self._codec.bos] else ()
        return self._start

    async def plain(self, texts: list[str], glued: Sequence[bool]) -> list[tuple[int, ...]]:
        """Tokenize plain texts; none of their tokens is a control token.

        ``glued`` says which stand behind tokens of the same text: SentencePiece would begin them with a space, so
        these are tokenized behind a line's end, which is taken away again. Raises as `apply`.
        """
        behind = [each and self._codec.spaced for each in glued]
        given = ["\n" + text if each else text for text, each in zip(texts, behind, strict=True)]
        line = await self._tokenize("\n") if any(behind) else []
        ids = await self._apart(given)
        plain = []
        for text, each, found in zip(texts, behind, ids, strict=True):
            if each:
                found = found[len(line) :] if found[: len(line)] == line else self._codec.letters(text)  # noqa: PLW2901
            plain.append(tuple(self._disarmed(found)))
        return plain

    async def _apart(self, texts: list[str]) -> list[list[int]]:
        """Tokenize several texts in one request, with an id between that no plain text can have."""
        fence = self._codec.reserved
        if fence is None or not texts:
            return [await self._tokenize(text) for text in texts]
        ids = await self._tokenize([each for text in texts for each in (fence, text)])
        found: list[list[int]] = []
        for number in ids:
            found.append([]) if number == fence else found[-1].append(number)
        return found

    def _disarmed(self, ids: Sequence[int]) -> list[int]:
        """Spell letter by letter what a person typed and the tokenizer takes for a control token all the same."""
        controls, disarmed = self._codec.controls, []
        for number in ids:
            typed = number in controls and number not in self._codec.unknown
            disarmed += self._codec.letters(controls[number]) if typed else [number]
        return disarmed

    async def _tokenize(self, content: str | list[int | str], *, add_special: bool = False) -> list[int]:
        body = {"content": content, "add_special": add_special, "parse_special": False}
        tokens = (await self._ask("/tokenize", body))["tokens"]
        return [int(number) for number in tokens]

    async def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask llama.cpp, and bear with it for `WITHIN` seconds."""
        if self._broken:
            raise ModelUnreadable(f"{self._broken}: choose another model")
        running = await self._loaded()
        assert running.session is not None
        try:
            async with (
                asyncio.timeout(WITHIN),
                running.session.post(running.url + path, data=orjson.dumps(body)) as got,
            ):
                content = bytearray()
                async for chunk in got.content.iter_any():
                    content += chunk
                    if len(content) > MOST_BYTES:
                        raise EngineRefused(f"the chat template in {self._title} writes too much: choose another model")
                if got.status != 200:  # noqa: PLR2004 - HTTP's own number
                    raise self._refusal(got.status, bytes(content))
                return dict(orjson.loads(content))
        except TimeoutError:
            running.hung = True
            running.kill()
            await self._until_gone(running)
            self._broken = f"the chat template in {self._title} did not end within {WITHIN:g} seconds"
        except (aiohttp.ClientError, OSError, ValueError) as broken:
            await self._until_gone(running)
            if -(running.ended or 0) not in CRASHES:
                raise EngineDied(
                    f"the engine ended while it wrote the prompt ({type(broken).__name__}): ask again, it starts anew"
                ) from None
            self._broken = f"llama.cpp crashed over the chat template in {self._title}"
        raise ModelUnreadable(f"{self._broken}: choose another model")

    async def _until_gone(self, running: Running) -> None:
        """Wait until the supervisor knows that a process has ended; it learns it a moment later than its readers."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_NOTICED):
                while self._supervisor.current is running:
                    await self._supervisor.changed(_LOOK_EVERY)

    def _refusal(self, status: int, content: bytes) -> CierzoError:
        """Say why the template did not write the messages; llama.cpp shows where, with its source, in many lines."""
        try:
            said = str(orjson.loads(content)["error"]["message"])
        except (ValueError, KeyError, TypeError):
            return refusal(status, content)
        if "bad_alloc" in said:
            return EngineRefused(f"the chat template in {self._title} takes too much memory: choose another model")
        why = _REASON.search(said)
        return (
            refusal(status, content)
            if why is None
            else EngineRefused(
                f"the chat template in {self._title} refuses the conversation ({why[1].strip()[:200]}): change it, or "
                "choose another model"
            )
        )

    async def _loaded(self) -> Running:
        """Wait for the process; it is started where it does not run."""
        failures = self._supervisor.failures
        while True:
            self._supervisor.start()
            if self._supervisor.current is not None:
                return self._supervisor.current
            if self._supervisor.error is not None and self._supervisor.failures > failures:
                raise self._supervisor.error.with_traceback(None)
            await self._supervisor.changed(_LOOK_EVERY)
