"""Turns what llama.cpp's process said, or how it ended, into one sentence that says what to do."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

from cierzo.errors import CierzoError, EngineDied, EngineMissing, ModelUnreadable, NotEnoughMemory

if TYPE_CHECKING:
    from pathlib import Path

_ODD_HEADS = re.compile(r"cache type (\w+) with block size \d+ does not divide n_embd_head_\w=(\d+)")
_UNFIT_ADAPTER = re.compile(r"failed to apply lora adapter: ([^(]+?)\s*(?:\(|$)")
CRASHES = tuple(
    getattr(signal, name) for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE") if hasattr(signal, name)
)


def missing(why: str) -> EngineMissing:
    """Name the package that brings the library which could not be loaded."""
    for library, package in (("libgomp", "libgomp1"), ("libstdc++", "libstdc++6")):
        if library in why:
            return EngineMissing(
                f"{library} is missing on this machine: install it, for example with `apt install {package}`"
            )
    return EngineMissing(f"llama.cpp cannot be loaded ({why[:200]}): run `pip install --force-reinstall xllamacpp`")


def unreadable(model: Path, errors: list[str]) -> CierzoError:
    """Turn what llama.cpp wrote into one sentence."""
    said = " ".join(errors)
    if (
        "insufficient memory" in said
        or "failed to allocate" in said
        or "bad_alloc" in said
        or "unable to alloc" in said
    ):
        return NotEnoughMemory(
            f"there is not enough memory for {model.name}: close other programs, set a smaller context, or choose "
            "a smaller model"
        )
    if odd := _ODD_HEADS.search(said):
        return ModelUnreadable(
            f"{model.name} cannot have a KV cache of type {odd[1]} (its heads have {odd[2]} values, and the type takes "
            "them by the block): set CIERZO_KV_TYPE=f16"
        )
    if unfit := _UNFIT_ADAPTER.search(said):
        return ModelUnreadable(
            f"a LoRA adapter does not fit {model.name} ({unfit[1][:200]}): choose the adapter that was trained for "
            "this model"
        )
    lines = [line.split(" E ", 1)[-1].strip() for line in errors if " E " in line]
    reasons = [line.rpartition("error loading model: ")[2] for line in lines if "error loading model: " in line]
    named = [reason for reason in reasons + lines if "failed to load model" not in reason]  # that one names the path
    reason = named[0][:200] if named else "it is cut short or damaged"
    return ModelUnreadable(f"{model.name} cannot be loaded ({reason}): download it again or try another model")


def died_loading(model: Path, status: int, errors: list[str]) -> CierzoError:
    """Tell a crash, which is the file's doing, from a death that came from outside."""
    if -status in CRASHES:
        asserted = [line for line in errors if "GGML_ASSERT" in line]
        reason = asserted[0].rpartition("/")[2][:200] if asserted else f"signal {-status}"
        return ModelUnreadable(
            f"llama.cpp crashed while it loaded {model.name} ({reason}): the file is damaged or not for this version; "
            "download it again or try another model"
        )
    if status == -signal.SIGKILL:
        return EngineDied(
            f"the system ended the engine while it loaded {model.name}, most often because memory ran out: "
            "close other programs or choose a smaller model, then ask again"
        )
    return EngineDied(f"the engine ended while it loaded {model.name} (status {status}): ask again")
