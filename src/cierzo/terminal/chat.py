"""`cierzo chat`: a conversation in the terminal."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

from cierzo.errors import BadText
from cierzo.messages import Message
from cierzo.terminal import commands
from cierzo.terminal.flags import Doors, model_flags, sampling_flags, sampling_of, system_flag
from cierzo.terminal.hearing import opened
from cierzo.terminal.keyboard import Editor, Keyboard, Lines, history, hushed
from cierzo.terminal.language import say
from cierzo.terminal.render import Screen
from cierzo.terminal.talk import Talk
from cierzo.terminal.tokens import ALTERNATIVES

if TYPE_CHECKING:
    from cierzo.settings import Settings


@click.command("chat")
@system_flag
@sampling_flags
@click.option("--alternatives", type=int, default=ALTERNATIVES, help=f"For /tokens.  [{ALTERNATIVES}]")
@model_flags
@click.pass_obj
def chat(doors: Doors, /, system: str | None, alternatives: int, **flags: Any) -> None:
    """Talk in the terminal.

    Enter sends, Alt+Enter makes a new line, Ctrl+C stops the answer, Ctrl+D leaves; /help shows the rest.
    Where standard input is no terminal, each of its lines is a question.
    """
    screen = Screen.standard()
    sampling = sampling_of(flags, alternatives=alternatives)
    settings = doors.settings(flags)
    if system:
        Message("system", system)  # what cannot be said is refused before the model loads
    talk = Talk(doors.open_chat(settings), screen, sampling, system or "")
    asyncio.run(_run(talk, settings))


async def _run(talk: Talk, settings: Settings) -> None:
    async with opened(talk.chat):
        await converse(talk, _keyboard(talk, settings))


def _keyboard(talk: Talk, settings: Settings) -> Keyboard:
    if not (sys.stdin.isatty() and talk.screen.is_terminal):
        return Lines()
    info = talk.chat.engine.describe()
    talk.screen.note(say("hello", model=info.model, template=info.template, context=f"{info.context:,}"))
    talk.hush = hushed
    return Editor(history(settings, talk.screen), colors=talk.screen.colors)


async def converse(talk: Talk, keyboard: Keyboard) -> None:
    """Read and answer until the input ends or somebody leaves."""
    while True:
        try:
            text = await keyboard.read()
        except EOFError:
            return
        except BadText as refused:
            talk.screen.error(str(refused))
            continue
        if not text.strip():
            continue
        try:
            await (commands.run(talk, text) if text.startswith("/") else talk.ask(text))
        except commands.Leave:
            return
