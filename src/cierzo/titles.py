"""A conversation's title, made from its first question by rule, at once: no model is asked."""

from __future__ import annotations

import re

LONGEST = 60
"""Characters of a title, the ellipsis included."""

SHORTEST = 10
"""Characters below which a sentence alone says too little: "Hola." is followed by what was asked."""

_READ = 10_000
"""Characters that are looked at: a title comes from the beginning, and a question may have millions."""

_FENCE = re.compile(r"```(?:[^\n`]*\n)?(.*?)(?:```|\Z)", re.DOTALL)
_OPENING = re.compile(r"\s*(?:(?:>|#{1,6}(?=\s)|[-+*](?=\s)|\d{1,9}[.)](?=\s))\s*)*")
_LINK = re.compile(r"!?\[([^\[\]\n]{1,200})\]\([^()\s]{1,500}\)")
_EMPHASIS = re.compile(r"(?<!\w)(\*{1,3}|_{1,3}|~~|`{1,2})(?=\S)([^\n]{1,200}?)(?<=\S)\1(?!\w)")
_UNSEEN = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_END = re.compile(r"(?<=[.!?…])\s|(?<=[。！？])")  # noqa: RUF001 - Chinese and Japanese end sentences so, and put no space


def title_of(question: str) -> str:
    r"""Return the beginning of the first line that has words, without Markdown, at most `LONGEST` characters.

    It is the first sentence, and the next one where that is very short. Code is taken only if there is nothing else.

    Example:
        >>> title_of("## Hola\n¿Qué es un *token*? Explícalo.")
        'Hola'
        >>> title_of("¿Qué es un *token*? Explícalo.")
        '¿Qué es un token?'
        >>> title_of("Hola. ¿Qué es un token? Explícalo.")
        'Hola. ¿Qué es un token?'
    """
    read = _UNSEEN.sub("", question[:_READ])
    for text in (_FENCE.sub("\n", read), _FENCE.sub(r"\1", read)):
        for line in text.splitlines():
            if re.search(r"\w", words := _words(line)):
                return _short(_sentence(words))
    return _short(" ".join(read.split()))


def _words(line: str) -> str:
    """Return a line without Markdown's marks; what is no mark, as in ``snake_case`` or ``2 * 3``, stays."""
    plain = line[_OPENING.match(line).end() :]  # type: ignore[union-attr] # it matches nothing, too
    return " ".join(_EMPHASIS.sub(r"\2", _LINK.sub(r"\1", plain[: 4 * LONGEST])).split())


def _sentence(words: str) -> str:
    end = 0
    for found in _END.finditer(words):
        end = found.start()
        if end >= SHORTEST:
            return words[:end]
    return words


def _short(words: str) -> str:
    if len(words) <= LONGEST:
        return words
    short = words[: LONGEST - 1]
    if " " in short[LONGEST // 2 :]:
        short = short.rsplit(" ", 1)[0]
    return short.rstrip(" ,;:-\u200d") + "…"
