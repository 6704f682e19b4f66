"""Our own routes for conversations: make, list, open, change, remove, find, ask.

There are no accounts, so everything belongs to nobody in particular. A question is in the store before the answer
to this request goes out; answers are written by the server whether somebody follows or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Response

from cierzo.api import conversations_types as types
from cierzo.api.wire import json_response, routes_worded
from cierzo.api.wording import ERRORS, refusal
from cierzo.conversations import HEAD
from cierzo.messages import check_text
from cierzo.store.conversations import MAX_PAGE
from cierzo.store.records import check_title
from cierzo.store.search import MAX_HITS

if TYPE_CHECKING:
    from cierzo.api.work import Work
    from cierzo.store import Conversation

OWNER = None
"""Whose everything is while there are no accounts."""

LONGEST_QUERY = 10_000
LARGEST = 2**63 - 1


def shown(conversation: Conversation) -> types.Json:
    """Return what a client sees of a conversation."""
    names = ("id", "title", "created", "updated", "pinned", "archived", "deleted", "head", "messages")
    return {name: getattr(conversation, name) for name in names}


def router(work: Work) -> APIRouter:
    """Make the routes."""
    api = APIRouter(prefix="/api", tags=["Conversations"], route_class=routes_worded(refusal), responses=ERRORS)
    _many(api, work)
    _one(api, work)
    _asking(api, work)
    return api


def _many(api: APIRouter, work: Work) -> None:
    @api.post(
        "/conversations", status_code=201, response_model=types.Conversation, summary="Make an empty conversation"
    )
    async def create(asked: types.Create) -> Response:
        """Make one. With an `id` that there is already, the conversation is returned as it is."""
        store = work.service.store.conversations
        return json_response(
            shown(await store.create(owner=OWNER, title=asked.title, conversation_id=asked.id)), status=201
        )

    @api.get("/conversations", response_model=types.ConversationList, summary="List conversations")
    async def listed(
        *,
        archived: bool = False,
        deleted: bool = False,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
        after: Annotated[str | None, Query(max_length=200, description="`after` of the page before")] = None,
    ) -> Response:
        """Give pinned ones first, then the one last written to; with `archived` or `deleted`, those instead."""
        page = await work.service.store.conversations.list(
            owner=OWNER, archived=archived, deleted=deleted, limit=limit, after=after
        )
        return json_response({"conversations": [shown(each) for each in page.conversations], "after": page.after})

    @api.get("/search", response_model=types.HitList, summary="Search titles and messages")
    async def search(
        q: Annotated[str, Query(max_length=LONGEST_QUERY)],
        limit: Annotated[int, Query(ge=1, le=MAX_HITS)] = 20,
        before: Annotated[int | None, Query(ge=0, le=LARGEST, description="`before` of the page before")] = None,
    ) -> Response:
        """Find what holds all words, newest first. Accents and case do not count; the last word may be just begun."""
        found = await work.service.store.search(q, owner=OWNER, limit=limit, before=before)
        hits = [
            {
                "conversation": hit.conversation,
                "title": hit.title,
                "message": hit.message,
                "role": hit.role,
                "snippet": [{"text": text, "match": match} for text, match in hit.snippet],
                "created": hit.created,
            }
            for hit in found.hits
        ]
        return json_response({"hits": hits, "before": found.before})


def _one(api: APIRouter, work: Work) -> None:
    @api.get("/conversations/{conversation}", response_model=types.Tree, summary="Open a conversation")
    async def opened(conversation: str) -> Response:
        """Give it with all its messages and how every answer came about; also one in the bin."""
        tree = await work.service.store.conversations.open(conversation, owner=OWNER)
        return json_response({"conversation": shown(tree.conversation), "messages": tree.messages})

    @api.get(
        "/conversations/{conversation}/state", response_model=types.Conversation, summary="Look whether there is news"
    )
    async def state(conversation: str) -> Response:
        """Give it without its messages, at a cost that does not grow: `updated` and `head` tell of new ones."""
        return json_response(shown(await work.service.store.conversations.get(conversation, owner=OWNER)))

    @api.patch(
        "/conversations/{conversation}",
        response_model=types.Conversation,
        summary="Rename, pin, archive, turn to another branch",
    )
    async def changed(conversation: str, asked: types.Change) -> Response:
        """Change what is named. None of it moves the conversation in the list."""
        store = work.service.store.conversations
        check_title(asked.title or "")  # all of it is refused, or none
        if asked.head is not None:
            await store.select(conversation, asked.head, owner=OWNER)
        there = await store.change(
            conversation, owner=OWNER, title=asked.title, pinned=asked.pinned, archived=asked.archived
        )
        return json_response(shown(there))

    @api.delete(
        "/conversations/{conversation}", response_model=types.Conversation, summary="Put a conversation into the bin"
    )
    async def deleted(conversation: str) -> Response:
        """Put it where no list, search or write finds it. Twice is as once."""
        return json_response(shown(await work.service.store.conversations.delete(conversation, owner=OWNER)))

    @api.post(
        "/conversations/{conversation}/restore",
        response_model=types.Conversation,
        summary="Take a conversation out of the bin",
    )
    async def restored(conversation: str) -> Response:
        """Undo `DELETE`. Twice is as once."""
        return json_response(shown(await work.service.store.conversations.restore(conversation, owner=OWNER)))

    @api.post(
        "/messages/{message}/fork", status_code=201, responses=types.FORKED, summary="Copy a branch as a conversation"
    )
    async def fork(message: str, asked: types.Fork) -> Response:
        """Make a conversation of copies of a branch, from its first message through this one.

        Answers keep everything that is known of them. One that is still being written cannot be copied.
        """
        forked = await work.service.store.branches.fork(message, owner=OWNER, conversation_id=asked.id)
        return json_response(shown(forked.conversation), 201 if forked.created else 200)


def _asking(api: APIRouter, work: Work) -> None:
    made: dict[int | str, dict[str, Any]] = {
        200: {"model": types.Sent, "description": "It was sent with this `client_id` before"},
        201: {"model": types.Sent, "description": "The question is stored; its answer is being written"},
    }

    @api.post("/conversations/{conversation}/messages", status_code=201, responses=made, summary="Ask")
    async def ask(conversation: str, asked: types.Send) -> Response:
        """Store a question and begin its answer, or two to compare. Follow `/api/replies/{reply}/events`.

        To edit a question, ask another one after the same parent. Where the window has no room for it, or the
        queue none for its answer, nothing is stored.
        """
        check_text(asked.system or "", what="the system prompt", empty=True)
        said = await work.service.ask(
            conversation,
            asked.text,
            owner=OWNER,
            parent=asked.parent if "parent" in asked.model_fields_set else HEAD,
            client_id=asked.client_id,
            sampling=asked.sampling.value(),
            against=None if asked.against is None else asked.against.value(),
            system=asked.system,
        )
        status = 201 if said.created else 200
        return json_response({"question": said.question, "answers": said.answers}, status)

    @api.post("/messages/{message}/again", status_code=201, responses=types.BEGUN, summary="Begin another answer")
    async def again(message: str, asked: types.Again) -> Response:
        """Begin one more answer to a question, beside those that there are. Name the question or one of its answers."""
        sampling = asked.sampling.value()
        begun = await work.service.again(message, owner=OWNER, client_id=asked.client_id, sampling=sampling)
        return json_response(begun.message, 201 if begun.created else 200)
