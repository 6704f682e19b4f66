"""The templates that Mistral's models were trained with, and the tokenizer beneath each of them.

Every token id comes from mistral-common, which is Mistral's own code; nothing of a template is written here by
hand. Each text is encoded on its own and control tokens are put between as ids, so a text can never become one.
Version 1 is the exception that proves the rule: its ``[INST]`` is plain text, and `Codec` takes care of it.

Importing this file costs nothing; the first `codec` costs 0.3 s for mistral-common, then 15 ms for a
SentencePiece vocabulary or 0.6 s for a Tekken one. Call it from a thread where a pause would be felt.
"""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from cierzo.errors import BadInput, BadText

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mistral_common.tokens.tokenizers.instruct import InstructTokenizerV1
    from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

FILE = "file"
"""In the place of a template's name: the one that a model's file carries, which llama.cpp runs. With a colon and the
vocabulary's digest behind it, the name of such a template; see `adopt`."""

_TEKKEN = "tekken_240718.json"
_WORD_START = "\u2581"
"""SentencePiece writes a space as this character."""

_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>\Z")
_INST = re.compile(rb"\[/?INST\]")
_V1_BEFORE, _V1_AFTER = len(" [INST] "), len(" [/INST]")


@dataclass(frozen=True, slots=True)
class Template:
    """One way of writing a conversation as tokens.

    Attributes:
        name: ``v1`` to ``v13``; with ``-tekken`` where the version exists with both kinds of tokenizer.
        version: Version as mistral-common counts it.
        kind: ``spm`` (SentencePiece with byte fallback), ``tekken`` (byte pairs, by tiktoken), or ``file``: that of a
            model's file.
        vocabulary: Number of token ids; a model with another number cannot have been trained with it.
        file: Name of the tokenizer's file inside mistral-common.
    """

    name: str
    version: str
    kind: Literal["spm", "tekken", "file"]
    vocabulary: int
    file: str

    @property
    def leading_space(self) -> bool:
        """Whether the first token of an answer carries a space that stands for no character."""
        return self.kind == "spm"

    @property
    def system_apart(self) -> bool:
        """Whether a system prompt has control tokens of its own, and not a place inside a question."""
        return self.version in ("v7", "v11", "v13")


TEMPLATES: Mapping[str, Template] = MappingProxyType(
    {
        known.name: known
        for known in (
            Template("v1", "v1", "spm", 32_000, "tokenizer.model.v1"),
            Template("v2", "v2", "spm", 32_768, "mistral_instruct_tokenizer_240216.model.v2"),
            Template("v3", "v3", "spm", 32_768, "mistral_instruct_tokenizer_240323.model.v3"),
            Template("v3-tekken", "v3", "tekken", 131_072, _TEKKEN),
            Template("v7", "v7", "spm", 32_768, "mistral_instruct_tokenizer_241114.model.v7"),
            Template("v7-tekken", "v7", "tekken", 131_072, _TEKKEN),
            Template("v11", "v11", "tekken", 131_072, _TEKKEN),
            Template("v13", "v13", "tekken", 131_072, _TEKKEN),
        )
    }
)
"""Every template, by name."""


