"""What people do in a conversation: ask, ask again, edit, continue, stop, compare. Every face goes through here.

Nothing is overwritten: each of these adds siblings to a tree of messages. A question is in the store before its
answer begins; an answer is written by `cierzo.replies` whether somebody watches or not. A call that raised has
changed nothing that it did not say, and may be repeated with the same ``client_id``.

A system prompt is a message of the tree: the last one on the way to a question counts for it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cierzo.chat import DEFAULT_OPTIONS, DEFAULT_SAMPLING
from cierzo.continuing import begin_with, ended, ends
from cierzo.errors import BadInput, Conflict, NotFound
from cierzo.messages import Message
from cierzo.store import AnswerStart
from cierzo.store.records import MAX_ID
from cierzo.titles import title_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from cierzo.admission import Admission, Ticket
    from cierzo.chat import Chat, PromptOptions
    from cierzo.messages import Prompt, Sampling, StreamEvent, Token
    from cierzo.replies import End, Replies
    from cierzo.store import Store, StoredMessage, Written

HEAD = ""
"""In the place of a message's id: the end of the branch in use."""

CONTINUED = ("length", "stopped", "interrupted", "failed")
"""How an answer may have ended that can be continued."""

PATHS = 256
"""Paths that are remembered."""

FEW = 4
"""Messages that are read one by one before the whole conversation is."""

WITH_IDS = 64
"""Messages, counted from the newest, that go into a prompt with the ids that the model wrote."""

Path = tuple[Message, ...]


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


