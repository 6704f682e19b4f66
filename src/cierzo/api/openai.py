"""The routes of OpenAI's API: models, chat completions, completions.

``docs/api.md`` says what is refused and what is ignored.
"""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError

from cierzo.api.openai_types import (
    ChatAnswer,
    ChatChunk,
    ChatMessage,
    ChatRequest,
    Common,
    CompletionAnswer,
    CompletionRequest,
    ModelCard,
    ModelList,
    NamedSchema,
    OpenAIError,
    ResponseFormat,
)
from cierzo.api.wire import (
    VERSION,
    EventStream,
    Refusal,
    described_errors,
    described_stream,
    dumps,
    event,
    json_response,
    routes_worded,
    while_connected,
)
from cierzo.api.work import Work, whole
from cierzo.errors import BadSampling, CierzoError, Overloaded, PromptTooLong, UnknownModel
from cierzo.messages import Alternative, Finish, Message, Prompt, Role, Sampling, Token
from cierzo.schemas import ANY_OBJECT, canonical

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from pydantic import BaseModel

    from cierzo.chat import Held

LEAST = -9999.0
"""OpenAI's own figure for a probability of nearly zero; JSON has no infinity."""

DEFAULT_LENGTH = 16
"""Tokens that ``/v1/completions`` writes when ``max_tokens`` is left out, as OpenAI has it."""

_LONGEST = 131_072
_NAMES = {"max_new_tokens": "max_tokens", "alternatives": "top_logprobs", "json_schema": "response_format"}
_DONE = b"data: [DONE]\n\n"
_REASONS = {"eos_token": "stop", "stop_sequence": "stop", "length": "length"}
_ONLY = {
    "n": "1: one answer is written for one request",
    "best_of": "1: one answer is written for one request",
    "echo": "false: the prompt is not repeated",
    "suffix": "empty: nothing is inserted",
    "frequency_penalty": "0: use repetition_penalty",
    "presence_penalty": "0: use repetition_penalty",
    "logit_bias": "empty",
    "tools": "empty: there are no tools here",
    "tool_choice": "none or auto: there are no tools here",
    "tool_calls": "empty: there are no tools here",
    "functions": "empty: there are no tools here",
    "function_call": "none: there are no tools here",
    "response_format": "of the type text, json_object, or json_schema with its json_schema",
    "modalities": '["text"]',
    "audio": "left out: only text is written",
    "prediction": "left out",
    "web_search_options": "left out: nothing is asked of the network",
}


def refusal(error: Exception) -> Refusal:
    """Word an error as OpenAI does."""
    match error:
        case RequestValidationError():
            made = _invalid(error)
        case Overloaded():
            headers = {"Retry-After": str(max(1, round(error.retry_after)))}
            made = replace(_bad(str(error), None, "rate_limit_exceeded", status=429), headers=headers)
            made.body["error"]["type"] = "rate_limit_error"
        case PromptTooLong():
            made = _bad(str(error), "messages", "context_length_exceeded")
        case UnknownModel():
            made = _bad(str(error), "model", "model_not_found", status=404)
        case BadSampling():
            name = str(error).split(" ", 1)[0]
            name = _NAMES.get(name, name)
            made = _bad(str(error), name if name.isidentifier() else None, "invalid_value")
        case CierzoError():
            made = refused(error.status, str(error))
        case _:
            made = refused(500, f"unexpected {type(error).__name__}: look into the server's log")
    return made


def refused(status: int, sentence: str) -> Refusal:
    """Word what has no parameter and no code."""
    made = _bad(sentence, None, None, status=status)
    if status >= 500:  # noqa: PLR2004 - HTTP's own number
        made.body["error"]["type"] = "server_error"
    return made


def _bad(message: str, param: str | None, code: str | None, *, status: int = 400) -> Refusal:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return Refusal(status, {"error": error})


def _invalid(error: RequestValidationError) -> Refusal:
    """Word the first thing that is wrong, without repeating what was sent."""
    first = error.errors()[0]
    place = [part for part in first["loc"] if part != "body"]
    name = str(place[0]) if place else None
    kind, wrong = first["type"], first["msg"][:1].lower() + first["msg"][1:]
    if kind == "json_invalid" or name is None:
        words = "the body is not JSON" if kind == "json_invalid" else f"the body is wrong: {wrong}"
        return refused(400, f"{words} (send one object as application/json)")
    path = ".".join(str(part) for part in place if isinstance(part, int) or part.isidentifier())[:80]
    if kind == "extra_forbidden":
        words = f"Unrecognized request argument supplied: {path}"
        return _bad(words, path, "unknown_parameter")
    if kind == "missing":
        words = f"Missing required parameter: '{path}'."
        return _bad(words, path, "missing_required_parameter")
    only = next((_ONLY[part] for part in place if part in _ONLY), None)
    if only:
        words = f"Unsupported value: '{path}' must be {only}."
        return _bad(words, name, "unsupported_value")
    code = "invalid_type" if kind.endswith("_type") else "invalid_value"
    return _bad(f"Invalid value for '{path}': {wrong}.", path, code)


