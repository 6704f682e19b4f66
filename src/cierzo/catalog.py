"""Which models there are, where their files lie, and what each one needs.

The entries are public files on the Hugging Face hub; one comes with Cierzo. Any other file of the hub is a model by the
name ``hf:OWNER/REPO/FILE`` or ``hf:OWNER/REPO@REVISION/FILE``. A file that is here is described by its head
(`cierzo.gguf_kind`).
"""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from cierzo import downloads
from cierzo.downloads import MAIN, Place, cached
from cierzo.errors import Conflict, ModelError, ModelUnreadable, UnknownModel
from cierzo.gguf_header import V1_WINDOW, read_header
from cierzo.gguf_kind import read_kind
from cierzo.offered import OFFERED, Model

if TYPE_CHECKING:
    from collections.abc import Callable

    from cierzo.downloads.fetching import Progress

DEMO = "cierzo-demo"

HUB = "hf:"
"""How the names of files on the hub begin that are not in the catalogue."""

WINDOW = 4096
"""Tokens of window for which the memory of a model is told; a longer one takes more."""

LONG_WINDOW = 32_768
"""The window for which it is told too: as many as most of these models were trained for."""

KV_BYTES = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32, "q4_0": 18 / 32}
"""Bytes that one value of the KV cache takes, by its type in llama.cpp."""

_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)

_COMPUTE = 64 * 2**20


__all__ = ["OFFERED", "V1_WINDOW", "Model", "asked", "find", "memory_needed", "models", "place_of", "pull", "remove"]

_DEMO_FILE = Path(__file__).parent / "models" / "cierzo-demo.gguf"


def models(home: Path) -> tuple[Model, ...]:
    """List every model: Cierzo's own, the catalogue, GGUF files in ``home/models``, and other ones in the hub's cache.

    `Model.path` says which are here. Asks no network; files that cannot be read are left out.
    """
    mine = {path.stem: path for path in sorted((home / "models").glob("*.gguf"))}
    own = [replace(model, name=name) for name, path in mine.items() if (model := _if_readable(path))]
    known = {place_of(model) for model in OFFERED}
    cached_ones = [place for place in downloads.all_cached(".gguf") if "mmproj" not in place.file]  # those hold eyes
    fetched = [_of_hub(place) for place in cached_ones if place not in known]
    return (_demo(), *(_with_path(model) for model in OFFERED), *own, *filter(None, fetched))


def find(name_or_path: str | Path, home: Path) -> Model:
    """Return a model by its name in the catalogue, the name of a file in ``home/models``, a path, or ``hf:…``.

    Costs 15 ms for a file (65 ms with a Tekken vocabulary), and asks no network: of a file of the hub that is not here
    only the name is known.

    Raises:
        UnknownModel: There is no such name or file; the sentence has the names that are near.
        ModelUnreadable: The file is damaged, or not of a model whose template is known.
    """
    name = str(name_or_path).strip()
    if name.lower() == DEMO:
        return _demo()
    for model in OFFERED:
        if model.name == name.lower():
            return _with_path(model)
    if name.lower().startswith(HUB):
        return _named(name)
    if _is_file(path := _at_home(name)):
        return _described(path)
    if _is_file(path := home / "models" / f"{name}.gguf"):
        return replace(_described(path), name=name)
    if name.endswith(".gguf") or "/" in name or "\\" in name:
        raise UnknownModel(f"there is no model file {name!r:.200}: check the path, or see `cierzo models list`")
    names = [DEMO, *(model.name for model in OFFERED), *(path.stem for path in (home / "models").glob("*.gguf"))]
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(near)}?" if near else f"use one of {', '.join(names)}, or the path of a file"
    raise UnknownModel(f"there is no model {name!r:.200}: {advice}")


def place_of(model: Model) -> Place:
    """Return where on the hub a model's file is. Of one that is not from there, nothing has that place."""
    return Place(model.repo, model.file, model.revision)


def memory_needed(model: Model, context: int = WINDOW, kv_type: str = "f16") -> int:
    """Return about how many bytes of memory a model takes while it answers.

    The weights, the KV cache of a window of ``context`` tokens (at most the model's own) with values of ``kv_type``
    (one of `KV_BYTES`), and what llama.cpp computes in. Weights lie in the page cache, so a machine that is a little
    short is slow and does not fail.
    """
    cache = int(min(context, model.context) * model.kv_bytes * KV_BYTES[kv_type] / KV_BYTES["f16"])
    return model.size + cache + _COMPUTE + model.size // 20


def asked(model: Model) -> Model:
    """Return a model of the hub with the size and SHA-256 that the hub says. Blocks, up to ten seconds.

    Raises:
        DownloadFailed: The hub does not say them; the sentence says why and what to do.
    """
    known = downloads.ask(place_of(model))
    return replace(model, size=known.size, sha256=known.sha256)


