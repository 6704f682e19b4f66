"""Words as a search compares them: without accents, case or punctuation, the same for every database.

It knows no database. Both are given these words, already cut, so that neither's own idea of a word, a letter or
an accent (SQLite's Unicode 6.1, PostgreSQL's locale) can make them answer differently.

What is covered: Latin, Greek, Cyrillic with their accents, ligatures, full-width forms; Chinese and Japanese by
single characters and pairs. What is not: stems (``cats`` does not find ``cat``, though ``cat`` finds ``cats``),
and text beyond `MAX_INDEXED`.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from hashlib import sha256

MAX_INDEXED = 200_000
"""Characters of a text that can be found."""

MAX_WORDS_BYTES = 400_000
"""Bytes of distinct words kept per text. PostgreSQL's tsvector holds 1 MB with 4 to 8 bytes of its own per word."""

MAX_WORD = 64
MAX_TERMS = 12
MAX_QUERY = 1000

_MARKS = dict.fromkeys(code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Mn")
# Letters whose stroke or ligature Unicode does not count as an accent, so that normalising leaves them alone.
_PLAIN = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ħ": "h", "\u0131": "i"}
)
_WORD = re.compile(r"[^\W_]+")
_HAN = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")
# A word in the text as written, where accents may be characters of their own.
_WRITTEN = re.compile(
    r"[^\W_][^\W_\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff]*(?:[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff]+[^\W_]*)*"
)


def fold(text: str) -> str:
    """Return ``text`` in lower case and without accents. Idempotent."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKD", text.casefold()).translate(_MARKS).casefold().translate(_PLAIN)


def _grams(word: str) -> list[str]:
    """Cut what is written without spaces into characters and pairs; leave other words whole."""
    if word.isascii() or not _HAN.search(word):
        return [word[:MAX_WORD]]
    grams = [part[:MAX_WORD] for part in _HAN.split(word) if part]
    for run in _HAN.findall(word):
        grams += [*run, *(run[i : i + 2] for i in range(len(run) - 1))]
    return grams


def words(text: str) -> str:
    """Return the distinct words of ``text``, folded, in order, joined by single spaces."""
    found: dict[str, None] = {}
    room = MAX_WORDS_BYTES
    for match in _WORD.finditer(fold(text[:MAX_INDEXED])):
        for gram in _grams(match.group()):
            if gram not in found:
                room -= len(gram.encode()) + 8
                if room < 0:
                    return " ".join(found)
                found[gram] = None
    return " ".join(found)


def owner_word(owner: str | None) -> str:
    """Return the word that marks a text as this owner's; no text can hold it, since ``§`` is no letter."""
    return "§" + (sha256(owner.encode()).hexdigest()[:32] if owner is not None else "")


def terms(query: str) -> list[str]:
    """Return the words of a query, folded; the last is the beginning of a word. Never more than `MAX_TERMS`."""
    found: dict[str, None] = {}
    for match in _WORD.finditer(fold(query[:MAX_QUERY])):
        grams = _grams(match.group())
        pairs = [gram for gram in grams if len(gram) > 1 or not _HAN.match(gram)]
        for gram in pairs or grams:
            found.pop(gram, None)  # said again, it becomes the last word
            found[gram] = None
    return list(found)[-MAX_TERMS:]


def snippet(text: str, sought: list[str], *, width: int = 160) -> tuple[tuple[str, bool], ...]:
    """Return about ``width`` characters around the first match, in pieces ``(text, whether it matches)``.

    Args:
        text: The text as written; read up to `MAX_INDEXED`.
        sought: What `terms` returned.
        width: How many characters.
    """
    text = text[:MAX_INDEXED]
    first = next((match for match in _WRITTEN.finditer(text) if _matches(match.group(), sought)), None)
    start = max(0, first.start() - width // 3) if first else 0
    if start:
        space = text.find(" ", start, first.start() if first else start)
        start = space + 1 if space >= 0 else start
    end = min(len(text), start + width)
    pieces: list[tuple[str, bool]] = [("…", False)] if start else []
    at = start
    for match in _WRITTEN.finditer(text, start, end):
        if _matches(match.group(), sought):
            pieces += [(text[at : match.start()], False), (match.group(), True)]
            at = match.end()
    pieces += [(text[at:end], False), ("…" if end < len(text) else "", False)]
    return tuple((" ".join(part.split("\n")), marked) for part, marked in pieces if part)


def _matches(written: str, sought: list[str]) -> bool:
    if not sought:
        return False
    for match in _WORD.finditer(fold(written)):
        grams = _grams(match.group())
        if any(gram in sought for gram in grams) or any(gram.startswith(sought[-1]) for gram in grams):
            return True
    return False
