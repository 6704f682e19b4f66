"""The page that Gradio has drawn: made once by a program of its own, then kept.

Importing Gradio takes seconds and a hundred megabytes, and the page never asks it for anything once it is drawn. So it
is drawn by another process when Cierzo or Gradio is new, kept in the home folder, and served as a file after that.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from cierzo.errors import PageNotDrawn
from cierzo.rendering import colours

WITHIN = 120
"""Seconds in which Gradio has to have drawn it."""

FOREIGN = ("GRADIO_", "HF_", "OAUTH_", "SPACE_")
"""How the names of variables begin by which Gradio would draw another page."""

NOT_DRAWN = "Gradio could not draw the page: install Cierzo again, or use `cierzo chat` in the terminal"

_log = logging.getLogger("cierzo.page")


@dataclass(frozen=True)
class Drawn:
    """What the browser gets first.

    Attributes:
        html: The page.
        theme: Gradio's style sheet for it.
        scripts: The scripts that stand in the page, each as Content-Security-Policy names it: ``'sha256-…'``.
    """

    html: str
    theme: str
    scripts: tuple[str, ...]


def drawn(home: Path, *, begun: Callable[[], object] = lambda: None) -> Drawn:
    """Return the page, drawing it if need be.

    Args:
        home: Folder in which it is kept. Where nothing can be written there, it is drawn each time.
        begun: Called when it has to be drawn, which takes seconds.

    Raises:
        PageNotDrawn: Gradio cannot draw it.
    """
    kept = home / "cache" / f"page-{_key()}.json"
    try:
        parts = json.loads(kept.read_text("utf-8"))
        return _put_together(parts)
    except (OSError, ValueError, LookupError, TypeError):
        pass  # not there, or not whole: both are mended by drawing it
    begun()
    said = _draw()
    try:
        page = _put_together(json.loads(said))
    except (ValueError, LookupError, TypeError):
        _log.error("drawing the page failed", extra={"fields": {"said": said[-2000:]}})
        raise PageNotDrawn(NOT_DRAWN) from None
    _keep(kept, said)
    return page


def _key() -> str:
    """Name everything that a drawn page depends on: Gradio, and our own files that lay it out and name things."""
    folder = resources.files(__package__)
    known = hashlib.sha256(metadata.version("gradio").encode())
    for part in (folder / "shell.py", folder / "theme.py", *_words()):
        known.update(part.read_bytes())
    return known.hexdigest()[:16]


def _words() -> list[Path]:
    with resources.as_file(resources.files(__package__) / "words") as folder:
        return sorted(folder.glob("*.json"))


def _draw() -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environment = {**own, "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-P", "-m", "cierzo.page.shell"]  # -P: nothing is taken from the folder one stands in
    try:
        return subprocess.run(  # noqa: S603 - it is our own program
            command,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=WITHIN,
        ).stdout
    except subprocess.CalledProcessError as failed:
        _log.error("drawing the page failed", extra={"fields": {"said": failed.stderr[-2000:]}})
    except (subprocess.TimeoutExpired, OSError) as failed:
        _log.error("drawing the page failed", extra={"fields": {"said": str(failed)}})
    raise PageNotDrawn(NOT_DRAWN)


def _keep(place: Path, text: str) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        for old in place.parent.glob("page-*.json"):
            old.unlink(missing_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False, encoding="utf-8") as file:
            file.write(text)
        Path(file.name).replace(place)
    except OSError:
        _log.info("the drawn page could not be kept", extra={"fields": {"folder": str(place.parent)}})


def _put_together(parts: dict[str, Any]) -> Drawn:
    """Put Gradio's configuration into our own page."""
    folder = resources.files(__package__) / "web"
    config = {**parts["config"], "root": "@"}
    scripts = [(folder / "early.js").read_text("utf-8")]
    # A "<" in a sentence would end the script; where the page was asked for, only the browser knows.
    known = json.dumps(config, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    scripts.append(f"window.gradio_config = {known};\nwindow.gradio_config.root = location.origin;\n")
    entries = {str(entry).rpartition(".")[2]: str(entry) for entry in parts["entries"]}
    html = (folder / "index.html").read_text("utf-8")
    for name, text in (
        ("css", "".join([*_web(".css"), colours()])),
        ("early", scripts[0]),
        ("config", scripts[1]),
        ("script", entries["js"]),
        ("style", entries["css"]),
    ):
        html = html.replace(f"<!-- {name} -->", text)
    return Drawn(html, str(parts["theme"]), tuple(_hash(script) for script in scripts))


def _web(suffix: str) -> list[str]:
    folder = resources.files(__package__) / "web"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(suffix)), key=lambda file: file.name)
    return [file.read_text("utf-8") for file in files]


def _hash(script: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
