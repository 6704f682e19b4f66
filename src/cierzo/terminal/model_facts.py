"""What the head of a model's file says, as a person and as a program reads it."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from cierzo.gguf_header import V1_WINDOW
from cierzo.gguf_kind import ARCHITECTURES, differing, read_kind

if TYPE_CHECKING:
    from cierzo.catalog import Model
    from cierzo.gguf_header import Kind


def looked_into(model: Model) -> Model:
    """Return a model with what its file says, where that is here: those of the catalogue are listed without.

    Raises:
        ModelUnreadable: The file is damaged.
    """
    return model if model.kind or model.path is None else replace(model, kind=read_kind(model.path)[1])


def rows(model: Model) -> dict[str, str]:
    """Return lines for `cierzo models show`; none for a file that is not here. Compares the vocabulary: up to 2 s.

    Raises:
        ModelUnreadable: The file has changed meanwhile.
    """
    kind = model.kind
    if kind is None or model.path is None:
        return {}
    experts = f", {kind.experts} experts, {kind.active_experts} for each token" if kind.experts else ""
    read = f", {kind.active / 1e6:,.0f} MB read for each token" if kind.active else ""
    told = {
        "network": f"{kind.architecture}{experts}",
        "weights": f"{kind.quantization or 'of several kinds'}{read}",
        "tokenizer": _tokenizer(model, kind),
    }
    if kind.context < kind.trained:
        why = f"beyond {kind.context:,} llama.cpp does not run this model as it was trained"
        told["trained"] = f"{kind.trained:,} tokens of window; {why}"
    if kind.sliding_window or kind.context == V1_WINDOW < kind.trained:
        seen = f"{kind.sliding_window:,} tokens" if kind.sliding_window else "4,096 tokens in training"
        told["attention"] = f"over {seen}" + (
            ", which llama.cpp does not apply" if kind.architecture in ARCHITECTURES else ""
        )
    return told


def fields(model: Model) -> dict[str, Any] | None:
    """Return what a program gets: the file's facts, or None where the file is not here."""
    return None if model.kind is None else asdict(model.kind)


def _tokenizer(model: Model, kind: Kind) -> str:
    if model.path is None or not kind.nearest:
        return f"not one of Mistral's ({kind.words:,} tokens)"
    words, controls = differing(model.path, kind.nearest)
    named = f"; {controls} control tokens have other names" if controls else ""
    if not words:
        return f"the words are those of mistral-common's {kind.nearest}{named}"
    return f"differs from mistral-common's {kind.nearest} in {words:,} of {kind.words:,} tokens{named}"
