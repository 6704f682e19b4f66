"""The embedded engine: llama.cpp in a supervised process of its own, fed with token ids.

One `LlamaCpp` holds one model. `cierzo.engines.supervisor` keeps its process up, `cierzo.engines.slots` says who
runs when and where, `cierzo.engines.wire` speaks llama.cpp's language; this file puts them together. Nothing here
imports llama.cpp: it is loaded in the other process only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import psutil

from cierzo.engines.base import SAMPLING_FIELDS, EngineInfo
from cierzo.engines.constraint import Constraint
from cierzo.engines.file_template import BEYOND, FileTemplate
from cierzo.engines.fitting import fit
from cierzo.engines.options import DEFAULTS, Options, check_adapter
from cierzo.engines.slot_actions import is_processing, slot_action
from cierzo.engines.slots import Line, Plan, Slot, Slots
from cierzo.engines.supervisor import Launch, Running, Supervisor
from cierzo.engines.vocabulary import Vocabulary
from cierzo.engines.wire import End, Reader, Reading, refusal, request
from cierzo.errors import BadText, EngineDied, ModelUnreadable, Overloaded, PromptTooLong
from cierzo.machine import machine
from cierzo.messages import Finish, Phase, PhaseName, Prompt, Sampling, StreamEvent, Timings, Token
from cierzo.templates import FILE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from cierzo.catalog import Model

TELL_EVERY = 0.2
SILENT_AFTER = 1.0


@dataclass(slots=True, eq=False)
class _Answer:
    """One request on its way: what it asked, when what happened, what has come."""

    prompt: Prompt
    sampling: Sampling
    began: float = field(default_factory=time.monotonic)
    loaded: float = 0.0
    started: float = 0.0
    first: float = 0.0
    last: float = 0.0
    cached: int = 0
    read: int = 0
    ids: list[int] = field(default_factory=list)
    seed: int = 0
    heard: float = 0.0
    running: Running | None = None
    plan: Plan | None = None
    slots: Slots = field(default_factory=lambda: Slots(0, 0, 0))
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        asked = self.sampling.seed
        self.seed = secrets.randbelow(2**32 - 1) if asked is None else asked

    def phase(self, name: PhaseName, done: int = 0, total: int = 0) -> Phase:
        return Phase(name, done, total, time.monotonic() - self.began)

    def take(self, running: Running, slots: Slots, need: int) -> None:
        self.running, self.slots = running, slots
        self.plan = slots.take(self.prompt.ids, need)

    def took(self, token: Token) -> Token:
        self.last = time.monotonic()
        self.first = self.first or self.last
        self.ids.append(token.id)
        return token

    def finish(self, end: End) -> Finish:
        first = self.first or time.monotonic()
        timings = Timings(
            queue=self.started - self.loaded,
            load=self.loaded - self.began,
            prefill=first - self.started,
            first_token=first - self.began,
            decode=self.last - self.first,
            engine_rate=end.rate,
        )
        return Finish(end.reason, len(self.prompt), self.cached, len(self.ids), timings, self.seed, end.stop)


class LlamaCpp:
    """A GGUF model on this machine. Its process starts with `start` or with the first answer.

    Args:
        model: The model; its file must be on this machine.
        slots: Answers that are written at the same time; more wait. With ``options.speculation`` it is always one.
        context: Tokens of the window to use; 0 takes the model's own, or as much of it as fits into memory.
        threads: Processor threads; 0 leaves one core to everyone else.
        places: Answers that may wait.
        options: Type of the KV cache, graphics card, guessing, adapters.

    Raises:
        ModelUnreadable: Nothing is known of the model before its file is here; or the vocabulary of a file with a
            template of its own is damaged.

    Attributes:
        own_template: Writes the prompts of a model that is not Mistral's, with the template in its file; else None.
    """

    def __init__(
        self,
        model: Model,
        *,
        slots: int = 4,
        context: int = 0,
        threads: int = 0,
        places: int = 64,
        options: Options = DEFAULTS,
    ) -> None:
        if not model.template:
            raise _not_here(model.name)
        self._model = model
        self._options = options
        self._count = slots = 1 if options.speculation else slots  # alone: see docs/performance.md
        self._context = min(context, model.context) if model.context else context
        self._threads = threads or max(1, _cores() - 1)
        self._window = self._context or model.context
        self._line = Line(places)
        self._slots = Slots(slots, self._window, 0)
        self._answers: set[_Answer] = set()
        self._freeing: set[asyncio.Task[None]] = set()
        self._supervisor = Supervisor(self._launch, self._silent)
        self.own_template = FileTemplate(model, self._supervisor) if model.template == FILE else None

    def describe(self) -> EngineInfo:
        """Say what it is; the window may shrink when the model is loaded and memory is short."""
        model = self._model
        template = self.own_template.name if self.own_template else model.template
        guesses = self._options.speculation
        return EngineInfo(
            "llamacpp",
            model.name,
            self._window,
            template,
            self._count,
            honours=SAMPLING_FIELDS | {"json_schema"},
            details=frozenset({"ids"}) if guesses else frozenset({"ids", "logprobs", "alternatives"}),
            where="on this machine",
        )

    def start(self) -> None:
        """Begin to load the model, and return at once. What goes wrong is raised by `stream`."""
        self._supervisor.start()

    @property
    def file(self) -> Path | None:
        """The model's file."""
        return self._model.path

    @property
    def restarts(self) -> int:
        """How many times the process was loaded again."""
        return max(0, self._supervisor.starts - 1)

    async def close(self) -> None:
        """End the process. Running answers end with `EngineDied`. May be called twice."""
        await self._supervisor.close()
        self._line.wake()
        for task in self._freeing:
            task.cancel()
        if self._freeing:
            await asyncio.wait(self._freeing)

    async def stream(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[StreamEvent, None]:
        """Yield phases, tokens and one `Finish`; see `cierzo.engines.base.Engine.stream`.

        Raises:
            Overloaded: All waiting places are taken.
            ModelError: The model cannot be loaded.
            PromptTooLong: The prompt leaves no room in the window for an answer.
            EngineDied: The process ended or hung meanwhile; it is started again by itself.
            EngineRefused: llama.cpp refused the request.
        """
        if not len(prompt):
            raise BadText("the prompt is empty: write something first")
        answer = _Answer(prompt, sampling)
        async for phase in self._until_its_turn(answer):
            yield phase
        async with contextlib.aclosing(self._write(answer)) as events:
            async for event in events:
                yield event

    async def _until_its_turn(self, answer: _Answer) -> AsyncGenerator[Phase, None]:
        """Wait for the model and for a slot, first come, first served."""
        if self._line.full():
            places = self._line.places
            raise Overloaded(
                f"{places} answers are waiting already: ask again in a moment", retry_after=1 + places / self._count
            )
        mine, failures = self._line.join(), self._supervisor.failures
        try:
            while True:
                mine.clear()
                self._supervisor.start()
                running = self._supervisor.current
                if running is None:
                    if self._supervisor.error is not None and self._supervisor.failures > failures:
                        raise self._supervisor.error.with_traceback(None)
                    loading = self._supervisor.loading
                    percent = loading.percent() if loading else 0
                    yield answer.phase("loading", percent, 100 if percent else 0)
                    await self._supervisor.changed(TELL_EVERY)
                    continue
                answer.loaded = answer.loaded or time.monotonic()
                need = len(answer.prompt) + self._room(answer)
                if self._line.place(mine) == 0 and self._slots.fits(need):
                    answer.take(running, self._slots, need)
                    return
                yield answer.phase("queued", self._line.place(mine) + 1, len(self._line))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TELL_EVERY):
                        await mine.wait()
        finally:
            self._line.leave(mine)

    def _room(self, answer: _Answer) -> int:
        """Return how many tokens the answer may have."""
        room = self._window - len(answer.prompt) - 1  # llama.cpp stops one cell before the end
        if room < 1:
            raise PromptTooLong(len(answer.prompt), self._window - 2)
        return min(room, answer.sampling.max_new_tokens)

    async def _write(self, answer: _Answer) -> AsyncGenerator[StreamEvent, None]:
        """Have the answer written in the slot that was taken for it."""
        assert answer.running is not None
        assert answer.plan is not None
        running, complete = answer.running, False
        self._answers.add(answer)
        try:
            await self._make_ready(running, answer)
            answer.started = answer.heard = time.monotonic()
            body = request(
                answer.prompt,
                answer.sampling,
                seed=answer.seed,
                slot=answer.plan.slot.number,
                room=self._room(answer),
            )
            answer.constraint = self._constrained(answer, running)
            async with contextlib.aclosing(self._events(running, answer, body)) as events:
                async for event in events:
                    if answer.constraint and isinstance(event, Token):
                        answer.constraint.heard(event.text)
                    if isinstance(event, Finish):
                        if answer.constraint:
                            await answer.constraint.ended(event.reason)
                        complete = event.stop is None
                        self._give_back(answer, complete=complete)
                    yield event
        except (aiohttp.ClientError, OSError) as broken:
            fate = await self._fate(running, broken)
            raise (answer.constraint.blame(fate) if answer.constraint else fate) from None
        finally:
            if answer.constraint:
                answer.constraint.close()
            self._answers.discard(answer)
            self._give_back(answer, complete=complete)

    def _constrained(self, answer: _Answer, running: Running) -> Constraint | None:
        """Watch over an answer that is kept to a schema."""
        if answer.sampling.json_schema is None:
            return None
        return Constraint(
            running,
            lambda: all(one is answer or one.constraint is None for one in self._answers),
            lambda: time.monotonic() - max((one.heard for one in self._answers), default=0.0),
        )

    async def _events(self, running: Running, answer: _Answer, body: bytes) -> AsyncGenerator[StreamEvent, None]:
        """Send the request and translate what comes."""
        assert running.session is not None
        reader = Reader(answer.sampling, self._vocabulary, answer.prompt.leading_space)
        async with running.session.post(f"{running.url}/completion", data=body) as response:
            try:
                if response.status != 200:  # noqa: PLR2004 - HTTP's own number
                    raise refusal(response.status, await response.read())
                async for chunk in response.content.iter_any():
                    answer.heard = time.monotonic()
                    running.useful = True
                    for event in reader.feed(chunk):
                        if isinstance(event, Reading):
                            answer.cached = event.cached
                            yield answer.phase("reading", event.done, event.total)
                        elif isinstance(event, Token):
                            yield answer.took(event)
                        else:
                            yield answer.finish(event)
                            return
            finally:
                response.close()  # an answer that is not read to its end is cancelled by this and nothing else
        raise aiohttp.ClientPayloadError("the answer ended without its end")

    async def _make_ready(self, running: Running, answer: _Answer) -> None:
        """Save, restore and erase slots as planned. A step that fails costs time later and nothing else."""
        assert answer.plan is not None
        for step in answer.plan.steps:
            done = await slot_action(running, step)
            if step.action == "save" and done is not None:
                for gone in answer.slots.saved(step.file, step.held, int(done.get("n_written", 0))):
                    (running.folder / gone).unlink(missing_ok=True)
            elif step.action == "restore" and done is None:
                answer.slots.forget(step.file)

    def _give_back(self, answer: _Answer, *, complete: bool) -> None:
        """Free the slot: at once after a whole answer, otherwise when llama.cpp has noticed that nobody listens."""
        plan, answer.plan = answer.plan, None
        if plan is None or answer.running is None:
            return
        held = answer.prompt.ids + tuple(answer.ids)
        if complete:
            answer.slots.release(plan.slot, held[:-1])  # the last token is never read back
            self._line.wake()
            return
        task = asyncio.ensure_future(self._until_free(answer.running, answer.slots, plan.slot, held[:-1]))
        self._freeing.add(task)
        task.add_done_callback(self._freeing.discard)

    async def _until_free(self, running: Running, slots: Slots, slot: Slot, held: tuple[int, ...]) -> None:
        while self._supervisor.current is running and await is_processing(running, slot.number):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        slots.release(slot, held)
        self._line.wake()

    async def _fate(self, running: Running, broken: Exception) -> EngineDied:
        """Say why the connection broke; the supervisor learns it a moment later than the reader does."""
        until = time.monotonic() + 2
        while self._supervisor.current is running and running.ended is None and time.monotonic() < until:
            await self._supervisor.changed(0.1)
        if self._supervisor.closed:
            return EngineDied("the engine was closed while it answered: start it again")
        if running.ended is None:
            return EngineDied(f"the connection to the engine broke ({type(broken).__name__}): ask again")
        return EngineDied(f"the engine's process {running.how_it_ended()} while it answered: ask again, it starts anew")

    def _silent(self) -> bool:
        now = time.monotonic()
        return any(answer.started and now - answer.heard > SILENT_AFTER for answer in self._answers)

    def _launch(self) -> Launch:
        """Fit the window and the pool into the memory that is free now."""
        path, name = self._model.path, self._model.name
        if path is None:
            raise _not_here(name)
        try:
            size = path.stat().st_size
        except OSError as denied:
            raise ModelUnreadable(f"{path} cannot be read ({denied.strerror}): check the path") from None
        for adapter in self._options.adapters:
            check_adapter(adapter, path)
            size += adapter.path.stat().st_size
        fitted = fit(
            self._model,
            size,
            context=self._context,
            slots=self._count,
            threads=self._threads,
            free=machine().free_memory,
            options=self._options,
        )
        self._window = fitted.window
        self._slots = Slots(self._count, fitted.pool, fitted.shelf)
        self._vocabulary = Vocabulary(path)
        memory = 2 * size + fitted.cache + BEYOND if self.own_template else 0
        return Launch(path, self._count, fitted.pool, self._threads, fitted.batch, memory, self._options)


def _cores() -> int:
    """Count the physical cores that this process may use."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(mine, psutil.cpu_count(logical=False) or mine)


def _not_here(name: str) -> ModelUnreadable:
    return ModelUnreadable(f"{name} is not on this machine: get it with `cierzo models pull {name}`")
