"""What Hugging Face says when it says no, in one sentence with the next step in it: token, terms, credit, provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cierzo.engines.refusals import plain_words, retry_after
from cierzo.errors import CierzoError, EngineRefused, Overloaded, UnknownModel

if TYPE_CHECKING:
    from collections.abc import Mapping

_DENIED, _NOT_FOUND, _SERVER, _BUSY = (401, 403), 404, 500, (429, 503)
_NO_ENTRY = (
    "Hugging Face does not take the token{said}: make one that may call Inference Providers at "
    "https://huggingface.co/settings/tokens, and say it with CIERZO_ENGINE_KEY or `hf auth login`"
)
_SENTENCES = {
    **dict.fromkeys(_DENIED, _NO_ENTRY),
    402: "the credit for Inference Providers is used up{said}: see https://huggingface.co/settings/billing, or use "
    "another engine",
    413: "the request is too large for {by}{said}: shorten the conversation",
}
_GATED = "the model {model} is gated: accept its terms at https://huggingface.co/{model}, with the account of the token"
_NO_MODEL = (
    "Hugging Face has no model {model} that this token may see{said}: check the name at https://huggingface.co/models"
)
_FAILED = "{by} failed with status {status}{said}: ask again, or take another with ?provider="
_REFUSED = "{by} refused the request with status {status}{said}: change it and ask again"


class Refused(Exception):
    """A response that is no 200."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.after = retry_after(headers.get("Retry-After"))
        self.code = headers.get("X-Error-Code", "")
        self.words = plain_words(body) or plain_words(headers.get("X-Error-Message", "").encode())


def refusal(refused: Refused, words: str, model: str, provider: str) -> CierzoError:
    """Translate it, with the next step for this model and provider.

    Args:
        refused: What was said.
        words: Its words, without the token.
        model: What was asked for.
        provider: Of whom; empty where it was the router's choice.
    """
    by, said = f"{provider or 'a provider'} of Hugging Face", f" ({words})" if words else ""
    if refused.status in _BUSY:
        return Overloaded(
            f"{by} is busy{said or f' (status {refused.status})'}: ask again in a moment, or take another with "
            "?provider=",
            retry_after=refused.after or 1.0,
        )
    about = {"model": model, "by": by, "said": said, "status": refused.status}
    if refused.code == "RepoNotFound" or refused.status == _NOT_FOUND:
        return UnknownModel(_NO_MODEL.format_map(about))
    if refused.code == "GatedRepo" or (refused.status in _DENIED and "gated" in words.lower()):
        return EngineRefused(_GATED.format_map(about))
    failed = _FAILED if refused.status >= _SERVER else _REFUSED
    return EngineRefused(_SENTENCES.get(refused.status, failed).format_map(about))
