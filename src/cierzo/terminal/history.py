"""`cierzo history`: the conversations that are kept: list, show, search, remove."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cierzo.errors import BadInput, NotFound
from cierzo.store import Store
from cierzo.terminal.events import Lines, reported
from cierzo.terminal.flags import Doors, json_flag
from cierzo.terminal.language import say
from cierzo.terminal.render import Screen, one_line, pad, width_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from datetime import datetime

    from cierzo.settings import Settings
    from cierzo.store import Conversation, Hit, StoredMessage

SHORTEST = 10
"""Fewest characters of an id that are shown: those of the moment in which it was made."""

LISTED = 30

Done = TypeVar("Done")


@asynccontextmanager
async def kept(settings: Settings) -> AsyncIterator[Store]:
    """Open the store, and close it in the end."""
    store = await Store.open(settings)
    try:
        yield store
    finally:
        await store.close()


def with_store(settings: Settings, work: Callable[[Store], Awaitable[Done]]) -> Done:
    """Run ``work`` on the store that the settings name."""

    async def run() -> Done:
        async with kept(settings) as store:
            return await work(store)

    return asyncio.run(run())


async def find(store: Store, beginning: str) -> Conversation:
    """Return the conversation of this id, or the only one whose id begins so.

    Raises:
        NotFound: There is none.
        BadInput: There are several.
    """
    found = await store.transfer.listed(owner=None, beginning=beginning) if beginning else ()
    whole = [each for each in found if each.id == beginning]
    if not found:
        raise NotFound(f"there is no conversation {beginning[:40]!r}: `cierzo history list` shows which there are")
    if len(found) > 1 and not whole:
        raise BadInput(f"{len(found)} conversations have an id that begins with {beginning!r}: write more of it")
    return (whole or found)[0]


async def name_of(store: Store, conversation: str) -> str:
    """Return the beginning of an id that is enough to find it."""
    everything = await store.transfer.listed(owner=None)
    return conversation[: _length([each.id for each in everything])]


def _length(ids: Sequence[str]) -> int:
    """Return how many characters tell these ids apart."""
    length = SHORTEST
    while len({each[:length] for each in ids}) < len(ids):
        length += 1
    return length


@click.group("history")
def history() -> None:
    """List, show, search and remove conversations. The beginning of an ID is enough where it is the only one."""


@history.command("list")
@click.option("--archived", is_flag=True, help="Those in the archive.")
@click.option("--deleted", is_flag=True, help="Those in the bin.")
@click.option("--limit", "-n", type=click.IntRange(1), default=LISTED, help=f"At most so many.  [{LISTED}]")
@json_flag
@click.pass_obj
def list_conversations(doors: Doors, /, archived: bool, deleted: bool, limit: int, as_json: bool) -> None:
    """List conversations, the one last written to first."""
    screen = Screen.standard()
    lines = Lines(screen.out) if as_json else None
    with reported(lines):
        everything = with_store(doors.settings({}), lambda store: store.transfer.listed(owner=None))
    length = _length([each.id for each in everything])
    chosen = [each for each in everything if bool(each.deleted) == deleted and (deleted or each.archived == archived)]
    if lines:
        for each in chosen[:limit]:
            lines.write("conversation", **_fields(each))
        return
    rows = [
        (each.id[:length], _when(each.updated), str(each.messages), ("* " if each.pinned else "") + each.title)
        for each in chosen[:limit]
    ]
    _table(screen, [("ID", "WRITTEN", "MESSAGES", "TITLE"), *rows])
    if len(chosen) > limit:
        screen.note(f"and {len(chosen) - limit:,} older ones: --limit {len(chosen)} shows them too")
    if not chosen:
        screen.note("there is none yet: `cierzo chat` begins one" if not (archived or deleted) else "there is none")


@history.command("show")
@click.argument("conversation", metavar="ID")
@click.option("--all", "branches", is_flag=True, help="All branches, in the order in which they were written.")
@json_flag
@click.pass_obj
def show(doors: Doors, /, conversation: str, branches: bool, as_json: bool) -> None:
    """Show a conversation: the branch in use, or --all."""
    screen = Screen.standard()
    lines = Lines(screen.out) if as_json else None

    async def work(store: Store) -> Any:
        return await store.conversations.open((await find(store, conversation)).id, owner=None)

    with reported(lines):
        tree = with_store(doors.settings({}), work)
    chosen = tree.messages if branches else tree.path()
    if lines:
        lines.write("conversation", **_fields(tree.conversation))
        for message in chosen:
            lines.write("message", **_message(message))
        return
    screen.line(one_line(tree.conversation.title), "bold")
    places = {message.id: message.order for message in tree.messages}
    for message in chosen:
        after = f" · after {places[message.parent]}" if branches and message.parent else ""
        place = f"{message.order}{after} · " if branches else ""
        screen.line()
        screen.line(f"{place}{_who(message)} · {_when(message.created)}{_cut(message)}", "dim")
        screen.line(message.text)
    if not branches and len(chosen) < len(tree.messages):
        screen.note(f"{len(tree.messages) - len(chosen)} messages stand in other branches: --all shows them")


@history.command("search")
@click.argument("words", nargs=-1, required=True)
@click.option("--limit", "-n", type=click.IntRange(1, 100), default=20, help="At most so many.  [20]")
@json_flag
@click.pass_obj
def search(doors: Doors, /, words: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Find messages and titles that hold all WORDS; accents do not count, the last word may be just begun."""
    screen = Screen.standard()
    lines = Lines(screen.out) if as_json else None

    async def work(store: Store) -> Any:
        found = await store.search(" ".join(words), owner=None, limit=limit)
        return found, await store.transfer.listed(owner=None)

    with reported(lines):
        found, everything = with_store(doors.settings({}), work)
    length = _length([each.id for each in everything])
    for hit in found.hits:
        if lines:
            lines.write("hit", **_hit(hit))
            continue
        screen.line(f"{hit.conversation[:length]} · {_when(hit.created)} · {one_line(hit.title)}", "dim")
        for text, matches in hit.snippet:
            screen.write(one_line(text), "bold" if matches else "")
        screen.write("\n")
    if not lines and not found.hits:
        screen.note("nothing holds all of these words")
    elif not lines and found.before is not None:
        screen.note(f"and more: --limit shows up to 100, or say more than these {len(words)} words")


