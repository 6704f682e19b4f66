"""Our own routes for answers: follow, stop, continue, look inside; and prompts and answers that are not stored.

Whoever follows an answer and leaves does not stop it; whoever asked for one that is not stored does.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from cierzo import prompt as prompts
from cierzo.api import conversations_types as types
from cierzo.api.conversations import OWNER
from cierzo.api.wire import EventStream, dumps, json_response, routes_worded, while_connected
from cierzo.api.wording import ERRORS, refusal
from cierzo.api.work import whole
from cierzo.conversations import HEAD
from cierzo.errors import BadInput, CierzoError, NotFound
from cierzo.messages import Message, Phase, Token
from cierzo.templates import is_known

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from cierzo.api.work import Work
    from cierzo.messages import Prompt, StreamEvent
    from cierzo.replies import End

LARGEST = 2**53
"""No log has so many events; a browser counts no further."""

OPENING = b"retry: 1000\n\n"
"""Sent at once, so that the head of the stream goes out: a browser that lost it tries again after a second."""

_MODELS = ("PhaseEvent", "Token", "EndEvent", "ApiError")
_NAMES = ("phase", "token", "end", "error")
_STREAM = """Server-sent events, each with its number as `id`: `phase` (PhaseEvent), `token` (Token), and as the last
one `end` (EndEvent). Where the stream breaks, ask again with the last number: nothing is missed, nothing comes twice.
An `error` event (ApiError, without a number) also ends it: the answer goes on, ask again. Lines that begin with a
colon keep the connection alive."""


def router(work: Work) -> APIRouter:
    """Make the routes."""
    api = APIRouter(prefix="/api", tags=["Answers"], route_class=routes_worded(refusal), responses=ERRORS)
    _following(api, work)
    _stored(api, work)
    _unstored(api, work)
    return api


def _following(api: APIRouter, work: Work) -> None:
    @api.get(
        "/replies/{reply}/events",
        responses=described_events(_MODELS, _NAMES, _STREAM),
        response_class=Response,
        summary="Follow an answer",
    )
    async def events(
        reply: str,
        after: Annotated[int, Query(ge=0, le=LARGEST, description="the last number that was seen")] = 0,
        last_event_id: Annotated[
            int, Header(ge=0, le=LARGEST, description="the same; the larger of the two counts")
        ] = 0,
    ) -> Response:
        """Give what has happened after a number, then what happens. Leaving does not stop the answer."""
        message = await work.service.store.conversations.message(reply, owner=OWNER)
        if message.answer is None:
            raise NotFound(f"the message {reply[:40]!r} is no answer of a model: name an answer")
        return EventStream(_events(work, reply, max(after, last_event_id)), refusal)


async def _events(work: Work, reply: str, after: int) -> AsyncGenerator[bytes, None]:
    yield OPENING
    try:
        async with aclosing(work.service.follow(reply, owner=OWNER, after=after)) as events:
            async for number, event in events:
                yield b"id: %d\nevent: %b\ndata: %b\n\n" % (number, name_of(event), dumps(event))
    except CierzoError as error:
        yield b"event: error\ndata: %b\n\n" % dumps(refusal(error).body)


def name_of(event: StreamEvent | End) -> bytes:
    """Return what an event is called in a stream."""
    return b"token" if isinstance(event, Token) else b"phase" if isinstance(event, Phase) else b"end"


def described_events(models: Sequence[str], names: Sequence[str], words: str) -> dict[int | str, dict[str, Any]]:
    """Describe a stream of named events for OpenAPI."""
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"anyOf": [{"$ref": f"#/components/schemas/{model}"} for model in models]},
    }
    properties = {
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "event": {"type": "string", "enum": list(names)},
        "data": data,
    }
    schema = {"type": "object", "properties": properties, "required": ["event", "data"], "description": words}
    return {200: {"content": {"text/event-stream": {"schema": schema}}, "description": words}}


def _stored(api: APIRouter, work: Work) -> None:
    @api.get("/replies/{reply}", response_model=types.Reply, summary="Look inside an answer")
    async def inside(reply: str) -> Response:
        """Give every token with its probability and what else the model nearly said, and the exact prompt."""
        store = work.service.store
        message = await store.conversations.message(reply, owner=OWNER)
        tokens = await store.replies.tokens(reply, owner=OWNER)
        ids = await store.replies.prompt_ids(reply, owner=OWNER)
        template = message.answer.template if message.answer else ""
        prompt = await asyncio.to_thread(prompts.of_ids, ids, template) if ids and is_known(template) else None
        return json_response(
            {
                "message": message,
                "tokens": tokens,
                "prompt": {
                    "template": template,
                    "text": prompt.text if prompt else "",
                    "ids": ids,
                    "pieces": prompt.pieces if prompt else (),
                },
            }
        )

    @api.post("/replies/{reply}/stop", response_model=types.Message, summary="Stop an answer")
    async def stop(reply: str) -> Response:
        """Stop it, keep what it said, and answer when the engine is free. One that has ended stays as it is."""
        return json_response(await work.service.stop(reply, owner=OWNER))

    @api.post(
        "/replies/{reply}/continue",
        status_code=201,
        responses=types.BEGUN,
        summary="Continue an answer, or go on from one of its tokens",
    )
    async def go_on(reply: str, asked: types.Continue) -> Response:
        """Begin an answer that starts with tokens of this one, which stays as it is."""
        begun = await work.service.go_on(
            reply,
            owner=OWNER,
            at=asked.at,
            token=asked.token,
            client_id=asked.client_id,
            sampling=asked.sampling.value(),
        )
        return json_response(begun.message, 201 if begun.created else 200)


def _unstored(api: APIRouter, work: Work) -> None:
    @api.post("/prompt", response_model=types.PromptMade, summary="The exact prompt")
    async def prompt(asked: types.AskPrompt) -> Response:
        """Make the prompt of messages, or of a question in a conversation, exactly as it would go to the model."""
        sampling = asked.sampling.value()
        if asked.messages is not None and asked.conversation is None and asked.text is None:
            with work.chat.hold() as held:
                made = await held.prompt(_messages(asked.messages), sampling)
        elif asked.messages is None and asked.conversation is not None and asked.text is not None:
            made = await work.service.prompt(
                asked.conversation,
                asked.text,
                owner=OWNER,
                parent=asked.parent if "parent" in asked.model_fields_set else HEAD,
                system=asked.system,
                sampling=sampling,
            )
        else:
            raise BadInput("give either messages, or conversation and text")
        return json_response(_prompt(made))

    @api.post("/tokens", response_model=types.Tokens, summary="An answer with every token")
    async def tokens(asked: types.AskTokens, request: Request) -> Response:
        """Answer without storing anything. The engine stops when the client leaves."""
        sampling = asked.sampling.value()
        held = work.chat.hold()
        made = await held.prompt(_messages(asked.messages), sampling)
        said, finish = await while_connected(request.receive, whole(work.answer(held, made, sampling)))
        text = "".join(token.text for token in said)
        return json_response({"text": text, "tokens": said, "finish": finish, "prompt": _prompt(made)})


def _messages(said: Sequence[types.Said]) -> list[Message]:
    return [Message(each.role, each.text) for each in said]


def _prompt(made: Prompt) -> types.Json:
    return {
        "template": made.template,
        "text": made.text,
        "ids": made.ids,
        "pieces": made.pieces,
        "kept": len(made.kept),
        "dropped": len(made.dropped),
    }