class Conversations:
    """The service.

    Args:
        chat: What answers. It is not closed here.
        store: Where everything is kept. It is not closed here.
        replies: Who writes answers.
        admission: Who may start.
    """

    def __init__(self, chat: Chat, store: Store, replies: Replies, admission: Admission) -> None:
        self.chat, self.store, self.replies, self.admission = chat, store, replies, admission
        self._paths: OrderedDict[str, tuple[str | None, Path]] = OrderedDict()

    async def ask(
        self,
        conversation: str,
        text: str,
        *,
        owner: str | None,
        parent: str | None = HEAD,
        client_id: str | None = None,
        sampling: Sampling = DEFAULT_SAMPLING,
        against: Sampling | None = None,
        system: str | None = None,
        options: PromptOptions = DEFAULT_OPTIONS,
    ) -> Asked:
        """Add a question and begin its answer, or two answers to compare.

        Args:
            conversation: Where.
            text: The question.
            owner: Whose.
            parent: The message that it follows: `HEAD`, an id, or None for a first one. To edit a question, ask
                another one after the same parent.
            client_id: An id that the asker made: asked again with it, the question is there once, answered once.
            sampling: How the answer is made.
            against: How a second answer to the same prompt is made.
            system: The system prompt from here on; None leaves it as it is, an empty one ends it.
            options: How messages become a prompt.

        Raises:
            NotFound: No such conversation or parent that is this owner's.
            BadText: The question is empty or no text.
            PromptTooLong: It has no room in the model's window. Nothing was stored.
            Conflict: ``client_id`` stands for another question; or ``parent`` is an answer that is still written.
            Overloaded: Every place in the queue is taken. Nothing was stored.
        """
        Message("user", text)  # what cannot be said is refused before anything is written
        samplings = (sampling,) if against is None else (sampling, against)
        there = await self.store.conversations.get(conversation, owner=owner)
        question = await self._sent(conversation, client_id, text, owner)
        parent = question.parent if question else there.head if parent == HEAD else parent
        with self._tickets(owner, len(samplings)) as tickets:
            path = await self._path(conversation, parent, owner)
            if question is None and system is not None and system != _system_of(path):
                path = (*path, Message("system", system))
            prompt = await self._prompt(path, text, sampling, options)
            if question is None:
                question = await self._store(conversation, parent, path, text, owner=owner, client_id=client_id)
                path = await self._path(conversation, question.parent, owner)
                if question.parent != parent:  # behind a new system prompt; or somebody sent the same and was faster
                    prompt = await self._prompt(path, text, sampling, options)
            if not there.title:
                await self.store.conversations.change(conversation, owner=owner, title=title_of(text))
            begun = []
            for number, each in enumerate(samplings):
                name = _derived(client_id, f"answer{number}")
                begun.append(await self._begin(question, owner, prompt, each, tickets.pop(), client_id=name))
        return Asked(question, tuple(each.message for each in begun), any(each.created for each in begun))

    async def prompt(
        self,
        conversation: str,
        text: str,
        *,
        owner: str | None,
        parent: str | None = HEAD,
        sampling: Sampling = DEFAULT_SAMPLING,
        system: str | None = None,
    ) -> Prompt:
        """Return the prompt that `ask` would make, and change nothing. Raises what `ask` raises of these."""
        there = await self.store.conversations.get(conversation, owner=owner)
        path = await self._path(conversation, there.head if parent == HEAD else parent, owner)
        if system is not None and system != _system_of(path):
            path = (*path, Message("system", system))
        return await self._prompt(path, text, sampling, DEFAULT_OPTIONS)

    async def again(
        self,
        message: str,
        *,
        owner: str | None,
        client_id: str | None = None,
        sampling: Sampling = DEFAULT_SAMPLING,
        options: PromptOptions = DEFAULT_OPTIONS,
    ) -> StoredMessage:
        """Begin another answer to a question, and return it.

        Args:
            message: The question, or one of its answers.
            owner: Whose.
            client_id: An id that the asker made; the same one again returns the same answer.
            sampling: How the answer is made.
            options: How messages become a prompt.

        Raises:
            NotFound: There is no such message that is this owner's.
            BadInput: It is no question and no answer to one.
            PromptTooLong: The question has no room in the model's window.
            Overloaded: Every place in the queue is taken.
        """
        question = await self._question_of(message, owner)
        with self._tickets(owner) as tickets:
            path = await self._path(question.conversation, question.parent, owner)
            prompt = await self._prompt(path, question.text, sampling, options)
            return (await self._begin(question, owner, prompt, sampling, tickets.pop(), client_id=client_id)).message

    async def go_on(
        self,
        answer: str,
        *,
        owner: str | None,
        at: int | None = None,
        token: int | None = None,
        client_id: str | None = None,
        sampling: Sampling = DEFAULT_SAMPLING,
        options: PromptOptions = DEFAULT_OPTIONS,
    ) -> StoredMessage:
        """Begin an answer that starts with tokens of another, and return it. The other one stays as it is.

        Args:
            answer: The other one.
            owner: Whose.
            at: How many of its tokens to keep; None keeps all, and is for answers that were cut.
            token: Id of the token to go on with after those; None lets the model choose.
            client_id: An id that the asker made; the same one again returns the same answer.
            sampling: How the rest is made. ``max_new_tokens`` counts new tokens.
            options: How messages become a prompt.

        Raises:
            NotFound: There is no such answer that is this owner's.
            Conflict: It is still being written.
            BadInput: It was not cut; or there is no such place, or no such token.
            PromptTooLong: The tokens to keep leave no room in the model's window.
            Overloaded: Every place in the queue is taken.
        """
        old = await self.store.conversations.message(answer, owner=owner)
        if old.answer is None:
            raise BadInput("this message is no answer of a model: name an answer")
        if old.answer.state == "writing":
            raise Conflict("this answer is still being written: stop it first")
        if at is None and token is None and old.answer.reason not in CONTINUED:
            raise BadInput("this answer is complete: ask for another one, or say from which token to go on")
        question = await self._question_of(answer, owner)
        tokens = await self.store.replies.tokens(answer, owner=owner)
        kept = begin_with(tokens, at, token, self.chat.engine.describe().template)
        over = ends(kept, self.chat.engine.describe().template)
        kept = kept[:-1] if over else kept  # as in any answer, the end itself is not among its tokens
        with self._tickets(owner) as tickets:
            path = await self._path(question.conversation, question.parent, owner)
            prompt = await self._prompt(path, question.text, sampling, options, kept)
            begun = await self._begin(
                question,
                owner,
                prompt,
                sampling,
                tickets.pop(),
                client_id=client_id,
                continues=answer,
                kept=kept,
                over=over,
            )
        return begun.message

    async def stop(self, answer: str, *, owner: str | None) -> StoredMessage:
        """Stop an answer and return it with what it said; see `cierzo.replies.Replies.stop`."""
        return await self.replies.stop(answer, owner=owner)

    def follow(
        self, answer: str, *, owner: str | None, after: int = 0
    ) -> AsyncGenerator[tuple[int, StreamEvent | End], None]:
        """Yield an answer's events with their numbers; see `cierzo.replies.Replies.follow`."""
        return self.replies.follow(answer, owner=owner, after=after)

    @contextmanager
    def _tickets(self, owner: str | None, count: int = 1) -> Iterator[list[Ticket]]:
        """Take places in the queue; those that nobody took out of the list are given back."""
        tickets: list[Ticket] = []
        try:
            for _ in range(count):
                tickets.append(self.admission.enter(owner or ""))  # noqa: PERF401 - the first is left if the second fails
            yield tickets
        finally:
            for ticket in tickets:
                ticket.leave()

    async def _sent(
        self, conversation: str, client_id: str | None, text: str, owner: str | None
    ) -> StoredMessage | None:
        """Return the question that was sent with this id before."""
        if client_id is None:
            return None
        there = await self.store.conversations.sent(conversation, client_id, owner=owner)
        if there is not None and (there.role, there.text) != ("user", text):
            raise Conflict("this client id was used for another message: send it with a new id")
        return there

    async def _store(
        self, conversation: str, parent: str | None, path: Path, text: str, *, owner: str | None, client_id: str | None
    ) -> StoredMessage:
        """Store a question, before it the system prompt with which ``path`` ends if it is a new one."""
        append = self.store.conversations.append
        try:
            if path and path[-1].role == "system" and path != await self._path(conversation, parent, owner):
                name, system = _derived(client_id, "system"), path[-1].text
                said = await append(
                    conversation, owner=owner, parent=parent, role="system", text=system, client_id=name
                )
                parent = said.message.id
            written = await append(
                conversation, owner=owner, parent=parent, role="user", text=text, client_id=client_id
            )
        except Conflict:
            there = await self._sent(conversation, client_id, text, owner)
            if there is None:
                raise
            return there
        return written.message

    async def _begin(
        self,
        question: StoredMessage,
        owner: str | None,
        prompt: Prompt,
        sampling: Sampling,
        ticket: Ticket,
        *,
        client_id: str | None,
        continues: str | None = None,
        kept: Sequence[Token] = (),
        over: bool = False,
    ) -> Written:
        info = self.chat.engine.describe()
        start = AnswerStart(
            info.engine,
            info.model,
            sampling,
            model_hash=self.chat.model_hash,
            template=prompt.template,
            prompt_ids=prompt.ids,
            route="ids",
            continues=continues,
            kept=len(kept),
        )
        return await self.replies.begin(
            question.conversation,
            owner=owner,
            parent=question.id,
            start=start,
            ticket=ticket,
            stream=lambda: ended(prompt) if over else self.chat.stream_prompt(prompt, sampling),
            kept=kept,
            client_id=client_id,
        )

    async def _question_of(self, message: str, owner: str | None) -> StoredMessage:
        there = await self.store.conversations.message(message, owner=owner)
        if there.role == "assistant" and there.parent is not None:
            there = await self.store.conversations.message(there.parent, owner=owner)
        if there.role != "user":
            raise BadInput("this message is no question and no answer to one: name another")
        return there

    async def _prompt(
        self, path: Path, text: str, sampling: Sampling, options: PromptOptions, begun: Sequence[Token] = ()
    ) -> Prompt:
        """Make the prompt of a question after a path: of its system prompts the last one counts."""
        system = _system_of(path)
        given = [message for message in path if message.role != "system"]
        first = [Message("system", system)] if system else []
        return await self.chat.prompt([*first, *given, Message("user", text)], sampling, options=options, begun=begun)

    async def _path(self, conversation: str, leaf: str | None, owner: str | None) -> Path:
        """Return the messages down to ``leaf``. What lies above a message never changes, so paths are remembered."""
        newer: list[StoredMessage] = []
        at = leaf
        while at is not None and at not in self._paths and len(newer) < FEW:
            newer.append(await self.store.conversations.message(at, owner=owner))
            at = newer[-1].parent
        if any(message.conversation != conversation for message in newer):
            raise NotFound(f"there is no message {str(leaf)[:40]!r} in this conversation: read it again")
        if newer and newer[0].answer is not None and newer[0].answer.state == "writing":
            raise Conflict("the answer before this question is still being written: wait for its end, or stop it")
        if at is not None and at not in self._paths:
            newer = list((await self.store.conversations.open(conversation, owner=owner)).path(leaf))[::-1]
            at = None
        owners, path = self._paths.get(at or "", (owner, ()))
        if owners != owner:
            raise NotFound(f"there is no message {str(leaf)[:40]!r}: open the conversation to see which there are")
        path = (*path, *[await self._message(each, owner, place) for place, each in enumerate(newer)][::-1])
        if leaf is not None:
            self._paths[leaf] = (owner, path)
            self._paths.move_to_end(leaf)
            while len(self._paths) > PATHS:
                self._paths.popitem(last=False)
        return path

    async def _message(self, stored: StoredMessage, owner: str | None, age: int) -> Message:
        """Return what a prompt is built of: a recent answer with the very ids that the model wrote."""
        if stored.answer is None or age >= WITH_IDS:
            return stored.message
        tokens = await self.store.replies.tokens(stored.id, owner=owner)
        return replace(stored.message, ids=tuple(token.id for token in tokens))


def _system_of(path: Path) -> str:
    return next((message.text for message in reversed(path) if message.role == "system"), "")


def _derived(client_id: str | None, what: str) -> str | None:
    """Return the id of what comes with a message, made from the message's own; never longer than an id may be."""
    if client_id is None:
        return None
    name = f"{client_id}.{what}"
    return name if len(name) <= MAX_ID else f"{hashlib.sha256(client_id.encode()).hexdigest()}.{what}"
