"""Servers that speak OpenAI's language: vLLM, llama-server, Ollama, SGLang, Mistral's own API, another Cierzo.

Where the server takes token ids, they go through ``/v1/completions`` and the prompt is exactly the one that Cierzo
made. Otherwise the messages go through ``/v1/chat/completions`` and the server makes the prompt: then the window is
fitted by an estimate. `cierzo.engines.openai_kinds` knows the servers, `cierzo.engines.openai_chunks` what they say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cierzo.engines.account import Account, Asking
from cierzo.engines.base import EngineInfo
from cierzo.engines.openai_chunks import Chunks
from cierzo.engines.openai_kinds import UNKNOWN, Kind, asked_of, facts_of, names_of
from cierzo.engines.probing import probed, spells_alike
from cierzo.engines.remote import PATIENCE, Address, Patience
from cierzo.engines.served import UNMET_CONTEXT, Served, known_template
from cierzo.errors import BadSetting
from cierzo.model_names import template_of
from cierzo.templates import TEMPLATES

if TYPE_CHECKING:
    from cierzo.messages import Takes

ESTIMATED = "v3"
"""The template by whose tokens a conversation is measured where the model's own is not known."""


class OpenAI(Served):
    """A server behind ``openai+http(s)://HOST[:PORT][/PATH][/v1][?takes=ids|text|messages]``.

    Args:
        address: As above.
        key: For it, or empty.
        model: Which of its models; empty takes the first.
        template: The model's; empty finds it out by its name.
        context: Tokens of the window to use at most; 0 takes what the server says.
        slots: Answers to ask for at the same time; 0 takes what the server says, or what its kind is known for.
        patience: How long it may take.
    """

    sign_of_life = "/v1/models"

    def __init__(
        self,
        address: str,
        key: str = "",
        *,
        model: str = "",
        template: str = "",
        context: int = 0,
        slots: int = 0,
        patience: Patience = PATIENCE,
    ) -> None:
        place = Address.of(address, options=("takes",))
        self._takes = _takes(place.options.get("takes", ""))
        self._model, self._template, self._context, self._slots = model, known_template(template), context, slots
        self._kind: Kind = UNKNOWN
        self._known = ""
        root = place.url.removesuffix("/v1")
        unmet = EngineInfo(
            "openai",
            model,
            context or UNMET_CONTEXT,
            template or ESTIMATED,
            slots or UNKNOWN.slots,
            where=f"at {place.host}",
            takes="messages",
        )
        super().__init__(root, key, unmet, patience)

    async def _find_out(self) -> EngineInfo:
        facts = await facts_of(self._remote, self._model)
        template = self._template or facts.template or template_of(facts.model) or ""
        kind = facts.kind
        if kind is UNKNOWN:
            kind = await probed(self._remote, kind, facts.model, template)
        elif template and kind.tokenizes and await spells_alike(self._remote, facts.model, template) is False:
            self._check_template(facts.model, template)
            template = ""
        takes = self._takes or (kind.takes if template else "messages")
        if takes != "messages" and not template:
            raise BadSetting(
                f"nobody knows the prompt template of {facts.model}: set CIERZO_TEMPLATE to one of "
                f"{', '.join(TEMPLATES)}, or leave takes={takes} out of the engine's address"
            )
        self._kind = kind
        self._known = template
        context = facts.context or self._context or UNMET_CONTEXT
        names = {
            name: theirs for name, theirs in kind.names[takes].items() if name in (facts.honours or names_of(kind))
        }
        return EngineInfo(
            "openai",
            facts.model,
            min(context, self._context or context),
            template or ESTIMATED,
            self._slots or facts.slots or kind.slots,
            frozenset(names),
            kind.details[takes] & (kind.details[takes] if facts.details is None else facts.details),
            f"at {self._remote.host}, by {kind.title}",
            takes,
            {name: theirs for name, theirs in names.items() if name != theirs},
            facts.version,
        )

    def _check_template(self, model: str, template: str) -> None:
        """Say it where a template was set that cannot be the model's.

        Raises:
            BadSetting: It was.
        """
        if self._template:
            raise BadSetting(
                f"{model} has other tokens than the template {template}: "
                "set CIERZO_TEMPLATE to its own, or leave it empty"
            )

    def _asking(self, account: Account) -> Asking:
        info, kind = account.info, self._kind
        asked = account.sampling.alternatives if "alternatives" in info.honours else 0
        self._check_alternatives(asked, kind.alternatives)
        return Asking(
            "/v1/chat/completions" if info.takes == "messages" else "/v1/completions",
            asked_of(
                kind,
                info,
                account.prompt,
                account.sampling,
                seed=account.seed,
                room=account.room,
                known=self._known,
            ),
            Chunks(account.prompt, account.sampling, info, spaced=kind.spaced, single=kind.single),
            asked,
        )

    def _kind_of_server(self) -> str:
        return "OpenAI-compatible server"


def _takes(said: str) -> Takes | None:
    if said not in ("", "ids", "text", "messages"):
        raise BadSetting(f"takes={said!r:.40} in the engine's address: use ids, text or messages")
    return said or None  # type: ignore[return-value]
