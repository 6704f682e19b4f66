"""An engine that says what it is told, when it is told, and fails on demand. It runs no model.

It ships with the package: tests, documentation, demonstrations and load runs use the very same one. Without a
script it repeats the question, so that a face can be tried with nothing installed.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

from cierzo.engines.base import EngineInfo
from cierzo.engines.script import Reply, Script, Step, Wait, cut, read
from cierzo.engines.stops import StopFilter
from cierzo.errors import BadSetting, CierzoError, EngineDied
from cierzo.messages import Alternative, Finish, FinishReason, Phase, Prompt, Sampling, StreamEvent, Timings, Token

DEMO_DELAY = 0.02
"""Seconds between the tokens of the answer that needs no script: fifty tokens a second, as a laptop writes."""

MOST_ASKED = 1000
"""How many requests are remembered."""

SEED = 20231211
"""The seed that it reports when none was asked for. Nothing is random here."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as the engine got it."""

    prompt: Prompt
    sampling: Sampling


class Scripted:
    """Plays replies. The same requests in the same order always give the same streams.

    Args:
        replies: Each is a `Reply`, a text (cut into words), or a list of texts, events, waits and errors.
            Those without ``when`` are given in turn, the last one for ever; none at all repeats the question.
        script: Everything at once, as a file has it. Stands in for ``replies``.

    Attributes:
        asked: What it was asked, oldest first; the last `MOST_ASKED`.
        running: Streams that are open now.
        stopped: Streams that were closed before their end.
    """

    def __init__(self, *replies: Reply | str | list[Step | str], script: Script | None = None) -> None:
        made = tuple(reply if isinstance(reply, Reply) else Reply.of(reply) for reply in replies)
        self.script = script or Script(made)
        self.asked: deque[Asked] = deque(maxlen=MOST_ASKED)
        self.running = 0
        self.stopped = 0
        self._given = 0
        self._closed = False
        self._closing: set[asyncio.Event] = set()

    @classmethod
    def load(cls, where: str) -> Scripted:
        """Make one from the part of ``scripted:PATH`` after the colon; nothing after it repeats the question.

        Raises:
            BadSetting: The file cannot be read, or says something impossible; the sentence names the line.
        """
        if "\x00" in where:
            raise BadSetting("the path of the script holds a NUL character: remove it")
        return cls(script=read(Path(where).expanduser())) if where else cls()

    def describe(self) -> EngineInfo:
        """Say what it is."""
        script = self.script
        where = "in this process, by a script"
        return EngineInfo("scripted", script.model, script.context, script.template, script.slots, where=where)

    async def stream(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[StreamEvent, None]:
        """Yield what the next reply says. Honours ``max_new_tokens``, ``stop``, ``alternatives`` and ``aclose()``.

        Raises:
            CierzoError: What the script says, or `EngineDied` when the engine is closed meanwhile.
        """
        self.asked.append(Asked(prompt, sampling))
        reply = self._next(prompt)
        closing = asyncio.Event()
        if self._closed:
            closing.set()
        self._closing.add(closing)
        self.running += 1
        ended = False
        try:
            async with aclosing(_Player(reply, prompt, sampling, self.script.context, closing).events()) as events:
                async for event in events:
                    ended = ended or isinstance(event, Finish)
                    yield event
        except CierzoError:
            ended = True
            raise
        finally:
            self.running -= 1
            self.stopped += not ended
            self._closing.discard(closing)

    async def close(self) -> None:
        """End running streams with `EngineDied`. May be called twice."""
        self._closed = True
        for closing in self._closing:
            closing.set()

    def _next(self, prompt: Prompt) -> Reply:
        question = prompt.kept[-1].text if prompt.kept else prompt.text
        for reply in self.script.replies:
            if reply.when and reply.when in question:
                return reply
        plain = [reply for reply in self.script.replies if not reply.when]
        if not plain:
            return echo(question)
        self._given += 1
        return plain[min(self._given, len(plain)) - 1]


def echo(question: str) -> Reply:
    """Answer without a script: the question again, with probabilities that rise and fall and two alternatives each."""
    text = f"I am the scripted engine: I run no model and only repeat. You said: {question.strip()}"
    tokens = [
        replace(token, logprob=logprob, alternatives=_invented(token, logprob))
        for place, token in enumerate(cut(text))
        for logprob in (round(math.log(0.98 - 0.09 * (place % 10)), 4),)
    ]
    return Reply((Phase("reading", 1, 1), *tokens), delay=DEMO_DELAY)


def _invented(token: Token, logprob: float) -> tuple[Alternative, ...]:
    """Give the token itself and two others, which share what probability is left three to one."""
    left = 1 - math.exp(logprob)
    others = [(token.id + 1, token.text.swapcase(), 0.7 * left), (token.id + 2, token.text + "…", 0.2 * left)]
    entries = [Alternative(token.id, token.text, logprob)]
    entries += [Alternative(number, text, round(math.log(share), 4)) for number, text, share in others]
    return tuple(sorted(entries, key=lambda entry: -entry.logprob))


class _Player:
    """Plays one reply to one request."""

    def __init__(self, reply: Reply, prompt: Prompt, sampling: Sampling, context: int, closing: asyncio.Event) -> None:
        self.reply, self.sampling, self.closing = reply, sampling, closing
        self.prompt_tokens = len(prompt)
        self.room = max(0, min(sampling.max_new_tokens, context - self.prompt_tokens))
        self.filter = StopFilter(() if reply.disorder else sampling.stop)
        self.started = time.monotonic()
        self.first_token = 0.0
        self.said = 0
        self.over = False

    async def events(self) -> AsyncGenerator[StreamEvent, None]:
        for step in self._steps():
            if isinstance(step, Token) and self.said >= self.room and not self.reply.disorder:
                break
            await self._before(step)
            for event in self._now(step):
                yield event
            if isinstance(step, CierzoError):
                raise step.with_traceback(None)  # one instance may be raised many times
            if self.over:
                return
        for event in self._end("length" if self.said >= self.room else "eos_token"):
            yield event

    async def _before(self, step: Step) -> None:
        if isinstance(step, Wait):
            await self._pause(step.seconds)
        elif isinstance(step, Token):
            await self._pause(self.reply.delay if self.said else self.reply.first)

    def _now(self, step: Step) -> list[StreamEvent]:
        if isinstance(step, Token):
            return self._say(step)
        if isinstance(step, CierzoError):
            return [*self.filter.flush()]
        if isinstance(step, Finish) and not self.reply.disorder:
            return self._end(step.reason, step.stop)
        return [] if isinstance(step, Wait) else [step]

    def _say(self, token: Token) -> list[StreamEvent]:
        self.first_token = self.first_token or time.monotonic() - self.started
        self.said += 1
        shown = replace(token, alternatives=token.alternatives[: self.sampling.alternatives])
        out: list[StreamEvent] = [*self.filter.push(shown)]
        if self.filter.met is not None:
            self.over = True
            out.append(self._finish("stop_sequence", self.filter.met))
        return out

    def _end(self, reason: FinishReason, stop: str | None = None) -> list[StreamEvent]:
        self.over = True
        held: list[StreamEvent] = [*self.filter.flush()]
        return held if self.reply.disorder else [*held, self._finish(reason, stop)]

    def _steps(self) -> Iterator[Step]:
        yield from self.reply.steps
        again = [step for step in self.reply.steps if isinstance(step, (Token, Wait))]
        while self.reply.repeat and any(isinstance(step, Token) for step in again):
            yield from again

    async def _pause(self, seconds: float) -> None:
        """Wait, unless the engine is closed meanwhile. Gives way to other work even where there is no wait."""
        if seconds <= 0:
            await asyncio.sleep(0)
        else:
            try:
                await asyncio.wait_for(self.closing.wait(), None if math.isinf(seconds) else seconds)
            except TimeoutError:
                return
        if self.closing.is_set():
            raise EngineDied("the scripted engine was closed while it answered: start it again")

    def _finish(self, reason: FinishReason, stop: str | None = None) -> Finish:
        taken = time.monotonic() - self.started
        first = self.first_token or taken
        seed = SEED if self.sampling.seed is None else self.sampling.seed
        timings = Timings(prefill=first, first_token=first, decode=taken - first)
        return Finish(reason, self.prompt_tokens, 0, self.said, timings, seed, stop)
