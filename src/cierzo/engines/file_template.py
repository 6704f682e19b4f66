"""Prompts for models that are not Mistral's: llama.cpp runs the chat template in the file, and nobody vouches for it.

The template is another's program, so it never sees what people wrote. It is given a mark in the place of each text,
and what it writes around the marks is its own: only there control tokens count. Then the texts take the places of
the marks, and each run between two control tokens is tokenized as one plain text, by llama.cpp, in which nothing can
become a control token. So the tokens are those of the whole text, but for control tokens that somebody typed.

What is not covered: a template that decides by what a text says sees the mark, and blanks that a control token of the
file would swallow stay. A template that does not end is ended with the process, and is not run again.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any

from cierzo.engines.file_codec import FileCodec
from cierzo.engines.file_scribe import Scribe
from cierzo.errors import BadText, EngineRefused, ModelUnreadable, PromptTooLong
from cierzo.messages import Message, Piece, Prompt, check_text
from cierzo.templates import adopt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cierzo.catalog import Model
    from cierzo.engines.supervisor import Supervisor

BEYOND = 2 * 2**30
"""Bytes of memory that a process with a foreign template may have beside twice its weights (llama.cpp lays them out
anew) and its cache: a template that exhausts memory meets this bound, and not the machine's."""

_LOOKS = re.compile(r"<\|[^|<>]{1,40}\|>|\[/?[A-Z_]{2,40}\]|<</?[A-Z]{1,20}>>|</?[a-z_]{1,40}>|#{2,3} ?\w{1,40}:")
"""How the words of a template look between which texts stand, where they are no control tokens of the vocabulary."""

_BETWEEN = "\n\n"
_TAIL = 12
_AROUND = 30
"""Characters that a template puts around a text, about."""


@dataclass(frozen=True, slots=True)
class _Run:
    """A part of a prompt: text that is still to be tokenized, or ids."""

    text: str
    ids: tuple[int, ...] = ()
    control: bool = False


