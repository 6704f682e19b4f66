"""Markdown as HTML that is safe to place, block by block: a text that grows changes its last block only.

No HTML of the text passes, no address but ``http``, ``https`` and ``mailto`` becomes a link, a picture becomes a link
to it, and nothing that comes out asks any host for anything. It knows text only, no message and no page.
"""

from __future__ import annotations

import html
import re
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from cierzo.formulas import add_formulas

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from markdown_it.renderer import RendererHTML
    from markdown_it.token import Token
    from markdown_it.utils import EnvType, OptionsDict

LONGEST = 200_000
"""Characters of one block of Markdown. What is longer is shown as it is: reading it would take seconds."""

LONGEST_COLOURED = 20_000
"""Characters of code that get colours."""

_SCHEMES = ("http", "https", "mailto")
_WORDS = re.compile(r"(?:[^\W_]|[ ,.:?!¿¡'-])+")
"""What means nothing in Markdown but itself, once a line has begun with a letter."""

_NO_ENDS = {ord(end): " " for end in "\v\f\x1c\x1d\x1e\x85\u2028\u2029"}
"""What Python takes for the end of a line and Markdown does not."""


class Growing:
    r"""A text that comes bit by bit, as HTML blocks.

    Attributes:
        blocks: The HTML of each block. Blocks before the one that `add` names never change again.

    Example:
        >>> text = Growing()
        >>> text.add("One *word*"), text.blocks
        (0, ['<p>One <em>word</em></p>'])
        >>> text.add(" more.\n\nAnd"), text.blocks
        (0, ['<p>One <em>word</em> more.</p>', '<p>And</p>'])
        >>> text.add(" so on"), text.blocks[1:]
        (1, ['<p>And so on</p>'])
    """

    def __init__(self) -> None:
        self.blocks: list[str] = []
        self._settled = 0  # blocks before the one that still grows
        self._tail = ""
        self._half = ""

    @property
    def unsettled(self) -> int:
        """Characters of the block that still grows: what the next `add` reads again."""
        return len(self._tail)

    def add(self, text: str) -> int:
        """Add what has come, and return the place of the first block that changed."""
        if not self._half and self._goes_on(text):
            return len(self.blocks) - 1
        text, self._half = self._half + text, ""
        if text.endswith("\r"):  # perhaps half of a line's end
            text, self._half = text[:-1], "\r"
        before, first = self.blocks[self._settled :], self._settled
        self._tail += _lines(text)
        if "\n" in text and len(self._tail) <= LONGEST:
            self._settle()
        self.blocks[self._settled :] = _blocks(self._tail)
        same = takewhile(lambda pair: pair[0] == pair[1], zip(before, self.blocks[first:], strict=False))
        return first + sum(1 for _ in same)

    def _goes_on(self, text: str) -> bool:
        """Write more words to the end of a paragraph that ends in words, which needs no reading of all of it.

        A model writes a word at a time, and reading its paragraph anew for each is most of what an answer costs.
        """
        said = self._tail.rstrip(" ")
        if not said[said.rfind("\n") + 1 :][:1].isalpha() or len(self._tail) + len(text) > LONGEST:
            return False
        html = self.blocks[-1].removesuffix("</p>")
        if not (html.startswith("<p>") and html.endswith(said[-1]) and _WORDS.fullmatch(said[-1])):
            return False  # no paragraph, or its end is a mark that may mean something else once words follow
        if not _WORDS.fullmatch(text):
            return False
        self.blocks[-1] = f"{html}{(self._tail[len(said) :] + text).rstrip(' ')}</p>"
        self._tail += text
        return True

    def _settle(self) -> None:
        """Put aside the blocks that no more text can change: all but the last, as far as lines are whole."""
        whole = self._tail[: self._tail.rindex("\n") + 1]
        groups = list(_groups(whole))
        if len(groups) > 1 and (lines := groups[-1][0].map) is not None:
            self.blocks[self._settled :] = [_html(group) for group in groups[:-1]]
            self._settled = len(self.blocks)
            self._tail = "".join(self._tail.splitlines(keepends=True)[lines[0] :])


