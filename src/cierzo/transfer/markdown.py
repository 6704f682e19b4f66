"""A conversation for reading: the branch in use, in Markdown, every text as it was written.

A text that could swallow what follows (a fence that is never closed, HTML) stands in a quotation, which ends whatever
is in it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from cierzo.store import Conversation, Store, StoredMessage, Tree

_FENCE = re.compile(r"(`{3,})[^`]*$|(~{3,})")
_LINES = re.compile(r"\r\n|\n|\r")
_SIGNS = re.compile(r"([\\`*_\[\]<>#|])")
_HTML = re.compile(r"\s*<[!?/A-Za-z]")


async def export_markdown(store: Store, conversations: Sequence[Conversation]) -> AsyncGenerator[bytes, None]:
    """Yield the branch in use of each conversation, as Markdown.

    Raises:
        NotFound: One was removed meanwhile.
    """
    for number, each in enumerate(conversations):
        tree = await store.conversations.open(each.id, owner=each.owner)
        yield ("\n" if number else "").encode() + _document(tree).encode()


def _document(tree: Tree) -> str:
    there, path = tree.conversation, tree.path()
    parts = [f"# {_plain(there.title) or there.id}", f"{there.created:%Y-%m-%d %H:%M} UTC"]
    if len(path) < len(tree.messages):
        parts.append(f"*The branch in use; {len(tree.messages) - len(path)} messages stand in other branches.*")
    for message in path:
        parts += [f"## {_who(message)}", f"*{message.created:%Y-%m-%d %H:%M} UTC{_cut(message)}*", intact(message.text)]
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """Return a text for a heading: one line, in which no sign means anything."""
    return _SIGNS.sub(r"\\\1", " ".join(text.split()))


def _who(message: StoredMessage) -> str:
    names = {"user": "User", "system": "System prompt", "assistant": "Assistant"}
    return names[message.role] + (f" ({_plain(message.answer.model)})" if message.answer else "")


def _cut(message: StoredMessage) -> str:
    if message.answer is None or message.answer.reason in ("eos_token", "stop_sequence"):
        return ""
    return f", {message.answer.reason or 'being written'}"


def intact(text: str) -> str:
    r"""Return ``text`` such that nothing in it reaches beyond its end: as it is, or as a quotation.

    Example:
        >>> intact("```python\nprint(1)\n```")
        '```python\nprint(1)\n```'
        >>> intact("```python\nprint(1)")
        '> ```python\n> print(1)'
    """
    lines = _LINES.split(text)
    return "\n".join(f"> {line}".rstrip(" ") for line in lines) if _reaches_on(lines) else text


def _reaches_on(lines: list[str]) -> bool:
    """Whether a fence may stay open or HTML begin; where it is not easily seen, yes."""
    fence = ""
    for line in lines:
        if fence and line.startswith(fence) and set(line.rstrip(" \t")) == {fence[0]}:
            fence = ""
        elif fence:
            continue
        elif found := _FENCE.match(line):
            fence = found[1] or found[2]
        elif "```" in line or "~~~" in line or _HTML.match(line):
            return True  # within a list or a quotation, perhaps: the rules are long
    return bool(fence)
