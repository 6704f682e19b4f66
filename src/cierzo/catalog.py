"""Which models there are, where their files lie, and what each one needs.

The entries are public files on the Hugging Face hub; one comes with Cierzo. A file of one's own is described by
its head (`cierzo.gguf_header`). Which template a model was trained with is decided here, from its vocabulary:
never from its name, and never from the chat template in the file.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cierzo.downloads import cached, download
from cierzo.errors import ModelError, ModelUnreadable, UnknownModel
from cierzo.gguf_header import read_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from cierzo.gguf_header import Header

DEMO = "cierzo-demo"

WINDOW = 4096
"""Tokens of window for which the memory of a model is told; a longer one takes more."""

V1_WINDOW = 8192
"""Tokens of window for Mistral 7B v0.1: llama.cpp does not apply the sliding window that it was trained with, and
beyond this it writes nonsense (llama.cpp issues 3371 and 3867)."""

_V1_OPEN, _V1_WORD = 733, 16_289  # "▁[" and "INST", by which Mistral's 32,000 tokens are told from Llama's
_LATER_BASE = 1e5
"""Between the rotary base of Mistral 7B v0.1 (1e4) and that of v0.2 and Mixtral (1e6)."""

_COMPUTE = 64 * 2**20


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


_DEMO_FILE = Path(__file__).parent / "models" / "cierzo-demo.gguf"

_7B_KV = 131_072

_KNOWN: tuple[Model, ...] = (
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


def models(home: Path) -> tuple[Model, ...]:
    """List every model: the one that comes with Cierzo, the catalogue, and GGUF files in ``home/models``.

    `Model.path` says which are here. Asks no network; files that cannot be read are left out.
    """
    own = []
    for path in sorted((home / "models").glob("*.gguf")):
        try:
            own.append(replace(_described(path), name=path.stem))
        except ModelError:
            continue
    return (_demo(), *(_with_path(model) for model in _KNOWN), *own)


def find(name_or_path: str | Path, home: Path) -> Model:
    """Return a model by its name in the catalogue, the name of a file in ``home/models``, or the path of a file.

    Costs 15 ms for a file (65 ms with a Tekken vocabulary), and asks no network.

    Raises:
        UnknownModel: There is no such name or file; the sentence has the names that are near.
        ModelUnreadable: The file is damaged, or not of a model whose template is known.
    """
    name = str(name_or_path).strip()
    if name.lower() == DEMO:
        return _demo()
    for model in _KNOWN:
        if model.name == name.lower():
            return _with_path(model)
    for path in (Path(name).expanduser(), home / "models" / f"{name}.gguf"):
        if _is_file(path):
            return _described(path)
    if name.endswith(".gguf") or "/" in name or "\\" in name:
        raise UnknownModel(f"there is no model file {name!r:.200}: check the path, or see `cierzo models list`")
    names = [DEMO, *(model.name for model in _KNOWN), *(path.stem for path in (home / "models").glob("*.gguf"))]
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(near)}?" if near else f"use one of {', '.join(names)}, or the path of a file"
    raise UnknownModel(f"there is no model {name!r:.200}: {advice}")


def memory_needed(model: Model, context: int = WINDOW) -> int:
    """Return about how many bytes of memory a model takes while it answers.

    The weights, the KV cache of a window of ``context`` tokens (at most the model's own) at 16 bits, and what
    llama.cpp computes in. Weights lie in the page cache, so a machine that is a little short is slow and does not fail.
    """
    return model.size + min(context, model.context) * model.kv_bytes + _COMPUTE + model.size // 20


def pull(model: Model, home: Path, progress: Callable[[int, int], None] | None = None) -> Model:
    """Download a model's file into the Hugging Face hub's cache, and return the model with its path.

    Honours ``HF_ENDPOINT``, ``HF_HOME`` and the token of ``hf auth login``. Blocks; call it from a thread.

    Args:
        model: One of `models`. One that is here already is returned at once.
        home: Cierzo's home folder.
        progress: Called with the bytes so far and the bytes in all, about ten times a second. What it raises
            ends the download.

    Raises:
        DownloadFailed: The file did not come; the sentence says why and what to do.
        ModelUnreadable: It came, and is not a model.
        UnknownModel: The model is not one of the hub's.
    """
    here = find(model.path or model.name, home)
    if here.path is not None:
        return here
    path = download(model.repo, model.file, model.size, progress)
    read_header(path)
    return replace(model, path=path)


def _demo() -> Model:
    """Describe the model that comes with Cierzo; without a path where this installation lacks the file."""
    title = "Cierzo demo (tiny, about itself)"
    if not _DEMO_FILE.is_file():
        return Model(DEMO, title, "v3", 2_048, "Apache-2.0")
    return replace(_described(_DEMO_FILE), name=DEMO, title=title, license="Apache-2.0")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for a file
        return False


def _with_path(model: Model) -> Model:
    path = cached(model.repo, model.file)
    return model if path is None else replace(model, path=path, size=path.stat().st_size)


def _described(path: Path) -> Model:
    """Describe a file by its head."""
    header = read_header(path, tokens=frozenset({_V1_OPEN, _V1_WORD}))
    template = _template(header, path.name)
    context = int(header.number("context_length"))
    if template == "v1" and header.number("rope.freq_base", 1e4) < _LATER_BASE:
        context = min(context, V1_WINDOW)
    heads = header.number("attention.head_count")
    width = header.number("embedding_length") // heads
    keys = header.number("attention.key_length", width) + header.number("attention.value_length", width)
    kv_heads = header.number("attention.head_count_kv", heads)
    return Model(
        str(path),
        header.text("general.name") or path.stem,
        template,
        context,
        header.text("general.license"),
        path=path.absolute(),
        size=header.size,
        kv_bytes=int(2 * header.number("block_count") * kv_heads * keys),
    )


def _template(header: Header, name: str) -> str:
    """Choose the template by the vocabulary, the one thing in a file that cannot be otherwise."""
    kind, tokens, known = header.text("tokenizer.ggml.model"), header.tokens, set(header.tokens.values())
    match kind, header.vocabulary, "[INST]" in known:
        case "llama", 32_000, _ if (tokens.get(_V1_OPEN), tokens.get(_V1_WORD)) == ("▁[", "INST"):
            return "v1"
        case "llama", 32_768, True:  # version 2 has as many, and was never published
            return "v7" if "[SYSTEM_PROMPT]" in known else "v3"
        case "gpt2", 131_072, True:
            marks = {"[THINK]": "v13", "[ARGS]": "v11", "[SYSTEM_PROMPT]": "v7-tekken"}
            return next((template for mark, template in marks.items() if mark in known), "v3-tekken")
    raise ModelUnreadable(
        f"{name} is not a Mistral model (its vocabulary of {header.vocabulary:,} tokens is not theirs), so Cierzo "
        "does not know how to write its prompts: choose another"
    )