def router(work: Work) -> APIRouter:
    """Make the routes."""
    errors = described_errors(OpenAIError, (400, 403, 404, 408, 413, 415, 422, 429, 500, 502, 503, 507))
    api = APIRouter(prefix="/v1", tags=["OpenAI"], route_class=routes_worded(refusal), responses=errors)
    started = int(time.time())

    def card() -> dict[str, Any]:
        return {"id": work.chat.info.model, "object": "model", "created": started, "owned_by": "cierzo"}

    @api.get("/models", response_model=ModelList, summary="The one model")
    async def models() -> Response:
        return json_response({"object": "list", "data": [card()]})

    @api.get("/models/{model:path}", response_model=ModelCard, summary="One model")
    async def model(model: str) -> Response:
        if model != card()["id"]:
            raise UnknownModel(f"the model {model!r:.100} does not exist here: use {card()['id']}")
        return json_response(card())

    @api.post(
        "/chat/completions",
        summary="Answer a conversation",
        responses=_described(ChatAnswer, ChatChunk),
        response_class=Response,
    )
    async def chat_completions(asked: ChatRequest, request: Request) -> Response:
        sampling = _chat_sampling(asked)
        held = work.chat.hold()
        prompt = await held.prompt([_message(message) for message in asked.messages], sampling)
        return await _Chat(work, held, prompt, sampling, asked, logprobs=bool(asked.logprobs)).response(request)

    @api.post(
        "/completions",
        summary="Continue a prompt",
        responses=_described(CompletionAnswer, CompletionAnswer),
        response_class=Response,
    )
    async def completions(asked: CompletionRequest, request: Request) -> Response:
        sampling = _sampling(asked, asked.max_tokens or DEFAULT_LENGTH, asked.logprobs or 0)
        given: Any = asked.prompt
        held = work.chat.hold()
        prompt = await held.raw(given[0] if isinstance(given, list) and not isinstance(given[0], int) else given)
        return await _Completion(work, held, prompt, sampling, asked, logprobs=asked.logprobs is not None).response(
            request
        )

    return api


