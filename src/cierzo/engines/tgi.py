"""Text Generation Inference, by its raw route: the prompt goes as one string, the way of the notebooks of 2023.

TGI puts the token that begins every prompt before the string by itself, so it is never sent; and it obeys every name
of a control token in the string, so those that a person typed are parted (`cierzo.engines.neutral`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cierzo.engines.account import Account, Asking, Hearing, Told
from cierzo.engines.base import EngineInfo
from cierzo.engines.neutral import text_of
from cierzo.engines.refusals import refused
from cierzo.engines.remote import PATIENCE, Address, Patience
from cierzo.engines.served import UNMET_CONTEXT, Served, known_template, window_of
from cierzo.errors import BadSetting, EngineRefused, PromptTooLong
from cierzo.messages import Alternative, FinishReason, Prompt, Sampling, Token
from cierzo.model_names import template_of
from cierzo.templates import TEMPLATES

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = {
    "temperature": "temperature",
    "max_new_tokens": "max_new_tokens",
    "top_p": "top_p",
    "repetition_penalty": "repetition_penalty",
    "top_k": "top_k",
    "seed": "seed",
    "stop": "stop",
    "alternatives": "top_n_tokens",
}
TOPS = 5
"""Most alternatives of a token that TGI reports; its ``/info`` does not tell."""

MOST_AT_ONCE = 32
MARGIN = 16
"""Tokens that TGI may count more than Cierzo: it reads the string anew."""

LEAST_TOP_P, MOST_TOP_P = 1e-4, 1.0
_OK, _NOT_FOUND = 200, 404
_REASONS: dict[str, FinishReason] = {"length": "length", "eos_token": "eos_token", "stop_sequence": "stop_sequence"}


class Tgi(Served):
    """A server behind ``tgi+http(s)://HOST[:PORT][/PATH]``.

    Args:
        address: As above.
        key: For it, or empty.
        template: The model's; empty finds it out by its name.
        context: Tokens of the window to use at most; 0 takes what the server says.
        slots: Answers to ask for at the same time; 0 takes what the server allows, at most `MOST_AT_ONCE`.
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
        self._total = 0
        self._spaced, self._margin = True, MARGIN
        unmet = EngineInfo(
            "tgi",
            "",
            context or UNMET_CONTEXT,
            template or "v3",
            slots or MOST_AT_ONCE,
            frozenset(NAMES),
            where=f"at {place.host}",
            takes="text",
            names={"alternatives": "top_n_tokens"},
        )
        super().__init__(place.url, key, unmet, patience)

    async def _find_out(self) -> EngineInfo:
        answer = await self._remote.ask("/info")
        said = answer.value
        if answer.status not in (_OK, _NOT_FOUND):
            raise refused(self._remote.host, answer.status, answer.raw, self._remote.clean)
        if answer.status == _NOT_FOUND or not isinstance(said, dict) or not isinstance(said.get("model_id"), str):
            raise EngineRefused(
                f"the server at {self._remote.host} is no Text Generation Inference: check the address, or try openai+…"
            )
        template = self._template or template_of(said["model_id"])
        if template is None:
            raise BadSetting(
                f"nobody knows the prompt template of {said['model_id']:.100}: set CIERZO_TEMPLATE to one of "
                f"{', '.join(TEMPLATES)}"
            )
        own = said.get("router") == "cierzo"
        self._spaced, self._margin = not own, 0 if own else MARGIN
        self._total = window_of(said.get("max_total_tokens")) or UNMET_CONTEXT
        longest = window_of(said.get("max_input_tokens") or said.get("max_input_length")) or self._total - 1
        if self._context:
            self._total, longest = min(self._total, self._context), min(longest, self._context - 1)
        return replace(
            self._info,
            model=said["model_id"],
            context=min(self._total, longest + 1),
            template=template,
            slots=self._slots or min(MOST_AT_ONCE, window_of(said.get("max_concurrent_requests")) or MOST_AT_ONCE),
            where=f"at {self._remote.host}, by {'Cierzo' if own else 'TGI'}",
            version=str(said.get("version") or "")[:60],
        )

    def _room(self, prompt: Prompt, sampling: Sampling) -> int:
        if len(prompt) >= self._info.context:
            raise PromptTooLong(len(prompt), self._info.context - 1)
        return max(1, min(self._total - len(prompt) - self._margin, sampling.max_new_tokens))

    def _asking(self, account: Account) -> Asking:
        sampling = account.sampling
        self._check_alternatives(sampling.alternatives, TOPS)
        body = {
            "inputs": text_of(account.prompt, account.info.template),
            "parameters": _parameters(sampling, account.seed, account.room),
        }
        hearing = _Heard(sampling, spaced=self._spaced and account.prompt.leading_space, room=account.room)
        return Asking("/generate_stream", body, hearing, sampling.alternatives)

    def _kind_of_server(self) -> str:
        return "Text Generation Inference"


def _parameters(sampling: Sampling, seed: int | None, room: int) -> dict[str, Any]:
    """Write the parameters. What is off is left out: TGI refuses to be told so."""
    said: dict[str, Any] = {"max_new_tokens": room, "details": True, "do_sample": sampling.temperature > 0}
    if sampling.temperature > 0:
        said |= {"temperature": sampling.temperature, "seed": seed}
        if sampling.top_p < MOST_TOP_P:
            said["top_p"] = max(LEAST_TOP_P, sampling.top_p)
        if sampling.top_k:
            said["top_k"] = sampling.top_k
    if sampling.repetition_penalty != 1:
        said["repetition_penalty"] = sampling.repetition_penalty
    if sampling.alternatives:
        said["top_n_tokens"] = sampling.alternatives
    return said


class _Heard(Hearing):
    """Reads the events of one answer.

    TGI counts the token that ends an answer among its tokens, with its name for a text; here it is the end.
    """

    def __init__(self, sampling: Sampling, *, spaced: bool, room: int) -> None:
        self._wanted, self._spaced, self._room = sampling.alternatives, spaced, room
        self._count = 0

    def read(self, value: Any) -> list[Told]:
        if self.reason is not None:
            return []
        token = self._token(value["token"], value.get("top_tokens") or ())
        self._count += 1
        if value.get("generated_text") is None:
            return [token]
        details = value.get("details") or {}
        self.reason = _REASONS.get(str(details.get("finish_reason"))) or self._guessed(token)
        self.seed = details.get("seed")
        self.prompt_tokens = details.get("input_length")
        return [] if self.reason == "eos_token" and token.special else [token]

    def _guessed(self, last: Token) -> FinishReason:
        """Return how an answer ended where the server does not say."""
        return "length" if not last.special and self._count >= self._room else "eos_token"

    def _token(self, said: Mapping[str, Any], tops: Any) -> Token:
        special = bool(said.get("special"))
        text = "" if special else said["text"]
        if not isinstance(text, str):
            raise TypeError("a text is a string")
        if self._spaced and text:
            text, self._spaced = text.removeprefix(" "), False
        others = [Alternative(int(top["id"]), str(top["text"]), float(top["logprob"])) for top in tops]
        level = said.get("logprob")
        return Token(
            int(said["id"]),
            text,
            None if level is None else float(level),
            special,
            tuple(sorted(others, key=lambda other: -other.logprob)[: self._wanted]),
        )