@history.command("rm")
@click.argument("conversations", metavar="ID...", nargs=-1, required=True)
@click.pass_obj
def remove(doors: Doors, /, conversations: tuple[str, ...]) -> None:
    """Put conversations into the bin; `cierzo history restore ID` takes them out."""
    screen = Screen.standard()

    async def work(store: Store) -> list[Conversation]:
        found = [await find(store, each) for each in conversations]
        return [await store.conversations.delete(each.id, owner=None) for each in found]

    for each, said in zip(with_store(doors.settings({}), work), conversations, strict=True):
        screen.note(f"in the bin: {one_line(each.title) or each.id} (`cierzo history restore {said}` takes it out)")


@history.command("restore")
@click.argument("conversations", metavar="ID...", nargs=-1, required=True)
@click.pass_obj
def restore(doors: Doors, /, conversations: tuple[str, ...]) -> None:
    """Take conversations out of the bin; `cierzo history list --deleted` shows what is in it."""
    screen = Screen.standard()

    async def work(store: Store) -> list[Conversation]:
        found = [await find(store, each) for each in conversations]
        return [await store.conversations.restore(each.id, owner=None) for each in found]

    for each in with_store(doors.settings({}), work):
        screen.note(f"back: {one_line(each.title) or each.id}")


def turns(screen: Screen, path: Sequence[StoredMessage], *, before: int) -> None:
    """Show messages of a conversation as they looked when they were said."""
    if before:
        screen.line(say("earlier", count=before), "dim")
    for message in path:
        if message.role == "system":
            screen.line(f"[{one_line(message.text)}]", "dim")
        elif message.role == "user":
            screen.line("> " + message.text.replace("\n", "\n  "), "bold")
        else:
            screen.line(message.text)
            screen.line()


def _table(screen: Screen, rows: list[tuple[str, ...]]) -> None:
    widths = [max(width_of(one_line(row[place])) for row in rows) for place in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = (pad(one_line(cell), width) for cell, width in zip(row, widths, strict=True))
        line = "  ".join(cells).rstrip()
        if screen.is_terminal:
            while width_of(line) > screen.columns:
                line = line[:-2] + "…"
        screen.line(line, "" if number else "dim")


def _when(moment: datetime) -> str:
    """Write a date as a clock on the wall here shows it."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


def _who(message: StoredMessage) -> str:
    return message.answer.model if message.answer else message.role


def _cut(message: StoredMessage) -> str:
    if message.answer is None or message.answer.reason in ("eos_token", "stop_sequence"):
        return ""
    return f" · {message.answer.reason or 'being written'}"


def _fields(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "title": conversation.title,
        "created": conversation.created.isoformat(),
        "updated": conversation.updated.isoformat(),
        "pinned": conversation.pinned,
        "archived": conversation.archived,
        "deleted": conversation.deleted.isoformat() if conversation.deleted else None,
        "messages": conversation.messages,
    }


def _message(message: StoredMessage) -> dict[str, Any]:
    answer = message.answer
    return {
        "id": message.id,
        "parent": message.parent,
        "role": message.role,
        "text": message.text,
        "created": message.created.isoformat(),
        "model": answer.model if answer else None,
        "reason": answer.reason if answer else None,
    }


def _hit(hit: Hit) -> dict[str, Any]:
    return {
        "conversation": hit.conversation,
        "title": hit.title,
        "message": hit.message,
        "role": hit.role,
        "created": hit.created.isoformat(),
        "text": "".join(text for text, _ in hit.snippet),
    }
