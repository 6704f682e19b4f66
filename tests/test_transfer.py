"""Files of conversations, without a database: reading in pieces, refusing, and Markdown that stays in its place."""

import io
import json
import random
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cierzo import transfer
from cierzo.errors import BadInput
from cierzo.transfer import scanner as scanning
from cierzo.transfer.markdown import intact
from cierzo.transfer.scanner import Scanner

HEAD = '{"format":"cierzo-conversations","version":1,"exported":"2026-11-22T18:30:00.000000Z","conversations":'
DATES = '"created":"2026-11-22T18:30:00.000000Z","updated":"2026-11-22T18:30:00.000000Z"'
EMPTY = f'{{"id":"a","title":"t",{DATES},"pinned":false,"archived":false,"deleted":null,"head":null,"messages":[]}}'

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=10,
)


class Drip(io.BytesIO):
    """A file that gives a few bytes at a time, as a pipe may."""

    def read(self, _=-1):
        return super().read(3)


def but(**fields):
    """An empty conversation in which something else stands."""
    return json.dumps({**json.loads(EMPTY), **fields})


def read(text):
    return list(transfer.read(io.BytesIO(text.encode() if isinstance(text, str) else text)))


@given(st.lists(values, max_size=4), st.booleans(), st.sampled_from([None, 1]))
@example([1, 2], False, None)
@example([10], False, None)
def test_values_are_read_as_json_reads_them_however_they_come(given_values, ascii_only, indent):
    text = json.dumps(given_values, ensure_ascii=ascii_only, indent=indent)
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        return
    scanner = Scanner(Drip(raw))
    found = []
    scanner.take("[")
    while scanner.peek() != "]":
        if found:
            scanner.take(",")
        found.append(scanner.value())
    scanner.take("]")
    scanner.end()
    assert found == given_values


def test_spaces_a_mark_and_no_sum_do_not_matter():
    assert [draft.conversation.title for draft in read(HEAD + f"[{EMPTY}]}}")] == ["t"]
    loose = json.dumps(json.loads(HEAD + f"[{EMPTY}]}}"), indent=4)
    assert len(read(b"\xef\xbb\xbf" + loose.encode())) == 1
    assert read(HEAD + "[]}\n\n") == []


FOREIGN = [b"", b" ", b"{}", b"[]", b"null", b"PK\x03\x04", b"# Markdown", b'{"format":"x"}', b"\xff\xfe{", b'{"a":']
FOREIGN += [b"\0" * 100, b'{"version":1,"format":"cierzo-conversations"}', b'"' * 1000, b"[" * 100_000, b"9" * 10_000]


@pytest.mark.parametrize("file", FOREIGN, ids=range(len(FOREIGN)))
def test_what_is_not_ours_is_told_what_is_expected(file):
    with pytest.raises(BadInput, match="a JSON file is expected that begins with") as refused:
        read(file)
    assert "cierzo export" in str(refused.value)


BROKEN = [
    ("[", "line 1 (the file ends too early)"),
    (f"[{EMPTY}", "ends too early"),
    (f"[{EMPTY}]", "ends too early"),
    (f"[{EMPTY},]}}", "{ is missing"),
    (f"[{EMPTY}]}}x", "something follows"),
    (f"[{EMPTY}]}}{{}}", "something follows"),
    (f"[{EMPTY},{EMPTY}]}}", "conversations[1].id (this id stands in the file twice)"),
    (f"[{EMPTY[:-2]}{'[' * 50_000}", "nested too deep"),
    (f'[{EMPTY[:-2]}{{"a":1,"a":2}}]}}]}}', "a name stands twice"),
    (f"[{EMPTY[:-2]}NaN]}}]}}", "NaN is no number"),
    (f"[{EMPTY[:-2]}{'9' * 10_000}]}}]}}", "Exceeds the limit"),
    (f"[{EMPTY[:-2]}null]}}]}}", "conversations[0].messages[0] (an object is expected)"),
    (f'[{EMPTY}],"sha256":"0"}}', "changed or damaged"),
    (f'[{EMPTY}],"more":1}}', '"sha256" is missing'),
    (f"[{but(pinned=0)}]}}", "pinned (true or false is expected)"),
    (f"[{but(created='2026-02-30T18:30:00.000000Z')}]}}", "created (a date such as"),
    (f"[{but(title='x' * 301)}]}}", "title (the title has 301 characters"),
    (f"[{but(title=chr(0xD800))}]}}", "half a character"),
    (f"[{but(head='x')}]}}", "conversations[0].head (it is no message"),
]


@pytest.mark.parametrize(("rest", "said"), BROKEN, ids=range(len(BROKEN)))
def test_what_is_broken_is_told_where(rest, said):
    with pytest.raises(BadInput) as refused:
        read(HEAD + rest)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 300


def test_a_newer_version_is_told():
    with pytest.raises(BadInput, match="use a newer Cierzo"):
        read(HEAD.replace(":1,", ":2,") + "[]}")


def test_lines_are_counted():
    with pytest.raises(BadInput, match="line 4 "):
        read(HEAD + f"[\n{EMPTY}\n,\n oops]}}")


def test_bounds(monkeypatch):
    monkeypatch.setattr(scanning, "MAX_BYTES", 100_000)
    with pytest.raises(BadInput, match="more than 100,000 bytes"):
        read(HEAD + "[" + " " * 100_000 + "]}")
    monkeypatch.undo()
    monkeypatch.setattr(scanning, "MAX_VALUE", 1_000_000)
    with pytest.raises(BadInput, match="a value has more than 1,000,000 characters"):
        read(HEAD + "[" + EMPTY[:-2] + '"' + "x" * 9_000_000)
    monkeypatch.undo()
    monkeypatch.setattr(transfer, "MAX_CONVERSATIONS", 1)
    with pytest.raises(BadInput, match="more than 1 conversations"):
        read(HEAD + f"[{EMPTY},{EMPTY.replace(chr(34) + 'a' + chr(34), chr(34) + 'b' + chr(34))}]}}")


BITS = ["```", "~~~", "````", "```py", " ", "   ", "    ", "- ", "> ", "1. ", "<!--", "-->", "<pre>", "</pre>", "<div>"]
BITS += ["a", "\n", "\n", "\n", "\r", "\t", "#", "<?", "![x", "[x]: ", "***", "\u2028", "|", "&lt;", "`"]


def test_no_text_swallows_what_follows_it():
    """Texts of every mark in every order: the heading behind them is always a heading, and the text is all there."""
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark")
    dice = random.Random(5)
    for _ in range(3000):
        text = "".join(dice.choice(BITS) for _ in range(dice.randrange(1, 14)))
        written = intact(text)
        last = markdown.parse(f"# Title\n\n{written}\n\n## After\n\nend\n")[-6:]
        assert (last[0].type, last[0].level, last[1].content) == ("heading_open", 0, "After"), text
        lines = [f"> {line}".rstrip(" ") for line in re.split(r"\r\n|\n|\r", text)]
        assert written in (text, "\n".join(lines))
