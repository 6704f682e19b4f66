"""What begins with a slash in `cierzo chat`."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Awaitable, Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from cierzo import prompt as prompts
from cierzo.errors import BadSampling, CierzoError
from cierzo.messages import Message, Sampling
from cierzo.terminal import prompt as exact
from cierzo.terminal import tokens
from cierzo.terminal.hearing import Clock, interruptible
from cierzo.terminal.language import say, template_named

if TYPE_CHECKING:
    from cierzo.terminal.talk import Talk

NAMES = tuple(f.name for f in fields(Sampling))


class Leave(Exception):
    """The chat is over."""


async def run(talk: Talk, line: str) -> None:
    """Do what ``line``, which begins with a slash, says.

    Raises:
        Leave: It was ``/quit``.
    """
    name, _, argument = line.strip().partition(" ")
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 3)
        hint = say("perhaps", names=", ".join(near)) if near else say("try_help")
        talk.screen.note(say("unknown", command=name[:40], hint=hint), "red")
        return
    try:
        await COMMANDS[name](talk, argument.strip())
    except CierzoError as refused:
        talk.screen.error(str(refused))


async def _system(talk: Talk, argument: str) -> None:
    if argument:
        talk.system = "" if argument == "-" else Message("system", argument).text
    talk.screen.note(say("system_is", text=talk.system) if talk.system else say("system_none"))


async def _set(talk: Talk, argument: str) -> None:
    name, _, value = argument.replace("=", " ", 1).partition(" ")
    name = name.replace("-", "_")
    if name and name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, 1) or NAMES
        raise BadSampling(f"there is no sampling value {name[:40]!r}: use {', '.join(near)}")
    if name and value.strip():
        talk.sampling = replace(talk.sampling, **{name: _value(name, value.strip())})
    for each in [name] if name else NAMES:
        talk.screen.note(f"{each} {_shown(getattr(talk.sampling, each))}")


def _value(name: str, text: str) -> Any:
    """Read a value as it was typed; `Sampling` says what is wrong with it."""
    if name == "stop":
        return () if text == "-" else tuple(part.replace("\\n", "\n") for part in _quoted(text))
    if name in ("seed", "json_schema") and text in ("-", "none"):
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _quoted(text: str) -> list[str]:
    r"""Split texts at spaces, but not within quotes. A backslash stays, since ``\n`` is to mean a newline."""
    parts = shlex.shlex(text, posix=True)
    parts.whitespace_split, parts.escape, parts.commenters = True, "", ""
    try:
        return list(parts)
    except ValueError:
        raise BadSampling("stop has a quote that is never closed: put each text in quotes") from None


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(shlex.quote(text.replace("\n", "\\n")) for text in value) or "-"
    return "-" if value is None else f"{value}"


async def _show(talk: Talk, _: str) -> None:
    await _change(talk)
    talk.screen.note(" · ".join(f"{name} {_shown(getattr(talk.sampling, name))}" for name in NAMES))
    await _system(talk, "")
    for line in talk.figures():
        talk.screen.note(line)


async def _model(talk: Talk, argument: str) -> None:
    await _change(talk, model=argument or None)


async def _engine(talk: Talk, argument: str) -> None:
    await _change(talk, engine=argument or None)


async def _change(talk: Talk, **wanted: str | None) -> None:
    """Change what answers, as far as a person waits for it; then, or where nothing is wanted, say what does."""
    service = talk.service
    named = next((name for name in wanted.values() if name), "")
    if named and service.switch is not None:
        with Clock(talk.screen) as clock:
            clock.words = say("changing", name=named)
            stopped = await interruptible(service.switch.to(**wanted))
        if stopped:
            talk.screen.note(say("stopped"))
    info = service.chat.info
    talk.screen.note(f"{info.model} · {info.engine} · {template_named(info.template)} · {info.context:,} tokens")


async def _retry(talk: Talk, _: str) -> None:
    if not await talk.retry():
        talk.screen.note(say("no_question"))


async def _continue(talk: Talk, _: str) -> None:
    await talk.go_on()


async def _undo(talk: Talk, _: str) -> None:
    talk.screen.note(say("undone") if await talk.undo() else say("no_question"))


async def _tokens(talk: Talk, _: str) -> None:
    """Show what the store has of the last answer: the very tokens, also of one from another day."""
    heard = await talk.service.store.replies.tokens(talk.last.id, owner=None) if talk.last else ()
    if not talk.last or not talk.last.answer or not heard:
        talk.screen.note(say("no_answer"))
        return
    template = talk.last.answer.template
    tokens.colored(talk.screen, list(heard))
    tokens.table(talk.screen, list(heard), template)


async def _prompt(talk: Talk, _: str) -> None:
    """Show the ids that were sent for the last answer, as the model reads them."""
    if not talk.last or not talk.last.answer:
        talk.screen.note(say("no_question"))
        return
    template = talk.last.answer.template
    ids = await talk.service.store.replies.prompt_ids(talk.last.id, owner=None)
    if not ids:
        talk.screen.note(say("by_messages"))
        return
    made = prompts.of_ids(ids, template)
    exact.show(talk.screen, made)
    exact.summary(talk.screen, made, template, talk.service.chat.engine.describe().context)


async def _title(talk: Talk, argument: str) -> None:
    if talk.conversation is None:
        talk.screen.note(say("no_question"))
        return
    calls = talk.service.store.conversations
    if argument:
        await calls.change(talk.conversation, owner=None, title=argument)
    talk.screen.note(say("title_is", title=(await calls.get(talk.conversation, owner=None)).title))


async def _clear(talk: Talk, _: str) -> None:
    talk.leave()
    talk.screen.note(say("cleared"))


async def _help(talk: Talk, _: str) -> None:
    for name in COMMANDS:
        talk.screen.note(f"{name:<9} {say(f'help_{name[1:]}')}", "")
    talk.screen.note(say("help_keys"))


async def _quit(_talk: Talk, _: str) -> None:
    raise Leave


COMMANDS: dict[str, Callable[[Talk, str], Awaitable[None]]] = {
    "/system": _system,
    "/set": _set,
    "/show": _show,
    "/model": _model,
    "/engine": _engine,
    "/retry": _retry,
    "/continue": _continue,
    "/undo": _undo,
    "/title": _title,
    "/tokens": _tokens,
    "/prompt": _prompt,
    "/clear": _clear,
    "/help": _help,
    "/quit": _quit,
}
