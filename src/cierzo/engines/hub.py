"""Hugging Face Inference Providers: a model of the hub, run by a company, reached through Hugging Face's router.

A model is chatted with only through a provider that has it for conversation, so the hub is asked for those first, and
what it says is shown. The token goes to Hugging Face alone: `cierzo.engines.providers` sees to it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cierzo.engines.account import Account, Asking
from cierzo.engines.base import EngineInfo
from cierzo.engines.openai import ESTIMATED
from cierzo.engines.openai_chunks import Chunks
from cierzo.engines.openai_kinds import Kind, asked_of
from cierzo.engines.remote import PATIENCE, Patience
from cierzo.engines.served import UNMET_CONTEXT, Served, known_template
from cierzo.errors import BadSetting, EngineDied, EngineRefused, UnknownModel
from cierzo.model_names import template_of
from cierzo.settings import LOOPBACK

if TYPE_CHECKING:
    from cierzo.engines.providers import Offer, Session

POLICIES = ("auto", "fastest", "cheapest", "preferred")
"""What may stand in place of a provider: how the router chooses one."""

_ADDRESS = re.compile(r"hf://(?P<model>[\w.-]+/[\w.-]+)(?:\?provider=(?P<provider>[a-z0-9-]+))?", re.ASCII)
_SHOWN = 8

PROVIDERS = Kind(
    "Hugging Face",
    names={
        "messages": {
            "temperature": "temperature",
            "top_p": "top_p",
            "max_new_tokens": "max_tokens",
            "seed": "seed",
            "stop": "stop",
            "alternatives": "top_logprobs",
        }
    },
    details={"messages": frozenset({"logprobs", "alternatives"})},
    extra_chat={"stream_options": {"include_usage": True}},
)
"""What every provider takes. Some take ``top_k`` too, or a penalty, and others refuse a request that has one."""


class Hub(Served):
    """A model behind ``hf://OWNER/MODEL[?provider=NAME]``.

    Args:
        address: As above. Without a provider, or with one of `POLICIES`, the router chooses.
        token: Hugging Face's; empty takes the one with which this person is logged in.
        template: The model's, for measuring; empty finds it out by its name.
        context: Tokens of the window to use at most; 0 takes what the router says.
        slots: Answers to ask for at the same time; 0 for as many as are usual.
        hub: Address of the hub; empty takes ``HF_ENDPOINT`` or Hugging Face's own.
        router: Address of the router; empty takes ``HF_INFERENCE_ENDPOINT`` or Hugging Face's own.
        patience: How long they may take.

    Raises:
        BadSetting: The address is none.
    """

    def __init__(
        self,
        address: str,
        token: str = "",
        *,
        template: str = "",
        context: int = 0,
        slots: int = 0,
        hub: str = "",
        router: str = "",
        patience: Patience = PATIENCE,
    ) -> None:
        found = _ADDRESS.fullmatch(address)
        if found is None:
            raise BadSetting(
                f"the engine {address!r:.200} is no model of the hub: write hf://OWNER/MODEL or hf://OWNER/MODEL?provider=NAME"
            )
        self._model = found["model"]
        self._provider = found["provider"] or "auto"
        self._token, self._addresses = token, (hub, router)
        self._window, self._patience = context, patience
        self._session: Session | None = None
        unmet = EngineInfo(
            "hf",
            self._model,
            context or UNMET_CONTEXT,
            known_template(template) or template_of(self._model) or ESTIMATED,
            slots or PROVIDERS.slots,
            frozenset(PROVIDERS.names["messages"]),
            PROVIDERS.details["messages"],
            "at a provider of Hugging Face",
            "messages",
            {name: theirs for name, theirs in PROVIDERS.names["messages"].items() if name != theirs},
        )
        super().__init__(router, "", unmet, patience)

    def describe(self) -> EngineInfo:
        """Say what it is, as far as it is known; a provider that has refused to tell probabilities tells none."""
        if self._session is None or self._session.logprobs:
            return self._info
        return replace(self._info, details=frozenset(), honours=self._info.honours - {"alternatives"})

    async def _find_out(self) -> EngineInfo:
        session = await self._ready()
        offers = await session.offers()
        serving = _serving(self._model, self._provider, offers)
        windows = await session.windows()
        told = [windows[name] for name in serving if name in windows]
        context = min(told, default=self._window or UNMET_CONTEXT)  # the router may choose the one with the smallest
        if self._provider in POLICIES:
            best = "" if self._provider == "auto" else f"the {self._provider} of "
            where = f"at {best}{_list(serving)}, through {session.host}"
        else:
            others = [offer.provider for offer in offers if offer.chats and offer.provider != self._provider]
            also = f"; also at {_list(others)}" if others else ""
            where = f"at {self._provider}, through {session.host}{also}"
        return replace(
            self._info,
            context=min(context, self._window or context),
            where=where,
        )

    def _asking(self, account: Account) -> Asking:
        asked = account.sampling.alternatives
        self._check_alternatives(asked, PROVIDERS.alternatives)
        body = asked_of(PROVIDERS, account.info, account.prompt, account.sampling, seed=account.seed, room=account.room)
        if self._provider != "auto":
            body["model"] = f"{self._model}:{self._provider}"  # the router's way to say whose it shall be
        return Asking("/v1/chat/completions", body, Chunks(account.prompt, account.sampling, account.info), asked)

    def _kind_of_server(self) -> str:
        return "provider of Hugging Face"

    async def _ready(self) -> Session:
        """Return the session, made when it is first needed, with the token that is this person's now.

        Raises:
            BadSetting: There is no token.
            EngineRefused: Hugging Face may not be asked.
        """
        before = self._remote
        session = await asyncio.to_thread(self._made)  # the import takes a while
        if before.closed:  # before this was asked, or meanwhile
            await session.close()
            raise EngineDied("the engine of Hugging Face was closed: start it again")
        self._remote = self._session = session
        return session

    def _made(self) -> Session:
        from cierzo.engines.providers import Session, addresses, is_offline, stored_token  # noqa: PLC0415

        if is_offline():
            raise EngineRefused("HF_HUB_OFFLINE forbids to ask Hugging Face: unset it, or use another engine")
        session = self._session
        if session is None:
            hub, router = (_guarded(said or usual) for said, usual in zip(self._addresses, addresses(), strict=True))
            session = Session(hub, router, self._model, self._patience)
        token = self._token or stored_token()
        if not token:
            raise BadSetting(
                "Inference Providers need a token of Hugging Face: make one at https://huggingface.co/settings/tokens, "
                "and say it with CIERZO_ENGINE_KEY or `hf auth login`"
            )
        session.log_in(token)
        return session


def _serving(model: str, provider: str, offers: Sequence[Offer]) -> list[str]:
    """Return the providers that answer messages for this model, of which ``provider`` is one if it names one.

    Raises:
        UnknownModel: There is none.
        BadSetting: The one that was named is none of them.
    """
    serving = [offer.provider for offer in offers if offer.chats]
    if not serving:
        has = f"; {_list([f'{one.provider} has it for {one.task}' for one in offers])}" if offers else ""
        raise UnknownModel(
            f"no provider of Hugging Face chats with {model}{has}: look for another at "
            "https://huggingface.co/models?inference_provider=all&pipeline_tag=text-generation, or run it yourself"
        )
    if provider in POLICIES or provider in serving:
        return serving if provider in POLICIES else [provider]
    raise BadSetting(f"{provider} does not chat with {model}: leave out ?provider=, or name one of {_list(serving)}")


def _guarded(address: str) -> str:
    """Return an address to which a token may be sent.

    Raises:
        BadSetting: Everybody on the way could read it.
    """
    parts = urlsplit(address)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK):
        return address.rstrip("/")
    raise BadSetting(
        f"the token of Hugging Face is not sent to {address:.200}, where others can read it: give HF_ENDPOINT and "
        "HF_INFERENCE_ENDPOINT an https address"
    )


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
