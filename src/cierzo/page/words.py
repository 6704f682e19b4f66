"""Every word on the page, in the three languages that it speaks: one file for each in ``words/``.

The page chooses by the browser's language, or as its reader says. Sentences hold names in braces, which the page's
modules fill in.
"""

from __future__ import annotations

import json
from importlib import resources

Words = dict[str, str]

NAMES = ("en", "es", "fr")


def _read(name: str) -> Words:
    words: Words = json.loads((resources.files(__package__) / "words" / f"{name}.json").read_text("utf-8"))
    return words


LANGUAGES: dict[str, Words] = {name: _read(name) for name in NAMES}
