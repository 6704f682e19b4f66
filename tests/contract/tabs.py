"""Two tabs on one conversation: what each was told, and what must therefore be there.

Each step lets both do something at once. The second tab's transactions begin after so many of the first one's, as
drawn, so that one tab's act falls between any two transactions of the other's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from typing import Any

from promises import check_tree
from talking import Talk

from cierzo.engines.script import Reply, Wait
from cierzo.errors import BadInput, CierzoError, Conflict, NotFound, Overloaded
from cierzo.messages import Sampling, Token
from cierzo.replies import End
from cierzo.store import StoredMessage, Tree
from cierzo.titles import title_of

SAID = ("a", " b", " c", " d")
SLOW = "¿tres?"
"""The question whose answers stop in the middle and wait until they are stopped."""

REPLIES = (Reply.of(["a", " b", Wait(), " c", " d"], when=SLOW), Reply.of([*SAID]))
PATIENCE = 0.02

Act = Coroutine[Any, Any, None]


@dataclass
class Turns:
    """When transactions of the second tab may begin.

    Attributes:
        after: How many more of the first tab's have to be over before each of them; none after the last one.
    """

    after: list[int]
    first: int = 0
    over: bool = False
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self) -> None:
        """Wait for the turn; not long, since the first tab may wait for what the second one holds."""
        need = self.first + self.after.pop(0) if self.after else 0
        try:
            async with asyncio.timeout(PATIENCE):
                while self.first < need and not self.over:
                    self.moved.clear()
                    await self.moved.wait()
        except TimeoutError:
            pass

    def done(self, *, over: bool = False) -> None:
        self.first += 1
        self.over = self.over or over
        self.moved.set()


TURN: ContextVar[tuple[Turns, int] | None] = ContextVar("TURN", default=None)


def taking_turns(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Wrap a database's way to run transactions."""

    async def turned(work: Any) -> Any:
        turns, tab = TURN.get() or (None, 0)
        if turns is None or turns.over:
            return await call(work)
        if tab:
            await turns.wait()
        try:
            return await call(work)
        finally:
            if not tab:
                turns.done()

    return turned


@dataclass
class Told:
    """A message that a tab was told of; an answer has no text yet, and whoever watches it writes down what it sees."""

    parent: str | None
    text: str | None = None
    continues: str | None = None
    kept: int | None = None
    seen: list[str] = field(default_factory=list)
    end: str = ""


