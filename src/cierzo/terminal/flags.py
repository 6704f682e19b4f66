"""What the commands share: the flags with the notebook's names, the text from arguments or standard input."""

from __future__ import annotations

import logging
import os
import select
import stat
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cierzo.errors import BadSampling, BadText
from cierzo.messages import MAX_TEXT, Message, Sampling
from cierzo.schemas import MAX_BYTES as MAX_BYTES_OF_SCHEMA
from cierzo.settings import Settings
from cierzo.terminal.language import say

if TYPE_CHECKING:
    from cierzo.chat import Chat
    from cierzo.conversations import Conversations
    from cierzo.terminal.render import Screen

Command = TypeVar("Command", bound=Callable[..., Any])

MAX_BYTES = 4 * MAX_TEXT
"""Most bytes read from standard input: no text of `MAX_TEXT` characters is longer."""

PATIENCE = 1.0
"""Seconds before it is said that standard input is waited for: a pipe that nobody closes looks like a hang."""


@dataclass(slots=True)
class Doors:
    """What the commands need of the floors above them, handed down so that they import nothing upwards.

    Attributes:
        open_chat: Makes a chat of the settings; nothing is loaded yet.
        version: Cierzo's own.
        flags: Settings that were said before the command, such as ``--model`` in ``cierzo --model x ask``.
        serve_api: Serves the API until it is told to end.
        open_conversations: Opens the store, and what people do in it with a chat.
    """

    open_chat: Callable[[Settings], Chat]
    version: str = ""
    flags: dict[str, Any] = field(default_factory=dict)
    serve_api: Callable[[Settings], None] | None = None
    open_conversations: Callable[[Settings, Chat], Awaitable[Conversations]] | None = None

    def settings(self, flags: Mapping[str, Any]) -> Settings:
        """Read the settings; of two flags the later one counts.

        Raises:
            BadSetting: A value cannot be used.
        """
        said = {name: value for name, value in flags.items() if name in Settings.model_fields and _is_said(value)}
        earlier = {name: value for name, value in self.flags.items() if _is_said(value)}
        settings = Settings.load({**earlier, **said})
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("cierzo").setLevel(settings.log.upper())
        return settings


def _is_said(value: object) -> bool:
    return value not in (None, ())  # a flag that may be repeated, and was not given, is an empty list


def tell_once(settings: Settings) -> None:
    """Keep out of the log, details and all, what an engine did wrong: the error says it in one line.

    ``CIERZO_LOG=debug`` has the details.
    """
    for name in ("cierzo.engines", "cierzo.replies"):
        log = logging.getLogger(name)
        log.removeFilter(_without_details)
        if settings.log != "debug":
            log.addFilter(_without_details)


def _without_details(record: logging.LogRecord) -> bool:
    return not record.exc_info


_D = Sampling()


