"""The routes of Text Generation Inference, so that a notebook which talks to it talks to Cierzo by its address alone.

What it does where TGI does otherwise is told in ``docs/api.md``: the end token has no text, the space that
SentencePiece puts before an answer is left out, and what the engine cannot do is refused.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError

from cierzo import prompt as prompts
from cierzo.api.tgi_types import (
    STOPS,
    TOPS,
    CompatRequest,
    Generated,
    GenerateRequest,
    Grammar,
    Info,
    Parameters,
    SimpleToken,
    StreamEvent,
    TgiError,
)
from cierzo.api.wire import (
    VERSION,
    EventStream,
    Refusal,
    described_errors,
    described_stream,
    event,
    json_response,
    routes_worded,
    while_connected,
)
from cierzo.api.work import Work, whole
from cierzo.errors import BadInput, CierzoError, ModelError, Overloaded
from cierzo.messages import Finish, Prompt, Sampling, Token
from cierzo.schemas import canonical
from cierzo.templates import codec, template

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from cierzo.chat import Held

_TYPES = {408: "timeout", 413: "validation", 415: "validation", 429: "overloaded", 503: "overloaded"}


class _InvalidError(BadInput):
    """A request that TGI would refuse, in its words."""


def refusal(error: Exception) -> Refusal:
    """Word an error as TGI does."""
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return refused(400, "Failed to parse the request body as JSON")
        place = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, int) or part.isidentifier())
        wrong = f"{place[:80]}: {first['msg'][:1].lower()}{first['msg'][1:]}"
        return refused(422, f"Failed to deserialize the JSON body into the target type: {wrong}")
    if isinstance(error, Overloaded):
        headers = {"Retry-After": str(max(1, round(error.retry_after)))}
        return Refusal(429, {"error": "Model is overloaded", "error_type": "overloaded"}, headers)
    if isinstance(error, BadInput):
        return refused(422, f"Input validation error: {error}")
    if isinstance(error, CierzoError):
        return Refusal(
            error.status if isinstance(error, ModelError) else 424,
            {"error": f"Request failed during generation: {error}", "error_type": "generation"},
        )
    return Refusal(500, {"error": f"unexpected {type(error).__name__}", "error_type": "internal"})


def refused(status: int, sentence: str) -> Refusal:
    """Word what the gate refuses."""
    return Refusal(status, {"error": sentence, "error_type": _TYPES.get(status, "validation")})


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that is known to be right."""

    held: Held
    inputs: str
    parameters: Parameters
    prompt: Prompt
    sampling: Sampling
    sampled: bool
    began: float
    validated: float


async def _checked(work: Work, asked: GenerateRequest) -> _Asked:
    began = time.perf_counter()
    parameters = asked.parameters or Parameters.model_validate({"do_sample": True})
    held = work.chat.hold()
    window = (await held.meet()).context
    _check(parameters, asked.inputs, window)
    prompt = _truncated(await held.raw(asked.inputs), parameters.truncate, held.info.template)
    length, total = len(prompt), _total(window)
    if length >= total:
        raise _InvalidError(f"`inputs` must have less than {total} tokens. Given: {length}")
    new = total - length if parameters.max_new_tokens is None else parameters.max_new_tokens
    if length + new > total:
        raise _InvalidError(
            f"`inputs` tokens + `max_new_tokens` must be <= {total}. Given: {length} `inputs` tokens "
            f"and {new} `max_new_tokens`"
        )
    p = parameters
    sampled = p.do_sample or any(value is not None for value in (p.temperature, p.top_k, p.top_p))
    sampling = Sampling(
        temperature=(p.temperature or 1.0) if sampled else 0.0,
        max_new_tokens=min(new, 131_072),
        top_p=p.top_p or 1.0,
        repetition_penalty=p.repetition_penalty or 1.0,
        top_k=p.top_k or 0,
        seed=None if p.seed is None else p.seed % (2**32 - 1),
        stop=tuple(p.stop or ()),
        alternatives=p.top_n_tokens or 0,
        json_schema=_schema(p.grammar),
    )
    return _Asked(held, asked.inputs, parameters, prompt, sampling, sampled, began, time.perf_counter())


def _schema(grammar: Grammar | None) -> str | None:
    """Return the schema of a grammar; of the type ``json_schema`` it may stand in an object with a name."""
    if grammar is None:
        return None
    value = grammar.value
    if grammar.type == "json_schema" and isinstance(value, dict) and isinstance(value.get("schema"), dict):
        value = value["schema"]
    return canonical(value)


def _total(window: int) -> int:
    """Tokens that prompt and answer may have together; llama.cpp leaves the last cell of its window empty."""
    return window - 1


