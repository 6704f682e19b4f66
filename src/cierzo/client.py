"""The library: one asynchronous client, and a synchronous face of the very same for notebooks and scripts."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Self, TypeVar

from cierzo.app import open_chat
from cierzo.chat import DEFAULT_OPTIONS, Answer, Chat, PromptOptions
from cierzo.messages import Message, Prompt, Sampling, StreamEvent
from cierzo.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
    from types import TracebackType

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds that answers under way get to end when a client is closed."""


def conversation(question: str | Sequence[Message], system: str | None) -> list[Message]:
    """Turn what a person passed into messages: a text is one question; a system prompt goes first."""
    messages = [Message("user", question)] if isinstance(question, str) else list(question)
    return [Message("system", system), *messages] if system else messages


class AsyncClient:
    """Talk to a Mistral model from asynchronous code.

    Args:
        model: Name from ``cierzo models list`` or the path of a GGUF file; None takes the setting.
        engine: Address of an engine; None takes the setting.
        settings: Any other field of `cierzo.settings.Settings`.

    Raises:
        BadSetting: A setting cannot be used.
        UnknownModel: No model has this name.

    Example:
        >>> import asyncio, cierzo
        >>> async def main():
        ...     async with cierzo.AsyncClient() as client:
        ...         answer = await client.ask("¿Quién eres?", temperature=0)
        ...         return answer.finish.reason
        >>> asyncio.run(main())
        'eos_token'
    """

    def __init__(self, model: str | None = None, *, engine: str | None = None, **settings: Any) -> None:
        self.chat: Chat = open_chat(Settings.load({"model": model, "engine": engine, **settings}))

    async def prompt(
        self,
        question: str | Sequence[Message],
        *,
        system: str | None = None,
        options: PromptOptions = DEFAULT_OPTIONS,
        **sampling: Any,
    ) -> Prompt:
        """Return exactly what the model would be given: pieces, token ids, what was dropped.

        Raises:
            BadInput: The question or a sampling value cannot be used.
        """
        return await self.chat.prompt(conversation(question, system), Sampling.of(sampling), options=options)

    async def stream(
        self,
        question: str | Sequence[Message],
        *,
        system: str | None = None,
        options: PromptOptions = DEFAULT_OPTIONS,
        **sampling: Any,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Yield `Phase` events, then `Token` events, then one `Finish`. Closing the generator stops the model.

        Raises:
            BadInput: The question or a sampling value cannot be used.
            ModelError: The model cannot be loaded.
            EngineError: The engine failed while it answered.
        """
        events = self.chat.stream(conversation(question, system), Sampling.of(sampling), options=options)
        async with aclosing(events):
            async for event in events:
                yield event

    async def ask(
        self,
        question: str | Sequence[Message],
        *,
        system: str | None = None,
        options: PromptOptions = DEFAULT_OPTIONS,
        **sampling: Any,
    ) -> Answer:
        """Return the whole `Answer`; ``str(answer)`` is its text. Raises what `stream` raises."""
        return await self.chat.answer(conversation(question, system), Sampling.of(sampling), options=options)

    async def close(self) -> None:
        """Stop the engine and free its memory. May be called twice."""
        await self.chat.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Client:
    """Talk to a Mistral model from ordinary code: an `AsyncClient` on an event loop in a thread of its own.

    It takes the same arguments and raises the same errors. Several threads may use it at once.

    Example:
        >>> import cierzo
        >>> with cierzo.Client() as client:
        ...     prompt = client.prompt("¿Quién eres?")
        ...     answer = client.ask("¿Quién eres?", temperature=0, alternatives=2)
        ...     pieces = [event.text for event in client.stream("¿Quién eres?", temperature=0)
        ...               if isinstance(event, cierzo.Token)]
        >>> prompt.text
        '<s>[INST] ¿Quién eres?[/INST]'
        >>> answer.text == "".join(pieces)
        True
        >>> len(answer.tokens[0].alternatives)
        2
    """

    def __init__(self, model: str | None = None, *, engine: str | None = None, **settings: Any) -> None:
        self._client = AsyncClient(model, engine=engine, **settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cierzo-client", daemon=True)
        self._thread.start()

    def prompt(self, question: str | Sequence[Message], **options: Any) -> Prompt:
        """As `AsyncClient.prompt`."""
        return self._run(self._client.prompt(question, **options))

    def ask(self, question: str | Sequence[Message], **options: Any) -> Answer:
        """As `AsyncClient.ask`."""
        return self._run(self._client.ask(question, **options))

    def stream(self, question: str | Sequence[Message], **options: Any) -> Iterator[StreamEvent]:
        """As `AsyncClient.stream`. Leaving the loop early, or closing the iterator, stops the model."""
        arrived: SimpleQueue[StreamEvent | BaseException | None] = SimpleQueue()

        async def pump() -> None:
            # One task reads the whole stream: an asynchronous generator is not handed from task to task.
            try:
                async with aclosing(self._client.stream(question, **options)) as events:
                    async for event in events:
                        arrived.put(event)
                arrived.put(None)
            except BaseException as error:
                arrived.put(error)
                raise

        running = asyncio.run_coroutine_threadsafe(pump(), self._loop)
        try:
            while (event := arrived.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            running.cancel()

    def close(self) -> None:
        """As `AsyncClient.close`."""
        if self._loop.is_closed():
            return
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        """Close the engine, and let everyone who waits for it learn how it ended before the loop stops."""
        await self._client.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            _, late = await asyncio.wait(others, timeout=PATIENCE)
            for task in late:
                task.cancel()
        await self._loop.shutdown_default_executor()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the client's loop and wait. Ctrl+C cancels the work there, not only the waiting here."""
        running = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return running.result()
        except BaseException:
            running.cancel()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
