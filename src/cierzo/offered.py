"""The models that Cierzo offers: public GGUF files on the Hugging Face hub, each with what one asks before a download.

Sizes are those of the hub on the day they were written down; a download goes by what the hub says then. Their SHA-256
is not here: the hub gives it with each file, and the file is checked against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cierzo.gguf_header import V1_WINDOW

if TYPE_CHECKING:
    from cierzo.gguf_header import Kind


@dataclass(frozen=True, slots=True)
class Model:
    """One model that Cierzo knows.

    Attributes:
        name: What a person types, such as ``mistral-7b``; for a file of one's own, its path.
        title: What a person reads.
        template: Name of the prompt template that it was trained with (see `cierzo.prompt`); ``file`` for one that is
            not Mistral's and is chatted with through the template in its file.
        context: Tokens in the window that it was trained for (v0.1 capped: facts in the catalogue).
        license: SPDX name of its licence, empty where it is not known.
        path: Its file on this machine; None until it is downloaded.
        repo: Repository on the Hugging Face hub, empty where it is not from there.
        file: File in that repository.
        size: Bytes of the file.
        kv_bytes: Bytes of KV cache per token of the window, at 16 bits.
        revision: Branch, tag or commit of the repository.
        active: Bytes of weights that are read for each token; fewer than ``size`` in a mixture of experts.
        sha256: Of the file that is here, where the hub gave it.
        kind: What the head of its file says besides; None where the file is not here, or was not looked into.
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
    revision: str = "main"
    active: int = 0
    sha256: str = ""
    kind: Kind | None = None


_7B_KV = 131_072

OFFERED: tuple[Model, ...] = (
    Model(
        "mistral-7b",
        "Mistral 7B Instruct v0.3",
        "v3",
        32_768,
        "Apache-2.0",
        repo="bartowski/Mistral-7B-Instruct-v0.3-GGUF",
        file="Mistral-7B-Instruct-v0.3-Q4_K_M.gguf",
        size=4_372_812_000,
        kv_bytes=_7B_KV,
    ),
    Model(
        "mistral-7b-v0.1",
        "Mistral 7B Instruct v0.1",
        "v1",
        V1_WINDOW,
        "Apache-2.0",
        repo="TheBloke/Mistral-7B-Instruct-v0.1-GGUF",
        file="mistral-7b-instruct-v0.1.Q4_K_M.gguf",
        size=4_368_438_944,
        kv_bytes=_7B_KV,
    ),
    Model(
        "mistral-7b-v0.2",
        "Mistral 7B Instruct v0.2",
        "v1",
        32_768,
        "Apache-2.0",
        repo="TheBloke/Mistral-7B-Instruct-v0.2-GGUF",
        file="mistral-7b-instruct-v0.2.Q4_K_M.gguf",
        size=4_368_439_584,
        kv_bytes=_7B_KV,
    ),
    Model(
        "mixtral-8x7b",
        "Mixtral 8x7B Instruct v0.1",
        "v1",
        32_768,
        "Apache-2.0",
        repo="TheBloke/Mixtral-8x7B-Instruct-v0.1-GGUF",
        file="mixtral-8x7b-instruct-v0.1.Q4_K_M.gguf",
        size=26_441_533_376,
        kv_bytes=_7B_KV,
        active=7_300_000_000,  # 12.9 of its 46.7 billion weights: two experts of eight, and what all tokens share
    ),
    Model(
        "mistral-nemo",
        "Mistral Nemo 12B Instruct 2407",
        "v3-tekken",
        131_072,
        "Apache-2.0",
        repo="bartowski/Mistral-Nemo-Instruct-2407-GGUF",
        file="Mistral-Nemo-Instruct-2407-Q4_K_M.gguf",
        size=7_477_208_192,
        kv_bytes=163_840,
    ),
    Model(
        "ministral-8b",
        "Ministral 8B Instruct 2410 (research only)",
        "v3-tekken",
        32_768,  # beyond, it needs a sliding window in every other layer, which llama.cpp does not do for it
        "LicenseRef-Mistral-Research",
        repo="bartowski/Ministral-8B-Instruct-2410-GGUF",
        file="Ministral-8B-Instruct-2410-Q4_K_M.gguf",
        size=4_910_000_000,  # about
        kv_bytes=147_456,
    ),
    Model(
        "mistral-small",
        "Mistral Small 24B Instruct 2501",
        "v7-tekken",
        32_768,
        "Apache-2.0",
        repo="bartowski/Mistral-Small-24B-Instruct-2501-GGUF",
        file="Mistral-Small-24B-Instruct-2501-Q4_K_M.gguf",
        size=14_333_908_672,
        kv_bytes=163_840,
    ),
)
