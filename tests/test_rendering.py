"""Markdown as safe HTML: what comes out, that nothing hostile does, and that a growing text ends as a whole one."""

from __future__ import annotations

import html
import re
import time
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cierzo import rendering
from cierzo.formulas import LONGEST as LONGEST_FORMULA
from cierzo.formulas import mathml
from cierzo.rendering import Growing, render

LINES = (
    "palabras *y* más", "# título", "- uno", "  - dos", "1. primero", "2) segundo", "> cita", "```python", "```", "~~~",
    "    código", "| a | b |", "|---|---|", "| 1 | 2 |", "$$", r"\[", r"\]", "a + b", "- c", "$x^2$ y $5 a $10",
    r"\(a\)", "---", "===", "", "", "\t", "**negrita", "<b>", "[x](https://a.b)", "![x](http://c.d/e.png)", "[r]: https://a.b",
    "línea\r", "🙂", "fin\x0bfin", "a\u2028b", "\\", "&amp;", "$$x$$ dentro", "$$x$$",
)  # fmt: skip
TAGS = {
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s",
    "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
ATTRIBUTES = {"class", "href", "title", "target", "rel", "start", "style", "data-language"}
MATH = re.compile(r"m[a-z]+|none")


class Seen(HTMLParser):
    """Every element and attribute of some HTML, and whether all that was opened was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("br", "hr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def is_harmless(blocks: list[str]) -> bool:
    """Whether only known elements and attributes are in it, balanced, and every address is a link to somewhere else."""
    for block in blocks:
        seen = Seen(block)
        assert not seen.open, block
        for tag, attributes in seen.elements:
            if tag in TAGS:
                assert set(attributes) <= ATTRIBUTES, (tag, attributes)
                assert re.fullmatch(r"|text-align:(left|right|center)", attributes.get("style") or ""), attributes
                if tag == "a":
                    assert re.match(r"(https?|mailto):", attributes["href"] or "", re.IGNORECASE), attributes
                    assert attributes["rel"] == "noopener noreferrer nofollow"
            else:
                assert MATH.fullmatch(tag), tag
                assert not {"href", "style", "class", "id", "src"} & set(attributes), attributes
                assert not any(name.startswith("on") for name in attributes), attributes
    return True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It costs $5 to $10.", "<p>It costs $5 to $10.</p>"),
        ("$5-$10, or US$3 and C$4", "<p>$5-$10, or US$3 and C$4</p>"),
        ("from $1,000 to $2,000/month", "<p>from $1,000 to $2,000/month</p>"),
        ("`$x$` and \\$x$", "<p><code>$x$</code> and $x$</p>"),
        ("![a cat](http://a.b/c.png)", 'class="picture" href="http://a.b/c.png"'),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>"),
        ("[x](JAVASCRIPT:alert(1))", "<p>[x](JAVASCRIPT:alert(1))</p>"),
        ("[x](data:text/html,y)", "<p>[x](data:text/html,y)</p>"),
        ("[bank](https://bank.example@evil.example/)", "<p>[bank](https://bank.example@evil.example/)</p>"),
        ("<img src=x onerror=alert(1)>", "<p>&lt;img src=x onerror=alert(1)&gt;</p>"),
        ("|a|b|\n|-|:-:|\n|1|2|", '<td style="text-align:center">2</td>'),
        ("```python\nx = 1\n```", '<pre class="code" data-language="python"><code><span class="n">x</span>'),
        ("```nolanguage\n<b>\n```", '<pre class="code" data-language="nolanguage"><code>&lt;b&gt;\n</code></pre>'),
        ('```x"onload=y\n1\n```', 'data-language="x&quot;onload=y"'),
        ("a\n\n\nb", "<p>a</p>|<p>b</p>"),
        ("~~no~~", "<s>no</s>"),
        ("a\0b", "<p>a\ufffdb</p>"),
    ],
)
def test_what_comes_out(text: str, expected: str) -> None:
    blocks = render(text)
    assert expected in "|".join(blocks)
    assert is_harmless(blocks)


@pytest.mark.parametrize(
    "text",
    [
        "$x^2$ is 5",
        "so $a_1$, $b$.",
        r"\(\frac{1}{2}\)",
        "$$\na\n+ b\n- c\n$$",
        "\\[\nx\n\\]",
        "- $$y$$",
        "> $$\n> x\n> $$",
    ],
)
def test_formulas_are_mathml(text: str) -> None:
    out = "".join(render(text))
    assert "<math" in out
    assert is_harmless(render(text))
    assert ('display="block"' in out) == ("$$" in text or r"\[" in text)


@pytest.mark.parametrize(
    "tex", [r"\frac{", "{" * 2000, r"\unicode{x}", "x" * (LONGEST_FORMULA + 1), r"\begin{matrix} a"]
)
def test_what_is_no_formula_is_shown_as_it_was_written(tex: str) -> None:
    began = time.monotonic()
    (block,) = render(f"$${tex}$$")
    assert time.monotonic() - began < 5
    assert html.escape(tex) in block
    assert '<code class="formula">' in block


def test_a_formula_carries_no_links_and_no_styles() -> None:
    for tex in (
        r"\href{javascript:alert(1)}{x}",
        r"\style{background:url(http://a.b)}{x}",
        r"\class{y}{x}",
        r"\color{red}{x}",
    ):
        made = mathml(tex, display=False)
        assert made is None or not re.search(r"href|style=|class=|url|javascript:", made), made


def test_line_ends_of_people_are_kept() -> None:
    assert render("one\ntwo", breaks=True) == ["<p>one<br>\ntwo</p>"]
    assert render("one\ntwo") == ["<p>one\ntwo</p>"]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(LINES), max_size=14).map("\n".join) | st.text(max_size=80),
    st.lists(st.integers(1, 25), min_size=1, max_size=30),
)
def test_a_text_that_grew_is_as_the_whole_one(text: str, steps: list[int]) -> None:
    growing, at, turn = Growing(), 0, 0
    while at < len(text):
        step = steps[turn % len(steps)]
        before = list(growing.blocks)
        first = growing.add(text[at : at + step])
        assert growing.blocks[:first] == before[:first]
        at, turn = at + step, turn + 1
    growing.add("")
    if not text.endswith("\r"):  # then its last character still waits for its other half
        assert growing.blocks == render(text)
    assert is_harmless(growing.blocks)


BITS = (
    *("word ", "más ", "a", "9", " ", "  ", ", ", ".", "!", "¿qué", "'", ":", "-", "x y"),
    *"*_`$[]<>|~\\\n\t",
    *("**", "$$", r"\(", r"\)", "](", "](http://a.b)", "http://x.y", "&am", "p;"),
    *("- ", "1. ", "# ", "===", " \n", "!["),
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(BITS) | st.sampled_from(BITS[:8]), max_size=25))
@example(["a\\", ", so"])
@example(["a ", "  ", "b", "."])
@example(["1", ". a"])
@example(["*a", "*", "b ", "*c"])
def test_a_text_is_at_every_moment_as_if_it_were_whole(bits: list[str]) -> None:
    growing, text = Growing(), ""
    for bit in bits:
        growing.add(bit)
        text += bit
        assert growing.blocks == render(text)


def test_more_words_are_written_without_reading_the_paragraph(monkeypatch: pytest.MonkeyPatch) -> None:
    growing = Growing()
    growing.add("It *is* said, ")
    monkeypatch.setattr(rendering, "_parser", None)  # whoever reads now fails
    for word in ("by some, ", "that ", "¿quién", "? knows"):
        assert growing.add(word) == 0
    assert growing.blocks == ["<p>It <em>is</em> said, by some, that ¿quién? knows</p>"]


def test_the_work_of_an_update_does_not_grow_with_the_text() -> None:
    growing = Growing()
    for _ in range(500):
        growing.add("A paragraph of *some* length, and no end of others.\n\n")
        assert growing.unsettled < 200
    assert growing.add("More") == len(growing.blocks) - 1


def test_a_huge_text_is_shown_as_it_is() -> None:
    text = "<b>" * (rendering.LONGEST // 3 + 1)
    assert render(text) == [f'<pre class="plain">{html.escape(text)}</pre>']
    growing = Growing()
    growing.add("Short.\n\n")
    growing.add("`" + "x" * rendering.LONGEST)
    growing.add("more")
    assert growing.blocks[-1].startswith('<pre class="plain">')
    assert growing.blocks[-1].endswith("xmore</pre>")


SLOW = (
    *("[" * 5000, "*" * 20_000, "![](" * 3000, "> " * 500 + "x", "- " * 300 + "x", "`" * 9999, "$" * 9999),
    *("\\(" * 5000, "|" * 3000 + "\n" + "|-" * 3000, "&" * 9999, "<http://a" * 3000, "a_" * 9999),
)


@pytest.mark.parametrize("text", SLOW, ids=lambda text: text[:6])
def test_texts_made_to_be_slow_are_not(text: str) -> None:
    began = time.monotonic()
    assert is_harmless(render(text))
    assert time.monotonic() - began < 20
