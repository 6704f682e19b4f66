"""A conversation's title, made from its first question by rule, at once: no model is asked."""

from __future__ import annotations

import re

LONGEST = 60
"""Characters of a title, the ellipsis included."""

_FENCE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_MARKS = re.compile(r"^[\s>#*\-+\d.)]*(?=\S)|[*_`~]{1,3}(?=\S)|(?<=\S)[*_`~]{1,3}(?=\W|$)")
_END = re.compile(r"(?<=[.!?…])\s")


def title_of(question: str) -> str:
    r"""Return the first sentence of the first line that has words, without Markdown, at most `LONGEST` characters.

    Example:
        >>> title_of("## Hola\n¿Qué es un *token*? Explícalo.")
        'Hola'
        >>> title_of("¿Qué es un *token*? Explícalo.")
        '¿Qué es un token?'
    """
    lines = _FENCE.sub("\n", question).splitlines() or [question]
    line = next((line for line in lines if re.search(r"\w", line)), "") or question
    words = " ".join(_MARKS.sub("", line).split()) or " ".join(question.split())
    sentence = _END.split(words, maxsplit=1)[0]
    if len(sentence) <= LONGEST:
        return sentence
    short = sentence[: LONGEST - 1]
    if " " in short[LONGEST // 2 :]:
        short = short.rsplit(" ", 1)[0]
    return short.rstrip(" ,;:-") + "…"
