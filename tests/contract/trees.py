"""Random conversations, made by the store's own writes, and what makes two exports alike."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from cierzo import transfer
from cierzo.messages import Alternative, Finish, Phase, Sampling, StreamEvent, Timings, Token
from cierzo.store import AnswerStart, Store

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
questions = texts.map(lambda text: f"{text}?")
times = st.floats(0, 1e6)
logprobs = st.one_of(st.floats(-30, 0), st.just(-math.inf))
alternatives = st.builds(Alternative, st.integers(0, 40_000), texts, logprobs)
said = st.one_of(texts, st.sampled_from(["\0", "", "```\n", "é"]))
tokens = st.builds(
    Token,
    st.integers(0, 131_071),
    said,
    st.one_of(st.none(), logprobs),
    st.booleans(),
    st.lists(alternatives, max_size=3).map(tuple),
)
phases = st.builds(
    Phase, st.sampled_from(["queued", "loading", "reading"]), st.integers(0, 9), st.integers(0, 9), times
)
samplings = st.builds(
    Sampling,
    temperature=st.floats(0, 5),
    max_new_tokens=st.integers(1, 9999),
    seed=st.one_of(st.none(), st.integers(0, 2**32 - 2)),
    stop=st.lists(questions, max_size=2).map(tuple),
    alternatives=st.integers(0, 20),
)
finishes = st.builds(
    Finish,
    st.sampled_from(["eos_token", "stop_sequence", "length", "stopped", "failed"]),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 9),
    st.builds(Timings, times, times, times, times, times, st.one_of(st.none(), times)),
    st.one_of(st.none(), st.integers(0, 2**32)),
    st.one_of(st.none(), questions),
)


@dataclass(frozen=True)
class Said:
    """One message to be: ``place`` chooses its parent among those before it. ``finish`` None is interrupted."""

    place: int
    role: str
    text: str
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    events: tuple[StreamEvent, ...]
    finish: Finish | None


messages = st.builds(
    Said,
    st.integers(0, 1000),
    st.sampled_from(["user", "user", "assistant", "system", "answer", "answer"]),
    questions,
    st.lists(st.integers(0, 131_071), max_size=5).map(tuple),
    samplings,
    st.lists(st.one_of(phases, tokens, tokens), max_size=5).map(tuple),
    st.one_of(st.none(), finishes),
)
trees = st.lists(messages, max_size=7)
states = st.tuples(texts, st.booleans(), st.booleans(), st.booleans())


async def grow(store: Store, tree: list[Said], state: tuple[str, bool, bool, bool], owner: str | None = None) -> str:
    """Make a conversation, and return its id."""
    title, pinned, archived, deleted = state
    calls = store.conversations
    conversation = (await calls.create(owner=owner, title=title)).id
    ids: list[str] = []
    last: list[str] = []
    for number, each in enumerate(tree):
        parent = [None, *ids][each.place % (len(ids) + 1)]
        if each.role != "answer" or parent is None:
            role: Any = "user" if each.role == "answer" else each.role
            named = f"c{number}" if number % 2 else None
            written = await calls.append(
                conversation, owner=owner, parent=parent, role=role, text=each.text, client_id=named
            )
            ids.append(written.message.id)
            continue
        start = AnswerStart(
            "scripted",
            "tëst",
            each.sampling,
            template="v3",
            prompt_ids=each.prompt_ids,
            route="ids",
            continues=last[-1] if last and number % 2 else None,
            dropped=each.place % 4 or None,
        )
        begun = await store.replies.begin(conversation, owner=owner, parent=parent, start=start)
        if each.finish:
            await store.replies.finish(begun.message.id, each.finish, after=0, batch=each.events, failure=each.text)
        else:
            await store.replies.log(begun.message.id, each.events, after=0)
            await store.replies.interrupt(begun.message.id)
        ids.append(begun.message.id)
        last.append(begun.message.id)
    await calls.change(conversation, owner=owner, pinned=pinned, archived=archived)
    if ids:
        await calls.select(conversation, ids[len(ids) // 2], owner=owner)
    if deleted:
        await calls.delete(conversation, owner=owner)
    return conversation


async def exported(store: Store, owner: str | None = None) -> bytes:
    """Export all that an owner has."""
    listed = await store.transfer.listed(owner=owner)
    return b"".join([part async for part in transfer.export_json(store, listed)])


async def imported(store: Store, file: bytes, owner: str | None = None) -> transfer.Imported:
    return await transfer.import_json(store, io.BytesIO(file), owner=owner)


def alike(file: bytes | dict[str, Any]) -> Any:
    """Return what must be equal of two exports: everything but ids, and when they were written."""
    document = json.loads(file) if isinstance(file, bytes) else file
    for conversation in document["conversations"]:
        place = {message["id"]: number for number, message in enumerate(conversation["messages"])}
        place[None] = None
        conversation.pop("id")
        conversation["head"] = place[conversation["head"]]
        for message in conversation["messages"]:
            message["id"], message["parent"] = place[message["id"]], place[message["parent"]]
            if message["answer"]:
                message["answer"]["continues"] = place[message["answer"]["continues"]]
                message["answer"].setdefault("dropped", None)  # which older files do not have
    return document["conversations"]
