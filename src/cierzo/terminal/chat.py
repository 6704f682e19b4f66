"""`cierzo chat`: a conversation in the terminal, kept where the server's are."""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import click
from pydantic import SecretStr

from cierzo.continuing import CONTINUED
from cierzo.errors import BadInput, BadText, HomeNotWritable, NotFound
from cierzo.messages import Message
from cierzo.terminal import commands
from cierzo.terminal.flags import Doors, model_flags, sampling_flags, sampling_of, system_flag, tell_once
from cierzo.terminal.hearing import opened
from cierzo.terminal.history import find, name_of, turns
from cierzo.terminal.keyboard import Editor, Keyboard, Lines, history, hushed
from cierzo.terminal.language import say, template_named
from cierzo.terminal.render import Screen
from cierzo.terminal.talk import Talk
from cierzo.terminal.tokens import ALTERNATIVES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cierzo.conversations import Conversations
    from cierzo.settings import Settings

LAST = 4
"""Messages that are shown of a conversation that goes on."""


@click.command("chat")
@click.option(
    "--continue",
    "-c",
    "again",
    is_flag=False,
    flag_value="",
    metavar="[ID]",
    help="Go on with the last conversation, or with this one; the beginning of its id is enough.",
)
@system_flag
@sampling_flags
@click.option("--alternatives", type=int, default=ALTERNATIVES, help=f"For /tokens.  [{ALTERNATIVES}]")
@click.option("--no-save", is_flag=True, help="Do not keep this conversation.")
@model_flags
@click.pass_obj
def chat(
    doors: Doors, /, again: str | None, system: str | None, alternatives: int, no_save: bool, **flags: Any
) -> None:
    """Talk in the terminal.

    Enter sends, Alt+Enter makes a new line, Ctrl+C stops the answer, Ctrl+D leaves; /help shows the rest.
    Every question and answer is kept as it is written: `cierzo history` shows them. Where standard input is no
    terminal, each of its lines is a question.
    """
    screen = Screen.standard()
    sampling = sampling_of(flags, alternatives=alternatives)
    settings = doors.settings(flags)
    if system:
        Message("system", system)  # what cannot be said is refused before the model loads
    if no_save and again is not None:
        raise BadInput("--continue goes on with a conversation that is kept: leave out --no-save")
    asyncio.run(_run(doors, settings, screen, sampling, system, again=again, save=not no_save))


async def _run(
    doors: Doors,
    settings: Settings,
    screen: Screen,
    sampling: Any,
    system: str | None,
    *,
    again: str | None,
    save: bool,
) -> None:
    async with _service(doors, settings, save=save) as service:
        talk = Talk(service, screen, sampling, system or "")
        keyboard = _keyboard(talk, settings)
        if again is not None:
            try:
                await resume(talk, again)
            except commands.Leave:
                return
            talk.system = talk.system if system is None else system
        if not save and isinstance(keyboard, Editor):
            screen.note(say("not_saved"))
        await converse(talk, keyboard)
        if save and talk.conversation and isinstance(keyboard, Editor):
            name = await name_of(service.store, talk.conversation)
            screen.note(say("kept", id=name))


@asynccontextmanager
async def _service(doors: Doors, settings: Settings, *, save: bool) -> AsyncIterator[Conversations]:
    """Open what answers and what keeps; in the end close first those who write, then the model, then the store."""
    assert doors.open_conversations is not None
    async with AsyncExitStack() as closing:
        if not save:
            folder = closing.enter_context(tempfile.TemporaryDirectory(prefix="cierzo-"))
            settings = settings.model_copy(update={"database_url": SecretStr(f"sqlite:///{folder}/cierzo.db")})
        model = doors.open_chat(settings)
        await closing.enter_async_context(opened(model))
        try:
            service = await doors.open_conversations(settings, model)
        except HomeNotWritable as denied:
            raise HomeNotWritable(f"{denied}, or keep nothing with --no-save") from None
        closing.push_async_callback(service.store.close)
        closing.push_async_callback(model.close)
        closing.push_async_callback(service.replies.close)
        tell_once(settings)
        if settings.log == "warning":  # what became of another process's answer is said in its place
            logging.getLogger("cierzo.replies").setLevel("ERROR")
        service.replies.start()
        yield service


def _keyboard(talk: Talk, settings: Settings) -> Keyboard:
    if not (sys.stdin.isatty() and talk.screen.is_terminal):
        return Lines()
    info = talk.service.chat.engine.describe()
    talk.screen.note(
        say("hello", model=info.model, template=template_named(info.template), context=f"{info.context:,}")
    )
    talk.hush = hushed
    return Editor(history(settings, talk.screen), colors=talk.screen.colors)


async def resume(talk: Talk, wanted: str) -> None:
    """Go to the end of a conversation, show its last turns, and say what can be done about a cut answer.

    Args:
        talk: Which goes there.
        wanted: The id, or how it begins; empty for the conversation that was last written to.

    Raises:
        NotFound: There is none.
        BadInput: Several begin so, or it is in the bin.
    """
    store = talk.service.store
    if wanted:
        conversation = await find(store, wanted)
        if conversation.deleted:
            raise BadInput(f"this conversation is in the bin: `cierzo history restore {wanted}` takes it out")
    else:
        known = [each for each in await store.transfer.listed(owner=None) if not (each.deleted or each.archived)]
        if not known:
            raise NotFound("there is no conversation to go on with: `cierzo chat` begins one")
        conversation = known[0]
    talk.resume(await store.conversations.open(conversation.id, owner=None))
    if talk.screen.is_terminal:
        talk.screen.note(say("going_on", title=conversation.title, count=conversation.messages))
        turns(talk.screen, talk.path[-LAST:], before=len(talk.path[:-LAST]))
    await _offer(talk)


async def _offer(talk: Talk) -> None:
    """Say what became of the last answer, where it is not whole."""
    if talk.last and talk.last.answer and talk.last.answer.state == "writing" and not await talk.watch():
        raise commands.Leave
    answer = talk.last.answer if talk.last else None
    at_its_end = talk.last is not None and talk.parent in (talk.last.id, talk.last.parent)
    if answer and at_its_end and answer.reason in CONTINUED:
        talk.screen.note(say("was_cut", reason=answer.reason))
    elif talk.path and talk.path[-1].role == "user":
        talk.screen.note(say("unanswered"))


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
