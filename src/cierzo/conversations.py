"""What people do in a conversation: ask, ask again, edit, continue, stop, compare. Every face goes through here.

Nothing is overwritten: each of these adds siblings to a tree of messages. A question is in the store before its
answer begins; an answer is written by `cierzo.replies` whether somebody watches or not. A call that raised has
changed nothing that it did not say, and may be repeated with the same ``client_id``.

A system prompt is a message of the tree: the last one on the way to a question counts for it.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cierzo.admission import Singly
from cierzo.chat import DEFAULT_OPTIONS, DEFAULT_SAMPLING
from cierzo.continuing import begin_with, ended, ends
from cierzo.errors import BadInput, Conflict
from cierzo.messages import Message
from cierzo.paths import Paths, system_of
from cierzo.store import AnswerStart, Written
from cierzo.store.records import MAX_ID
from cierzo.titles import title_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from cierzo.admission import Admission, Ticket
    from cierzo.chat import Chat, PromptOptions
    from cierzo.messages import Prompt, Sampling, StreamEvent, Token
    from cierzo.paths import Path
    from cierzo.replies import End, Replies
    from cierzo.store import Store, StoredMessage

HEAD = ""
"""In the place of a message's id: the end of the branch in use."""

CONTINUED = ("length", "stopped", "interrupted", "failed")
"""How an answer may have ended that can be continued."""


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
        self._singly = Singly()
        self._paths = Paths(store)

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
        names = [_derived(client_id, f"answer{number}") for number in range(len(samplings))]
        async with self._singly.only(client_id and (owner, conversation, client_id)):
            there = await self.store.conversations.get(conversation, owner=owner)
            question = await self._sent(conversation, client_id, text, owner)
            if question is not None and (answers := await self._answered(conversation, names, owner)):
                return Asked(question, answers, created=False)
            self.replies.refuse_if_closing()
            parent = question.parent if question else there.head if parent == HEAD else parent
            with self._tickets(owner, len(samplings)) as tickets:
                path = await self._paths.to(parent, conversation, owner=owner)
                if question is not None or system == system_of(path):
                    system = None
                begins = path if system is None else (*path, Message("system", system))
                prompt = await self._prompt(begins, text, sampling, options)
                if question is None:
                    question = await self._store(conversation, parent, system, text, owner=owner, client_id=client_id)
                    if (path := await self._paths.to(question.parent, conversation, owner=owner)) != begins:
                        prompt = await self._prompt(path, text, sampling, options)  # another process was faster
                if not there.title:
                    title = title_of(text)
                    await self.store.conversations.change(conversation, owner=owner, title=title, only_untitled=True)
                begun = []
                for name, each in zip(names, samplings, strict=True):
                    begun.append(await self._begin(question, owner, prompt, each, tickets.pop(0), client_id=name))
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
        path = await self._paths.to(there.head if parent == HEAD else parent, conversation, owner=owner)
        if system is not None and system != system_of(path):
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
    ) -> Written:
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
        async with self._singly.only(client_id and (owner, message, client_id)):
            question = await self._question_of(message, owner)
            for there in await self._answered(question.conversation, [client_id], owner):
                if there.parent == question.id:
                    return Written(there, created=False)
            self.replies.refuse_if_closing()
            with self._tickets(owner) as tickets:
                path = await self._paths.to(question.parent, question.conversation, owner=owner)
                prompt = await self._prompt(path, question.text, sampling, options)
                return await self._begin(question, owner, prompt, sampling, tickets.pop(0), client_id=client_id)

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
    ) -> Written:
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
        async with self._singly.only(client_id and (owner, answer, client_id)):
            old = await self.store.conversations.message(answer, owner=owner)
            question = await self._question_of(answer, owner)
            for there in await self._answered(old.conversation, [client_id], owner):
                if there.answer is not None and there.answer.continues == answer:
                    return Written(there, created=False)
            await self.chat.meet()
            self._check_continued(old, plain=at is None and token is None)
            self.replies.refuse_if_closing()
            template = self.chat.engine.describe().template
            kept = begin_with(await self.store.replies.tokens(answer, owner=owner), at, token, template)
            over = ends(kept, template)
            kept = kept[:-1] if over else kept  # as in any answer, the end itself is not among its tokens
            with self._tickets(owner) as tickets:
                path = await self._paths.to(question.parent, question.conversation, owner=owner)
                prompt = await self._prompt(path, question.text, sampling, options, kept)
                return await self._begin(
                    question,
                    owner,
                    prompt,
                    sampling,
                    tickets.pop(0),
                    client_id=client_id,
                    continues=answer,
                    kept=kept,
                    over=over,
                )

    def _check_continued(self, old: StoredMessage, *, plain: bool) -> None:
        """Refuse to continue what cannot be continued; ``plain`` is without a place and a token."""
        if old.answer is None:
            raise BadInput("this message is no answer of a model: name an answer")
        if old.answer.state == "writing":
            raise Conflict("this answer is still being written: stop it first")
        if plain and old.answer.reason not in CONTINUED:
            raise BadInput("this answer is complete: ask for another one, or say from which token to go on")
        if old.answer.template != self.chat.engine.describe().template:
            raise BadInput(
                "a model with other tokens wrote this answer: choose that model again, or ask for another answer"
            )

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

    async def _answered(
        self, conversation: str, names: Sequence[str | None], owner: str | None
    ) -> tuple[StoredMessage, ...]:
        """Return the answers that were begun with these ids before; none unless all are there and cared for."""
        there = [await self.store.conversations.sent(conversation, name, owner=owner) for name in names if name]
        found = tuple(each for each in there if each is not None and each.answer is not None)
        kept = [each.id in self.replies or (each.answer and each.answer.state == "done") for each in found]
        return found if len(found) == len(names) and all(kept) else ()

    async def _store(
        self,
        conversation: str,
        parent: str | None,
        system: str | None,
        text: str,
        *,
        owner: str | None,
        client_id: str | None,
    ) -> StoredMessage:
        """Store a question, before it a new system prompt if there is one."""
        append = self.store.conversations.append
        try:
            if system is not None:
                name = _derived(client_id, "system")
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
            prompt_ids=() if info.takes == "messages" else prompt.ids,
            route=info.takes,
            continues=continues,
            kept=len(kept),
            dropped=len(prompt.dropped),
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
        system = system_of(path)
        given = [message for message in path if message.role != "system"]
        first = [Message("system", system)] if system else []
        return await self.chat.prompt([*first, *given, Message("user", text)], sampling, options=options, begun=begun)


def _derived(client_id: str | None, what: str) -> str | None:
    """Return the id of what comes with a message, made from the message's own; never longer than an id may be."""
    if client_id is None:
        return None
    name = f"{client_id}.{what}"
    return name if len(name) <= MAX_ID else f"{hashlib.sha256(client_id.encode()).hexdigest()}.{what}"
