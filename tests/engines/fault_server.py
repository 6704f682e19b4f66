"""A server in this process that speaks as any engine's server does, and then misbehaves as it is told.

HTTP is written by hand, since most of what goes wrong on a wire is what no HTTP library would send. A `Dialect` knows
the routes and the events of one kind of server; a fault is a function that is given an `Exchange` of any dialect.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from typing import Any, Self

from cierzo.templates import codec, template

WORDS = ("The", " north", " wind", " says", " —", " caf", "é", "!")
"""What an answer says: each is one token of the third tokenizer, and two hold a character of several bytes."""

ANSWER = "".join(WORDS)
KEPT = 3
"""Tokens that a fault in the middle of an answer lets through."""

BEGUN = "".join(WORDS[:KEPT])
MODEL = "mistral-7b-instruct-v0.3"
REPOSITORY = "mistralai/Mistral-7B-Instruct-v0.3"
KEY = "hf_secret-of-the-person"


@cache
def ids_of(text: str) -> tuple[int, ...]:
    """Return the third tokenizer's ids of a text in the middle of an answer, or at its beginning."""
    known = codec(template("v3"))
    text = text[:1000].encode(errors="replace").decode()
    if text.startswith(" ") or text == WORDS[0]:
        return tuple(known.encode(text.removeprefix(" ")))
    for before in ("é", "!"):
        ids = known.encode(before + text)[1:]
        if b"".join(map(known.bytes_of, ids)) == text.encode():
            return tuple(ids)
    raise AssertionError(text)


@dataclass(frozen=True)
class Request:
    """One that came: ``headers`` by their names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"null")


class Dialect:
    """How a kind of server speaks. ``answers`` are the paths on which it writes answers."""

    name = ""
    answers: tuple[str, ...] = ()
    done = False

    def facts(self, request: Request) -> Any:
        """Return what it answers to a question about itself; None if it knows no such path."""
        raise NotImplementedError

    def token(self, index: int, text: str, /, **changes: Any) -> dict[str, Any]:
        """Return the event that says one token. ``changes``: ``text``, ``id`` and ``logprob`` may be anything."""
        raise NotImplementedError

    def end(self, count: int, reason: str = "stop") -> dict[str, Any]:
        raise NotImplementedError

    def error(self, message: str, status: int = 500) -> dict[str, Any]:
        return {"error": {"message": message, "type": "server_error", "code": status}}


class Completions(Dialect):
    """OpenAI's older route, as vLLM has it: it takes token ids and tells them."""

    name, answers, done = "openai, ids", ("/v1/completions",), True
    owner = "vllm"

    def facts(self, request: Request) -> Any:
        match request.path:
            case "/v1/models":
                model = {"id": MODEL, "object": "model", "owned_by": self.owner, "max_model_len": 4096}
                return {"object": "list", "data": [model]}
            case "/version":
                return {"version": "0.32.0"}
            case "/v1/completions" | "/v1/chat/completions":  # it is tried with a token, for what it tells
                entry = {"token": ".", "logprob": -0.25, "bytes": None, "top_logprobs": []}
                said = {"text": ".", "message": {"content": "."}, "logprobs": {"content": [entry]}}
                return {"choices": [said | {"index": 0, "finish_reason": "length"}], "usage": {"prompt_tokens": 5}}
        return None

    def token(self, index: int, text: str, /, **changes: Any) -> dict[str, Any]:
        *before, last = ids_of(text) if text else (5,)
        says = {"text": text, "id": last, "logprob": -0.25} | changes
        ids = [*before, says["id"]]
        logprobs = {
            "tokens": [f"token_id:{number}" for number in ids],
            "token_logprobs": [-0.5] * len(before) + [says["logprob"]],
            "top_logprobs": [{f"token_id:{number}": says["logprob"]} for number in ids],
            "text_offset": [0] * len(ids),
        }
        choice = {"index": 0, "text": says["text"], "logprobs": logprobs, "finish_reason": None}
        return {"id": "c", "object": "text_completion", "choices": [choice | {"token_ids": ids}]}

    def end(self, count: int, reason: str = "stop") -> dict[str, Any]:
        choice = {"index": 0, "text": "", "logprobs": None, "finish_reason": reason}
        usage = {"prompt_tokens": 5, "completion_tokens": count, "total_tokens": 5 + count}
        return {"id": "c", "object": "text_completion", "choices": [choice], "usage": usage}


