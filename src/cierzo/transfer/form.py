"""What a message and a conversation look like in a file, and whether what stands in a file can be one.

Nothing is taken on trust: every field is there and of its kind, no other is, texts and numbers are such as the store
holds, parents come before their children. Where something is wrong, one sentence names the place.
"""

from __future__ import annotations

import math
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cierzo.errors import BadInput
from cierzo.messages import MAX_ALTERNATIVES, Alternative, Finish, Message, Phase, Sampling, Timings, Token, content
from cierzo.store.records import Answer, Conversation, StoredMessage, check_title
from cierzo.store.transfer import Full
from cierzo.transfer.kinds import date, flag, identity, moment, number, one_of, record, rows, text, whole, wrong

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cierzo.messages import StreamEvent

MAX_NAME = 4096
"""Longest name of a model, engine or template, in characters."""

_ROLES = ("system", "user", "assistant")
_REASONS = ("eos_token", "stop_sequence", "length", "stopped", "failed", "interrupted")
_PHASES = ("queued", "loading", "reading")
_MESSAGE = ("id", "parent", "role", "text", "created", "client_id", "answer")
_ANSWER: tuple[str, ...] = (
    "engine",
    "model",
    "model_hash",
    "template",
    "route",
    "continues",
    "kept",
    "dropped",
    "sampling",
    "prompt_ids",
)
_ANSWER += ("reason", "finish", "failure", "ended", "phases", "tokens")
_SAMPLING = tuple(field.name for field in fields(Sampling))
_FINISH = tuple(field.name for field in fields(Finish) if field.compare)
_TIMINGS = tuple(field.name for field in fields(Timings))
CONVERSATION = ("id", "title", "created", "updated", "pinned", "archived", "deleted", "head")
_NUMBERS = {"-inf": -math.inf, "inf": math.inf, "nan": math.nan}


# --- to a file ---------------------------------------------------------------------------------------------------


def plain_conversation(conversation: Conversation) -> dict[str, Any]:
    """Return a conversation without its messages as it stands in a file."""
    values: dict[str, Any] = {name: getattr(conversation, name) for name in CONVERSATION}
    return {name: date(value) if isinstance(value, datetime) else value for name, value in values.items()}


def plain_message(full: Full) -> dict[str, Any]:
    """Return a message with all that is kept of it as it stands in a file."""
    message = full.message
    return {
        "id": message.id,
        "parent": message.parent,
        "role": message.role,
        "text": message.text,
        "created": date(message.created),
        "client_id": message.client_id,
        "answer": None if message.answer is None else _plain_answer(message.answer, full, message.created),
    }


def _plain_answer(answer: Answer, full: Full, created: datetime) -> dict[str, Any]:
    return {
        "engine": answer.engine,
        "model": answer.model,
        "model_hash": answer.model_hash,
        "template": answer.template,
        "route": answer.route,
        "continues": answer.continues,
        "kept": answer.kept,
        "dropped": answer.dropped,
        "sampling": content(answer.sampling),
        "prompt_ids": full.prompt_ids,
        "reason": answer.reason or "interrupted",  # one that is still being written ends here as far as a file knows
        "finish": None if answer.finish is None else content(answer.finish),
        "failure": answer.failure,
        "ended": date(answer.ended or created),
        "phases": [
            [number, event.name, event.done, event.total, event.seconds]
            for number, event in enumerate(full.events, 1)
            if isinstance(event, Phase)
        ],
        "tokens": [
            [
                event.id,
                event.text,
                _plain_number(event.logprob),
                event.special,
                [[other.id, other.text, _plain_number(other.logprob)] for other in event.alternatives],
            ]
            for event in full.events
            if isinstance(event, Token)
        ],
    }


def _plain_number(value: float | None) -> float | str | None:
    """JSON has no infinity and no NaN; an engine may report one for a token that cannot come."""
    return value if value is None or math.isfinite(value) else str(value)


# --- from a file -------------------------------------------------------------------------------------------------