class FileTemplate:
    """Writes prompts with the template in a model's file.

    Args:
        model: Its file has a template.
        supervisor: Of the process that has loaded it.

    Raises:
        ModelUnreadable: The vocabulary in the file is damaged.
    """

    def __init__(self, model: Model, supervisor: Supervisor) -> None:
        if model.path is None or model.kind is None:
            raise ModelUnreadable(f"{model.name} is not on this machine: get it with `cierzo models pull {model.name}`")
        self._title = model.path.name
        self._codec = FileCodec(model.path, model.kind.own)
        self._takes_system = True
        self._leads: bool | None = None
        self._tail = ""
        self._rate = 0.3  # tokens for a character of a prompt, as the last one had
        self._scribe = Scribe(self._codec, supervisor, self._title)
        adopt(self._codec)

    @property
    def name(self) -> str:
        """Name of the template, under which `cierzo.templates` finds its vocabulary."""
        return self._codec.template.name

    async def render(
        self, messages: Sequence[Message], *, context: int, reserve: int = 0, merge: bool = True
    ) -> Prompt:
        """Make the prompt of a conversation; waits until the model is loaded.

        Where it does not fit, whole turns are left out, oldest first; never a system prompt or the last question.

        Args:
            messages: Oldest first. It ends with a question, or with an answer to be continued.
            context: Tokens in the model's window.
            reserve: Tokens to keep free for the answer. It gives way before the last question does.
            merge: Whether questions with no answer between are joined.

        Raises:
            BadText: There is no question, or the last message is a system prompt.
            PromptTooLong: The last question, with the system prompt, has no room.
            ModelError: The model cannot be loaded, or its template does not end.
            EngineRefused: The template refuses the conversation.
            EngineDied: The process ended meanwhile.
        """
        said = [message for message in messages if message.text.strip() or message.role != "assistant"]
        if not any(message.role == "user" for message in said):
            raise BadText("there is no question: the conversation needs a message of the user")
        if said[-1].role == "system":
            raise BadText("the last message is a system prompt: end with a question, or with an answer to continue")
        turns = list(accumulate(int(message.role == "user") for message in said))
        room, most, last = context - max(reserve, 1), context - 1, turns[-1]

        def since(oldest: int) -> list[Message]:
            return [m for m, turn in zip(said, turns, strict=True) if m.role == "system" or turn >= oldest]

        self._check_room([message.text for message in since(last)], most)
        low, high = self._unthinkable(said, turns, room), last
        sizes = _sizes(said, turns)
        best: Prompt | None = None
        while best is None or high - low > 1:
            likely = next((turn for turn in range(low + 1, high) if sizes[turn] * self._rate <= room), high)
            turn = min(likely, high - 1) if best else likely
            tried = await self._made(since(turn), merge)
            self._rate = len(tried) / sizes[turn]
            if len(tried) <= room or turn == last:
                high, best = turn, tried
            else:
                low = turn
        if len(best) > most:
            raise PromptTooLong(len(best), most)
        kept = {id(message) for message in best.kept}
        dropped = tuple(m for m in said if id(m) not in kept)
        return replace(best, dropped=dropped)

    async def raw(self, text: str, *, context: int) -> Prompt:
        """Make a prompt of a string that has its control tokens already, as the file names them.

        Raises:
            BadText: It is empty, too long, or not Unicode.
            PromptTooLong: It does not fit.
            ModelError, EngineDied: As `render`.
        """
        check_text(text, what="the prompt")
        self._check_room([text], context - 1)
        runs = [self._control(number) if number is not None else _Run(part) for part, number in self._parted(text)]
        leads = await self._learn_lead()
        control = bool(runs) and runs[-1].control
        space = (control and self._codec.spaced) or (leads and text.endswith(self._tail))
        prompt = Prompt(tuple(await self._pieces(runs)), "raw", leading_space=space)
        if len(prompt) > context - 1:
            raise PromptTooLong(len(prompt), context - 1)
        return prompt

    def _parted(self, text: str) -> list[tuple[str, int | None]]:
        bos = self._codec.controls.get(self._codec.bos, "")
        stripped = text.lstrip()
        return self._codec.parted(stripped if bos and stripped.startswith(bos) else text)

    def _check_room(self, texts: Sequence[str], most: int) -> None:
        """Refuse without asking llama.cpp what cannot fit: no token is longer than the longest."""
        least = -(-sum(map(len, texts)) // self._codec.longest)
        if least > most:
            raise PromptTooLong(least, most, at_least=True)

    def _unthinkable(self, said: Sequence[Message], turns: Sequence[int], room: int) -> int:
        """Return the newest turn that cannot fit, by its length in characters alone; -1 where all may."""
        left = room * self._codec.longest
        for message, turn in zip(reversed(said), reversed(turns), strict=True):
            left -= 0 if message.role == "system" else len(message.text)
            if left < 0 and turn < turns[-1]:
                return turn
        return -1

    async def _made(self, said: list[Message], merge: bool) -> Prompt:
        """Make the prompt of messages, whether it fits or not."""
        continues = said[-1].role == "assistant"
        after = [Message("user", "?")] if continues else []
        mark = f"cz{secrets.token_hex(8)}x"
        known = {number: found for number, message in enumerate(said) if (found := self._recalled(message))}
        rendered = await self._rendered([*said, *after], mark, merge, frozenset(known))
        places = re.compile(mark + r"(\d+)z")
        last = f"{mark}{len(said) - 1}z"
        if last not in rendered:
            raise EngineRefused(f"the chat template in {self._title} leaves the last message out: choose another model")
        if continues:
            rendered = rendered[: rendered.rindex(last) + len(last)]
        kept = tuple(said[n] for n in sorted({int(n) for n in places.findall(rendered)}))
        texts = [message.text if n in known else message.text.strip() for n, message in enumerate(said)]
        if continues:
            texts[-1] += said[-1].text[len(said[-1].text.rstrip()) :] if len(said) - 1 not in known else ""
        leads = await self._learn_lead()
        runs = self._runs(places.split(rendered), texts, known)
        return Prompt(tuple(await self._pieces(runs)), self.name, kept, leading_space=leads and not continues)

    def _runs(self, parts: list[str], texts: Sequence[str], known: dict[int, tuple[int, ...]]) -> list[_Run]:
        """Put texts in the places of their marks.

        Args:
            parts: Words of the template, and numbers of messages, in turn.
            texts: What the messages say.
            known: Ids of those that are not to be tokenized again.
        """
        runs = [_Run("")]
        words = {*_LOOKS.findall(self._codec.source), *_LOOKS.findall("".join(parts[::2]))}
        own = re.compile("|".join(sorted(map(re.escape, words), key=len, reverse=True)) or r"(?!)")
        for place, part in enumerate(parts):
            if not place % 2:
                for piece, number in self._codec.parted(part):
                    _add(runs, piece) if number is None else runs.append(self._control(number))
            elif int(part) in known and not own.search(texts[int(part)]):
                self._add_known(runs, known[int(part)], texts[int(part)])
            else:
                self._add_typed(runs, texts[int(part)], own)
        return [run for run in runs if run.text or run.ids]

    def _add_known(self, runs: list[_Run], ids: tuple[int, ...], text: str) -> None:
        """Add an answer with the ids that a model wrote it with: right behind what it was asked with."""
        if self._leads or self._codec.decode(ids) != text:
            runs[-1] = _Run(runs[-1].text.removesuffix(" "), runs[-1].ids, runs[-1].control)
        runs.append(_Run("", ids))

    def _add_typed(self, runs: list[_Run], text: str, own: re.Pattern[str]) -> None:
        """Add a text; words in it that are the template's ``own`` are spelled letter by letter."""
        at = 0
        for found in own.finditer(text):
            _add(runs, text[at : found.start()])
            runs.append(_Run("", tuple(self._codec.letters(found[0]))))
            at = found.end()
        _add(runs, text[at:])

    def _control(self, number: int) -> _Run:
        return _Run(self._codec.controls[number], (number,), control=True)

    def _recalled(self, message: Message) -> tuple[int, ...]:
        """Return the ids that a model wrote an answer with, where they say its text; otherwise none."""
        ids = message.ids[:-1] if message.ids and message.ids[-1] in self._codec.controls else message.ids
        if message.role != "assistant" or any(n in self._codec.controls or n >= len(self._codec.pieces) for n in ids):
            return ()
        written = self._codec.decode(ids)
        spaced = self._codec.is_spm and written == f" {message.text}"
        return ids if written == message.text or spaced else ()

    async def _rendered(
        self, said: Sequence[Message], mark: str, merge: bool, bare: frozenset[int] = frozenset()
    ) -> str:
        """Have the template write the messages, with marks in the places of texts; see `_bodies`."""
        systems = [n for n, message in enumerate(said) if message.role == "system" and message.text.strip()]
        if systems and self._takes_system:
            try:
                written = await self._scribe.apply(_bodies(said, mark, merge, bare))
            except EngineRefused:
                written = ""
            if all(f"{mark}{n}z" in written for n in systems):
                return written
            self._takes_system = False
        return await self._scribe.apply(_bodies(said, mark, merge, bare, system_apart=False))

    async def _learn_lead(self) -> bool:
        """Find out whether an answer's first token has a space before it that stands for no character."""
        if self._leads is None:
            question, answer = Message("user", "?"), Message("assistant", ".")
            alone = await self._rendered([question], "cza", True)
            longer = await self._rendered([question, answer, question], "cza", True)
            between = longer.partition("cza1z")[0].removeprefix(alone) if longer.startswith(alone) else None
            parts = self._codec.parted(alone)
            behind = bool(parts) and parts[-1][1] is not None
            self._leads = self._codec.is_spm and (between == " " or (between == "" and behind and self._codec.spaced))
            self._tail = alone[-_TAIL:].rpartition("z")[2]
        return self._leads

    async def _pieces(self, runs: Sequence[_Run]) -> list[Piece]:
        """Tokenize the texts, all in one request, and put the token before them that every prompt begins with."""
        texts = [run.text for run in runs if not run.ids]
        glued = [place > 0 and not run.control and bool(run.ids) for place, run in enumerate(runs[:-1])]
        behind_ids = [glued[place - 1] if place else False for place, run in enumerate(runs) if not run.ids]
        found = iter(await self._scribe.plain(texts, behind_ids))
        pieces = [
            Piece(run.text, run.ids, control=True) if run.control else self._piece(run.ids or next(found))
            for run in runs
        ]
        start = await self._scribe.start()
        if start and (not pieces or pieces[0].ids[:1] != start):
            pieces.insert(0, Piece(self._codec.controls.get(start[0], ""), start, control=True))
        return pieces

    def _piece(self, ids: Sequence[int]) -> Piece:
        return Piece(self._codec.decode(ids), tuple(ids), control=False)


def _sizes(said: Sequence[Message], turns: Sequence[int]) -> list[int]:
    """Return about how many characters a prompt has that begins with each turn."""
    of_turn, always = [0] * (turns[-1] + 1), 0
    for message, turn in zip(said, turns, strict=True):
        size = len(message.text) + _AROUND
        if message.role == "system":
            always += size
        else:
            of_turn[turn] += size
    return [always + size for size in accumulate(reversed(of_turn))][::-1]


def _add(runs: list[_Run], text: str) -> None:
    if runs[-1].ids:
        runs.append(_Run(text))
    else:
        runs[-1] = _Run(runs[-1].text + text)


def _bodies(
    said: Sequence[Message], mark: str, merge: bool, bare: frozenset[int], *, system_apart: bool = True
) -> dict[str, Any]:
    """Return the messages as the template gets them: marks for texts, and the blanks around those.

    Args:
        said: The messages.
        mark: How a mark begins.
        merge: Whether questions with no answer between are one.
        bare: Messages without their blanks.
        system_apart: Whether system prompts are messages of their own, and not the beginning of the first question.
    """
    texts = [
        f"{mark}{number}z" if number in bare else _around(message.text, f"{mark}{number}z")
        for number, message in enumerate(said)
    ]
    numbers = [n for n, message in enumerate(said) if message.text.strip() or message.role == "user"]
    before = [] if system_apart else [n for n in numbers if said[n].role == "system"]
    groups = [
        (role, [*group])
        for (role, _), group in groupby(
            (n for n in numbers if n not in before),
            key=lambda n: (said[n].role, 0 if merge or said[n].role == "assistant" else n),
        )
    ]
    if before:
        first = next(place for place, (role, _) in enumerate(groups) if role == "user")
        groups[first] = ("user", [*before, *groups[first][1]])
    bodies = [{"role": role, "content": _BETWEEN.join(texts[n] for n in group)} for role, group in groups]
    return {"messages": bodies}


def _around(text: str, mark: str) -> str:
    """Return a mark with the blanks that a text begins and ends with."""
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    return text[:start] + mark + text[end:]