class Texts(Completions):
    """The same route of a server that takes text alone."""

    name, owner = "openai, text", "somebody"

    def facts(self, request: Request) -> Any:
        return None if request.path == "/version" else super().facts(request)

    def token(self, index: int, text: str, /, **changes: Any) -> dict[str, Any]:
        says = {"text": text, "logprob": -0.25} | changes
        logprobs = {
            "tokens": [says["text"]],
            "token_logprobs": [says["logprob"]],
            "top_logprobs": [{str(says["text"]): says["logprob"]}],
            "text_offset": [0],
        }
        choice = {"index": 0, "text": says["text"], "logprobs": logprobs, "finish_reason": None}
        return {"id": "c", "object": "text_completion", "choices": [choice]}


class Chats(Texts):
    """OpenAI's newer route, which takes messages."""

    name, answers = "openai, messages", ("/v1/chat/completions",)

    def token(self, index: int, text: str, /, **changes: Any) -> dict[str, Any]:
        says = {"text": text, "logprob": -0.25} | changes
        entry = {"token": says["text"], "logprob": says["logprob"], "bytes": None, "top_logprobs": []}
        delta = {"role": "assistant", "content": says["text"]}
        choice = {"index": 0, "delta": delta, "logprobs": {"content": [entry]}, "finish_reason": None}
        return {"id": "c", "object": "chat.completion.chunk", "choices": [choice]}

    def end(self, count: int, reason: str = "stop") -> dict[str, Any]:
        usage = {"prompt_tokens": 5, "completion_tokens": count, "total_tokens": 5 + count}
        choice = {"index": 0, "delta": {}, "finish_reason": reason}
        return {"id": "c", "object": "chat.completion.chunk", "choices": [choice], "usage": usage}


class Providers(Chats):
    """Hugging Face's hub and router on one address."""

    name = "hub"

    def facts(self, request: Request) -> Any:
        path = request.path.partition("?")[0]
        if path == f"/api/models/{REPOSITORY}":
            mapping = [
                {"provider": name, "providerId": f"{name}-7b", "status": "live", "task": task}
                for name, task in (("together", "conversational"), ("featherless-ai", "text-generation"))
            ]
            return {"id": REPOSITORY, "inferenceProviderMapping": mapping}
        if path == "/v1/models":
            providers = [{"provider": "together", "status": "live", "context_length": 4096}]
            return {"object": "list", "data": [{"id": REPOSITORY, "object": "model", "providers": providers}]}
        return None


class Tgi(Dialect):
    """Text Generation Inference."""

    name, answers = "tgi", ("/generate_stream", "/generate", "/")

    def facts(self, request: Request) -> Any:
        match request.path:
            case "/info":
                return {
                    "model_id": REPOSITORY,
                    "max_concurrent_requests": 128,
                    "max_best_of": 2,
                    "max_stop_sequences": 4,
                    "max_input_tokens": 4095,
                    "max_total_tokens": 4096,
                    "router": "text-generation-router",
                    "version": "3.3.4",
                }
            case "/health":
                return {}
        return None

    def token(self, index: int, text: str, /, **changes: Any) -> dict[str, Any]:
        token = {"id": (5, *ids_of(text))[-1], "text": text, "logprob": -0.25, "special": False} | changes
        return {"index": index + 1, "token": token, "generated_text": None, "details": None}

    def end(self, count: int, reason: str = "stop") -> dict[str, Any]:
        reasons = {"stop": "eos_token", "length": "length"}
        details = {
            "finish_reason": reasons.get(reason, reason),
            "generated_tokens": count + 1,
            "seed": 7,
            "input_length": 5,
        }
        token = {"id": 2, "text": "</s>", "logprob": -0.1, "special": True}
        return {"index": count + 1, "token": token, "generated_text": ANSWER, "details": details}

    def error(self, message: str, status: int = 500) -> dict[str, Any]:
        kinds = {429: "overloaded", 422: "validation"}
        return {"error": message, "error_type": kinds.get(status, "generation")}


