"""`cierzo ask`: one answer to standard output."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import click

from cierzo.messages import Finish, Token
from cierzo.terminal.events import Lines, reported
from cierzo.terminal.flags import (
    Doors,
    json_flag,
    messages_of,
    model_flags,
    question_of,
    sampling_flags,
    sampling_of,
    system_flag,
    tell_once,
)
from cierzo.terminal.hearing import Heard, asked, hear, opened
from cierzo.terminal.language import say
from cierzo.terminal.render import Screen

if TYPE_CHECKING:
    from cierzo.chat import Chat
    from cierzo.messages import Message, Sampling, StreamEvent

INTERRUPTED = 130
"""Exit status after Ctrl+C: 128 and the number of SIGINT, as shells have it."""


@click.command("ask")
@click.argument("text", nargs=-1)
@system_flag
@sampling_flags
@click.option("--alternatives", type=int, default=0, help="With --json: the most probable tokens at each place.  [0]")
@model_flags
@json_flag
@click.pass_obj
def ask(
    doors: Doors, /, text: tuple[str, ...], system: str | None, as_json: bool, alternatives: int, **flags: Any
) -> None:
    r"""Print one answer.

    TEXT left out, or -, is read from standard input. What is piped in beside a TEXT follows it.

    \b
      cierzo ask "What is temperature?"
      git diff | cierzo ask "Say in one sentence what this changes."
    """
    screen = Screen.standard()
    lines = Lines(screen.out) if as_json else None
    with reported(lines):
        sampling = sampling_of(flags, alternatives=alternatives)
        settings = doors.settings(flags)
        tell_once(settings)
        messages = messages_of(question_of(text, screen), system)
        heard = asyncio.run(answer(doors.open_chat(settings), messages, sampling, screen, lines))
    if heard.stopped:
        raise click.exceptions.Exit(INTERRUPTED)


async def answer(
    chat: Chat, messages: list[Message], sampling: Sampling, screen: Screen, lines: Lines | None = None
) -> Heard:
    """Ask, write the answer as it comes, as text or as JSON lines, and close the chat."""
    async with opened(chat):

        def show(event: StreamEvent, heard: Heard) -> None:
            if lines:
                lines.stream(event, heard.text)
            elif isinstance(event, Token):
                screen.write(event.text)
            elif isinstance(event, Finish):
                end(screen, heard)

        events = _announced(chat, messages, sampling, lines) if lines else asked(chat, messages, sampling)
        return await hear(events, screen, show, torn=lambda: None if lines else screen.write("\n"))


async def _announced(
    chat: Chat, messages: list[Message], sampling: Sampling, lines: Lines
) -> AsyncGenerator[StreamEvent, None]:
    """Yield the stream, after a ``start`` that says what the model is given."""
    prompt = await chat.prompt(messages, sampling)
    lines.start(chat.engine.describe(), prompt, sampling)
    async with aclosing(asked(chat, messages, sampling)) as events:
        async for event in events:
            yield event


def end(screen: Screen, heard: Heard) -> None:
    """Write what belongs after the last token: a newline, and why the answer is not whole."""
    screen.write("\n")
    if heard.stopped:
        screen.note(say("stopped"))
    elif heard.finish and heard.finish.reason == "length":
        screen.note(say("cut", count=heard.finish.answer_tokens))
