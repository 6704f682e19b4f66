r"""LaTeX in Markdown, as MathML that a browser draws by itself: ``$x$`` and ``\(x\)``, ``$$x$$`` and ``\[x\]``.

What is a formula is Pandoc's rule: the first dollar stands before no space, the last one after none and before no
digit, so that "$5 to $10" is money. What cannot be read is shown as it was written.
"""

from __future__ import annotations

import html
import re
from functools import lru_cache
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from latex2mathml.converter import convert

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markdown_it import MarkdownIt
    from markdown_it.renderer import RendererHTML
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token
    from markdown_it.utils import EnvType, OptionsDict

LONGEST = 2_000
"""Characters of a formula that is set; setting a longer one takes too long."""

DEEPEST = 60
"""Braces in braces."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MATHML = "http://www.w3.org/1998/Math/MathML"
_ELEMENTS = _words(
    "math merror mfenced mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms mspace msqrt "
    "mstyle msub msubsup msup mtable mtd mtext mtr munder munderover none"
)
_ATTRIBUTES = _words(
    "display displaystyle scriptlevel stretchy fence separator form lspace rspace minsize maxsize movablelimits accent "
    "accentunder linethickness mathvariant columnalign rowalign columnlines rowlines columnspacing rowspacing frame "
    "width height depth open close separators symmetric largeop"
)
_CLOSING = {"$$": "$$", r"\[": r"\]"}
_INLINE = (
    re.compile(r"\$\$(?P<tex>[^$]+?)\$\$"),
    re.compile(r"\$(?P<tex>(?![\s$])(?:\\.|[^$\\])*?(?<!\s))\$(?!\d)", re.DOTALL),
    re.compile(r"\\\((?P<tex>.+?)\\\)", re.DOTALL),
    re.compile(r"\\\[(?P<tex>.+?)\\\]", re.DOTALL),
)


def add_formulas(parser: MarkdownIt) -> None:
    """Teach a reader of Markdown what formulas are."""
    parser.block.ruler.before("fence", "formula", _block, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    parser.inline.ruler.before("escape", "formula", _inline)
    parser.add_render_rule("formula", _rendered)


@lru_cache(maxsize=512)
def mathml(tex: str, *, display: bool) -> str | None:
    """Return a formula as MathML of known elements and attributes; None where it cannot be read.

    Example:
        >>> mathml("x^2", display=False)
        '<math display="inline"><mrow><msup><mi>x</mi><mn>2</mn></msup></mrow></math>'
    """
    if len(tex) > LONGEST or _depth(tex) > DEEPEST:
        return None
    try:
        made = ET.fromstring(convert(tex, display="block" if display else "inline"))  # noqa: S314 - made here just now
    except Exception:  # noqa: BLE001 - the library has many ways to say that it cannot read this
        return None
    return ET.tostring(made, encoding="unicode") if _clean(made) else None


def _clean(element: ET.Element) -> bool:
    """Take out what a formula does not need, such as links; say whether only a formula is left."""
    element.tag = element.tag.removeprefix(f"{{{_MATHML}}}")
    for name in set(element.attrib) - _ATTRIBUTES:
        del element.attrib[name]
    return element.tag in _ELEMENTS and all(_clean(child) for child in element)


def _depth(tex: str) -> int:
    depth = deepest = 0
    for character in tex:
        depth += (character == "{") - (character == "}")
        deepest = max(deepest, depth)
    return deepest


def _block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A formula on lines of its own: to the line that ends with its closing, or to an empty one if there is none."""
    first = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]].rstrip()
    opening = first[:2]
    if opening not in _CLOSING or state.is_code_block(start):
        return False
    closing = _CLOSING[opening]
    lines = [first[2:]]
    if closing in first[2:] and not first.endswith(closing):
        return False  # something follows: a formula inside a paragraph
    following = start + 1
    while closing not in lines[-1] and following < end and not state.isEmpty(following):
        if state.sCount[following] < state.blkIndent:
            break
        lines.append(state.getLines(following, following + 1, state.blkIndent, keepLastLF=False).rstrip())
        following += 1
    if silent:
        return True
    closed = lines[-1].endswith(closing)
    token = state.push("formula", "", 0)
    token.block = True
    token.content = "\n".join(lines).removesuffix(closing) if closed else "\n".join(lines)
    token.markup = opening
    token.hidden = not closed
    token.map = [start, following]
    state.line = following
    return True


def _inline(state: StateInline, silent: bool) -> bool:
    """A formula inside a paragraph."""
    if state.src[state.pos] not in "$\\":
        return False
    for kind in _INLINE:
        found = kind.match(state.src, state.pos, state.posMax)
        if found and found["tex"].strip():
            if not silent:
                token = state.push("formula", "", 0)
                token.content, token.markup = found["tex"], state.src[state.pos : state.pos + 2]
            state.pos = found.end()
            return True
    if state.src.startswith("$", state.pos):  # two that open nothing are not tried again at the second
        width = 2 if state.src.startswith("$$", state.pos) else 1
        if not silent:
            state.pending += "$" * width
        state.pos += width
        return True
    return False


def _rendered(_: RendererHTML, tokens: Sequence[Token], at: int, _options: OptionsDict, _env: EnvType) -> str:
    token = tokens[at]
    display = token.markup in _CLOSING
    made = None if token.hidden else mathml(token.content.strip(), display=display)
    if made is not None:
        return f"<p>{made}</p>" if token.block else made
    opening = token.markup if display or token.markup == r"\(" else "$"
    closing = "" if token.hidden else {**_CLOSING, r"\(": r"\)"}.get(opening, "$")
    shown = f'<code class="formula">{html.escape(opening + token.content + closing)}</code>'
    return f"<p>{shown}</p>" if token.block else shown