class Tree:
    """Checks the messages of one conversation as they come, and gives each its place in the tree.

    Args:
        place: Where the conversation stands in the file.
        conversation: Its id.
        taken: Ids of the messages that stand in the file already; those of this one are added.
    """

    def __init__(self, place: str, conversation: str, taken: set[str]) -> None:
        self._place, self._conversation, self._taken = place, conversation, taken
        self._children: dict[str | None, int] = {None: 0}
        self._answers: set[str] = set()
        self._client_ids: set[str] = set()
        self._count = 0

    def __contains__(self, message: str) -> bool:
        return message in self._children

    def __len__(self) -> int:
        return self._count

    def add(self, value: Any) -> Full:
        """Check the next message.

        Raises:
            BadInput: It cannot be one; the sentence names the place.
        """
        place = f"{self._place}.messages[{self._count}]"
        given = record(value, _MESSAGE, place)
        name = identity(given["id"], f"{place}.id")
        parent = None if given["parent"] is None else identity(given["parent"], f"{place}.parent")
        if name in self._taken:
            wrong(f"{place}.id", "this id stands in the file twice")
        if parent not in self._children:
            wrong(f"{place}.parent", "no message before this one in the conversation has this id")
        full = self._full(given, place, name, parent)
        self._taken.add(name)
        self._children[parent] += 1
        self._children[name] = 0
        self._count += 1
        return full

    def _full(self, given: dict[str, Any], place: str, name: str, parent: str | None) -> Full:
        role = one_of(given["role"], _ROLES, f"{place}.role")
        said = text(given["text"], f"{place}.text")
        try:
            Message(role, said)
        except BadInput as refused:
            wrong(f"{place}.text", str(refused).partition(":")[0])
        created = moment(given["created"], f"{place}.created")
        client_id = given["client_id"]
        if client_id is not None:
            if identity(client_id, f"{place}.client_id") in self._client_ids:
                wrong(f"{place}.client_id", "this id stands in the conversation twice")
            self._client_ids.add(client_id)
        answer: Answer | None = None
        prompt_ids: tuple[int, ...] = ()
        events: tuple[StreamEvent, ...] = ()
        if given["answer"] is not None:
            if role != "assistant" or parent is None:
                wrong(f"{place}.answer", "only a message of the assistant below another one is an answer")
            answer, prompt_ids, events = _answer(given["answer"], f"{place}.answer", self._answers)
            if said != "".join(event.text for event in events if isinstance(event, Token)).replace("\0", "\ufffd"):
                wrong(f"{place}.text", "it is not what the tokens say")
            self._answers.add(name)
        message = StoredMessage(
            name,
            self._conversation,
            parent,
            self._children[parent],
            self._count + 1,
            role,
            said,
            created,
            client_id,
            answer,
        )
        return Full(message, prompt_ids, events)


def conversation_of(given: dict[str, Any], place: str) -> Conversation:
    """Check a conversation's own fields; whether ``head`` is one of its messages is not known yet.

    Raises:
        BadInput: It cannot be one; the sentence names the place.
    """
    title = text(given["title"], f"{place}.title")
    try:
        check_title(title)
    except BadInput as refused:
        wrong(f"{place}.title", str(refused).partition(":")[0])
    return Conversation(
        id=identity(given["id"], f"{place}.id"),
        owner=None,
        title=title,
        created=moment(given["created"], f"{place}.created"),
        updated=moment(given["updated"], f"{place}.updated"),
        pinned=flag(given["pinned"], f"{place}.pinned"),
        archived=flag(given["archived"], f"{place}.archived"),
        deleted=None if given["deleted"] is None else moment(given["deleted"], f"{place}.deleted"),
        head=None if given["head"] is None else identity(given["head"], f"{place}.head"),
    )


