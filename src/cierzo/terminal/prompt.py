"""`cierzo prompt`: exactly what the model would be given.

It loads no model and asks no engine, but for a model whose template is in its file: only llama.cpp can run that.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import click

from cierzo import catalog
from cierzo import prompt as prompts
from cierzo.chat import RESERVE_SHARE, PromptOptions
from cierzo.errors import ModelUnreadable
from cierzo.messages import Message, Sampling
from cierzo.templates import is_of_file
from cierzo.terminal.events import Lines, reported
from cierzo.terminal.flags import Doors, json_flag, question_of, system_flag
from cierzo.terminal.hearing import opened
from cierzo.terminal.language import say, template_named
from cierzo.terminal.render import Screen, one_line

if TYPE_CHECKING:
    from cierzo.chat import Chat
    from cierzo.messages import Prompt

_LOOKS_LIKE_CONTROL = re.compile(r"\[/?[A-Z][A-Z_]*\]|</?[a-z]+>")


@click.command("prompt")
@click.argument("text", nargs=-1)
@system_flag
@click.option("--ids", is_flag=True, help="A line for each token: place, id, whether it is a control token, text.")
@click.option("--template", metavar="NAME", help=f"Instead of the model's: {', '.join(prompts.TEMPLATES)}.")
@click.option("--separate", is_flag=True, help="Each TEXT in its own [INST] … [/INST]; otherwise they are joined.")
@click.option("--official", is_flag=True, help="The system prompt where Mistral puts it, not in the first question.")
@click.option("--raw", is_flag=True, help="TEXT is a prompt already: its control tokens are honoured.")
@click.option("--max-new-tokens", type=int, help=f"Room to keep for the answer.  [{Sampling().max_new_tokens}]")
@click.option("--model", metavar="NAME", help="Name from `cierzo models list`, or the path of a GGUF.")
@json_flag
@click.pass_obj
def prompt(doors: Doors, /, text: tuple[str, ...], ids: bool, as_json: bool, **flags: Any) -> None:
    """Print exactly what the model is given.

    Each TEXT is one instruction. Standard output gets the prompt alone; the number of tokens goes to standard error.
    Control tokens are coloured: text that only looks like one is not.
    """
    screen = Screen.standard()
    lines = Lines(screen.out) if as_json else None
    with reported(lines):
        settings = doors.settings(flags)
        model = catalog.find(settings.model, settings.home)
        if not model.template:
            raise ModelUnreadable(f"{model.name} is not on this machine: get it with `cierzo models pull {model.name}`")
        *before, last = text or ("",)
        context = min(settings.context or model.context, model.context)
        if not flags["template"] and is_of_file(model.template):
            instructions = [*before, question_of((last,), screen)]
            made, template = asyncio.run(_ask(doors.open_chat(settings), instructions, flags))
        else:
            template = prompts.template(flags["template"] or model.template).name
            instructions = [*before, question_of((last,), screen)]  # what is piped in belongs to the last
            made = _make(instructions, template, context, flags)
        if lines:
            lines.prompt(made, template, prompts.tokenize(made, template))
            return
    if ids:
        table(screen, made, template)
    else:
        show(screen, made)
    summary(screen, made, template, context)


async def _ask(chat: Chat, instructions: list[str], flags: dict[str, Any]) -> tuple[Prompt, str]:
    """Have the engine make the prompt; return it with the name of the template."""
    async with opened(chat):
        if flags["raw"]:
            made = await chat.raw("".join(instructions))
        else:
            options = PromptOptions(consecutive="separate" if flags["separate"] else "merge")
            sampling = Sampling.of({"max_new_tokens": flags["max_new_tokens"]})
            made = await chat.prompt(_messages(instructions, flags), sampling, options=options)
        return made, chat.engine.describe().template


def _messages(instructions: list[str], flags: dict[str, Any]) -> list[Message]:
    system = [Message("system", flags["system"])] if flags["system"] else []
    return [*system, *(Message("user", instruction) for instruction in instructions)]


def _make(instructions: list[str], template: str, context: int, flags: dict[str, Any]) -> Prompt:
    if flags["raw"]:
        return prompts.raw("".join(instructions), template, context=context)
    sampling = Sampling.of({"max_new_tokens": flags["max_new_tokens"]})
    return prompts.build(
        _messages(instructions, flags),
        template,
        context=context,
        reserve=min(sampling.max_new_tokens, context // RESERVE_SHARE),  # as a chat keeps it
        system="official" if flags["official"] else "first",
        consecutive="separate" if flags["separate"] else "merge",
    )


def show(screen: Screen, made: Prompt) -> None:
    """Write the prompt; its control tokens in colour where there are colours."""
    for piece in made.pieces:
        screen.write(piece.text, "control" if piece.control else "")
    screen.write("\n")


def table(screen: Screen, made: Prompt, template: str) -> None:
    """Write a line for each token."""
    for number, part in enumerate(prompts.tokenize(made, template), 1):
        text = part.text if part.control else f"“{part.text}”" if part.text else prompts.token_text(part.id, template)
        kind = "control" if part.control else "text"
        screen.line(f"{number:>6}  {part.id:>6}  {kind:<7}  {one_line(text)}", "control" if part.control else "")


def summary(screen: Screen, made: Prompt, template: str, context: int) -> None:
    """Say how long it is, what had no room, and what only looks like a control token."""
    screen.note(
        say("summary", count=f"{len(made):,}", template=template_named(template), room=f"{context - len(made):,}")
    )
    if made.dropped:
        screen.note(say("dropped", count=len(made.dropped)))
    plain = [piece.text for piece in made.pieces if not piece.control]
    alike = sorted({match for text in plain for match in _LOOKS_LIKE_CONTROL.findall(text)})
    if alike:
        screen.note(say("look_alike", names=" ".join(alike[:8])))