def sampling_flags(command: Command) -> Command:
    """Add one flag for each value of `Sampling` but ``alternatives``."""
    options = [
        click.option(
            "--temperature", type=float, help=f"0 is greedy, 1 the model's own probabilities.  [{_D.temperature}]"
        ),
        click.option("--max-new-tokens", type=int, help=f"Most tokens of the answer.  [{_D.max_new_tokens}]"),
        click.option("--top-p", type=float, help=f"Sample from the smallest set that sums to this.  [{_D.top_p}]"),
        click.option("--repetition-penalty", type=float, help=f"1 is none.  [{_D.repetition_penalty}]"),
        click.option("--top-k", type=int, help=f"Sample from the k most probable; 0 is all.  [{_D.top_k}]"),
        click.option("--min-p", type=float, help=f"Drop what is less probable than this times the best.  [{_D.min_p}]"),
        click.option("--seed", type=int, help="Seed of the random numbers.  [chosen, and reported]"),
        click.option("--stop", multiple=True, metavar="TEXT", help="End the answer before this text. May be repeated."),
        click.option("--json-schema", metavar="FILE", help="Keep the answer to the JSON Schema in this file."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def llama_flags(command: Command) -> Command:
    """Add what the embedded engine can be told, beside what `Settings` reads from elsewhere."""
    for option in (
        click.option("--lora", multiple=True, metavar="FILE[:SCALE]", help="LoRA adapter. May be repeated."),
        click.option("--speculation", metavar="off|ngram", help="Guess what was said before.  [off]"),
        click.option("--gpu-layers", metavar="N|auto", help="Layers on the graphics card.  [auto]"),
        click.option("--kv-type", metavar="TYPE", help="Type of the KV cache, such as q8_0.  [f16]"),
    ):
        command = option(command)
    return command


def model_flags(command: Command) -> Command:
    """Add ``--model``, ``--engine``, and what the embedded engine can be told."""
    command = llama_flags(command)
    command = click.option(
        "--engine",
        metavar="URL",
        help="llamacpp: (built in), openai+http://HOST[/v1], tgi+http://HOST, …: see docs/engines.md.",
    )(command)
    return click.option("--model", metavar="NAME", help="Name from `cierzo models list`, or the path of a GGUF.")(
        command
    )


system_flag = click.option("--system", metavar="TEXT", help="System prompt.")
json_flag = click.option("--json", "as_json", is_flag=True, help="One JSON event a line; see docs/terminal.md.")


def sampling_of(flags: Mapping[str, Any], *, alternatives: int = 0) -> Sampling:
    """Make the `Sampling` that the flags say.

    Raises:
        BadSampling: A value is not a number or out of its range, or the file has no JSON schema that can be kept to.
    """
    names = {f.name for f in fields(Sampling)}
    said = {name: value for name, value in flags.items() if name in names and value not in (None, ())}
    if "json_schema" in said:
        said["json_schema"] = _schema_in(Path(said["json_schema"]))
    return Sampling.of({"alternatives": alternatives, **said})


def _schema_in(path: Path) -> bytes:
    try:
        with path.expanduser().open("rb") as file:
            return file.read(MAX_BYTES_OF_SCHEMA + 1)
    except OSError as denied:
        raise BadSampling(f"--json-schema {path} cannot be read ({denied.strerror}): check the path") from None


def messages_of(question: str, system: str | None) -> list[Message]:
    """Make the conversation of one question.

    Raises:
        BadText: The question is empty, or a text is not Unicode or too long.
    """
    asked = Message("user", question)
    return [Message("system", system), asked] if system else [asked]


def question_of(words: tuple[str, ...], screen: Screen) -> str:
    """Return the text to ask: the arguments, what standard input holds, or both with an empty line between.

    Standard input is read where the text is ``-`` or left out, and beside a text where something is piped in.

    Raises:
        BadText: Standard input is not UTF-8, or too long.
    """
    said = " ".join(words)
    if said not in ("", "-"):
        piped = standard_input(screen).strip("\n") if _is_piped() else ""
        return f"{said}\n\n{piped}" if piped.strip() else said
    return standard_input(screen).strip("\n")


def standard_input(screen: Screen) -> str:
    """Read standard input to its end, and say so where that takes a while.

    Raises:
        BadText: It is not UTF-8, or longer than a message may be.
    """
    if sys.stdin is None:
        return ""
    with suppress(OSError, ValueError):  # not every standard input can be asked whether something is there
        if not select.select([sys.stdin], [], [], 0 if sys.stdin.isatty() else PATIENCE)[0]:
            screen.note(say("stdin"))
    raw = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise BadText(f"standard input is longer than {MAX_BYTES:,} bytes: shorten it")
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as broken:
        raise BadText(f"standard input is not UTF-8 text (byte {broken.start:,}): convert it first") from None


def _is_piped() -> bool:
    """Whether somebody put a pipe or a file there. Other things (/dev/null, none at all) have nothing to say."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
