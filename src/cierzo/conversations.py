"""What people do in a conversation: ask, ask again, edit, continue, stop, compare. Every face goes through here.

Nothing is overwritten: each of these adds siblings to a tree of messages. A question is in the store before its
answer begins; an answer is written by `cierzo.replies` whether somebody watches or not. A call that raised has
changed nothing that it did not say, and may be repeated with the same ``client_id``.

A system prompt is a message of the tree: the last one on the way to a question counts for it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from cierzo.admission import Admission, Singly
from cierzo.chat import DEFAULT_OPTIONS, DEFAULT_SAMPLING
from cierzo.continuing import begin_with, check_continued, ended, ends, retold
from cierzo.errors import BadInput, Conflict
from cierzo.messages import Message
from cierzo.paths import Paths, asking, system_of
from cierzo.store import AnswerStart, Written
from cierzo.store.records import Asked, derived_id
from cierzo.titles import title_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from cierzo.admission import Ticket
    from cierzo.chat import Chat, Held, PromptOptions
    from cierzo.engines.base import Engine
    from cierzo.holding import Use
    from cierzo.messages import Prompt, Sampling, StreamEvent, Token
    from cierzo.replies import End, Replies
    from cierzo.store import Store, StoredMessage
    from cierzo.switching import Switch

HEAD = ""
"""In the place of a message's id: the end of the branch in use."""


class Conversations:
    """The service.

    Args:
        chat: What answers. It is not closed here.
        store: Where everything is kept. It is not closed here.
        replies: Who writes answers.
        admission: Who may start.

    Attributes:
        switch: Changes what answers; None where that is fixed.
    """

    def __init__(self, chat: Chat, store: Store, replies: Replies, admission: Admission) -> None:
        self.chat, self.store, self.replies, self.admission = chat, store, replies, admission
        self.switch: Switch | None = None
        self._emptying: list[Admission] = []
        self._singly = Singly()
        self._paths = Paths(store)

    def turn_to(self, engine: Engine, *, after: bool = False) -> Use:
        """Have another engine answer from now on, with a queue of its own; see `cierzo.chat.Chat.turn_to`."""
        before = self.chat.turn_to(engine, after=after)
        self._emptying, self.admission = self.admissions, Admission(engine.describe().slots)
        return before

    @property
    def admissions(self) -> list[Admission]:
        """The queue, and those of engines before it in which somebody still stands."""
        return [self.admission, *(each for each in self._emptying if each.running or each.waiting)]

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
        names = [derived_id(client_id, f"answer{number}") for number in range(len(samplings))]
        async with self._singly.only(client_id and (owner, conversation, client_id)):
            there = await self.store.conversations.get(conversation, owner=owner)
            question = await self._sent(conversation, client_id, text, owner)
            if question is not None and (answers := await self._answered(conversation, names, owner)):
                return Asked(question, answers, created=False)
            self.replies.refuse_if_closing()
            parent = question.parent if question else there.head if parent == HEAD else parent
            with self._turns(owner, len(samplings)) as (held, tickets):
                path = await self._paths.to(parent, conversation, owner=owner)
                if question is not None or system == system_of(path):
                    system = None
                begins = path if system is None else (*path, Message("system", system))
                prompt = await held.prompt(asking(begins, text), sampling, options=options)
                if question is None:
                    question = await self._store(conversation, parent, system, text, owner=owner, client_id=client_id)
                    if (path := await self._paths.to(question.parent, conversation, owner=owner)) != begins:
                        given = asking(path, text)  # another process was faster
                        prompt = await held.prompt(given, sampling, options=options)
                if not there.title:
                    title = title_of(text)
                    await self.store.conversations.change(conversation, owner=owner, title=title, only_untitled=True)
                begun = []
                for name, each in zip(names, samplings, strict=True):
                    begun.append(
                        await self._begin(held, question, owner, prompt, each, ticket=tickets.pop(0), client_id=name)
                    )
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
        with self.chat.hold() as held:
            return await held.prompt(asking(path, text), sampling)

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
            with self._turns(owner) as (held, tickets):
                path = await self._paths.to(question.parent, question.conversation, owner=owner)
                prompt = await held.prompt(asking(path, question.text), sampling, options=options)
                return await self._begin(
                    held, question, owner, prompt, sampling, ticket=tickets.pop(0), client_id=client_id
                )

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
            self.replies.refuse_if_closing()
            with self._turns(owner) as (held, tickets):
                template = (await held.meet()).template
                check_continued(old, template, plain=at is None and token is None)
                if old.answer is not None and old.answer.template != template:
                    kept = retold(old.text, template)
                else:
                    kept = begin_with(await self.store.replies.tokens(answer, owner=owner), at, token, template)
                over = ends(kept, template)
                kept = kept[:-1] if over else kept  # as in any answer, the end itself is not among its tokens
                path = await self._paths.to(question.parent, question.conversation, owner=owner)
                prompt = await held.prompt(asking(path, question.text), sampling, options=options, begun=kept)
                return await self._begin(
                    held,
                    question,
                    owner,
                    prompt,
                    sampling,
                    ticket=tickets.pop(0),
                    client_id=client_id,
                    continues=answer,
                    kept=kept,
                    over=over,
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
    def _turns(self, owner: str | None, count: int = 1) -> Iterator[tuple[Held, list[Ticket]]]:
        """Hold the engine and take places in its queue; those that nobody took out of the list are given back.

        Whoever has a place holds the engine for as long.
        """
        tickets: list[Ticket] = []
        with self.chat.hold() as held:
            try:
                for _ in range(count):
                    tickets.append(self.admission.enter(owner or ""))
                    tickets[-1].after = held.again().let_go
                yield held, tickets
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
                name = derived_id(client_id, "system")
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
        held: Held,
        question: StoredMessage,
        owner: str | None,
        prompt: Prompt,
        sampling: Sampling,
        *,
        ticket: Ticket,
        client_id: str | None,
        continues: str | None = None,
        kept: Sequence[Token] = (),
        over: bool = False,
    ) -> Written:
        info = held.info
        start = AnswerStart(
            info.engine,
            info.model,
            sampling,
            model_hash=held.model_hash,
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
            stream=lambda: ended(prompt) if over else held.stream_prompt(prompt, sampling),
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
