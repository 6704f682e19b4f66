"""A conversation in the terminal: where in its tree one is, how the next answer is made, and the turn itself.

Everything said is in the store before it is answered; what is here is only the way to the place where one is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cierzo.continuing import CONTINUED
from cierzo.errors import CierzoError, EngineError
from cierzo.messages import Finish, Message, Sampling, Token
from cierzo.terminal.hearing import Clock, Heard, attend, hear, interruptible, on_interrupt
from cierzo.terminal.language import say
from cierzo.underway import End

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from cierzo.conversations import Conversations
    from cierzo.messages import StreamEvent
    from cierzo.store import StoredMessage, Tree
    from cierzo.terminal.render import Screen


@dataclass(slots=True)
class Talk:
    """One conversation.

    Attributes:
        service: What answers and keeps.
        screen: Where it is shown.
        sampling: How the next answer is made.
        system: System prompt from here on, empty for none.
        conversation: Its id; None until the first question.
        path: From the first message to the one that the next question follows.
        last: The last answer, also one that failed or said nothing; None before the first.
        hush: Keeps the keyboard quiet while an answer is written.
    """

    service: Conversations
    screen: Screen
    sampling: Sampling = field(default_factory=Sampling)
    system: str = ""
    conversation: str | None = None
    path: list[StoredMessage] = field(default_factory=list)
    last: StoredMessage | None = None
    hush: Callable[[], AbstractContextManager[None]] = nullcontext

    @property
    def parent(self) -> str | None:
        """The message that the next question follows."""
        return self.path[-1].id if self.path else None

    def resume(self, tree: Tree) -> None:
        """Stand at the end of the branch in use."""
        self.conversation = tree.conversation.id
        self.path = list(tree.path())
        self.last = next((message for message in reversed(self.path) if message.answer), None)
        if self.last and self.last is self.path[-1] and not self.last.text:
            self.path.pop()  # an answer that said nothing has no place before a question
        self.system = self._system_above()

    def leave(self) -> None:
        """Let the next question begin a new conversation."""
        self.conversation, self.last = None, None
        self.path.clear()

    async def ask(self, text: str) -> None:
        """Ask ``text``. An error is shown, not raised: the conversation goes on.

        A question that can never be answered is not kept; one whose answer failed is.
        """

        async def begin() -> StoredMessage:
            if self.conversation is None:
                self.conversation = (await self.service.store.conversations.create(owner=None)).id
            asked = await self.service.ask(
                self.conversation, text, owner=None, parent=self.parent, sampling=self.sampling, system=self.system
            )
            if asked.question.parent not in (None, self.parent):  # a new system prompt stands before it
                self.path.append(
                    await self.service.store.conversations.message(asked.question.parent or "", owner=None)
                )
            self.path.append(asked.question)
            return asked.answer

        await self._turn(begin, text)

    async def retry(self) -> bool:
        """Ask the last question again: another answer beside the others. Return whether there is a question."""
        place = next((n for n in reversed(range(len(self.path))) if self.path[n].role == "user"), None)
        if place is None:
            return False
        question = self.path[place]
        del self.path[place + 1 :]
        if self.system != self._system_above():  # a question under another system prompt is another question
            self.path.pop()
            await self.ask(question.text)
        else:
            await self._turn(lambda: self._retried(question.id))
        return True

    async def go_on(self) -> None:
        """Let the model go on with its last answer, which was cut."""
        last = self.last
        if last is None or last.answer is None or last.answer.reason not in CONTINUED:
            self.screen.note(say("whole") if last else say("no_answer"))
            return
        if self.parent == last.id:
            self.path.pop()
        await self._turn(lambda: self._continued(last.id))
        if self.last is last and last.text:
            self.path.append(last)  # nothing was begun

    async def _retried(self, question: str) -> StoredMessage:
        return (await self.service.again(question, owner=None, sampling=self.sampling)).message

    async def _continued(self, answer: str) -> StoredMessage:
        return (await self.service.go_on(answer, owner=None, sampling=self.sampling)).message

    async def watch(self) -> bool:
        """Follow the last answer, which somebody else is writing or was; return whether it has ended."""
        assert self.last is not None
        if self.parent == self.last.id:
            self.path.pop()
        if not self.screen.live:
            self.screen.note(say("elsewhere"))
        with self.hush():
            try:
                await hear(self._events(self.last.id), self.screen, self._followed, waiting=say("elsewhere"))
            except EngineError as failed:
                self.screen.error(str(failed))
            await self._take(self.last.id)
        return self.last.answer is not None and self.last.answer.state == "done"

    def _followed(self, event: StreamEvent, heard: Heard) -> None:
        if isinstance(event, Token):
            self.screen.write(event.text)
        elif isinstance(event, Finish) and heard.tokens:
            self.screen.write("\n")

    async def _turn(self, begin: Callable[[], Awaitable[StoredMessage]], text: str = "") -> None:
        try:
            with self.hush():
                with Clock(self.screen):  # the first prompt loads the tokenizer, a long one takes a while
                    stopped = await interruptible(self._look_ahead(text)) if text else False
                if stopped:
                    self.screen.note(say("stopped"))
                else:
                    await self._answer(begin)
        except CierzoError as refused:
            self.screen.error(str(refused))
        if self.screen.is_terminal:
            self.screen.line()

    async def _look_ahead(self, text: str) -> None:
        """Make the prompt: what can never be answered is refused before a conversation is begun for it."""
        asked = Message("user", text)
        if self.conversation is None:
            given = [Message("system", self.system), asked] if self.system else [asked]
            prompt = await self.service.chat.prompt(given, self.sampling)
        else:
            prompt = await self.service.prompt(
                self.conversation, text, owner=None, parent=self.parent, sampling=self.sampling, system=self.system
            )
        if prompt.dropped:
            self.screen.note(say("dropped", count=len(prompt.dropped)))

    async def _answer(self, begin: Callable[[], Awaitable[StoredMessage]]) -> None:
        """Begin an answer and show it; Ctrl+C stops it and keeps what was said."""
        pressed = asyncio.Event()
        with on_interrupt(pressed.set):
            begun = await begin()
            stopping = asyncio.create_task(self._stop(begun.id, pressed))
            try:
                kept = begun.answer.kept if begun.answer else 0
                await attend(self._events(begun.id), self.screen, self._shown(kept))
            except EngineError as failed:
                self.screen.error(str(failed))
                self.screen.note(say("failed_hint"))
            finally:
                stopping.cancel()
                await self._take(begun.id)

    async def _stop(self, answer: str, pressed: asyncio.Event) -> None:
        await pressed.wait()
        try:
            await self.service.stop(answer, owner=None)
        except CierzoError as failed:
            self.screen.error(str(failed))

    async def _take(self, answer: str) -> None:
        """Stand behind an answer, if it said something."""
        self.last = await self.service.store.conversations.message(answer, owner=None)
        if self.last.text:
            self.path.append(self.last)

    async def _events(self, answer: str) -> AsyncGenerator[StreamEvent, None]:
        """Yield an answer's log as a stream.

        Raises:
            EngineError: It failed; the sentence is that of its error.
        """
        begun = False
        async with aclosing(self.service.follow(answer, owner=None)) as log:
            async for _, event in log:
                begun = begun or isinstance(event, Token)
                if not isinstance(event, End):
                    yield event
                    continue
                if event.reason == "failed":
                    if begun:
                        self.screen.write("\n")
                    raise EngineError(event.failure)
                yield event.finish or Finish("stopped")

    def _shown(self, kept: int) -> Callable[[StreamEvent, Heard], None]:
        """Return what shows an answer whose first ``kept`` tokens have been shown before."""

        def show(event: StreamEvent, heard: Heard) -> None:
            if isinstance(event, Token) and len(heard.tokens) > kept:
                self.screen.write(event.text)
            elif isinstance(event, Finish):
                self.screen.write("\n")
                if event.reason == "stopped":
                    self.screen.note(say("stopped"))
                elif event.reason == "length":
                    self.screen.note(say("cut_here", count=event.answer_tokens))

        return show

    async def undo(self) -> bool:
        """Go back to before the last question; return whether there was one. Nothing is deleted.

        The store knows it at once: whoever goes on with the conversation, here or elsewhere, stands there too.
        """
        place = next((n for n in reversed(range(len(self.path))) if self.path[n].role == "user"), None)
        if place is None or self.conversation is None:
            return False
        before = self.path[place].parent
        await self.service.store.conversations.select(self.conversation, before, owner=None, exactly=True)
        del self.path[place:]
        self.last = next((message for message in reversed(self.path) if message.answer), None)
        return True

    def _system_above(self) -> str:
        return next((message.text for message in reversed(self.path) if message.role == "system"), "")

    def figures(self) -> Iterator[str]:
        """Say how the last answer went."""
        answer = self.last.answer if self.last else None
        if answer is None or answer.reason is None:
            yield say("no_answer")
            return
        if answer.finish is None:
            yield say("ended_with", reason=answer.reason)
            return
        finish = answer.finish
        yield say(
            "last",
            tokens=finish.answer_tokens,
            rate=say("no_rate") if finish.rate is None else say("rate", rate=finish.rate),
            first=f"{finish.timings.first_token:.2f} s",
            reason=finish.reason + (f" {finish.stop!r}" if finish.stop else ""),
        )
        if finish.reason not in ("stopped", "failed"):
            yield say("last_prompt", tokens=finish.prompt_tokens, cached=finish.cached_tokens)
            if finish.seed is not None:
                yield f"seed {finish.seed}"