def _check(p: Parameters, inputs: str, window: int) -> None:
    """Refuse what TGI refuses, in its order and words; and what this engine cannot do.

    Raises:
        BadInput: Something is out of its range.
    """
    stops, most = len(p.stop or ()), _total(window) - 1
    truncate = "" if p.truncate is None else f"`truncate` must be strictly positive and less than {most}. "
    rules = (
        (p.best_of not in (None, 1), "`best_of` != 1 is not allowed for this endpoint"),
        (p.temperature is not None and p.temperature <= 0, "`temperature` must be strictly positive"),
        (
            p.repetition_penalty is not None and p.repetition_penalty <= 0,
            "`repetition_penalty` must be strictly positive",
        ),
        (bool(p.frequency_penalty), "`frequency_penalty` is not supported: use `repetition_penalty`"),
        (p.top_p is not None and not 0 < p.top_p < 1, "`top_p` must be > 0.0 and < 1.0"),
        (p.typical_p is not None, "`typical_p` is not supported: leave it out"),
        (p.top_k is not None and p.top_k <= 0, "`top_k` must be strictly positive"),
        (p.max_new_tokens is not None and p.max_new_tokens <= 0, "`max_new_tokens` must be strictly positive"),
        (stops > STOPS, f"`stop` supports up to {STOPS} stop sequences. Given: {stops}"),
        (
            p.top_n_tokens is not None and not 0 <= p.top_n_tokens <= TOPS,
            f"`top_n_tokens` must be >= 0 and <= {TOPS}. Given: {p.top_n_tokens}",
        ),
        (not inputs, "`inputs` cannot be empty"),
        (p.truncate is not None and not 0 < p.truncate <= most, f"{truncate}Given: {p.truncate}"),
        (p.watermark, "`watermark` is not supported: leave it out"),
        (p.grammar is not None and p.grammar.type == "regex", "`grammar` of the type `regex` is not supported"),
        (p.adapter_id is not None, "`adapter_id` is not supported: leave it out"),
    )
    for wrong, words in rules:
        if wrong:
            raise _InvalidError(words)


def _truncated(prompt: Prompt, most: int | None, template: str) -> Prompt:
    """Keep only the last tokens of a prompt."""
    if most is None or len(prompt) <= most:
        return prompt
    cut = prompts.of_ids(prompt.ids[-most:], template)
    return replace(cut, leading_space=prompt.leading_space)


def router(work: Work) -> APIRouter:
    """Make the routes."""
    errors = described_errors(TgiError, (400, 403, 404, 408, 413, 415, 422, 424, 429, 500, 502, 503, 507))
    api = APIRouter(tags=["Text Generation Inference"], route_class=routes_worded(refusal), responses=errors)

    @api.post(
        "/",
        summary="Answer, as a stream or whole",
        responses=_described(list[Generated], "With `stream`"),
        response_class=Response,
    )
    async def compat_generate(body: CompatRequest, request: Request) -> Response:
        asked = await _checked(work, body)
        if body.stream:
            return _stream(work, asked)
        value, headers = await _generated(work, asked, request)
        return json_response([value], headers=headers)

    @api.post("/generate", summary="Answer", responses={200: {"model": Generated}}, response_class=Response)
    async def generate(body: GenerateRequest, request: Request) -> Response:
        value, headers = await _generated(work, await _checked(work, body), request)
        return json_response(value, headers=headers)

    @api.post(
        "/generate_stream",
        summary="Answer as a stream",
        responses=_described(None, "Always"),
        response_class=Response,
    )
    async def generate_stream(body: GenerateRequest) -> Response:
        return _stream(work, await _checked(work, body))

    @api.post("/tokenize", summary="The tokens of a prompt", response_model=list[SimpleToken])
    async def tokenize(body: GenerateRequest) -> Response:
        with work.chat.hold() as held:
            prompt = await held.raw(body.inputs)
            parts = await asyncio.to_thread(prompts.tokenize, prompt, held.info.template)
        return json_response(
            [{"id": part.id, "text": part.text, "start": part.start, "stop": part.stop} for part in parts]
        )

    @api.get("/info", summary="What is served", response_model=Info)
    async def info() -> Response:
        total = _total(work.chat.info.context)
        return json_response(
            {
                "model_id": work.chat.info.model,
                "model_sha": None,
                "model_pipeline_tag": "text-generation",
                "max_concurrent_requests": work.service.admission.most_of_one,
                "max_best_of": 1,
                "max_stop_sequences": STOPS,
                "max_input_tokens": total - 1,
                "max_total_tokens": total,
                "validation_workers": 1,
                "max_client_batch_size": 1,
                "router": "cierzo",
                "version": VERSION,
                "sha": None,
                "docker_label": None,
            }
        )

    return api


def _described(answer: Any, when: str) -> dict[int | str, dict[str, Any]]:
    words = (
        f"{when}: server-sent events. Each `data:` holds one {StreamEvent.__name__}, or an TgiError that is the "
        "last event. There is no `[DONE]`. Lines that begin with a colon keep the connection alive."
    )
    content = described_stream(words, StreamEvent, TgiError)
    model = {"model": answer} if answer is not None else {}
    return {200: {**model, "content": content, "description": "The answer. " + words}}


