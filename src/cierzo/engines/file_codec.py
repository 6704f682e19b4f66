"""The vocabulary of a model's own file, where it is not one of Mistral's: ids to texts, and which are control tokens.

Texts to ids is llama.cpp's business, which has the tokenizer of the file; see `cierzo.engines.file_template`.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any

from cierzo.engines.vocabulary import CONTROL, UNKNOWN, USER_DEFINED, Vocabulary
from cierzo.errors import BadText, ModelUnreadable
from cierzo.gguf_header import TEMPLATE
from cierzo.templates import FILE, Codec, Template

if TYPE_CHECKING:
    from pathlib import Path

_MARK = re.compile(r"<\|.*\|>|<\uff5c.*\uff5c>|\[/?[A-Z_ ]+\]|</?[a-z]+_[a-z_]+>|</?(s|bos|eos|pad|unk|think)>")
"""How a control token looks that a file calls user-defined."""

_END = re.compile(
    r"<\|(eot_id|im_end|end|return|call|flush|calls|endoftext|eom_id|end_of_text)\|>|_?<EOT>|\[EO[ST]\]|</s>"
    r"|<end_of_(turn|utterance)>|<\uff5cend▁of▁sentence\uff5c>"
)
"""What llama.cpp takes for a control token by its name alone, whatever the file calls it."""

_LEAST = 3


class FileCodec(Codec):
    """Ids to texts in the vocabulary of a model's file.

    Attributes:
        source: The chat template in the file.
        bos: The id that a prompt begins with where the tokenizer puts one there; -1 for none.
        is_spm: Whether words are SentencePiece's.
        spaced: Whether the tokenizer puts a space before the first word behind a control token.
        unknown: Ids that stand for letters without a token.
        reserved: An id that no plain text can have.

    Args:
        path: The file; its head is read.
        name: Name of the template, see `cierzo.gguf_kind.Kind.own`.

    Raises:
        ModelUnreadable: The vocabulary in the file is damaged.
    """

    def __init__(self, path: Path, name: str) -> None:
        try:
            self._vocabulary = Vocabulary(path)
            self._read_all(path, name)
        except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error, MemoryError):
            raise ModelUnreadable(
                f"the vocabulary in {path.name} is damaged: download the file again, or choose another model"
            ) from None

    def _read_all(self, path: Path, name: str) -> None:
        words = self._vocabulary
        names = [words.name(number) for number in range(len(words.spelled))]
        self.source = bytes(words.entry(TEMPLATE, b"")).decode(errors="replace")
        self.template = Template(name, FILE, "file", len(names), path.name)
        self.controls = {n: each for n, each in enumerate(names) if _is_control(each, words.kinds[n], self.source)}
        self.pieces = names
        self.longest = max(map(len, words.pieces), default=1) or 1
        self.eos = self._id("eos", 0)
        self.bos = self._id("bos", -1)
        self.start = (self.bos,) if self.bos >= 0 and words.entry("tokenizer.ggml.add_bos_token", False) else ()
        self.is_spm = words.entry("tokenizer.ggml.model") == b"llama"
        self.spaced = self.is_spm and bool(words.entry("tokenizer.ggml.add_space_prefix", True))
        longest_first = sorted({*self.controls.values()} - {""}, key=len, reverse=True)
        self._marks = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._numbers = {each: n for n, each in reversed(self.controls.items())}
        self.unknown = frozenset(n for n in self.controls if words.kinds[n] == UNKNOWN)
        self.reserved = next((n for n in self.controls if words.kinds[n] == CONTROL), None)
        self._bytes = {}

    def _id(self, which: str, default: int) -> int:
        said: Any = self._vocabulary.entry(f"tokenizer.ggml.{which}_token_id", default)
        return said if isinstance(said, int) and 0 <= said < len(self._vocabulary.spelled) else default

    @property
    def marks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """No ids: only llama.cpp knows what stands around a question."""
        return (), ()

    def parted(self, text: str) -> list[tuple[str, int | None]]:
        """Part a text that is trusted at its control tokens: texts with None, and names with their ids."""
        parts: list[tuple[str, int | None]] = []
        at = 0
        for mark in self._marks.finditer(text):
            parts += [(text[at : mark.start()], None), (mark[0], self._numbers[mark[0]])]
            at = mark.end()
        return [(part, number) for part, number in [*parts, (text[at:], None)] if part]

    def letters(self, text: str) -> list[int]:
        """Return ids that spell a text letter by letter.

        Raises:
            BadText: The vocabulary has no token for one of them.
        """
        ids = self._vocabulary.ids
        spelled: list[int] = []
        for letter in text:
            raw = letter.encode()
            found = [ids[raw]] if raw in ids else [ids.get(bytes([byte]), -1) for byte in raw]
            if min(found) < 0:
                raise BadText(f"the model's vocabulary cannot spell {text!r:.60} as plain text: take it out")
            spelled += found
        return spelled

    def encode(self, text: str) -> list[int]:
        """Return ids that spell a text, always with the longest token: about what the tokenizer gives."""
        ids, raw, found = self._vocabulary.ids, text.encode(), []
        while raw:
            size = next((n for n in range(min(len(raw), self.longest), 0, -1) if raw[:n] in ids), 0)
            found += [ids[raw[:size]]] if size else []
            raw = raw[size or 1 :]
        return found

    def _read(self, token: int) -> bytes:
        return self.controls[token].encode() if token in self.controls else self._vocabulary.pieces[token]


def _is_control(name: str, kind: int, source: str) -> bool:
    if kind in (CONTROL, UNKNOWN) or _END.fullmatch(name) is not None:
        return True
    used = len(name.strip()) >= _LEAST and name in source
    return kind == USER_DEFINED and (used or _MARK.fullmatch(name.strip()) is not None)
