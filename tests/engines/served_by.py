"""Servers for the engines that are servers: real ones, and one that does what a test says."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import psutil
from aiohttp import web

sys.path.insert(0, str(Path(__file__).parents[1] / "api"))

from serving import Live

from cierzo.engines.llamaserver import LlamaServer
from cierzo.engines.openai import OpenAI
from cierzo.engines.remote import Patience
from cierzo.engines.tgi import Tgi
from cierzo.engines.vocabulary import spelling
from cierzo.templates import codec, template

__all__ = ["FORMS", "HASTY", "Fake", "Live", "as_tgi", "engine_at", "llama_server", "said"]

FORMS = ("openai", "tgi", "llamacpp")
_MADE = {"openai": OpenAI, "tgi": Tgi, "llamacpp": LlamaServer}

_LLAMA_SERVER = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = sys.argv[1], ["127.0.0.1"], 0
params.n_parallel, params.kv_unified, params.verbosity, params.ui = 1, True, 0, False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


def llama_server(model):
    """Start llama.cpp's own server as a process; return its address and what ends it."""
    process = subprocess.Popen(
        [sys.executable, "-c", _LLAMA_SERVER, str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    address = process.stdout.readline().strip()
    assert address.startswith("http://"), "the server did not start"

    def end():
        psutil.Process(process.pid).kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()

    return address, end


def as_tgi(app):
    """What TGI 3 does otherwise than our own route of it, put over that route, whose bytes come in whole events."""

    async def front(scope, receive, send):
        started = []

        async def tell(message):
            body = message.get("body", b"").decode()
            if body and scope["path"] == "/info":
                body = json.dumps(json.loads(body) | {"router": "text-generation-router"})
            elif body and scope["path"] == "/generate_stream":
                body = "".join(_as_tgi(each, started) for each in body.split("\n\n") if each)
            if "headers" in message:
                named = [(name, value) for name, value in message["headers"] if name != b"content-length"]
                message = {**message, "headers": named}
            await send({**message, "body": body.encode()} if "body" in message else message)

        await app(scope, receive, tell)

    return front


def _as_tgi(event, started):
    if not event.startswith("data: "):
        return f"{event}\n\n"
    value = json.loads(event.removeprefix("data: ")) | {"something": ["new"]}
    token = value.get("token") or {"special": True}
    if token["special"]:
        token["text"] = "</s>"
    elif not started:  # SentencePiece's mark of a word stays
        token["text"] = " " + token["text"]
        started.append(token)
    if not value.get("top_tokens"):
        value.pop("top_tokens", None)
    return f": ping\n\ndata:{json.dumps(value)}\n\n"


HASTY = Patience(back_off=0.01)


def engine_at(form, url, key="", *, patience=HASTY, **options):
    return _MADE[form](f"{form}+{url}", key, patience=patience, **options)


def said(form, *texts, reason="length"):
    """What a server of this form sends for an answer of these texts: the data of its events."""
    made = {"openai": _openai, "tgi": _tgi, "llamacpp": _llamacpp}[form]
    return made(texts, reason)


def _openai(texts, reason):
    word = {"length": "length", "eos_token": "stop", None: None}[reason]
    chunks = [
        {"choices": [{"index": 0, "text": text, "token_ids": [ids_of(text)], "finish_reason": None}]} for text in texts
    ]
    if word:
        chunks.append({"choices": [{"index": 0, "text": "", "token_ids": [], "finish_reason": word}]})
    return [json.dumps(chunk) for chunk in chunks] + (["[DONE]"] if word else [])


def _tgi(texts, reason):
    events = [
        {"token": {"id": ids_of(text), "text": text, "logprob": -0.5, "special": False}, "generated_text": None}
        for text in texts
    ]
    if reason == "eos_token":
        events.append({"token": {"id": 2, "text": "</s>", "logprob": -0.5, "special": True}})
    if reason:
        events[-1] |= {"generated_text": "".join(texts), "details": {"finish_reason": reason, "seed": 5}}
    return [json.dumps(event) for event in events]


def _llamacpp(texts, reason):
    events = [
        {
            "content": text,
            "stop": False,
            "tokens_predicted": count,
            "completion_probabilities": [
                {"id": ids_of(text), "bytes": list(text.encode()), "logprob": -0.5, "top_logprobs": []}
            ],
        }
        for count, text in enumerate(texts, 1)
    ]
    if reason:
        stop = {"length": "limit", "eos_token": "eos"}[reason]
        timings = {"predicted_n": len(texts), "predicted_ms": 5.0}
        events.append({"stop": True, "stop_type": stop, "tokens_predicted": len(texts), "timings": timings})
    return [json.dumps(event) for event in events]


def ids_of(text):
    """The id of a text that is one token of version 3."""
    return spelling(codec(template("v3"))).ids[text.encode()]


_OPENAI_CARD = {"id": "mistral-7b-instruct-v0.3", "owned_by": "vllm", "max_model_len": 512}
_TGI_INFO = {"model_id": "mistralai/Mistral-7B-Instruct-v0.3", "max_input_tokens": 500, "max_total_tokens": 512}
_PROPS = {"default_generation_settings": {"n_ctx": 512}, "total_slots": 3, "model_alias": "mistral-7b-v0.3"}


class Fake:
    """A server of one form that says what it is, and to a question does what ``answer`` does.

    Attributes:
        asked: Bodies of the questions, in order.
        headers: Their headers.
        left: Set when somebody who asked has left before the end.
    """

    def __init__(self, form, answer, **options):
        self.form, self.answer, self.options = form, answer, options
        self.asked, self.headers = [], []
        self.left = asyncio.Event()

    async def __aenter__(self):
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    async def _handle(self, request):
        facts = {
            "/v1/models": {"object": "list", "data": [_OPENAI_CARD]},
            "/version": {"version": "0.32.0"},
            "/info": _TGI_INFO,
            "/health": {"status": "ok"},
            "/props": _PROPS,
        }
        if request.method == "GET":
            self.headers.append(dict(request.headers))
            if request.path in self.options:
                return await self.options[request.path](request)
            fits = request.path in facts and (request.path != "/props" or self.form == "llamacpp")
            return web.json_response(facts[request.path]) if fits else web.Response(status=404)
        if request.path == "/tokenize":
            told = self.options.get("tokenize")
            return web.Response(status=404) if told is None else web.json_response(told)
        self.asked.append(await request.json())
        self.headers.append(dict(request.headers))
        try:
            return await self.answer(self, request)
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise

    async def stream(self, request, *events, hold=None):
        """Send events; then end, or wait for ever where ``hold`` is an event that is never set."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await response.write(f"data: {event}\n\n".encode())
        if hold is not None:
            await hold.wait()
        return response
