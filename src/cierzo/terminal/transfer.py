"""`cierzo export` and `cierzo import`: conversations to files, and back."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import click

from cierzo.errors import BadInput
from cierzo.terminal.flags import Doors
from cierzo.terminal.history import find, with_store
from cierzo.terminal.render import Screen, one_line
from cierzo.transfer import export_json, export_markdown, import_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cierzo.store import Conversation, Store


@click.command("export")
@click.argument("conversation", metavar="[ID]", required=False)
@click.option("--all", "everything", is_flag=True, help="All conversations, archived ones and those in the bin too.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "markdown"]),
    default="json",
    help="json has everything and can be imported again; markdown is for reading.  [json]",
)
@click.option("--output", "-o", metavar="FILE", type=click.Path(), help="Where to; otherwise to standard output.")
@click.pass_obj
def export(
    doors: Doors, /, conversation: str | None, everything: bool, form: Literal["json", "markdown"], output: str | None
) -> None:
    r"""Write one conversation, or --all, to a file.

    \b
      cierzo export --all -o conversations.json
      cierzo export 06fmt3 --format markdown | less
    """
    if bool(conversation) == everything:
        raise BadInput("name one conversation, or say --all: `cierzo history list` shows which there are")
    screen = Screen.standard()

    async def work(store: Store) -> Sequence[Conversation]:
        chosen = await store.transfer.listed(owner=None) if everything else [await find(store, conversation or "")]
        with _written(output) as file:
            async for part in (export_json if form == "json" else export_markdown)(store, chosen):
                file.write(part)
        return chosen

    chosen = with_store(doors.settings({}), work)
    if output:
        count = sum(each.messages for each in chosen)
        screen.note(f"written to {output} (conversations: {len(chosen):,}, messages: {count:,})")


@click.command("import")
@click.argument("file", metavar="FILE")
@click.pass_obj
def import_(doors: Doors, /, file: str) -> None:
    """Add the conversations of a FILE that `cierzo export` wrote; - reads standard input.

    All of it is checked before any of it is added. Nothing is overwritten: the same file twice makes copies.
    Standard output gets the new ids.
    """
    screen = Screen.standard()
    settings = doors.settings({})
    with _read(file) as opened:
        done = with_store(settings, lambda store: import_json(store, opened, owner=None))
    for each in done.conversations:
        screen.line(each)
    screen.note(f"added (conversations: {len(done.conversations):,}, messages: {done.messages:,})")


@contextmanager
def _written(output: str | None) -> Iterator[BinaryIO]:
    """Give what to write to; a file is there only once it is whole, and only its owner may read it."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    target = Path(output)
    try:
        number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as denied:
        raise BadInput(f"{one_line(output)} cannot be written ({denied.strerror}): choose another place") from None
    try:
        with os.fdopen(number, "wb") as file:
            yield file
        Path(name).replace(target)
    except BaseException as failed:
        with suppress(OSError):
            Path(name).unlink()
        if isinstance(failed, OSError):
            raise BadInput(f"{one_line(output)} cannot be written ({failed.strerror}): choose another place") from None
        raise


@contextmanager
def _read(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        opened = Path(file).open("rb")  # noqa: SIM115 - closed below; only opening it is translated
    except (OSError, ValueError) as denied:
        why = denied.strerror if isinstance(denied, OSError) else "no such name"
        raise BadInput(f"{one_line(file)} cannot be read ({why}): name a file that `cierzo export` wrote") from None
    with opened:
        yield opened
