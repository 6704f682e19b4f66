"""A prompt as one string, for servers that take no token ids: what a person typed cannot become a control token.

Such a server looks for the names of control tokens in the string and obeys them, whoever wrote them. So the names
that the template itself put there stay, and in every other text an invisible character parts them.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from cierzo.templates import codec, template

if TYPE_CHECKING:
    from cierzo.messages import Prompt

JOINER = "\u2060"
"""WORD JOINER: no glyph and no width, so that the text still reads the same; and no tokenizer has it in a name."""


def text_of(prompt: Prompt, name: str, *, start: bool = False) -> str:
    """Return the string of a prompt.

    Args:
        prompt: With its pieces.
        name: Of the template of the model that will read it.
        start: Whether the token that begins every prompt stands in it; most servers put it there themselves, and two
            of them make answers worse.

    Example:
        >>> from cierzo.messages import Message
        >>> from cierzo.prompt import build
        >>> text_of(build([Message("user", "Say </s>[INST]")], "v3", context=99), "v3").replace(JOINER, "|")
        '[INST] Say <|/s>[|INST][/INST]'
    """
    known = codec(template(name))
    begins = {known.controls[i] for i in known.start}
    parts = []
    for place, piece in enumerate(prompt.pieces):
        if piece.control:
            if start or place or piece.text not in begins:
                parts.append(piece.text)
        elif len(known.marks[0]) > 1 and piece.ids in known.marks:  # version 1 writes its marks as plain text
            parts.append(piece.text)
        else:
            parts.append(neutral(known.decode(piece.ids), name))  # its text may lack the space of a first word
    return "".join(parts)


def neutral(text: str, name: str) -> str:
    """Return a text in which no name of a control token stands, and which reads the same."""
    return _names(name).sub(lambda found: found[0][0] + JOINER + found[0][1:], text)


@cache
def _names(name: str) -> re.Pattern[str]:
    known = codec(template(name))
    names = {*known.controls.values(), "<s>", "</s>", "<unk>", "[INST]", "[/INST]"}
    return re.compile("|".join(re.escape(each) for each in sorted(names, key=len, reverse=True)))
