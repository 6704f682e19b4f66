"""A llama-server that runs elsewhere, by its own language: token ids in, token ids and probabilities out.

It is spoken to as the embedded llama.cpp is (`cierzo.engines.wire`); but its slots, its cache and its process are its
own affair, and it may be loading its model when it is first asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from cierzo.engines.account import Account, Asking, Hearing, Told
from cierzo.engines.base import EngineInfo
from cierzo.engines.probing import spells_alike
from cierzo.engines.refusals import refused
from cierzo.engines.remote import PATIENCE, Address, Patience
from cierzo.engines.served import UNMET_CONTEXT, Served, known_template, window_of
from cierzo.engines.vocabulary import spelling
from cierzo.engines.wire import End, Reader, Reading, request
from cierzo.errors import BadSetting, EngineRefused, Overloaded
from cierzo.messages import Phase
from cierzo.model_names import template_of
from cierzo.templates import TEMPLATES, codec, template

NAMES = {"max_new_tokens": "n_predict", "repetition_penalty": "repeat_penalty", "alternatives": "n_probs"}
LOADS_WITHIN = 60.0
"""Seconds for which a prompt waits for a server that loads its model; then it is said that it does."""

ARRIVES_WITHIN = 600.0
"""The same for an answer, whose face is told meanwhile."""

LOOK_EVERY = 0.25
ANY_SLOT = -1
_OK, _NOT_FOUND, _LOADING = 200, 404, 503


class LlamaServer(Served):
    """A server behind ``llamacpp+http(s)://HOST[:PORT][/PATH]``.

    Args:
        address: As above.
        key: For it, or empty.
        template: The model's; empty finds it out by its name.
        context: Tokens of the window to use at most; 0 takes what the server says.
        slots: Answers to ask for at the same time; 0 takes as many as it has slots.
        patience: How long it may take.
    """

    def __init__(
        self,
        address: str,
        key: str = "",
        *,
        template: str = "",
        context: int = 0,
        slots: int = 0,
        patience: Patience = PATIENCE,
    ) -> None:
        place = Address.of(address)
        self._template, self._context, self._slots = known_template(template), context, slots
        where = f"at {place.host}"
        window = context or UNMET_CONTEXT
        unmet = EngineInfo("llamacpp", "", window, template or "v3", slots or 1, where=where, names=NAMES)
        super().__init__(place.url, key, unmet, patience)

    async def _arriving(self, began: float) -> AsyncGenerator[Phase, None]:
        while not self._met and time.monotonic() < began + ARRIVES_WITHIN and await self._loading():
            yield Phase("loading", seconds=time.monotonic() - began)
            await asyncio.sleep(LOOK_EVERY)
        await self.meet()

    async def _loading(self) -> bool:
        return (await self._remote.ask("/health", tries=1)).status == _LOADING

    async def _find_out(self) -> EngineInfo:
        until = time.monotonic() + LOADS_WITHIN
        while await self._loading():
            if time.monotonic() > until:
                raise Overloaded(
                    f"the server at {self._remote.host} is loading its model: ask again in a moment", retry_after=5
                )
            await asyncio.sleep(LOOK_EVERY)
        answer = await self._remote.ask("/props")
        said = answer.value
        if answer.status not in (_OK, _NOT_FOUND):
            raise refused(self._remote.host, answer.status, answer.raw, self._remote.clean)
        settings = said.get("default_generation_settings") if isinstance(said, dict) else None
        window = window_of(settings.get("n_ctx")) if isinstance(settings, dict) else 0
        if not window:
            raise EngineRefused(
                f"the server at {self._remote.host} is no llama-server: check the address, or try openai+…"
            )
        name = str(said.get("model_alias") or said.get("model_path") or "")
        known = self._template or template_of(name) or template_of(str(said.get("model_path") or ""))
        if not known:
            raise BadSetting(
                f"nobody knows the prompt template of {name or 'its model'}: set CIERZO_TEMPLATE to one of "
                f"{', '.join(TEMPLATES)}, or use openai+… as the engine's address"
            )
        if await spells_alike(self._remote, name, known) is False:
            raise BadSetting(
                f"{name} has other tokens than the template {known}: set CIERZO_TEMPLATE to its own, or use openai+… "
                "as the engine's address"
            )
        return replace(
            self._info,
            model=name,
            context=min(window, self._context or window),
            template=known,
            slots=self._slots or window_of(said.get("total_slots")) or 1,
            where=f"at {self._remote.host}, by llama-server",
            version=str(said.get("build_info") or "")[:60],
        )

    def _asking(self, account: Account) -> Asking:
        body = request(account.prompt, account.sampling, seed=account.seed or 0, slot=ANY_SLOT, room=account.room)
        return Asking("/completion", body, _Heard(account), account.sampling.alternatives)

    def _kind_of_server(self) -> str:
        return "llama-server"


class _Heard(Hearing):
    """Reads the events of one answer; stop texts are looked for elsewhere."""

    def __init__(self, account: Account) -> None:
        known = spelling(codec(template(account.info.template)))
        self._reader = Reader(replace(account.sampling, stop=()), known, account.prompt.leading_space)

    def read(self, value: Any) -> list[Told]:
        found: list[Told] = []
        for said in self._reader.read(value):
            if isinstance(said, Reading):
                self.cached = said.cached
                found.append(Phase("reading", said.done, said.total))
            elif isinstance(said, End):
                self.reason, self.rate = said.reason, said.rate
            else:
                found.append(said)
        return found
