"""The command line: `cierzo` and its commands. It parses, and turns every error into one line and an exit status.

Commands are imported when they are called, so that `cierzo --help` needs neither tokenizers nor engine nor page.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

import click

from cierzo.errors import CierzoError
from cierzo.terminal.render import Screen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cierzo.settings import Settings

COMMANDS = {
    "ask": ("cierzo.terminal.ask", "Print one answer."),
    "chat": ("cierzo.terminal.chat", "Talk in the terminal."),
    "history": ("cierzo.terminal.history", "List, show, search and remove conversations."),
    "export": ("cierzo.terminal.transfer", "Write conversations to a file."),
    "import": ("cierzo.terminal.transfer", "Read conversations from a file."),
    "prompt": ("cierzo.terminal.prompt", "Print exactly what the model is given."),
    "tokens": ("cierzo.terminal.tokens", "Print an answer with every token's probability."),
    "serve": ("cierzo.terminal.serve", "Serve the API of OpenAI and of TGI, without the page."),
    "models": ("cierzo.terminal.models", "Which models there are; download one."),
    "doctor": ("cierzo.terminal.doctor", "What is installed, what is wrong, and what to do."),
}
VERSION: str = importlib.import_module(__name__.rpartition(".")[0]).__version__  # the package stands on a higher floor
INTERRUPTED = 130
HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Commands(click.Group):
    """A group whose commands are imported when one is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name, None) or getattr(
            module, f"{cmd_name}_"
        )  # `import` is a word of Python
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - the same
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, 2) or ["ask"]
            raise click.UsageError(f"there is no command {args[0]!r:.60}: did you mean {' or '.join(near)}?", ctx)
        return super().resolve_command(ctx, args)


@click.command(cls=_Commands, invoke_without_command=True, context_settings=HELP)
@click.version_option(VERSION, message="%(prog)s %(version)s")
@click.option("--model", metavar="NAME", help="Name from `cierzo models list`, or the path of a GGUF.")
@click.option("--engine", metavar="URL", help="llamacpp: (built in) or scripted:[FILE].")
@click.option("--kv-type", metavar="TYPE", help="Type of the KV cache, such as q8_0.  [f16]")
@click.option("--gpu-layers", metavar="N|auto", help="Layers on the graphics card.  [auto]")
@click.option("--speculation", metavar="off|ngram", help="Guess what was said before.  [off]")
@click.option("--lora", multiple=True, metavar="FILE[:SCALE]", help="LoRA adapter. May be repeated.")
@click.option("--host", metavar="ADDRESS", help="Where the page listens.  [127.0.0.1]")
@click.option("--port", type=int, help="On which port; 0 takes a free one.  [7860]")
@click.option("--insecure", is_flag=True, default=None, help="Allow an address that other machines can reach.")
@click.option("--no-open", is_flag=True, help="Do not open the browser.")
@click.pass_context
def cierzo(ctx: click.Context, /, no_open: bool, **flags: Any) -> None:
    """Chat with Mistral models, with nothing hidden.

    Without a command, the chat opens in the browser. Settings also come from CIERZO_* variables and from cierzo.toml.
    """
    doors = importlib.import_module("cierzo.terminal.flags").Doors(
        _open_chat, VERSION, flags, _serve_api, _open_service
    )
    ctx.obj = doors
    if ctx.invoked_subcommand is None:
        importlib.import_module("cierzo.app").serve_page(doors.settings({}), open_browser=not no_open)


def _open_chat(settings: Settings) -> Any:
    return importlib.import_module("cierzo.app").open_chat(settings)


def _open_service(settings: Settings, chat: Any) -> Any:
    return importlib.import_module("cierzo.app").open_conversations(settings, chat)


def _serve_api(settings: Settings) -> None:
    importlib.import_module("cierzo.app").serve_api(settings)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage, 130 after Ctrl+C."""
    try:
        status = cierzo.main(arguments, prog_name="cierzo", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - this is where every error becomes one line
        status = _explain(error)
    _leave(status if isinstance(status, int) else 0)


def _explain(error: BaseException) -> int:
    """Write one line about ``error`` and return the exit status."""
    screen = Screen.standard()
    screen.clear()
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, BrokenPipeError):
        return 1  # whoever read the output has had enough, and knows it
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        screen.note("", "")
        return INTERRUPTED
    if _debugging() and not isinstance(error, (CierzoError, click.ClickException)):
        screen.note("".join(traceback.format_exception(error)).rstrip(), "")
    line, status = _line(error)
    screen.error(line)
    return status


def _line(error: BaseException) -> tuple[str, int]:
    match error:
        case CierzoError():
            return str(error), error.exit_code
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "cierzo"
            return f"{error.format_message().rstrip('.')} ({path} --help shows the usage)", 2
        case click.ClickException():
            return error.format_message(), error.exit_code
        case OSError() if error.filename is None:
            return f"cannot read or write ({error.strerror or error}): check the disk, and where the output goes", 1
    hint = "" if _debugging() else ": run it again with CIERZO_LOG=debug for the details"
    return f"unexpected {type(error).__name__}: {error!s:.300}{hint}", 1


def _debugging() -> bool:
    try:
        return bool(importlib.import_module("cierzo.settings").Settings.load().log == "debug")
    except CierzoError:
        return False  # wrong settings have been complained about already


def _leave(status: int) -> None:
    """Exit. Where nobody reads the output any more, Python would complain about it once again: it must not."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)
