"""A conversation in the terminal: what has been said, how the next answer is made, and the turn itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cierzo.errors import BadInput, CierzoError
from cierzo.messages import Finish, Message, Prompt, Sampling, Token
from cierzo.terminal.ask import end
from cierzo.terminal.hearing import Clock, Heard, hear, interruptible
from cierzo.terminal.language import say

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from cierzo.chat import Chat
    from cierzo.messages import StreamEvent
    from cierzo.terminal.render import Screen


@dataclass(slots=True)
class Talk:
    """One conversation.

    Attributes:
        chat: What answers.
        screen: Where it is shown.
        sampling: How the next answer is made.
        system: System prompt, empty for none.
        messages: Questions and answers so far.
        heard: The last answer, None before the first.
        prompt: What the model was given for it.
        hush: Keeps the keyboard quiet while an answer is written.
    """

    chat: Chat
    screen: Screen
    sampling: Sampling = field(default_factory=Sampling)
    system: str = ""
    messages: list[Message] = field(default_factory=list)
    heard: Heard | None = None
    prompt: Prompt | None = None
    hush: Callable[[], AbstractContextManager[None]] = nullcontext

    async def ask(self, text: str) -> None:
        """Ask ``text``. An error is shown, not raised: the conversation goes on.

        A question that can never be answered is taken back; one whose answer failed is kept.
        """
        try:
            self.messages.append(Message("user", text))
        except BadInput as refused:
            self.screen.error(str(refused))
            return
        await self.answer()

    async def answer(self) -> None:
        """Let the model answer the last question; Ctrl+C stops it and keeps what was said."""
        try:
            with self.hush():
                await self._answer()
        except BadInput as refused:
            self.messages.pop()
            self.screen.error(str(refused))
        except CierzoError as failed:
            self.screen.error(str(failed))
            self.screen.note(say("failed_hint"))
        if self.screen.is_terminal:
            self.screen.line()

    async def _answer(self) -> None:
        given = [Message("system", self.system), *self.messages] if self.system else self.messages
        with Clock(self.screen):  # the first prompt loads the tokenizer, a long one takes a while
            stopped = await interruptible(self._make_prompt(given))
        if stopped:
            self.screen.note(say("stopped"))
            return
        begun = False

        def show(event: StreamEvent, heard: Heard) -> None:
            nonlocal begun
            if isinstance(event, Token):
                begun = True
                self.screen.write(event.text)
            elif isinstance(event, Finish):
                end(self.screen, heard)

        try:
            heard = await hear(self._stream(given), self.screen, show)
        except CierzoError:
            if begun:
                self.screen.write("\n")
            raise
        self.heard = heard
        if heard.text:
            self.messages.append(heard.message)

    def _stream(self, given: list[Message]) -> AsyncGenerator[StreamEvent, None]:
        return self.chat.stream(given, self.sampling)

    async def _make_prompt(self, given: list[Message]) -> None:
        self.prompt = await self.chat.prompt(given, self.sampling)
        if self.prompt.dropped:
            self.screen.note(say("dropped", count=len(self.prompt.dropped)))

    def undo(self) -> bool:
        """Take back the last question and what was answered; return whether there was one."""
        while self.messages:
            if self.messages.pop().role == "user":
                return True
        return False

    def forget_answer(self) -> bool:
        """Take back the answer to the last question, if it has one; return whether there is a question."""
        if self.messages and self.messages[-1].role == "assistant":
            self.messages.pop()
        return bool(self.messages)

    def figures(self) -> Iterator[str]:
        """Say how the last answer went."""
        finish = self.heard.finish if self.heard else None
        if not finish:
            yield say("no_answer")
            return
        times = finish.timings
        rate = (finish.answer_tokens - 1) / times.decode if times.decode > 0 and finish.answer_tokens > 1 else None
        yield say(
            "last",
            tokens=finish.answer_tokens,
            rate=say("no_rate") if rate is None else say("rate", rate=rate),
            first=f"{times.first_token:.2f} s",
            reason=finish.reason + (f" {finish.stop!r}" if finish.stop else ""),
        )
        if not self.heard or not self.heard.stopped:
            yield say("last_prompt", tokens=finish.prompt_tokens, cached=finish.cached_tokens)
            if finish.seed is not None:
                yield f"seed {finish.seed}"