class Llama(Dialect):
    """llama-server's own route."""

    name, answers = "llamacpp", ("/completion", "/completions")

    def facts(self, request: Request) -> Any:
        match request.path:
            case "/props":
                settings = {"n_ctx": 4096}
                return {
                    "default_generation_settings": settings,
                    "total_slots": 2,
                    "model_path": f"/models/{MODEL}.gguf",
                    "model_alias": MODEL,
                    "chat_template": "{{ bos_token }}[INST] {{ messages[0].content }}[/INST]",
                    "bos_token": "<s>",
                    "eos_token": "</s>",
                    "build_info": "b6500-0000000",
                }
            case "/health":
                return {"status": "ok"}
            case "/tokenize":
                ids = ids_of(request.json["content"])
                pieces = [
                    {"id": number, "piece": list(known.bytes_of(number))}
                    for known in [codec(template("v3"))]
                    for number in ids
                ]
                return {"tokens": pieces if request.json.get("with_pieces") else ids}
            case "/detokenize":
                return {"content": codec(template("v3")).decode(request.json["tokens"])}
        return None

    def token(self, index: int, text: str, /, **changes: Any) -> dict[str, Any]:
        says = {"text": text, "id": (5, *ids_of(text))[-1], "logprob": -0.25} | changes
        raw = list(says["text"].encode(errors="replace")) if isinstance(says["text"], str) else says["text"]
        entry = {"id": says["id"], "token": says["text"], "bytes": raw, "logprob": says["logprob"], "top_logprobs": []}
        return {
            "index": 0,
            "content": says["text"],
            "tokens": [says["id"]],
            "stop": False,
            "id_slot": 0,
            "tokens_predicted": index + 1,
            "tokens_evaluated": 5,
            "completion_probabilities": [entry],
        }

    def end(self, count: int, reason: str = "stop") -> dict[str, Any]:
        reasons = {"stop": "eos", "length": "limit"}
        timings = {"predicted_n": count, "predicted_ms": 10.0, "prompt_n": 5, "prompt_ms": 1.0, "cache_n": 0}
        return {
            "content": "",
            "stop": True,
            "stop_type": reasons.get(reason, reason),
            "tokens_predicted": count,
            "tokens_evaluated": 5,
            "timings": timings,
        }


DIALECTS: tuple[Dialect, ...] = (Completions(), Texts(), Chats(), Providers(), Tgi(), Llama())