def _answer(value: Any, place: str, known: set[str]) -> tuple[Answer, tuple[int, ...], tuple[StreamEvent, ...]]:
    given = record(value, _ANSWER, place, newer=("dropped",))
    reason = one_of(given["reason"], _REASONS, f"{place}.reason")
    finish = None if given["finish"] is None else _finish(given["finish"], f"{place}.finish")
    if (finish.reason if finish else "interrupted") != reason:
        wrong(f"{place}.finish", f"it does not fit the reason {reason}")
    tokens = [_token(each, f"{place}.tokens[{n}]") for n, each in enumerate(rows(given["tokens"], f"{place}.tokens"))]
    events = _in_order(rows(given["phases"], f"{place}.phases"), tokens, f"{place}.phases")
    kept = whole(given["kept"], f"{place}.kept", len(tokens))
    continues = None if given["continues"] is None else identity(given["continues"], f"{place}.continues")
    if continues is not None and continues not in known:
        wrong(f"{place}.continues", "no answer before this one in the conversation has this id")
    prompt_ids = rows(given["prompt_ids"], f"{place}.prompt_ids")
    names = {name: text(given[name], f"{place}.{name}", MAX_NAME) for name in _ANSWER[:5]}
    answer = Answer(
        state="done",
        **names,
        sampling=_sampling(given["sampling"], f"{place}.sampling"),
        continues=continues,
        kept=kept,
        dropped=None if given["dropped"] is None else whole(given["dropped"], f"{place}.dropped"),
        logged=len(events),
        reason=reason,
        finish=finish,
        failure=text(given["failure"], f"{place}.failure"),
        ended=moment(given["ended"], f"{place}.ended"),
    )
    return answer, tuple(whole(each, f"{place}.prompt_ids[{n}]") for n, each in enumerate(prompt_ids)), events


def _sampling(value: Any, place: str) -> Sampling:
    given = record(value, _SAMPLING, place, newer=("json_schema",))
    try:
        return Sampling(**given)
    except BadInput as refused:
        wrong(place, str(refused).partition(":")[0])


def _finish(value: Any, place: str) -> Finish:
    given = record(value, _FINISH, place)
    times = record(given["timings"], _TIMINGS, f"{place}.timings")
    rate = times["engine_rate"]
    counts = {
        name: whole(given[name], f"{place}.{name}") for name in ("prompt_tokens", "cached_tokens", "answer_tokens")
    }
    return Finish(
        one_of(given["reason"], _REASONS[:-1], f"{place}.reason"),
        prompt_tokens=counts["prompt_tokens"],
        cached_tokens=counts["cached_tokens"],
        answer_tokens=counts["answer_tokens"],
        timings=Timings(
            **{name: number(times[name], f"{place}.timings.{name}") for name in _TIMINGS[:-1]},
            engine_rate=None if rate is None else number(rate, f"{place}.timings.engine_rate"),
        ),
        seed=None if given["seed"] is None else whole(given["seed"], f"{place}.seed", 2**63 - 1),
        stop=None if given["stop"] is None else text(given["stop"], f"{place}.stop"),
    )


def _in_order(phases: Sequence[Any], tokens: list[Token], place: str) -> tuple[StreamEvent, ...]:
    """Put each phase at the number that it had in the log, tokens in the places between."""
    events: list[StreamEvent] = []
    rest = iter(tokens)
    logged = len(phases) + len(tokens)
    for n, each in enumerate(phases):
        at = f"{place}[{n}]"
        if type(each) is not list or len(each) != 5:  # noqa: PLR2004 - number, name, done, total, seconds
            wrong(at, "a phase is a list of number, name, done, total, seconds")
        where = whole(each[0], at, logged)
        if where <= len(events):
            wrong(at, "the numbers of the phases must rise from 1")
        events += [token for _, token in zip(range(where - 1 - len(events)), rest, strict=False)]
        if len(events) != where - 1:
            wrong(at, "there are fewer events before it than its number says")
        name = one_of(each[1], _PHASES, at)
        events.append(Phase(name, whole(each[2], at), whole(each[3], at), number(each[4], at)))
    return (*events, *rest)


def _token(value: Any, place: str) -> Token:
    if type(value) is not list or len(value) != 5:  # noqa: PLR2004 - as `_plain_answer` writes it
        wrong(place, "a token is a list of id, text, logprob, special, alternatives")
    name, said, logprob, special, others = value
    alternatives = []
    for n, other in enumerate(rows(others, place, MAX_ALTERNATIVES)):
        at = f"{place}[4][{n}]"
        if type(other) is not list or len(other) != 3:  # noqa: PLR2004 - as above
            wrong(at, "an alternative is a list of id, text, logprob")
        level = _logprob(other[2], at)
        if level is None:
            wrong(at, "an alternative has a logprob")
        alternatives.append(Alternative(whole(other[0], at), text(other[1], at, nul=True), level))
    return Token(
        whole(name, place),
        text(said, place, nul=True),
        _logprob(logprob, place),
        flag(special, place),
        tuple(alternatives),
    )


def _logprob(value: Any, place: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, str) and value in _NUMBERS:
        return _NUMBERS[value]
    return number(value, place, -math.inf)
