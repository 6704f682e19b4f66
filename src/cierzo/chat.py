"""The one way from messages to tokens: build the prompt, ask the engine. Every face goes through here."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from cierzo import prompt as prompts
from cierzo.engines.base import meet, orderly
from cierzo.errors import BadSampling, EngineDied
from cierzo.messages import UNTOLD, Finish, Message, Piece, Prompt, Sampling, Token
from cierzo.templates import codec, template

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

    from cierzo.engines.base import Engine, EngineInfo
    from cierzo.engines.file_template import FileTemplate
    from cierzo.messages import StreamEvent

RESERVE_SHARE = 4
"""At most this fraction (one in so many) of the window is kept free for the answer while old turns would still fit.
A large max_new_tokens must not throw away the conversation: the answer may then end with ``length`` instead."""

_BLOCK = 2**20


@dataclass(frozen=True, slots=True)
class PromptOptions:
    """How messages become a prompt.

    Attributes:
        system: ``first`` puts the system text into the first user turn, so that the prompt of the next turn
            begins as this one did and the KV cache holds; ``official`` puts it where mistral-common does.
            They differ for V2 and V3 only.
        consecutive: Several user messages in a row are joined (``merge``, official) or stand each in their own
            ``[INST] … [/INST]`` (``separate``, the notebook's way).
    """

    system: Literal["first", "official"] = "first"
    consecutive: Literal["merge", "separate"] = "merge"


DEFAULT_OPTIONS = PromptOptions()
DEFAULT_SAMPLING = Sampling()


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: the stream, folded.

    Attributes:
        text: The token texts, joined.
        tokens: Every token, with its probability and alternatives.
        finish: How it ended, counts and timings.
        prompt: What the model was given.
    """

    text: str
    tokens: tuple[Token, ...]
    finish: Finish
    prompt: Prompt

    def __str__(self) -> str:
        return self.text

    @property
    def message(self) -> Message:
        """The answer as the next prompt's history wants it, with the ids that the model wrote.

        A model may write a NUL, which no message may hold: it becomes U+FFFD.
        """
        return Message("assistant", self.text.replace("\0", "\ufffd"), tuple(token.id for token in self.tokens))


class Chat:
    """A model that is ready to talk.

    Args:
        engine: What answers. The chat closes it.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._hash: asyncio.Task[str] | None = None
        self._closed = threading.Event()

    async def meet(self) -> EngineInfo:
        """Return what the engine is, asking its server for it where nobody has yet.

        Raises:
            CierzoError: What `cierzo.engines.base.meet` raises.
        """
        return await meet(self.engine)

    async def prompt(
        self,
        messages: Sequence[Message],
        sampling: Sampling = DEFAULT_SAMPLING,
        *,
        options: PromptOptions = DEFAULT_OPTIONS,
        begun: Sequence[Token] = (),
    ) -> Prompt:
        """Make the prompt for these messages, the last of which is the question (or an answer to continue).

        Tokenising runs beside the event loop, since a long text takes a while.

        Args:
            messages: The conversation, oldest first.
            sampling: ``max_new_tokens`` is kept free where old turns can make room.
            options: How messages become a prompt.
            begun: Tokens that the answer has already; the prompt ends with exactly these ids.

        Raises:
            PromptTooLong: The last question alone does not fit the model's window.
            BadText: There is no question.
            BadSampling: The engine cannot keep to a JSON schema, or the answer to continue has one.
            CierzoError: For a model that is not Mistral's, what its engine's `FileTemplate.render` raises.
        """
        info = await self.meet()
        _check_schema(info, sampling, continues=bool(begun))
        context, reserve = info.context - len(begun), min(sampling.max_new_tokens, info.context // RESERVE_SHARE)
        if (own := _own_template(self.engine)) is not None:
            merge = options.consecutive == "merge"
            prompt = await own.render(messages, context=context, reserve=reserve, merge=merge)
        else:
            prompt = await asyncio.to_thread(
                prompts.build,
                messages,
                info.template,
                context=context,
                reserve=reserve,
                system=options.system,
                consecutive=options.consecutive,
            )
        return _begun(prompt, begun, info) if begun else prompt

    async def stream(
        self,
        messages: Sequence[Message],
        sampling: Sampling = DEFAULT_SAMPLING,
        *,
        options: PromptOptions = DEFAULT_OPTIONS,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Yield phases, tokens, and one `Finish`, whatever the engine does. Closing the generator stops it.

        Raises:
            CierzoError: What `prompt` or the engine raise; `EngineDied` where it breaks its promises.
        """
        prompt = await self.prompt(messages, sampling, options=options)
        async with aclosing(orderly(self.stream_prompt(prompt, sampling))) as events:
            async for event in events:
                yield event

    async def raw(self, text: str | Sequence[int]) -> Prompt:
        """Make a prompt of a string that has its control tokens already, or of token ids.

        Raises:
            PromptTooLong: It does not fit the model's window.
            BadText: It is empty, or not Unicode text, or an id is not in the vocabulary.
        """
        info = await self.meet()
        if isinstance(text, str) and (own := _own_template(self.engine)) is not None:
            return await own.raw(text, context=info.context)
        make: Callable[..., Prompt] = prompts.raw if isinstance(text, str) else prompts.of_ids
        return await asyncio.to_thread(make, text, info.template, context=info.context)

    def stream_prompt(self, prompt: Prompt, sampling: Sampling = DEFAULT_SAMPLING) -> AsyncGenerator[StreamEvent, None]:
        """Yield what `stream` yields, for a prompt that is made already. Raises what the engine raises.

        Raises:
            BadSampling: The engine cannot keep to a JSON schema.
        """
        _check_schema(self.engine.describe(), sampling)
        return self.engine.stream(prompt, sampling)

    async def answer(
        self,
        messages: Sequence[Message],
        sampling: Sampling = DEFAULT_SAMPLING,
        *,
        options: PromptOptions = DEFAULT_OPTIONS,
    ) -> Answer:
        """Return the whole answer.

        Raises:
            CierzoError: What `stream` raises.
        """
        prompt = await self.prompt(messages, sampling, options=options)
        tokens: list[Token] = []
        async with aclosing(orderly(self.stream_prompt(prompt, sampling))) as events:
            async for event in events:
                if isinstance(event, Token):
                    tokens.append(event)
                elif isinstance(event, Finish):
                    return Answer("".join(token.text for token in tokens), tuple(tokens), event, prompt)
        raise EngineDied("the engine's answer ended without saying why: ask again")

    @property
    def engine_restarts(self) -> int:
        """How many times the engine's process was started again, if it has one."""
        return int(getattr(self.engine, "restarts", 0))

    @property
    def model_hash(self) -> str:
        """SHA-256 of the model's file in hex; empty where there is no file here, or while it is being computed."""
        return self._hash.result() if self._hash and self._hash.done() and not self._hash.cancelled() else ""

    async def start(self) -> None:
        """Begin to load the model, if the engine can do that ahead. Returns at once."""
        start = getattr(self.engine, "start", None)
        if start is not None:
            start()
        file = getattr(self.engine, "file", None)
        if file is not None and self._hash is None:
            self._hash = asyncio.create_task(asyncio.to_thread(_sha256, file, self._closed))

    async def close(self) -> None:
        """Free the engine. May be called twice."""
        self._closed.set()
        await self.engine.close()
        if self._hash is not None:
            await asyncio.wait([self._hash])


def _begun(prompt: Prompt, begun: Sequence[Token], info: EngineInfo) -> Prompt:
    """Return the prompt with the beginning of its answer, as the engine will take it."""
    text, ids = "".join(token.text for token in begun), tuple(token.id for token in begun)
    if UNTOLD in ids:  # an engine that tells no ids wrote this
        ids = tuple(codec(template(info.template)).encode(text))
    pieces = (*prompt.pieces, Piece(text, ids, control=False))
    kept = (*prompt.kept, Message("assistant", text)) if info.takes == "messages" else prompt.kept
    return replace(prompt, pieces=pieces, kept=kept, leading_space=False)


def _own_template(engine: Engine) -> FileTemplate | None:
    """Return what writes the prompts of a model that is not Mistral's; None for all others."""
    return getattr(engine, "own_template", None)


def _check_schema(info: EngineInfo, sampling: Sampling, *, continues: bool = False) -> None:
    """Leave no schema out silently: an answer that does not fit it is worse than none."""
    if sampling.json_schema is None:
        return
    if "json_schema" not in info.honours:
        raise BadSampling(f"json_schema cannot be kept to by the engine {info.engine}: leave it out, or use llamacpp:")
    if continues:
        raise BadSampling("json_schema holds for a whole answer, so this one cannot be gone on with: ask anew")


def _sha256(file: Path, enough: threading.Event) -> str:
    """Return the hash of a file; empty if it cannot be read, or if it was ``enough`` before the end."""
    digest = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            while block := opened.read(_BLOCK):
                if enough.is_set():
                    return ""
                digest.update(block)
    except OSError:
        return ""  # the engine says what is wrong with the file
    return digest.hexdigest()
