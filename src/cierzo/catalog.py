"""Which models there are, where their files lie, and what each one needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEMO = "cierzo-demo"


@dataclass(frozen=True, slots=True)
class Model:
    """One model that Cierzo knows.

    Attributes:
        name: What a person types, such as ``mistral-7b``; for a file of one's own, its path.
        title: What a person reads.
        template: Name of the prompt template that it was trained with (see `cierzo.prompt`).
        context: Tokens in the window that it was trained for (v0.1 capped: facts in the catalogue).
        license: SPDX name of its licence, empty where it is not known.
        path: Its file on this machine; None until it is downloaded.
        repo: Repository on the Hugging Face hub, empty where it is not from there.
        file: File in that repository.
        size: Bytes of the file.
        kv_bytes: Bytes of KV cache per token of the window, at 16 bits.
    """

    name: str
    title: str
    template: str
    context: int
    license: str = ""
    path: Path | None = None
    repo: str = ""
    file: str = ""
    size: int = 0
    kv_bytes: int = 0
