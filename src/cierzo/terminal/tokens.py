"""`cierzo tokens`: an answer with the probability of every token, in colour and in figures."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import click

from cierzo import prompt as prompts
from cierzo.messages import MAX_ALTERNATIVES, UNTOLD, Finish, Token
from cierzo.terminal.ask import INTERRUPTED, answer, end
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
from cierzo.terminal.render import Screen, Style, one_line, pad, style_of, width_of

if TYPE_CHECKING:
    from cierzo.chat import Chat
    from cierzo.messages import Alternative, Message, Sampling, StreamEvent

ALTERNATIVES = 3
MOST = 0.001
"""Largest logarithm of a probability: 0, and what rounding adds to it."""

BAR = 10
WIDEST = 24
"""Columns of the token's text in the table; longer ones push their line to the right."""


@click.command("tokens")
@click.argument("text", nargs=-1)
@click.option(
    "--alternatives",
    type=int,
    default=ALTERNATIVES,
    help=f"The most probable tokens at each place, 0 to {MAX_ALTERNATIVES}.  [{ALTERNATIVES}]",
)
@system_flag
@sampling_flags
@model_flags
@json_flag
@click.pass_obj
def tokens(
    doors: Doors, /, text: tuple[str, ...], system: str | None, as_json: bool, alternatives: int, **flags: Any
) -> None:
    """Print an answer with every token's probability.

    First the answer, coloured from likely (green) to rare (bright red), then a line for each token: its text, its id,
    its probability, and what else the model might have said. TEXT as in `cierzo ask`.
    """
    screen = Screen.standard()
    lines = Lines(screen.out) if as_json else None
    with reported(lines):
        sampling = sampling_of(flags, alternatives=alternatives)
        settings = doors.settings(flags)
        tell_once(settings)
        messages = messages_of(question_of(text, screen), system)
        chat = doors.open_chat(settings)
        heard = asyncio.run((answer if lines else _colored)(chat, messages, sampling, screen, lines))
    if heard.stopped:
        raise click.exceptions.Exit(INTERRUPTED)


async def _colored(
    chat: Chat, messages: list[Message], sampling: Sampling, screen: Screen, _: Lines | None = None
) -> Heard:
    def show(event: StreamEvent, heard: Heard) -> None:
        if isinstance(event, Token):
            screen.write(event.text, _style(event))
        elif isinstance(event, Finish):
            end(screen, heard)

    async with opened(chat):
        heard = await hear(asked(chat, messages, sampling), screen, show, torn=lambda: screen.write("\n"))
        table(screen, heard.tokens, chat.engine.describe().template)
        return heard


def colored(screen: Screen, heard: list[Token]) -> None:
    """Write the text of an answer, each token in the colour of its probability."""
    for token in heard:
        screen.write(token.text, _style(token))
    screen.write("\n")


def table(screen: Screen, heard: list[Token], template: str) -> None:
    """Write a line for each token: number, text, id, probability as figure and bar, alternatives."""
    known = [logprob for token in heard if (logprob := _known(token)) is not None]
    screen.line()
    screen.line(say("legend") if known else say("not_reported"), "dim")
    shown = [_quoted(token.id, token.text, template) for token in heard]
    columns = min(WIDEST, max([width_of(text) for text in shown] or [0]))
    for number, (token, text) in enumerate(zip(heard, shown, strict=True), 1):
        row = f"{number:>5}  {pad(text, columns)}  {'' if token.id == UNTOLD else token.id:>6}  "
        logprob = _known(token)
        probability = "" if logprob is None else _percent(logprob)
        bar = "" if logprob is None else "█" * round(math.exp(logprob) * BAR)
        others = [other for other in token.alternatives if not _same(other, token)]
        said = "  ".join(f"{_quoted(other.id, other.text, template)} {_percent(other.logprob)}" for other in others)
        rest = screen.paint(one_line(said), "dim") if said else ""
        screen.out.write(
            f"{row}{screen.paint(f'{probability:>7} {bar:<{BAR}}', _style(token))}  {rest}".rstrip() + "\n"
        )
    if known:
        mean = sum(known) / len(known)
        perplexity = f"{math.exp(min(-mean, 700)):.3g}"
        screen.line(say("mean", count=len(heard), mean=_percent(mean), perplexity=perplexity), "dim")


def _known(token: Token) -> float | None:
    """Return the log-probability; None where the engine gives none, or no number, or one that none can be."""
    known = token.logprob is not None and token.logprob <= MOST
    return token.logprob if known else None


def _same(other: Alternative, token: Token) -> bool:
    """Whether an alternative is the token itself: by its number, or where none is told by its text."""
    if token.id != UNTOLD:
        return other.id == token.id
    return other.text.removeprefix(" ") == token.text.removeprefix(" ")


def _style(token: Token) -> Style:
    logprob = _known(token)
    return "" if logprob is None else style_of(math.exp(logprob))


def _percent(logprob: float) -> str:
    if not logprob <= MOST:
        return ""
    share = 100 * math.exp(logprob)
    return f"{share:.1f} %" if share >= 0.1 or not share else "<0.1 %"  # noqa: PLR2004 - one decimal is shown


def _quoted(number: int, text: str, template: str) -> str:
    """Return a token for a table: its text in quotes, or its name where it completes no character."""
    return one_line(f"“{text}”" if text or number == UNTOLD else prompts.token_text(number, template))
