"""The one way from messages to tokens: build the prompt, ask the engine. Every face goes through here."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

from cierzo import prompt as prompts
from cierzo.engines.base import meet, orderly
from cierzo.errors import BadSampling, EngineDied
from cierzo.holding import Hold, Use
from cierzo.messages import UNTOLD, Finish, Message, Piece, Prompt, Sampling, Token
from cierzo.templates import codec, template

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from cierzo.engines.base import Engine, EngineInfo
    from cierzo.engines.file_template import FileTemplate
    from cierzo.messages import StreamEvent

RESERVE_SHARE = 4
"""At most this fraction (one in so many) of the window is kept free for the answer while old turns would still fit.
A large max_new_tokens must not throw away the conversation: the answer may then end with ``length`` instead."""


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


class Speaker:
    """Makes prompts for one engine, and streams of its answers.

    Args:
        use: The engine.
    """

    def __init__(self, use: Use) -> None:
        self._use = use

    @property
    def engine(self) -> Engine:
        """The engine."""
        return self._use.engine

    @property
    def info(self) -> EngineInfo:
        """What the engine is and honours."""
        return self.engine.describe()

    @property
    def model_hash(self) -> str:
        """SHA-256 of the model's file in hex; empty where there is no file here, or while it is being computed."""
        return self._use.model_hash

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
        return self._use.stream(prompt, sampling)


class Held(Speaker):
    """An engine that stays for a prompt and its stream, whatever the chat turns to meanwhile.

    Let it go in the end: it is a context manager; to forget it does as well, see `cierzo.holding.Hold`.

    Args:
        use: The engine.
    """

    def __init__(self, use: Use) -> None:
        super().__init__(use)
        self._hold = Hold(use)

    def again(self) -> Held:
        """Hold it once more, for somebody else who needs it longer."""
        return Held(self._use)

    def let_go(self) -> None:
        """Hold it no longer. May be called twice."""
        self._hold.let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()


class Chat(Speaker):
    """A model that is ready to talk.

    Args:
        engine: What answers. The chat closes it.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(Use(engine))
        self._before: list[Use] = []
        self._closed = False

    def hold(self) -> Held:
        """Return the engine that is in use now, for a prompt and its stream."""
        return Held(self._use)

    @property
    def held(self) -> int:
        """How many answers are under way with the engine that is in use, or about to be."""
        return self._use.held

    def turn_to(self, engine: Engine, *, after: bool = False) -> Use:
        """Have another engine answer from now on, and return the use of the one before.

        Answers that are under way finish on the engine that they began with. It is closed when the last of them
        ends, or with the chat.

        Args:
            engine: What answers. The chat closes it.
            after: Let it begin only when the one before is closed.

        Raises:
            EngineDied: The chat was closed.
        """
        if self._closed:
            raise EngineDied("the chat was closed: open it again")
        before, self._use = self._use, Use(engine, self._use if after else None)
        self._before = [each for each in (*self._before, before) if not each.gone.is_set()]
        before.retire()
        self._use.start()
        return before

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
        with self.hold() as held:
            prompt = await held.prompt(messages, sampling, options=options)
            async with aclosing(orderly(held.stream_prompt(prompt, sampling))) as events:
                async for event in events:
                    yield event

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
        with self.hold() as held:
            prompt = await held.prompt(messages, sampling, options=options)
            tokens: list[Token] = []
            async with aclosing(orderly(held.stream_prompt(prompt, sampling))) as events:
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

    async def start(self) -> None:
        """Begin to load the model, if the engine can do that ahead. Returns at once."""
        self._use.start()

    async def close(self) -> None:
        """Free the engine, and those before it that still answer. May be called twice."""
        self._closed = True
        await asyncio.gather(*(use.close() for use in (self._use, *self._before)))


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
