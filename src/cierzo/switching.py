"""Changes the engine in use while chats go on.

The new engine has to say a word before anything is asked of it, so whatever is wrong with it is known while the old
one still answers. Only where two models of this machine do not fit into its memory side by side, the old one is closed
first, which waits until nobody uses it; if the new one then fails, the old one is opened again.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from cierzo import catalog
from cierzo.chat import Speaker
from cierzo.engines.base import orderly
from cierzo.errors import BadInput, CierzoError, Conflict, EngineDied, ModelUnreadable, NotEnoughMemory
from cierzo.holding import Use
from cierzo.machine import machine
from cierzo.messages import Finish, Message, Phase, Sampling

if TYPE_CHECKING:
    from collections.abc import Callable

    from cierzo.chat import Chat
    from cierzo.engines.base import Engine, EngineInfo
    from cierzo.settings import Settings

EMBEDDED = "llamacpp:"

_WORD = Message("user", "Hi")
_ONE = Sampling(temperature=0, max_new_tokens=1)


class Switch:
    """Changes what answers.

    Args:
        chat: What answers.
        settings: What it was opened with.
        open_engine: Makes the engine that settings name; nothing is loaded yet.
        turn_to: `cierzo.conversations.Conversations.turn_to`.

    Attributes:
        settings: What is in use.
        changing: What it is changing to, a model or an engine's address; empty where it is not.
        phase: What the new engine does before it can answer, where it says so.
    """

    def __init__(
        self,
        chat: Chat,
        settings: Settings,
        open_engine: Callable[[Settings], Engine],
        turn_to: Callable[..., Use],
    ) -> None:
        self._chat, self._opened, self._open, self._turn_to = chat, settings, open_engine, turn_to
        self.settings = settings
        self.changing = ""
        self.phase: Phase | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Engines that may be chosen from afar: the one of the start, the built-in one, those of ``engines``."""
        return tuple(dict.fromkeys((self._opened.engine, EMBEDDED, *self._opened.addresses())))

    @property
    def chosen(self) -> str | None:
        """The model in use by the name with which it was chosen; None where a server chose it itself."""
        return _content(self.settings)[1]

    def permit(self, model: str | None, engine: str | None) -> None:
        """Refuse what only whoever runs the program may choose: another file, another address.

        An address that came over the network would have this machine ask anything that it can reach.

        Raises:
            BadInput: It is not one of those that may be chosen.
        """
        if engine is not None and engine not in self.addresses:
            raise BadInput(
                "this engine may not be chosen here: name it in the setting engines, or start Cierzo with --engine"
            )
        if model is None or engine not in (None, EMBEDDED):
            return
        home = self._opened.home
        own = (path.stem for path in (home / "models").glob("*.gguf"))  # damaged ones too: what is wrong is then told
        if model not in {self._opened.model, *own, *(each.name for each in catalog.models(home))}:
            raise BadInput(
                f"there is no model {model[:100]!r} in the list: see `cierzo models list`, or start Cierzo with --model"
            )

    async def to(self, *, model: str | None = None, engine: str | None = None) -> EngineInfo:
        """Change to another model or engine, and return what answers then. Running answers finish where they are.

        Args:
            model: A model of this machine; with an ``engine`` that is a server, a model's name there.
            engine: The engine's address; left out, it is the built-in one.

        Raises:
            BadInput: Neither is given.
            Conflict: It is changing already.
            NotEnoughMemory: Two models do not fit side by side, and the one in use is writing.
            CierzoError: The new engine cannot be opened, or does not answer. The old one stays.
        """
        if model is None and engine is None:
            raise BadInput("give a model, an engine, or both")
        if self.changing:
            raise Conflict(f"Cierzo is changing to {self.changing} already: wait until that is done")
        wanted = self._wanted(model, engine)
        if _content(wanted) != _content(self.settings):
            self.changing = model or wanted.engine
            try:
                await self._change(wanted)
            finally:
                self.changing, self.phase = "", None
        return self._chat.info

    def _wanted(self, model: str | None, engine: str | None) -> Settings:
        """Return the settings of the start with another model or engine.

        A server's key goes to the server that it was given for, and a template to the model that it was given for.
        """
        address = EMBEDDED if engine is None else engine
        update: dict[str, Any] = {"engine": address}
        elsewhere = address != self._opened.engine
        if model is not None:
            update["model"] = model
        if elsewhere:
            update |= {"engine_key": SecretStr("")}
        if elsewhere or model not in (None, self._opened.model):
            update |= {"template": ""}
        wanted = self._opened.model_copy(update=update)
        if elsewhere and model is None and address != EMBEDDED:
            wanted.model_fields_set.discard("model")  # it is the name of a model elsewhere: this server says its own
        return wanted

    async def _change(self, wanted: Settings) -> None:
        beside = await asyncio.to_thread(self._fits_beside, wanted)
        engine = await asyncio.to_thread(self._open, wanted)
        if beside:
            try:
                await self._try(Speaker(Use(engine)))
                self._turn_to(engine)
            except BaseException:
                await engine.close()
                raise
        elif count := self._chat.held:
            raise NotEnoughMemory(
                f"{wanted.model} does not fit into memory beside the model in use, and {count} "
                f"{'answers are' if count > 1 else 'answer is'} under way: wait for the end, then choose again"
            )
        else:
            await self._replace(engine, wanted)
        self.settings = wanted

    async def _replace(self, engine: Engine, wanted: Settings) -> None:
        """Close the old engine, then try the new one; questions that come meanwhile wait for it."""
        self._turn_to(engine, after=True)
        with self._chat.hold() as held:
            try:
                await self._try(held)
            except BaseException:
                try:
                    self._turn_to(self._open(self.settings), after=True)
                except CierzoError:  # its file is gone as well: what is wrong is told at every question
                    self.settings = wanted
                raise

    def _fits_beside(self, wanted: Settings) -> bool:
        """Whether both engines have room; only models of this machine take much.

        Raises:
            ModelUnreadable: The model is not on this machine.
            CierzoError: What `cierzo.catalog.find` raises.
        """
        if wanted.engine != EMBEDDED:
            return True
        model = catalog.find(wanted.model, wanted.home)
        if model.path is None:
            raise ModelUnreadable(f"{model.name} is not on this machine: get it with `cierzo models pull {model.name}`")
        if self.settings.engine != EMBEDDED:
            return True
        return catalog.memory_needed(model, wanted.context or model.context) <= machine().free_memory

    async def _try(self, speaker: Speaker) -> None:
        """Have it say a word, or raise what keeps it from that."""
        prompt = await speaker.prompt([_WORD], _ONE)
        async with aclosing(orderly(speaker.stream_prompt(prompt, _ONE))) as events:
            async for event in events:
                if not isinstance(event, Phase):
                    if isinstance(event, Finish) and event.reason == "failed":
                        raise EngineDied("the engine failed at its first word: look into its own log")
                    return
                self.phase = event


def _content(settings: Settings) -> tuple[str, str | None]:
    named = settings.engine == EMBEDDED or "model" in settings.model_fields_set
    return settings.engine, settings.model if named else None