class Tabs:
    """A conversation, and what its tabs know."""

    def __init__(self, talk: Talk, here: str) -> None:
        self.talk, self.here = talk, here
        self.told: dict[str, Told] = {}
        self.sent: list[tuple[str, str, str | None]] = []
        self.acknowledged: dict[str, tuple[str, str]] = {}  # client id: question and answer
        self.again_told: dict[tuple[str, str], str] = {}
        self.done: dict[str, tuple[str | None, str]] = {}
        self.half: set[str] = set()
        self.title, self.binned, self.head = "", False, None
        self.watching: list[asyncio.Task[None]] = []
        self.counted: Counter[str] = Counter()
        self.whole = True
        self.begin_step()

    def begin_step(self) -> None:
        """Forget what the last step's acts were told of names, of the bin and of branches."""
        self.names: list[str] = []
        self.bins: list[bool] = []
        self.heads: list[str] = []
        self.asked = False
        self.done_before = set(self.done)

    # --- what a tab does ---------------------------------------------------------------------------------------------

    def pick(self, number: int, *, answers: bool = False) -> str | None:
        """Choose a message, the newer the likelier."""
        known = [each for each, told in self.told.items() if not answers or told.text is None]
        return known[-1 - number % len(known)] if known else None

    def act(self, what: str, number: int, said: str, serial: int) -> tuple[str, Act]:
        """Say what one tab does, and make it; it is decided now, by what the tabs know before both begin."""
        if what == "rename":
            return what, self.rename(f"{said} {serial}" if number % 3 else "")
        if what == "bin" or (self.binned and number % 3 == 0):
            return "bin", self.bin(out=self.binned if number % 4 else bool(number % 2))
        if what == "resend" and self.sent:
            return what, self.send(*self.sent[number % len(self.sent)])
        if what in ("again", "go on", "stop", "select") and self.told:
            return what, self.about(what, number)
        at = self.pick(number)
        edits = what == "edit" and at
        parent = self.told[self.question_of(at)].parent if edits and at else None if number % 9 == 0 else at
        self.sent.append((f"q{len(self.sent)}", said, parent))
        return "edit" if edits else "send", self.send(*self.sent[-1])

    def about(self, what: str, number: int) -> Act:
        """Make what one tab does with a message that is there."""
        at, answer = self.pick(number) or "", self.pick(number, answers=True) or ""
        running = [each for each, told in self.told.items() if told.text is None and each not in self.done]
        if what == "again":
            return self.again(at, f"again-{number % 3}" if number % 2 else None)
        if what == "go on":
            return self.go_on(answer, number % 4 or None)
        if what == "select":
            return self.select(at)
        return self.stop(running[number % len(running)] if running and number % 4 else answer)

    def question_of(self, message: str) -> str:
        told = self.told[message]
        return message if told.text is not None else str(told.parent)

    async def send(self, client_id: str, text: str, parent: str | None) -> None:
        try:
            made = await self.talk.ask(self.here, text, owner=None, parent=parent, client_id=client_id)
        except Conflict:
            assert parent in self.told, "nothing stands in the way of this question"
            assert self.told[parent].text is None, "nothing stands in the way of this question"
            assert parent not in self.done_before, "the answer before this question is done"
            raise
        ids = made.question.id, made.answer.id
        assert self.acknowledged.setdefault(client_id, ids) == ids, "sent again, it is another one"
        assert (made.question.parent, made.question.text) == (parent, text)
        assert made.question.client_id == client_id
        assert made.answer.parent == made.question.id
        if made.created:
            self.new(made.question, Told(parent, text))
            self.begun(made.answer)
            self.asked = True

    async def again(self, message: str, client_id: str | None) -> None:
        question = self.question_of(message)
        made = (await self.talk.again(message, owner=None, client_id=client_id)).message
        assert made.parent == question
        if client_id and self.again_told.setdefault((question, client_id), made.id) != made.id:
            raise AssertionError("asked again with the same id, it is another answer")
        if made.id not in self.told:
            assert made.client_id == client_id
            self.begun(made)
        else:
            assert client_id, "an answer that was there before came as a new one"

    async def go_on(self, answer: str, at: int | None) -> None:
        made = (await self.talk.go_on(answer, owner=None, at=at, sampling=Sampling(max_new_tokens=2))).message
        assert made.parent == self.told[answer].parent
        assert made.answer is not None
        assert made.answer.continues == answer
        assert at is None or made.answer.kept == at
        self.begun(made, answer)

    async def stop(self, answer: str) -> None:
        seen = "".join(self.told[answer].seen)
        stopped = await self.talk.stop(answer, owner=None)
        assert stopped.answer is not None
        assert stopped.answer.state == "done"
        assert stopped.text.startswith(seen), "what was seen before it was stopped is gone"
        self.counted["cut in the middle"] += stopped.answer.reason == "stopped" and bool(stopped.text)
        told = stopped.answer.reason, stopped.text
        assert self.done.setdefault(answer, told) == told

    async def rename(self, name: str) -> None:
        await self.talk.store.conversations.change(self.here, owner=None, title=name)
        self.names.append(name)

    async def bin(self, *, out: bool) -> None:
        self.bins.append(not out)
        calls = self.talk.store.conversations
        await (calls.restore if out else calls.delete)(self.here, owner=None)

    async def select(self, message: str) -> None:
        await self.talk.store.conversations.select(self.here, message, owner=None)
        self.heads.append(message)

    def new(self, message: StoredMessage, told: Told) -> None:
        assert message.id not in self.told, "a message that was there before came as a new one"
        assert not self.binned or False in self.bins, "a conversation in the bin was written to"
        self.told[message.id] = told

    def begun(self, answer: StoredMessage, continues: str | None = None) -> None:
        told = Told(answer.parent, None, continues, answer.answer and answer.answer.kept)
        self.new(answer, told)
        self.heads.append(answer.id)
        self.watching.append(asyncio.get_running_loop().create_task(self.watch(answer.id, told), context=Context()))

    async def watch(self, answer: str, told: Told) -> None:
        """Follow an answer as a page does."""
        last = 0
        async for number, event in self.talk.follow(answer, owner=None):
            assert number == last + 1
            last = number
            if isinstance(event, Token):
                told.seen.append(event.text)
            elif isinstance(event, End):
                told.end = event.reason

    # --- both at once ------------------------------------------------------------------------------------------------

    async def both(self, acts: list[tuple[str, int, str]], serial: int, after: list[int]) -> None:
        """Let the tabs do something at the same time, and then look whether all is there."""
        self.begin_step()
        turns = Turns(list(after))
        self.whole = False
        works = [self.act(*each, serial + tab) for tab, each in enumerate(acts)]
        tasks = []
        for tab, (what, work) in enumerate(works):
            context = Context()
            context.run(TURN.set, (turns, tab))
            tasks.append(asyncio.get_running_loop().create_task(self.tolerant(what, work), context=context))
        tasks[0].add_done_callback(lambda _: turns.done(over=True))
        refused = await asyncio.gather(*tasks)
        turns.done(over=True)
        for (what, _), error in zip(works, refused, strict=True):
            self.counted[f"{what}, {type(error).__name__}" if error else what] += 1
            assert not isinstance(error, NotFound) or self.binned or True in self.bins, (what, error)
        await self.check()
        self.whole = True

    async def tolerant(self, what: str, work: Act) -> CierzoError | None:
        """Take one clear answer for what it is: nothing has changed."""
        able = {"stop": (), "bin": (), "rename": (NotFound,), "select": (NotFound,)}
        allowed = able.get(what, (NotFound, Conflict, Overloaded, *[BadInput] * (what == "go on")))
        try:
            await work
        except allowed as error:
            return error
        return None

    async def check(self) -> None:
        """What was told is there, what is there was told, and nothing changed that nobody changed."""
        tree = await self.talk.store.conversations.open(self.here, owner=None)
        check_tree(tree)
        there = {message.id: message for message in tree.messages}
        half = self.half_told(there)
        assert set(self.told) | half == set(there)
        for message, told in self.told.items():
            assert there[message].parent == told.parent
            assert told.text is None or there[message].text == told.text
            self.check_answer(there[message])
        for client_id, (question, answer) in self.acknowledged.items():
            assert [each.id for each in tree.messages if each.client_id == client_id] == [question]
            assert there[answer].parent == question
        self.check_conversation(tree, half - self.half)
        self.half = half

    def half_told(self, there: dict[str, StoredMessage]) -> set[str]:
        """Return the questions whose sender was told of an error only: sent again, they are answered."""
        sent = {client_id: (text, parent) for client_id, text, parent in self.sent}
        half = set(there) - set(self.told)
        for message in half:
            known = there[message]
            assert known.role == "user"
            assert sent[str(known.client_id)] == (known.text, known.parent)
        return half

    def check_answer(self, message: StoredMessage) -> None:
        if message.answer is None or message.answer.state != "done":
            assert message.id not in self.done, "it is being written again"
            return
        ended = message.answer.reason, message.text
        assert self.done.setdefault(message.id, ended) == ended, "an answer that was done has changed"
        assert ended[0] in ("eos_token", "length", "stopped")
        if message.answer.continues is None:
            assert ended[1] == "".join(SAID) if ended[0] == "eos_token" else "".join(SAID).startswith(ended[1])

    def check_conversation(self, tree: Tree, new: set[str]) -> None:
        now = tree.conversation
        known = {title_of(text) for _, text, _ in self.sent}
        names = {*self.names} or {self.title}
        assert now.title in (names | known if "" in names else names)
        assert now.title or "" in self.names or not self.asked, "a question was asked, and it has no title"
        assert (now.deleted is not None) in (self.bins or [self.binned])
        ends = [*self.heads, *new] or [self.head]
        line = {message.id for message in tree.path()} if tree.messages else {None}
        assert any(each in line for each in ends), "the branch in use is another one"
        assert now.head not in {message.parent for message in tree.messages}, "the branch in use goes on"
        if not self.heads and not new:
            assert now.head == self.head
        self.title, self.binned, self.head = now.title, now.deleted is not None, now.head

    async def end(self) -> None:
        """Stop what still runs; then every answer has its end, and its log, its text and what was seen are the same."""
        for answer, told in self.told.items():
            if told.text is None and answer not in self.done:
                await self.stop(answer)
        async with asyncio.timeout(30):
            await asyncio.gather(*self.watching)
        self.begin_step()
        await self.check()
        for answer, told in self.told.items():
            if told.text is not None:
                continue
            reason, text = self.done[answer]
            assert (told.end, "".join(told.seen)) == (reason, text)
            page = await self.talk.store.replies.events(answer, owner=None)
            tokens = [event.text for event in page.events if isinstance(event, Token)]
            assert tokens == told.seen
            if told.continues:
                assert tokens[: told.kept] == self.told[told.continues].seen[: told.kept]
        assert (self.talk.admission.running, self.talk.admission.waiting, len(self.talk.replies)) == (0, 0, 0)
        await self.talk.store.conversations.delete(self.here, owner=None)
        await self.talk.store.conversations.purge(older_than=0)