def render(text: str, *, breaks: bool = False) -> list[str]:
    """Return the HTML blocks of a whole text.

    Args:
        text: Markdown.
        breaks: Whether every end of a line is kept, as people who type mean it.

    Example:
        >>> render("It costs $5 to $10, <b>really</b>.")
        ['<p>It costs $5 to $10, &lt;b&gt;really&lt;/b&gt;.</p>']
    """
    return _blocks(_lines(text), breaks=breaks)


def _lines(text: str) -> str:
    """End every line as Markdown counts lines, so that a line's number says where it is; NUL is no text."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd").translate(_NO_ENDS)


def _blocks(text: str, *, breaks: bool = False) -> list[str]:
    if len(text) > LONGEST:
        return [f'<pre class="plain">{html.escape(text)}</pre>']
    return [_html(group, breaks=breaks) for group in _groups(text)]


def _groups(text: str) -> Iterator[list[Token]]:
    """Yield the tokens of each block that stands in no other."""
    group: list[Token] = []
    depth = 0
    for token in _parser(breaks=False).parse(text):
        group.append(token)
        depth += token.nesting
        if not depth:
            yield group
            group = []


def _html(group: Sequence[Token], *, breaks: bool = False) -> str:
    parser = _parser(breaks=breaks)
    return str(parser.renderer.render(group, parser.options, {})).strip()


@lru_cache
def _parser(*, breaks: bool) -> MarkdownIt:
    """Make the reader of Markdown. It keeps nothing between two texts."""
    parser = MarkdownIt("commonmark", {"html": False, "xhtmlOut": False, "breaks": breaks}).enable(
        ["table", "strikethrough"]
    )
    # A definition at the end of a text would change blocks that are settled.
    parser.disable(["reference", "html_block", "html_inline"])
    add_formulas(parser)
    parser.validateLink = _is_link  # type: ignore[assignment] # the library's own way to say so
    parser.add_render_rule("link_open", _link_open)
    parser.add_render_rule("image", _image)
    parser.add_render_rule("fence", _fence)
    parser.add_render_rule("code_block", _fence)
    return parser


def _is_link(address: str) -> bool:
    """Whether an address may be a link: of a known kind, and without a name or password that hides where it leads."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    return parts.scheme.lower() in _SCHEMES and (parts.scheme.lower() == "mailto" or "@" not in parts.netloc)


def _link_open(_: RendererHTML, tokens: Sequence[Token], at: int, _options: OptionsDict, _env: EnvType) -> str:
    return _open(str(tokens[at].attrGet("href") or ""))


def _image(self: RendererHTML, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType) -> str:
    """A picture is not fetched: whoever reads decides whether its host may know of it."""
    token = tokens[at]
    shown = self.renderInlineAsText(token.children or [], options, env) or str(token.attrGet("src") or "")
    return f"{_open(str(token.attrGet('src') or ''), 'picture')}{html.escape(shown)}</a>"


def _open(address: str, kind: str = "link") -> str:
    shown = html.escape(address)
    return f'<a class="{kind}" href="{shown}" title="{shown}" target="_blank" rel="noopener noreferrer nofollow">'


def _fence(_: RendererHTML, tokens: Sequence[Token], at: int, _options: OptionsDict, _env: EnvType) -> str:
    """Code, in colours where its language is said and known. The page adds a button to copy it."""
    token = tokens[at]
    language = token.info.split(maxsplit=1)[0] if token.info.strip() else ""
    label = f' data-language="{html.escape(language[:40])}"' if language else ""
    return f'<pre class="code"{label}><code>{_coloured(token.content, language)}</code></pre>'


def _coloured(code: str, language: str) -> str:
    if not language or len(code) > LONGEST_COLOURED:
        return html.escape(code)
    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return html.escape(code)
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True)))


def colours() -> str:
    """Return the style sheet of coloured code, for a light page and for a dark one."""
    light, dark = (HtmlFormatter(style=style).get_style_defs for style in ("default", "github-dark"))
    rules: list[str] = [light("pre.code"), dark(".dark pre.code")]  # type: ignore[no-untyped-call]
    # Only the words have colours: ground and text are the page's.
    return "\n".join(
        line for text in rules for line in text.splitlines() if re.match(r"[^{]*pre\.code \.\w+ ?\{", line)
    )