def template(name: str | Template) -> Template:
    """Return the template of that name.

    Raises:
        BadInput: There is none; the sentence names those that there are.
    """
    if isinstance(name, Template):
        return name
    if name in _adopted:
        return _adopted[name].template
    if is_of_file(name) and name != FILE:
        raise BadInput("a model file that is not in use wrote this: choose that model again to see its tokens")
    if name not in TEMPLATES:
        raise BadInput(f"there is no prompt template {name!r}: use one of {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def is_of_file(name: str) -> bool:
    """Whether this stands for a template that a model's file carries, and not for one of `TEMPLATES`."""
    return name.partition(":")[0] == FILE


def is_known(name: str) -> bool:
    """Whether the vocabulary of a template is at hand; that of a file is as long as the file is in use."""
    return name in TEMPLATES or name in _adopted


def shown(name: str) -> str:
    """Return a template's name as people read it."""
    return "of the file, not verified" if is_of_file(name) else name


def adopt(known: Codec) -> None:
    """Let `template` and `codec` find the vocabulary of a model's file, by the name of its template."""
    _adopted[known.template.name] = known


_adopted: dict[str, Codec] = {}


class Codec:
    """Texts to ids and back, for one template. Nothing about it changes once it is made; share it between threads.

    Attributes:
        template: Whose it is.
        start: The ids that every prompt begins with.
        eos: The id that ends an answer.
        controls: Names of the control tokens, by id.
        longest: Characters of the longest plain token; a text of n characters takes at least n / longest tokens.
        pieces: The tokens as the tokenizer spells them, by id.
    """

    def __init__(self, template: Template) -> None:
        from mistral_common.protocol.instruct import messages  # noqa: PLC0415 - 0.3 s that `--help` need not pay

        self.template = template
        self._messages = messages
        self._instruct = _instruct_tokenizer(template)
        self._tokenizer: Any = self._instruct.tokenizer
        self.start = tuple(self._instruct.start())
        self.eos = int(self._tokenizer.eos_id)
        pieces = self.pieces = self._tokenizer.vocab()
        self.controls = {i: str(pieces[i]) for i in sorted({self._tokenizer.unk_id, *self._tokenizer.special_ids})}
        self.longest = max(len(piece) for i, piece in enumerate(pieces) if i not in self.controls)
        self._bytes: dict[int, bytes] = {}  # of tokens seen so far: asking the tokenizer is most of what a prompt costs

    def encode(self, text: str) -> list[int]:
        """Return the ids of a plain text. SentencePiece marks its first word as if a space stood before it.

        Raises:
            BadText: The text holds a run of blanks so long that the tokenizer gives up (hundreds of thousands).
        """
        with _readable():
            return list(self._tokenizer.encode(text, bos=False, eos=False))

    def user(self, text: str) -> list[int]:
        """Return the ids of a question between its ``[INST]`` and ``[/INST]``. Raises as `encode`."""
        message = self._messages.UserMessage(content=text)
        with _readable():
            ids, _, _ = self._instruct.encode_user_message(message, None, is_last=False, is_first=False)
        return self._disarm(ids, _V1_BEFORE, _V1_AFTER)

    def system(self, text: str) -> list[int]:
        """Return the ids of a system prompt between its own control tokens (version 7 on). Raises as `encode`."""
        with _readable():
            return [*self._instruct.encode_system_message(self._messages.SystemMessage(content=text))[0]]

    def assistant(self, text: str, *, ends: bool) -> list[int]:
        """Return the ids of an answer, with the token that ends it or, when it is to be continued, without.

        From version 2 on blanks at its end are left out, as Mistral does. Raises as `encode`.
        """
        message = self._messages.AssistantMessage(content=text, prefix=not ends)
        with _readable():
            ids = self._instruct.encode_assistant_message(message, is_before_last_user_message=False)
        return self._disarm(ids)

    def recall(self, ids: Sequence[int], text: str, *, ends: bool) -> list[int] | None:
        """Return ids that a model wrote as those of an answer, or None where they do not say its text.

        Ids with a control token in them, or outside the vocabulary, are refused: they may come from anywhere.
        """
        written = list(ids[:-1] if ids and ids[-1] == self.eos else ids)
        if not written or any(not 0 <= i < self.template.vocabulary or i in self.controls for i in written):
            return None
        said = self.decode(written)
        if (said.removeprefix(" ") if self.template.leading_space else said) != text:
            return None
        return self._disarm([*written, self.eos] if ends else written)

    def bytes_of(self, token: int) -> bytes:
        """Return what a token stands for, in UTF-8; for a control token its name."""
        known = self._bytes.get(token)
        if known is None:
            known = self._bytes[token] = self._read(token)
        return known

    def _read(self, token: int) -> bytes:
        if token in self.controls:
            return self.controls[token].encode()
        if self.template.kind == "tekken":
            return bytes(self._tokenizer.id_to_byte_piece(token))
        piece: str = self._tokenizer.id_to_piece(token)
        byte = _BYTE_PIECE.match(piece)
        return bytes([int(byte[1], 16)]) if byte else piece.replace(_WORD_START, " ").encode()

    def decode(self, ids: Iterable[int], *, controls: bool = False) -> str:
        """Return the text of ids, control tokens left out or, when asked for, by their names.

        A SentencePiece text begins with the space that marks its first word; half a character becomes U+FFFD.
        """
        return b"".join(self.bytes_of(i) for i in ids if controls or i not in self.controls).decode(errors="replace")

    def _disarm(self, ids: list[int], before: int = 0, after: int = 0) -> list[int]:
        """Write each ``[INST]`` and ``[/INST]`` that a person typed letter by letter, so that no model obeys it.

        Only version 1 needs it, where the template's own marks are ordinary tokens: a typed one would have the
        same ids. Letter by letter it still reads the same, and decodes to the same characters.

        Args:
            ids: Of one message.
            before: Bytes of the template's own mark at the start, which stays.
            after: Bytes of the one at the end.
        """
        if self.template.version != "v1":
            return ids
        pieces = [b"" if i in self.controls else self.bytes_of(i) for i in ids]
        text = b"".join(pieces)
        typed = bytearray(len(text))
        for found in _INST.finditer(text, before, len(text) - after):
            typed[found.start() : found.end()] = b"\1" * len(found[0])
        if not any(typed):
            return ids
        disarmed: list[int] = []
        at = 0
        for token, piece in zip(ids, pieces, strict=True):
            touched = any(typed[at : at + len(piece)])
            disarmed += self._letters(piece.decode()) if touched else [token]
            at += len(piece)
        return disarmed

    def _letters(self, text: str) -> list[int]:
        """Return one token for each character of ``text``, which consists of characters that have one."""
        return [self._tokenizer.get_special_token(_WORD_START if letter == " " else letter) for letter in text]

    @cached_property
    def marks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids of ``[INST]`` and of ``[/INST]``. In version 1 they are several ordinary tokens each."""
        ids = self._instruct.encode_user_message(
            self._messages.UserMessage(content="."), None, is_last=False, is_first=False
        )[0]
        middle = ids.index(self.encode(".")[-1])
        return tuple(ids[:middle]), tuple(ids[middle + 1 :])


@contextmanager
def _readable() -> Iterator[None]:
    """Translate the one way in which a tokenizer fails: tiktoken's expression runs out of stack."""
    try:
        yield
    except ValueError:
        raise BadText("the text holds too long a run of blanks to be read: take them out") from None


def codec(template: Template) -> Codec:
    """Return the codec of a template; made once, at its first use."""
    if template.name in _adopted:
        return _adopted[template.name]
    with _loading:
        return _codec(template)


_loading = Lock()


@cache
def _codec(template: Template) -> Codec:
    return Codec(template)


def _instruct_tokenizer(template: Template) -> InstructTokenizerV1[Any, Any, Any]:
    from mistral_common.tokens.tokenizers import instruct  # noqa: PLC0415 - as in Codec

    encoder = getattr(instruct, f"InstructTokenizer{template.version.upper()}")
    return encoder(_tekken(template) if template.kind == "tekken" else _sentencepiece(template))  # type: ignore[no-any-return] # the class is found by name


def _data(template: Template) -> Path:
    import mistral_common  # noqa: PLC0415 - as in Codec

    return Path(mistral_common.__file__).parent / "data" / template.file


def _sentencepiece(template: Template) -> SentencePieceTokenizer:
    from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer  # noqa: PLC0415 - as in Codec

    return SentencePieceTokenizer(_data(template))


def _tekken(template: Template) -> Tekkenizer:
    """Make the tokenizer of a version from the vocabulary that all versions share.

    mistral-common carries the file of version 3. Later models have the same words and more control tokens; their
    numbers are those of mistral-common's own tests, and no chat without tools ever contains one.
    """
    from mistral_common.tokens.tokenizers.base import SpecialTokens, TokenizerVersion  # noqa: PLC0415 - as in Codec
    from mistral_common.tokens.tokenizers.tekken import SpecialTokenInfo, Tekkenizer  # noqa: PLC0415 - as in Codec

    added = {
        "v11": {32: SpecialTokens.args, 33: SpecialTokens.call_id},
        "v13": {
            32: SpecialTokens.args,
            33: SpecialTokens.call_id,
            34: SpecialTokens.begin_think,
            35: SpecialTokens.end_think,
        },
    }.get(template.version, {})
    names = {i: token["token_str"] for i, token in enumerate(Tekkenizer.DEPRECATED_SPECIAL_TOKENS)} | added
    content = json.loads(_data(template).read_bytes())
    config = content["config"]
    return Tekkenizer(
        vocab=content["vocab"],
        special_tokens=[
            SpecialTokenInfo(rank=i, token_str=str(names.get(i, f"<SPECIAL_{i}>")), is_control=True)
            for i in range(max(names) + 1)
        ],
        pattern=config["pattern"],
        vocab_size=config["default_vocab_size"],
        num_special_tokens=config["default_num_special_tokens"],
        version=TokenizerVersion(template.version),
        name=template.name,
    )
