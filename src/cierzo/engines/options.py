"""What a person may choose about how the embedded engine runs, beside what an answer says itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cierzo.catalog import KV_BYTES
from cierzo.errors import BadSetting, ModelUnreadable
from cierzo.gguf_header import read_header

if TYPE_CHECKING:
    from collections.abc import Sequence

DRAFT = 12
"""Tokens that n-gram speculation guesses at once at most; see docs/performance.md."""

_FARTHEST = 100.0


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter (Hu et al. 2021, arXiv 2106.09685) in a GGUF file. A scale of 0 leaves the model as it is."""

    path: Path
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """How llama.cpp runs a model.

    Attributes:
        kv_type: Type of the KV cache's values, one of `cierzo.catalog.KV_BYTES`.
        gpu_layers: Layers on the graphics card; None is as many as fit. Without one, or with a build of llama.cpp
            that knows none, all are on the processor.
        speculation: Whether n-gram speculation guesses tokens (see docs/performance.md). The answers are the same;
            tokens that were guessed have no probability.
        adapters: LoRA adapters to apply, in order.
    """

    kv_type: str = "f16"
    gpu_layers: int | None = None
    speculation: bool = False
    adapters: tuple[Adapter, ...] = ()

    @property
    def kv_share(self) -> float:
        """Bytes of the KV cache over those at 16 bits."""
        return KV_BYTES[self.kv_type] / KV_BYTES["f16"]

    def job(self) -> dict[str, Any]:
        """Return them as the child's ``Job`` has them."""
        return {
            "kv_type": self.kv_type,
            "gpu_layers": self.gpu_layers,
            "draft": DRAFT if self.speculation else 0,
            "adapters": [[str(adapter.path), adapter.scale] for adapter in self.adapters],
        }


DEFAULTS = Options()


def adapters(said: Sequence[str]) -> tuple[Adapter, ...]:
    """Read adapters as a person writes them: ``PATH`` or ``PATH:SCALE``.

    Raises:
        BadSetting: A scale is not a number between -100 and 100.
    """
    found = []
    for each in said:
        path, _, scale = each.rpartition(":")
        if not path or "/" in scale or "\\" in scale or scale.endswith(".gguf"):  # a colon of the path, or none at all
            path, scale = each, "1"
        try:
            number = float(scale)
        except ValueError:
            number = float("nan")
        if not -_FARTHEST <= number <= _FARTHEST:
            raise BadSetting(f"lora {each!r:.200} ends in {scale!r:.20}, which is no scale: write PATH or PATH:0.5")
        found.append(Adapter(Path(path).expanduser().absolute(), number))
    return tuple(found)


def check_adapter(adapter: Adapter, model: Path) -> None:
    """See that an adapter is one, and for a model of this architecture. Costs some milliseconds.

    Raises:
        ModelUnreadable: It cannot be read, is no LoRA adapter, or is one for another architecture.
    """
    name = adapter.path.name
    if not adapter.path.is_file():
        raise ModelUnreadable(f"there is no LoRA adapter {adapter.path}: check the path in CIERZO_LORA or --lora")
    header = read_header(adapter.path, adapter=True)
    kind = header.text("general.type")
    if kind != "adapter" or header.text("adapter.type") != "lora":
        raise ModelUnreadable(
            f"{name} is not a LoRA adapter (it says it is {kind or 'nothing in particular'}): convert the adapter with "
            "llama.cpp's convert_lora_to_gguf.py, or choose another"
        )
    made_for, has = header.text("general.architecture"), read_header(model).text("general.architecture")
    if made_for != has:
        raise ModelUnreadable(
            f"{name} is for models of the architecture {made_for or 'unknown'}, and {model.name} is of {has}: choose "
            "the adapter that was trained for this model"
        )
