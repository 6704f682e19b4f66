"""What the store gives back and takes: conversations, messages of a tree, answers. Plain and frozen.

These carry the identity (ids, parents, dates) that `cierzo.messages` leaves out.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from cierzo.errors import BadText
from cierzo.messages import Finish, FinishReason, Message, Role, Sampling, StreamEvent, check_text

MAX_TITLE = 300
"""Longest title, in characters."""

MAX_ID = 128
"""Longest id that may come from outside, in characters."""

EndReason = FinishReason | Literal["interrupted"]
"""How an answer ended; ``interrupted`` means that the process that wrote it ended first."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id() -> str:
    """Make an id of 26 characters, safe in a URL: 48 bits of time in milliseconds, then 80 random bits.

    The time in front keeps the index of a table growing at its end; the random part cannot be guessed.
    """
    number = (time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80 | secrets.randbits(80)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def derived_id(client_id: str | None, what: str) -> str | None:
    """Return the id of what comes with a message, made from the message's own; never longer than an id may be."""
    if client_id is None:
        return None
    name = f"{client_id}.{what}"
    return name if len(name) <= MAX_ID else f"{hashlib.sha256(client_id.encode()).hexdigest()}.{what}"


def is_id(value: str) -> bool:
    """Whether anything can have this id; what no id looks like need not trouble a database."""
    return 0 < len(value) <= MAX_ID and all("!" <= char <= "~" for char in value)


def check_id(value: str, *, what: str) -> str:
    """Return ``value`` if it can be an id.

    Raises:
        BadText: It is empty, longer than `MAX_ID`, or not made of printable ASCII without spaces.
    """
    if not is_id(value):
        raise BadText(f"{what} must have 1 to {MAX_ID} printable ASCII characters and no spaces")
    return value


def check_title(title: str) -> str:
    """Return ``title`` if it can be stored.

    Raises:
        BadText: It is longer than `MAX_TITLE`, or not Unicode text.
    """
    check_text(title, what="the title", empty=True)
    if len(title) > MAX_TITLE:
        raise BadText(f"the title has {len(title):,} characters, at most {MAX_TITLE} are allowed: shorten it")
    return title


def moment(micros: int) -> datetime:
    """Turn microseconds since 1970 into a date in UTC."""
    return datetime.fromtimestamp(micros // 1_000_000, tz=UTC).replace(microsecond=micros % 1_000_000)


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation, without its messages.

    Attributes:
        owner: Id of the account that it belongs to; None where there are no accounts.
        head: The message on which the next one builds unless another is named; None: the next is a first one.
        messages: How many messages the tree has, all branches together.
        deleted: When it was put into the bin; None while it is not in it.
    """

    id: str
    owner: str | None
    title: str
    created: datetime
    updated: datetime
    pinned: bool = False
    archived: bool = False
    deleted: datetime | None = None
    head: str | None = None
    messages: int = 0


@dataclass(frozen=True, slots=True)
class AnswerStart:
    """What is known of an answer before its first token.

    Attributes:
        engine: Kind of the engine, such as ``llamacpp``.
        model: The model's name.
        model_hash: SHA-256 of the model's file in hex; empty where there is no file here.
        template: Name of the prompt's template.
        prompt_ids: Token ids of the prompt as sent; empty where the engine took messages.
        sampling: How tokens are chosen, as sent.
        route: How the prompt went to the engine: ``ids``, ``text`` or ``messages``; empty where there is one way.
        continues: Id of the answer whose first ``kept`` tokens this one begins with.
        kept: How many tokens those are.
        dropped: Messages before the question that the window had no room for, system prompts not counted; None where
            nobody knows.
        writer: Who writes it; lets a process tell its own answers from those of another one.
    """

    engine: str
    model: str
    sampling: Sampling
    model_hash: str = ""
    template: str = ""
    prompt_ids: tuple[int, ...] = ()
    route: str = ""
    continues: str | None = None
    kept: int = 0
    dropped: int | None = None
    writer: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """How an answer came about, without its tokens (`cierzo.store.replies.Replies.tokens`) and prompt ids.

    Attributes:
        state: ``writing`` until the log is folded, then ``done``.
        logged: Events in its log; the last has this sequence number.
        reason: How it ended; None while it is being written.
        finish: The engine's own account of the end; None where there is none (``writing``, ``interrupted``).
        failure: The sentence of the error that ended it; empty otherwise.
        dropped: As in `AnswerStart`.
    """

    state: Literal["writing", "done"]
    engine: str
    model: str
    model_hash: str
    template: str
    sampling: Sampling
    route: str
    continues: str | None
    kept: int
    logged: int
    reason: EndReason | None = None
    finish: Finish | None = None
    failure: str = ""
    ended: datetime | None = None
    dropped: int | None = None


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message of the tree.

    Attributes:
        parent: The message that it follows; None for a first one.
        position: Its place among the children of its parent, from 0.
        order: Its place among all messages of the conversation, from 1, in the order in which they were written.
        client_id: The id that the sender gave it, so that sending twice stores once.
        answer: How it came about, for an answer of a model.
    """

    id: str
    conversation: str
    parent: str | None
    position: int
    order: int
    role: Role
    text: str
    created: datetime
    client_id: str | None = None
    answer: Answer | None = None

    @property
    def message(self) -> Message:
        """The value that a prompt is built of."""
        return Message(self.role, self.text)


@dataclass(frozen=True, slots=True)
class Tree:
    """A conversation with all its messages, in the order in which they were written: parents before children."""

    conversation: Conversation
    messages: tuple[StoredMessage, ...]

    def path(self, leaf: str | None = None) -> tuple[StoredMessage, ...]:
        """Return the messages from the first to ``leaf`` (None: the head), oldest first; empty for an unknown id."""
        by_id = {message.id: message for message in self.messages}
        found: list[StoredMessage] = []
        at = by_id.get(leaf or self.conversation.head or "")
        while at is not None:
            found.append(at)
            at = by_id.get(at.parent or "")
        return tuple(reversed(found))

    def children(self, parent: str | None) -> tuple[StoredMessage, ...]:
        """Return what follows ``parent`` (None: the first messages), in order."""
        return tuple(sorted((m for m in self.messages if m.parent == parent), key=lambda m: m.position))


@dataclass(frozen=True, slots=True)
class Place:
    """A message on a branch, and the ids of all that follow the same one, it included, in order."""

    message: StoredMessage
    siblings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Branch:
    """A part of a branch, oldest message first.

    Attributes:
        earlier: Whether the branch has messages before these.
    """

    conversation: Conversation
    places: tuple[Place, ...]
    earlier: bool


@dataclass(frozen=True, slots=True)
class Forked:
    """The copy of a branch.

    Attributes:
        created: Whether this very call made it; False where its id had been given to one before.
    """

    conversation: Conversation
    created: bool


@dataclass(frozen=True, slots=True)
class Written:
    """The message that a write left in the store.

    Attributes:
        created: Whether this very call made it; False where its ``client_id`` had made it before.
    """

    message: StoredMessage
    created: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """What asking left in the store.

    Attributes:
        question: The question.
        answers: Its answer, empty so far; two where two samplings are compared.
        created: Whether this very call began the answers; False where the same ``client_id`` had done so before.
    """

    question: StoredMessage
    answers: tuple[StoredMessage, ...]
    created: bool

    @property
    def answer(self) -> StoredMessage:
        """The first answer."""
        return self.answers[0]


@dataclass(frozen=True, slots=True)
class EventPage:
    """A run of an answer's log.

    Attributes:
        first: Sequence number of ``events[0]``; they have no gap.
        logged: Sequence number of the last event in the log, read in the same moment.
        done: Whether no event will follow ``logged``.
    """

    events: tuple[StreamEvent, ...]
    first: int
    logged: int
    done: bool


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An answer that is still marked as being written.

    Attributes:
        idle: Seconds since its log last grew.
    """

    message: str
    conversation: str
    owner: str | None
    writer: str
    logged: int
    idle: float


@dataclass(frozen=True, slots=True)
class Page:
    """Some conversations, and where the next ones begin (None: there are no more)."""

    conversations: tuple[Conversation, ...]
    after: str | None


@dataclass(frozen=True, slots=True)
class Hit:
    """One place that a search found.

    Attributes:
        message: Id of the message; None where the title was found.
        snippet: The text around the first match in pieces ``(text, whether it matches)``; joined they are plain
            text, so that each face marks and escapes in its own way.
    """

    conversation: str
    title: str
    message: str | None
    role: Role | None
    snippet: tuple[tuple[str, bool], ...]
    created: datetime


@dataclass(frozen=True, slots=True)
class Found:
    """Some hits, newest first, and where the next ones begin (None: there are no more)."""

    hits: tuple[Hit, ...]
    before: int | None
