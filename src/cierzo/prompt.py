"""Conversations to prompts: which messages fit the window, where the system prompt goes, and the exact tokens.

This is the only place where a prompt is made. It knows the messages and the template; it knows no engine, and
what an engine or a remote server calls its own template is never used. ``docs/prompt.md`` has the rules in full.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from codecs import getincrementaldecoder
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import accumulate, chain, groupby
from typing import TYPE_CHECKING, Literal

from cierzo.errors import BadInput, BadText, PromptTooLong
from cierzo.messages import Message, Piece, Prompt, Role, check_text
from cierzo.pieces import REMEMBERED, Segment, plain
from cierzo.templates import TEMPLATES, Codec, Template, codec, is_known, is_of_file, template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = [
    "TEMPLATES",
    "Part",
    "Template",
    "build",
    "decode",
    "format_prompt",
    "of_ids",
    "raw",
    "template",
    "token_text",
    "tokenize",
]

_named = template  # the functions below call their argument `template`

Placement = Literal["first", "official"]
Consecutive = Literal["merge", "separate"]

_BETWEEN = "\n\n"
"""What Mistral puts between texts that share one place."""

_CONTROL = re.compile(r"\[/?\w{1,40}\]|</?\w{1,40}>", re.ASCII)
_UNKNOWN = "<unk>"


def build(
    messages: Sequence[Message],
    template: str | Template,
    *,
    context: int,
    reserve: int = 0,
    system: Placement = "first",
    consecutive: Consecutive = "merge",
) -> Prompt:
    r"""Make the prompt of a conversation.

    Where it does not fit, whole turns (a question and its answer) are left out, oldest first; never a system
    prompt and never the last question. Messages are encoded once each; a chat of thousands costs what fits.

    An answer whose ``ids`` decode to its text is put in with those ids, so that the KV cache of the engine that
    wrote it goes on; answers without text (stopped before their first token) are left out.

    Args:
        messages: The conversation, oldest first. It ends with a question, or with an answer to be continued.
        template: Name of the template, see `TEMPLATES`.
        context: Tokens in the model's window.
        reserve: Tokens to keep free for the answer. It gives way, down to 1, before the last question does.
        system: Where the system prompt goes in versions 1 to 3. ``first``, the first question, keeps the start of
            the prompt the same from turn to turn, so the KV cache holds. ``official`` is Mistral's own place:
            in versions 2 and 3 the last question. Later versions have control tokens for it.
        consecutive: Questions with no answer between: ``merge`` joins them with an empty line, as Mistral does;
            ``separate`` gives each its own ``[INST] … [/INST]``.

    Returns:
        The prompt, with the messages that are in it and those that had no room. Where an answer to be continued
        ends in blanks, from version 2 on the template leaves them out, and so does its message in ``kept``.

    Raises:
        BadInput: There is no such template, or it is that of a model's file.
        BadText: There is no question, or the last message is neither a question nor an answer.
        PromptTooLong: The last question, with the system prompt, has no room.

    Example:
        >>> prompt = build([Message("system", "Be brief."), Message("user", "Hi")], "v3", context=2048)
        >>> prompt.text
        '<s>[INST] Be brief.\n\nHi[/INST]'
        >>> prompt.ids[:2], prompt.ids[-1]
        ((1, 3), 4)
    """
    known = codec(_named(template))
    if known.template.kind == "file":
        raise BadInput("only llama.cpp writes prompts with the template in a file: ask a chat with that model for them")
    conversation = _Conversation(messages, known, system, consecutive)
    return conversation.fit(context - max(reserve, 1), context - 1)


def raw(text: str, template: str | Template, *, context: int | None = None) -> Prompt:
    """Make a prompt of a string that already has its control tokens, such as ``<s>[INST] Hi[/INST]``.

    Control tokens are taken at their word, ``<s>`` too: the prompt has exactly one, at its start, whether the
    string has none, one or several. One space after a control token is the space that SentencePiece marks a word
    with, and not one more; a Tekken vocabulary has no such thing, and there every space counts.

    Args:
        text: What a client of Text Generation Inference sends.
        template: Name of the model's template: it decides which tokens are control tokens.
        context: Tokens in the model's window; None does not check.

    Raises:
        BadText: The text is empty, too long, or not Unicode.
        PromptTooLong: It has no room in the window.

    Example:
        >>> raw("<s>[INST] Hi[/INST]", "v3").ids == build([Message("user", "Hi")], "v3", context=99).ids
        True
    """
    check_text(text, what="the prompt")
    known = codec(_named(template))
    if context is not None:
        _check_room(known, [text], context - 1)
    control_ids = {name: i for i, name in known.controls.items() if name != _UNKNOWN}
    (bos,) = known.start
    pieces = [Piece(known.controls[bos], (bos,), control=True)]
    stripped = text.lstrip()
    at = len(text) - len(stripped) if stripped.startswith(known.controls[bos]) else 0
    marks = [mark for mark in _CONTROL.finditer(text) if mark[0] in control_ids]
    for start, end, name in [*((*mark.span(), mark[0]) for mark in marks), (len(text), len(text), "")]:
        if between := text[at:start].removeprefix(" " if known.template.leading_space else ""):
            pieces.append(plain(known, known.encode(between)))
        if name and control_ids[name] != bos:
            pieces.append(Piece(name, (control_ids[name],), control=True))
        at = end
    prompt = Prompt(tuple(pieces), "raw", leading_space=known.template.leading_space and _asks(known, pieces[-1]))
    if context is not None and len(prompt) > context - 1:
        raise PromptTooLong(len(prompt), context - 1)
    return prompt


def of_ids(ids: Sequence[int], template: str | Template, *, context: int | None = None) -> Prompt:
    """Make a prompt of token ids, exactly as they are: nothing is put before them.

    Raises:
        BadText: There are none, or one is not in the vocabulary.
        PromptTooLong: They have no room in the window.

    Example:
        >>> of_ids([1, 3, 16127, 4], "v3").text
        '<s>[INST] Hi[/INST]'
    """
    known = codec(_named(template))
    if not ids:
        raise BadText("the prompt is empty: give at least one token id")
    for token in ids:
        if not 0 <= token < known.template.vocabulary:
            raise BadText(f"there is no token {token}: the vocabulary has 0 to {known.template.vocabulary - 1}")
    if context is not None and len(ids) > context - 1:
        raise PromptTooLong(len(ids), context - 1)
    pieces = Segment(known, "system", tuple(ids)).pieces
    return Prompt(pieces, "raw", leading_space=known.template.leading_space and _asks(known, pieces[-1]))


def format_prompt(message: str, history: Iterable[Sequence[str]]) -> str:
    """Return the string that chat notebooks of 2023 send: version 1 as text, for servers that take only strings.

    Args:
        message: The question.
        history: Pairs of a question and its answer, oldest first.

    Example:
        >>> format_prompt("And then?", [("Hi", "Hello")])
        '<s>[INST] Hi [/INST] Hello</s> [INST] And then? [/INST]'
    """
    turns = "".join(f"[INST] {question} [/INST] {answer}</s> " for question, answer in history)
    return f"<s>{turns}[INST] {message} [/INST]"


@dataclass(frozen=True, slots=True)
class Part:
    """One token of a prompt.

    Attributes:
        id: Its number in the vocabulary.
        text: The characters that it completes; empty where a later token completes the character.
        start: Where its text begins in `Prompt.text`.
        stop: Where it ends.
        control: Whether it is a control token.
    """

    id: int
    text: str
    start: int
    stop: int
    control: bool


def tokenize(prompt: str | Prompt, template: str | Template) -> list[Part]:
    """Take a prompt apart, token by token. A string is read as `raw` reads it.

    Example:
        >>> [(part.id, part.text) for part in tokenize("<s>[INST] Hi[/INST]", "v3")]
        [(1, '<s>'), (3, '[INST]'), (16127, ' Hi'), (4, '[/INST]')]
    """
    known = codec(_named(template))
    parts: list[Part] = []
    at = 0
    for piece in (raw(prompt, known.template) if isinstance(prompt, str) else prompt).pieces:
        decoder = getincrementaldecoder("utf-8")("replace")
        for left, token in zip(range(len(piece.ids) - 1, -1, -1), piece.ids, strict=True):
            text = decoder.decode(known.bytes_of(token), final=not left)
            parts.append(Part(token, text, at, at + len(text), piece.control))
            at += len(text)
    return parts


def decode(ids: Iterable[int], template: str | Template, *, controls: bool = False) -> str:
    """Return the text of ids, control tokens left out or, when asked for, by their names.

    The text of an answer in a SentencePiece vocabulary begins with a space that stands for no character.
    """
    return codec(_named(template)).decode(ids, controls=controls)


def token_text(token: int, template: str | Template) -> str:
    """Return a token as a person reads it alone: its text, its name, or ``<0xF0>`` for part of a character.

    Where the vocabulary is that of a file that is not in use, its number.
    """
    if isinstance(template, str) and is_of_file(template) and not is_known(template):
        return f"<{token}>"
    known = codec(_named(template))
    if not 0 <= token < known.template.vocabulary:
        return f"<{token}?>"
    content = known.bytes_of(token)
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "".join(f"<0x{byte:02X}>" for byte in content)


class _Conversation:
    """The messages of one prompt, in turns, each text encoded at most once."""

    def __init__(self, messages: Sequence[Message], known: Codec, system: Placement, consecutive: Consecutive) -> None:
        self.codec = known
        self.official = system == "official"
        self.separate = consecutive == "separate"
        self.messages = [message for message in messages if message.text or message.role != "assistant"]
        if not any(message.role == "user" for message in self.messages):
            raise BadText("there is no question: the conversation needs a message of the user")
        if self.messages[-1].role == "system":
            raise BadText("the last message is a system prompt: end with a question, or with an answer to continue")
        self.continues = self.messages[-1].role == "assistant"
        self.turns = list(accumulate(int(message.role == "user") for message in self.messages))
        self.systems = [at for at, message in enumerate(self.messages) if message.role == "system"]
        self.said: Callable[[Role, str, tuple[int, ...], bool], Segment] = cache(partial(REMEMBERED.segment, known))
        self.tried: dict[int, list[Segment]] = {}

    def fit(self, room: int, most: int) -> Prompt:
        """Return the prompt of as many of the newest turns as fit into ``room``; the last one may take ``most``."""
        last = self.turns[-1]
        _check_room(self.codec, [message.text for message in self._since(last)], most)
        oldest = self._oldest_thinkable(room)
        if oldest < last and (over := self._length(oldest) - room) > 0:
            oldest = self._oldest_fitting(oldest, over, room)
        if oldest == last and self._length(last) > most:
            raise PromptTooLong(self._length(last), most)
        return self._prompt(oldest)

    def _since(self, oldest: int) -> list[Message]:
        """Return the messages from a turn on, and every system prompt."""
        start = bisect_left(self.turns, oldest)
        return [*(self.messages[at] for at in self.systems if at < start), *self.messages[start:]]

    def _oldest_thinkable(self, room: int) -> int:
        """Return the oldest turn for which the words alone, without what the template puts between, fit."""
        around = sum(map(len, self.codec.marks))
        used = 0
        for message, turn in zip(reversed(self.messages), reversed(self.turns), strict=True):
            if message.role == "system" or turn == self.turns[-1]:
                continue
            if len(message.text) > (room - used) * self.codec.longest:
                return turn + 1  # not worth encoding
            used += self._alone(message) - (around if message.role == "user" else 1)
            if used > room:
                return turn + 1
        return 0

    def _oldest_fitting(self, oldest: int, over: int, room: int) -> int:
        """Return the oldest turn that fits, or the last, where ``oldest`` is too long by ``over`` tokens.

        To measure is what costs: so first the turn that the messages' own lengths point at, then around it.
        """
        at = bisect_left(self.turns, oldest)
        while over > 0 and self.turns[at] < self.turns[-1]:
            over -= self._alone(self.messages[at]) if self.messages[at].role != "system" else 0
            at += 1
        too_old, new_enough = oldest, self.turns[-1]
        likely = self.turns[at - 1] + 1
        step = 1
        while new_enough - too_old > 1:
            turn = likely if too_old < likely < new_enough else (too_old + new_enough) // 2
            if self._length(turn) <= room:
                new_enough, likely = turn, turn - step
            else:
                too_old, likely = turn, turn + step
            step *= 2
        return new_enough

    def _alone(self, message: Message) -> int:
        """Return the tokens of a question or an answer that shares its place with no other."""
        return len(self.said(message.role, message.text, message.ids, True).ids)

    def _length(self, oldest: int) -> int:
        return sum(len(segment.ids) for segment in self._segments(oldest))

    def _groups(self, chosen: Sequence[Message]) -> Iterator[tuple[Role, list[Message]]]:
        """Yield messages that share a place: consecutive ones of one role."""
        for role, group in groupby(chosen, key=lambda message: message.role):
            if role == "system" or (role == "user" and self.separate):
                yield from ((role, [message]) for message in group)
            else:
                yield role, list(group)

    def _places(self, oldest: int) -> list[tuple[Role, str, tuple[int, ...]]]:
        """Return the texts of the prompt in order: who speaks, what, and the ids it was written with if there are."""
        chosen = self._since(oldest)
        if self.codec.template.system_apart:
            groups, common = list(self._groups(chosen)), ""
        else:
            common = _BETWEEN.join(m.text for m in chosen if m.role == "system" and m.text)
            if not self.official:  # in Mistral's own way a system prompt parts two questions, wherever it goes
                chosen = [message for message in chosen if message.role != "system"]
            groups = [group for group in self._groups(chosen) if group[0] != "system"]
            if groups[0][0] != "user":  # an answer to nothing: Mistral puts an empty question before it
                groups.insert(0, ("user", []))
        places = [
            (role, _BETWEEN.join(m.text for m in group), group[0].ids if len(group) == 1 else ())
            for role, group in groups
        ]
        if common:
            asked = [place for place, (role, _, _) in enumerate(places) if role == "user"]
            bearer = asked[-1 if self.official and self.codec.template.version != "v1" else 0]
            places[bearer] = ("user", common + _BETWEEN + places[bearer][1], ())
        return places

    def _segments(self, oldest: int) -> list[Segment]:
        """Return the prompt, text by text."""
        if oldest not in self.tried:
            places = self._places(oldest)
            unended = len(places) - 1 if self.continues else -1
            self.tried[oldest] = [
                Segment(self.codec, "system", self.codec.start),
                *(self.said(*each, place != unended) for place, each in enumerate(places)),
            ]
        return self.tried[oldest]

    def _prompt(self, oldest: int) -> Prompt:
        segments = self._segments(oldest)
        kept = self._since(oldest)
        if self.continues and self._strips(kept[-1]):
            kept[-1] = replace(kept[-1], text=kept[-1].text.rstrip(" "), ids=())
        return Prompt(
            tuple(chain.from_iterable(segment.pieces for segment in segments)),
            self.codec.template.name,
            tuple(kept),
            tuple(m for m in self.messages[: bisect_left(self.turns, oldest)] if m.role != "system"),
            self.codec.template.leading_space and not (self.continues and segments[-1].ids),
        )

    def _strips(self, answer: Message) -> bool:
        """Say whether the template leaves out the blanks at the end of an answer, as it does unless it has its ids."""
        if self.codec.template.version == "v1" or not answer.text.endswith(" "):
            return False
        return self.codec.recall(answer.ids, answer.text, ends=False) is None


def _check_room(known: Codec, texts: Sequence[str], most: int) -> None:
    """Refuse without encoding what cannot fit: no token is longer than the longest.

    Raises:
        PromptTooLong: With the fewest tokens that the texts can take.
    """
    least = -(-sum(map(len, texts)) // known.longest)
    if least > most:
        raise PromptTooLong(least, most, at_least=True)


def _asks(known: Codec, last: Piece) -> bool:
    """Say whether an answer begins after this piece; otherwise the model goes on with a text."""
    return last.control or (known.template.version == "v1" and last.text.rstrip(" ").endswith("[/INST]"))