def _described(answer: type, chunk: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    words = (
        f"With `stream`, server-sent events: each `data:` holds one {chunk.__name__}, or an OpenAIError that is the "
        "last event; otherwise the last one is `data: [DONE]`. Lines that begin with a colon keep the connection alive."
    )
    content = described_stream(words, chunk, OpenAIError, last="[DONE]")
    return {200: {"model": answer, "content": content, "description": "The answer. " + words}}


def _message(said: ChatMessage) -> Message:
    content = said.content
    text = "".join(part.text for part in content) if isinstance(content, list) else content or ""
    role: Role = "system" if said.role in ("system", "developer") else "user" if said.role == "user" else "assistant"
    return Message(role, text)


def _chat_sampling(asked: ChatRequest) -> Sampling:
    if asked.top_logprobs and not asked.logprobs:
        raise BadSampling("top_logprobs needs logprobs to be true")
    length = asked.max_completion_tokens or asked.max_tokens or _LONGEST
    return replace(_sampling(asked, length, asked.top_logprobs or 0), json_schema=_schema(asked.response_format))


def _schema(asked: ResponseFormat | None) -> str | None:
    match asked:
        case ResponseFormat(type="json_object"):
            return ANY_OBJECT
        case ResponseFormat(type="json_schema", json_schema=NamedSchema(schema_=schema)):
            return canonical(schema)
        case ResponseFormat(type="json_schema"):
            raise BadSampling("json_schema is missing: say response_format.json_schema with name and schema")
    return None


def _sampling(asked: Common, length: int, alternatives: int) -> Sampling:
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    return Sampling(
        temperature=1.0 if asked.temperature is None else asked.temperature,
        max_new_tokens=min(length, _LONGEST),
        top_p=1.0 if asked.top_p is None else asked.top_p,
        repetition_penalty=1.0 if asked.repetition_penalty is None else asked.repetition_penalty,
        top_k=max(0, asked.top_k or 0),
        min_p=asked.min_p or 0.0,
        seed=None if asked.seed is None else asked.seed % (2**32 - 1),
        stop=tuple(stop),
        alternatives=alternatives,
    )


class _Answer(ABC):
    """One answer of either route, as a stream or whole."""

    kind = chunk_kind = prefix = ""

    def __init__(
        self, work: Work, held: Held, prompt: Prompt, sampling: Sampling, asked: Common, *, logprobs: bool
    ) -> None:
        self.work, self.held, self.prompt, self.sampling, self.asked = work, held, prompt, sampling, asked
        self.logprobs = logprobs
        self.offset = 0
        self.head = {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": held.info.model,
            "system_fingerprint": f"cierzo-{VERSION}",
        }

    async def response(self, request: Request) -> Response:
        events = self.work.answer(self.held, self.prompt, self.sampling)
        if self.asked.stream:
            return EventStream(self.chunks(events), refusal)
        began = time.monotonic()
        tokens, finish = await while_connected(request.receive, whole(events))
        choice = {"index": 0, **self.choice(tokens), "finish_reason": _REASONS[finish.reason]}
        body = {**self.head, "object": self.kind, "choices": [choice], "usage": _usage(finish)}
        return json_response(body, headers={"OpenAI-Processing-Ms": str(round(1000 * (time.monotonic() - began)))})

    async def chunks(self, events: AsyncGenerator[Token | Finish, None]) -> AsyncGenerator[bytes, None]:
        usage = self.asked.stream_options is not None and bool(self.asked.stream_options.include_usage)
        chunk = self._chunker(usage=usage)
        opened = False
        async with aclosing(events):
            async for said in events:
                if not opened:
                    opened = True
                    if first := self.opening():
                        yield chunk(first, None)
                if isinstance(said, Token):
                    yield chunk(self.piece(said), None)
                    continue
                yield chunk(self.piece(None), _REASONS[said.reason])
                if usage:
                    yield event({**self.head, "object": self.chunk_kind, "choices": [], "usage": _usage(said)})
                yield _DONE

    def _chunker(self, *, usage: bool) -> Callable[[dict[str, Any], str | None], bytes]:
        """Prepare what is the same in every chunk, since it is most of it."""
        body = {**self.head, "object": self.chunk_kind, **({"usage": None} if usage else {})}
        before = b"data: " + dumps(body)[:-1] + b',"choices":['
        after = b"]}\n\n"

        def chunk(piece: dict[str, Any], reason: str | None) -> bytes:
            return before + dumps({"index": 0, **piece, "finish_reason": reason}) + after

        return chunk

    @abstractmethod
    def choice(self, tokens: list[Token]) -> dict[str, Any]: ...

    @abstractmethod
    def opening(self) -> dict[str, Any] | None: ...

    @abstractmethod
    def piece(self, token: Token | None) -> dict[str, Any]: ...


class _Chat(_Answer):
    kind, chunk_kind, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def choice(self, tokens: list[Token]) -> dict[str, Any]:
        text = "".join(token.text for token in tokens)
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"message": message, "logprobs": self._logprobs(tokens)}

    def opening(self) -> dict[str, Any] | None:
        return {"delta": {"role": "assistant", "content": ""}, "logprobs": None}

    def piece(self, token: Token | None) -> dict[str, Any]:
        if token is None:
            return {"delta": {}, "logprobs": None}
        return {"delta": {"content": token.text}, "logprobs": self._logprobs([token])}

    def _logprobs(self, tokens: list[Token]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        content = []
        for token in tokens:
            tops = [_spelled(other.text, other.logprob) for other in token.alternatives]
            content.append({**_spelled(token.text, token.logprob), "top_logprobs": tops})
        return {"content": content, "refusal": None}


class _Completion(_Answer):
    kind = chunk_kind = "text_completion"
    prefix = "cmpl"
    asked: CompletionRequest

    def choice(self, tokens: list[Token]) -> dict[str, Any]:
        ids = {"token_ids": [token.id for token in tokens]} if self.asked.return_token_ids else {}
        return {"text": "".join(token.text for token in tokens), **ids, "logprobs": self._logprobs(tokens)}

    def opening(self) -> dict[str, Any] | None:
        return None

    def piece(self, token: Token | None) -> dict[str, Any]:
        if token is None:
            return {"text": "", "logprobs": None}
        ids = {"token_ids": [token.id]} if self.asked.return_token_ids else {}
        return {"text": token.text, **ids, "logprobs": self._logprobs([token])}

    def _logprobs(self, tokens: list[Token]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        offsets = []
        for token in tokens:
            offsets.append(self.offset)
            self.offset += len(token.text)
        name = _id_of if self.asked.return_tokens_as_token_ids else _text_of
        return {
            "tokens": [name(token) for token in tokens],
            "token_logprobs": [_finite(token.logprob) for token in tokens],
            "top_logprobs": [_tops(token, name) for token in tokens],
            "text_offset": offsets,
        }


def _id_of(token: Token | Alternative) -> str:
    return f"token_id:{token.id}"


def _text_of(token: Token | Alternative) -> str:
    return token.text


def _spelled(text: str, logprob: float | None) -> dict[str, Any]:
    return {"token": text, "logprob": _finite(logprob), "bytes": list(text.encode())}


def _tops(token: Token, name: Callable[[Token | Alternative], str]) -> dict[str, float]:
    """Key the probabilities by name, as this shape has it: of tokens that look the same the most probable counts."""
    tops = {name(token): _finite(token.logprob)}
    for other in token.alternatives:
        tops.setdefault(name(other), _finite(other.logprob))
    return tops


def _finite(logprob: float | None) -> float:
    return LEAST if logprob is None or not logprob > LEAST else logprob


def _usage(finish: Finish) -> dict[str, Any]:
    read, written = finish.prompt_tokens, finish.answer_tokens
    counts = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return {**counts, "prompt_tokens_details": {"cached_tokens": finish.cached_tokens}}
