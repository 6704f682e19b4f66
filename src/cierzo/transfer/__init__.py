"""Conversations as files: JSON with everything, which can be imported again, and Markdown for reading.

An import checks the whole file before it writes anything, writes all of it or nothing, and changes nothing that is
there. `docs/store.md` describes the format.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from cierzo.errors import BadInput, BadText
from cierzo.store.transfer import Draft, packed
from cierzo.transfer import form, kinds
from cierzo.transfer.markdown import export_markdown
from cierzo.transfer.scanner import Scanner

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence
    from typing import BinaryIO

    from cierzo.store import Conversation, Store
    from cierzo.store.transfer import Full, Packed

__all__ = ["FORMAT", "MAX_MESSAGES", "VERSION", "Imported", "export_json", "export_markdown", "import_json"]

FORMAT = "cierzo-conversations"
VERSION = 1

MAX_MESSAGES = 200_000
"""Most messages in one file, of all its conversations together."""

MAX_CONVERSATIONS = 50_000


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import has added.

    Attributes:
        conversations: Their ids now, in the order of the file.
        messages: How many messages they have together.
    """

    conversations: tuple[str, ...]
    messages: int


async def export_json(store: Store, conversations: Sequence[Conversation]) -> AsyncGenerator[bytes, None]:
    """Yield a file with everything, a line for each message, as it is read.

    Args:
        store: Where they are.
        conversations: Which, as the store told them.

    Raises:
        NotFound: One was removed meanwhile. What was yielded is no whole file then, and no import takes it.
    """
    digest = hashlib.sha256()
    head = {"format": FORMAT, "version": VERSION, "exported": kinds.date(datetime.now(UTC))}
    digest.update(_canonical(head))
    yield orjson.dumps(head)[:-1] + b',"conversations":['
    for number, conversation in enumerate(conversations):
        fields = form.plain_conversation(conversation)
        digest.update(_canonical(fields))
        yield (b",\n" if number else b"\n") + orjson.dumps(fields)[:-1] + b',"messages":['
        between = b"\n"
        async for full in store.transfer.read(conversation):
            message = await asyncio.to_thread(form.plain_message, full)
            digest.update(_canonical(message))
            yield between + orjson.dumps(message)
            between = b",\n"
        yield b"]}"
    yield b'],\n"sha256":"' + digest.hexdigest().encode() + b'"}\n'


async def import_json(store: Store, file: BinaryIO, *, owner: str | None) -> Imported:
    """Check a file, then add what is in it to an owner's conversations.

    Args:
        store: Where to.
        file: What `export_json` wrote; read in a thread.
        owner: Whose the conversations will be.

    Raises:
        BadInput: It is not Cierzo's, is broken, or is too large. Nothing was added.
        StoreUnavailable: The database does not answer. Nothing was added.
    """
    drafts = await asyncio.to_thread(lambda: list(read(file)))
    names = await store.transfer.add(drafts, owner=owner)
    return Imported(names, sum(len(draft.messages) for draft in drafts))


def read(file: BinaryIO) -> Iterator[Draft]:
    """Check a file and yield its conversations; only after the last one it is known to be good.

    Raises:
        BadInput: It is not Cierzo's, is broken, or is too large.
    """
    scanner = Scanner(file)
    head = _head(scanner)
    digest = hashlib.sha256(_canonical(head))
    names: set[str] = set()
    taken: set[str] = set()
    scanner.name("conversations")
    for number in _entries(scanner):
        draft = _conversation(scanner, f"conversations[{number}]", taken, digest)
        if draft.conversation.id in names:
            kinds.wrong(f"conversations[{number}].id", "this id stands in the file twice")
        names.add(draft.conversation.id)
        if len(names) > MAX_CONVERSATIONS:
            raise BadInput(f"the file has more than {MAX_CONVERSATIONS:,} conversations: import them in parts")
        yield draft
    if scanner.peek() == ",":
        scanner.take(",")
        scanner.name("sha256")
        if scanner.value() != digest.hexdigest():
            raise BadInput(
                "the file was changed or damaged after it was written (its sha256 is another): nothing was imported; "
                "if you changed it yourself, take the field sha256 out"
            )
    scanner.take("}")
    scanner.end()


def _head(scanner: Scanner) -> dict[str, Any]:
    """Read the fields before the conversations; what does not begin with them is somebody else's."""
    try:
        scanner.take("{")
        scanner.name("format")
        ours = scanner.value() == FORMAT
    except BadInput:
        ours = False
    if not ours:
        raise BadInput(
            f'this is no file of Cierzo\'s: a JSON file is expected that begins with {{"format": "{FORMAT}", '
            "as `cierzo export` writes it"
        )
    scanner.take(",")
    scanner.name("version")
    version = kinds.whole(scanner.value(), "version")
    if version != VERSION:
        raise BadInput(f"the file is of version {version}, this Cierzo reads version {VERSION}: use a newer Cierzo")
    scanner.take(",")
    scanner.name("exported")
    exported = kinds.date(kinds.moment(scanner.value(), "exported"))
    scanner.take(",")
    return {"format": FORMAT, "version": version, "exported": exported}


def _conversation(scanner: Scanner, place: str, taken: set[str], digest: Any) -> Draft:
    scanner.take("{")
    given = {}
    for name in form.CONVERSATION:
        scanner.name(name)
        given[name] = scanner.value()
        scanner.take(",")
    conversation = form.conversation_of(given, place)
    digest.update(_canonical(given))
    draft, tree = Draft(conversation), form.Tree(place, conversation.id, taken)
    scanner.name("messages")
    for _ in _entries(scanner):
        value = scanner.value()
        draft.messages.append(_packed(tree.add(value), f"{place}.messages[{len(draft.messages)}]"))
        digest.update(_canonical(value))
        if len(taken) > MAX_MESSAGES:
            raise BadInput(f"the file has more than {MAX_MESSAGES:,} messages: import it in parts")
    scanner.take("}")
    if conversation.head is not None and conversation.head not in tree:
        kinds.wrong(f"{place}.head", "it is no message of the conversation")
    return draft


def _packed(full: Full, place: str) -> Packed:
    try:
        return packed(full)
    except BadText as large:
        kinds.wrong(place, str(large).partition(":")[0])


def _entries(scanner: Scanner) -> Iterator[int]:
    """Walk through a list: whoever iterates takes the value at each step."""
    scanner.take("[")
    number = 0
    while scanner.peek() != "]":
        if number:
            scanner.take(",")
        yield number
        number += 1
    scanner.take("]")


def _canonical(value: Any) -> bytes:
    """Return the bytes by which a part of a file is compared: spaces and the order of fields do not count."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS) + b"\n"