@dataclass
class Exchange:
    """One request for an answer, and what is said to it. A fault is written in these words."""

    request: Request
    dialect: Dialect
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    turn: int
    elsewhere: str = ""
    sent: int = 0
    chunked: bool = False

    async def send(self, data: bytes) -> None:
        """Send bytes as they are. Raises ConnectionError once the client has gone."""
        self.writer.write(data)
        self.sent += len(data)
        await self.writer.drain()

    async def head(
        self,
        status: int = 200,
        kind: str = "text/event-stream",
        *,
        length: int | None = None,
        headers: Iterable[str] = (),
        chunked: bool = False,
        version: str = "1.1",
    ) -> None:
        """Send a status line and headers. Without ``length`` and ``chunked`` the body ends with the connection."""
        self.chunked = chunked
        lines = [f"HTTP/{version} {status} {_phrase(status)}", "Connection: close"]
        lines += [f"Content-Type: {kind}"] if kind else []
        lines += [f"Content-Length: {length}"] if length is not None else []
        lines += ["Transfer-Encoding: chunked"] if chunked else []
        await self.send("\r\n".join([*lines, *headers, "", ""]).encode("latin-1"))

    async def body(self, data: bytes) -> None:
        """Send a part of the body, framed if the head said so."""
        if data:
            await self.send(b"%x\r\n%s\r\n" % (len(data), data) if self.chunked else data)

    async def over(self) -> None:
        """End the body where it is framed."""
        if self.chunked:
            await self.send(b"0\r\n\r\n")

    async def answer(
        self, status: int, data: bytes, kind: str = "application/json", headers: Iterable[str] = ()
    ) -> None:
        await self.head(status, kind, length=len(data), headers=headers)
        await self.send(data)

    async def event(self, value: Any) -> None:
        await self.body(event(value))

    async def tokens(self, start: int = 0, stop: int = len(WORDS)) -> None:
        for index in range(start, stop):
            await self.event(self.dialect.token(index, WORDS[index]))

    async def finish(self, count: int = len(WORDS)) -> None:
        """Say the end as this dialect does."""
        await self.event(self.dialect.end(count))
        if self.dialect.done:
            await self.body(b"data: [DONE]\n\n")

    async def begin(self, **how: Any) -> None:
        """Say the first `KEPT` tokens well."""
        await self.head(**{"chunked": True} | how)
        await self.tokens(stop=KEPT)

    def whole(self) -> bytes:
        """Return the body of a good answer."""
        events = [event(self.dialect.token(index, word)) for index, word in enumerate(WORDS)]
        end = [event(self.dialect.end(len(WORDS)))] + ([b"data: [DONE]\n\n"] if self.dialect.done else [])
        return b"".join(events + end)

    async def silence(self) -> None:
        """Say nothing until the client goes."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(2**16):
                pass

    def reset(self) -> None:
        """Cut the connection so that the other side sees a reset."""
        held = self.writer.get_extra_info("socket")
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def event(value: Any) -> bytes:
    """Return a value as one event of a stream. Not-a-numbers are written as Python writes them."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass") + b"\n\n"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Whatever"


Act = Callable[[Exchange], Awaitable[None]]


@dataclass
class FaultServer:
    """Listens on a port of this machine while it is entered.

    Args:
        dialect: How it speaks.
        act: What it does with each request for an answer.
        meeting: What it does with each question about itself; the dialect's facts if it is None.
        elsewhere: Address of another server, for redirects.
    """

    dialect: Dialect
    act: Act
    meeting: Act | None = None
    elsewhere: str = ""
    requests: list[Request] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    others: list[Exchange] = field(default_factory=list)
    broken: Exception | None = None
    url: str = ""
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def asked(self) -> int:
        """How many answers were asked for."""
        return len(self.exchanges)

    async def alone(self, seconds: float = 10.0) -> bool:
        """Wait until no request is being answered; return whether that came to be."""
        return not self._running or not (await asyncio.wait(self._running, timeout=seconds))[1]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**24)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._one(reader, writer)
        except asyncio.CancelledError:
            pass  # the test is over
        except Exception as error:  # noqa: BLE001 - a fault that cannot be sent is a test that tests nothing
            self.broken = error
        finally:
            self._running.discard(task)
            with contextlib.suppress(Exception):
                writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one request; each connection has but one, so that no fault reaches the next."""
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        request = Request(method, path, headers, body)
        self.requests.append(request)
        exchange = Exchange(request, self.dialect, reader, writer, self.asked + 1, self.elsewhere)
        streams = b'"stream":true' in body.replace(b" ", b"") or path == "/generate_stream"
        if method == "POST" and streams and path in self.dialect.answers:
            self.exchanges.append(exchange)
            await self.act(exchange)
        else:
            self.others.append(exchange)
            await (self.meeting or say_facts)(exchange)


async def say_facts(to: Exchange) -> None:
    """Answer a question about the server as it should be."""
    facts = to.dialect.facts(to.request)
    if facts is None:
        await to.answer(404, json.dumps(to.dialect.error("Not Found", 404)).encode())
    else:
        await to.answer(200, json.dumps(facts).encode())