def pull(model: Model, home: Path, progress: Callable[[Progress], None] | None = None) -> Model:
    """Download a model's file into the Hugging Face hub's cache, and return the model with its path.

    Honours ``HF_ENDPOINT``, ``HF_HOME`` and the token of ``hf auth login``. Blocks; call it from a thread.

    Args:
        model: One of `models` or `find`. One that is here already is returned at once.
        home: Cierzo's home folder.
        progress: Called about ten times a second. What it raises ends the download, and what has come is kept.

    Raises:
        DownloadFailed: The file did not come; the sentence says why and what to do.
        ModelUnreadable: It came, and is not a model.
        UnknownModel: The model is not one of the hub's.
    """
    here = find(model.path or model.name, home)
    if here.path is not None:
        return here
    read_header(downloads.download(place_of(model), progress))
    return find(model.name, home)


def remove(model: Model, home: Path) -> int:
    """Remove a model's file, or what a broken download of it left, and return the bytes that this freed.

    Only from where Cierzo puts models: the hub's cache and ``home/models``. A file elsewhere is its owner's.

    Raises:
        Conflict: It is the model that comes with Cierzo, or a file elsewhere.
        DownloadFailed: The hub's cache cannot be written.
        ModelUnreadable: The file in ``home/models`` cannot be removed.
    """
    if model.repo:
        return downloads.remove(place_of(model))
    if model.name == DEMO:
        raise Conflict(f"{DEMO} comes with Cierzo and is always there: it takes {model.size / 1e6:.0f} MB")
    if model.path is None or model.path.parent.resolve() != (home / "models").resolve():
        raise Conflict(f"{model.path} is not in {home / 'models'} nor from the hub: remove the file yourself")
    try:
        model.path.unlink(missing_ok=True)
    except OSError as denied:
        raise ModelUnreadable(
            f"{model.path} was not removed ({denied.strerror}): check who may write its folder"
        ) from None
    return model.size


def _demo() -> Model:
    """Describe the model that comes with Cierzo; without a path where this installation lacks the file."""
    title = "Cierzo demo (tiny, about itself)"
    if not _DEMO_FILE.is_file():
        return Model(DEMO, title, "v3", 2_048, "Apache-2.0")
    return replace(_described(_DEMO_FILE), name=DEMO, title=title, license="Apache-2.0")


def _at_home(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # ~ and the name of nobody
        return Path(name)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for a file
        return False


def _with_path(model: Model) -> Model:
    path = cached(place_of(model))
    if path is None:
        return model
    size = path.stat().st_size
    active = model.active * size // model.size
    return replace(model, path=path, size=size, active=active, sha256=downloads.sha256_of(path))


def _named(name: str) -> Model:
    """Return the model of a name that begins with ``hf:``."""
    owner, _, rest = name[len(HUB) :].lstrip("/").partition("/")
    repo, _, file = rest.partition("/")
    repo, _, revision = repo.partition("@")
    place = Place(f"{owner}/{repo}", file, unquote(revision) or MAIN)
    if not place.is_possible() or not file.lower().endswith(".gguf"):
        raise UnknownModel(
            f"{name!r:.200} names no file of the hub: write hf:OWNER/REPO/FILE.gguf, "
            "or hf:OWNER/REPO@REVISION/FILE.gguf"
        )
    if _PART.search(file):
        raise UnknownModel(
            f"{name!r:.200} is one part of several, which are not put together here: choose a whole file"
        )
    path = cached(place)
    model = replace(_read_once(path), sha256=downloads.sha256_of(path)) if path else Model("", file, "", 0)
    return replace(model, name=_name(place), repo=place.repo, file=place.file, revision=place.revision)


def _name(place: Place) -> str:
    revision = "" if place.revision == MAIN else f"@{quote(place.revision, safe='')}"
    return f"{HUB}{place.repo}{revision}/{place.file}"


def _of_hub(place: Place) -> Model | None:
    try:
        return _named(_name(place))
    except ModelError:
        return None


def _if_readable(path: Path) -> Model | None:
    try:
        return _read_once(path)
    except ModelError:
        return None


def _read_once(path: Path) -> Model:
    """Describe a file; lists are asked for often, and to read a head takes up to 65 ms."""
    try:
        there = path.stat()
    except OSError:  # it went a moment ago: what reads it says so
        return _described(path)
    return _described_as(path, there.st_mtime_ns, there.st_size)


@lru_cache(maxsize=128)
def _described_as(path: Path, _changed: int, _size: int) -> Model:
    return _described(path)


def _described(path: Path) -> Model:
    """Describe a file by its head."""
    header, kind = read_kind(path)
    return Model(
        str(path),
        header.text("general.name") or path.stem,
        kind.template,
        kind.context,
        header.text("general.license"),
        path=path.absolute(),
        size=header.size,
        kv_bytes=kind.kv_bytes,
        active=kind.active,
        kind=kind,
    )