async def _generated(work: Work, asked: _Asked, request: Request) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a whole answer and its headers."""
    prefill: list[dict[str, Any]] = []
    if asked.parameters.decoder_input_details:
        parts = await asyncio.to_thread(prompts.tokenize, asked.prompt, asked.held.info.template)
        prefill = [{"id": part.id, "text": part.text, "logprob": None} for part in parts]
    tokens, finish = await while_connected(
        request.receive, whole(work.answer(asked.held, asked.prompt, asked.sampling))
    )
    ending = _Ending(asked)
    if finish.reason != "length":
        tokens.append(ending.token(finish))
    value: dict[str, Any] = {"generated_text": ending.text("".join(token.text for token in tokens))}
    if asked.parameters.details:
        value["details"] = {
            "finish_reason": finish.reason,
            "generated_tokens": len(tokens),
            "seed": finish.seed if asked.sampled else None,
            "prefill": prefill,
            "tokens": [_token(token) for token in tokens],
        }
        if asked.sampling.alternatives:
            value["details"]["top_tokens"] = [_tops(token) for token in tokens]
    return value, _headers(asked, finish, len(tokens))


def _headers(asked: _Asked, finish: Finish, count: int) -> dict[str, str]:
    """Return TGI's headers; times are in milliseconds, but for ``x-compute-time``, in seconds."""
    now = time.perf_counter()
    inference = now - asked.validated - finish.timings.queue
    times = {
        "x-total-time": now - asked.began,
        "x-validation-time": asked.validated - asked.began,
        "x-queue-time": finish.timings.queue,
        "x-inference-time": inference,
        "x-time-per-token": inference / max(1, count),
    }
    return {
        "x-compute-type": "cpu",
        "x-compute-time": f"{now - asked.began:.6f}",
        "x-compute-characters": str(len(asked.inputs)),
        "x-prompt-tokens": str(finish.prompt_tokens),
        "x-generated-tokens": str(count),
        **{name: str(max(0, round(1000 * seconds))) for name, seconds in times.items()},
    }


def _stream(work: Work, asked: _Asked) -> Response:
    if asked.parameters.decoder_input_details:
        raise _InvalidError("`decoder_input_details` == true is not supported when streaming tokens")
    headers = {"x-compute-type": "cpu", "x-compute-characters": str(len(asked.inputs))}
    return EventStream(_events(work, asked), refusal, headers)


async def _events(work: Work, asked: _Asked) -> AsyncGenerator[bytes, None]:
    """Yield the events.

    The last one needs a token, so the one that uses up ``max_new_tokens`` is held until the end is known.
    """
    ending = _Ending(asked)
    texts: list[str] = []
    held: Token | None = None
    count = 0
    async with aclosing(work.answer(asked.held, asked.prompt, asked.sampling)) as said:
        async for what in said:
            if isinstance(what, Token):
                count += 1
                texts.append(what.text)
                if count == asked.sampling.max_new_tokens:
                    held = what
                else:
                    yield event(_piece(asked, count, what))
                continue
            if held is not None and what.reason != "length":
                yield event(_piece(asked, count, held))
                held = None
            if held is None:
                count += 1
                held = ending.token(what)
                texts.append(held.text)
            last = _piece(asked, count, held)
            last["generated_text"] = ending.text("".join(texts))
            if asked.parameters.details:
                last["details"] = {
                    "finish_reason": what.reason,
                    "generated_tokens": count,
                    "seed": what.seed if asked.sampled else None,
                    "input_length": what.prompt_tokens,
                }
            yield event(last)


class _Ending:
    """What stands at the end of an answer."""

    def __init__(self, asked: _Asked) -> None:
        self._codec = codec(template(asked.held.info.template))
        self._asked = asked

    def token(self, finish: Finish) -> Token:
        """Return the token that ended the answer: the stop text, or the end token, which has no text."""
        if finish.reason == "stop_sequence" and finish.stop:
            return Token(self._codec.encode(finish.stop)[-1], finish.stop)
        return Token(self._codec.eos, "", special=True)

    def text(self, answer: str) -> str:
        """Return the answer, with the prompt before it where that was asked for."""
        return self._asked.inputs + answer if self._asked.parameters.return_full_text else answer


def _piece(asked: _Asked, index: int, token: Token) -> dict[str, Any]:
    piece: dict[str, Any] = {"index": index, "token": _token(token)}
    if asked.sampling.alternatives:
        piece["top_tokens"] = _tops(token)
    piece["generated_text"] = piece["details"] = None
    return piece


def _token(token: Token) -> dict[str, Any]:
    return {"id": token.id, "text": token.text, "logprob": _finite(token.logprob), "special": token.special}


def _tops(token: Token) -> list[dict[str, Any]]:
    return [
        {"id": other.id, "text": other.text, "logprob": _finite(other.logprob), "special": False}
        for other in token.alternatives
    ]


def _finite(logprob: float | None) -> float | None:
    return None if logprob is None or not math.isfinite(logprob) else logprob
