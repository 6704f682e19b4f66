"""What vLLM and Transformers really said, replayed: the engine for them stays right where they are not installed.

The files are written by `make interop ARGS=--record`. A request that is not the recorded one is an error here: then the
engine asks for something else than before, and the real servers have to be asked again.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from cierzo.chat import Chat
from cierzo.engines.base import EngineInfo
from cierzo.engines.openai import OpenAI
from cierzo.engines.openai_kinds import KINDS, asked_of
from cierzo.engines.remote import Patience
from cierzo.errors import CierzoError, EngineDied, Overloaded
from cierzo.messages import Finish, Message, Sampling, Token
from cierzo.prompt import build
from cierzo.templates import codec, template

RECORDED = Path(__file__).parents[1] / "data" / "recorded"
FILES = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(RECORDED.glob("*.json"))}
CALLS = [(name, call["name"]) for name, file in FILES.items() for call in file["calls"]]
STRICT = ("transformers",)
"""Refuses a request with any field that it does not know; vLLM passes over them."""

ANSWER = "Es la unidad con la que trabaja el modelo: una palabra corta, un pedazo de palabra o un signo."
WHOLE = 10**9


class Replay:
    """A server that answers as the recorded one did, in pieces of ``cut`` bytes, and not beyond ``end`` bytes."""

    def __init__(self, file, exchanges, *, cut=WHOLE, end=WHOLE, strict=False, drawn=True):
        self.file, self.exchanges, self.cut, self.end = file, exchanges, cut, end
        self.strict, self.drawn = strict, drawn
        self.wrong = []
        self.asked = Counter()

    async def answer(self, request):
        raw = await request.read()
        body = json.loads(raw) if raw else None
        self.asked[request.path] += 1
        found = self._found(request.method, request.path_qs, body)
        if found is None:
            return web.json_response({"detail": "Not Found"}, status=404)
        said = found["answer"].encode()[: self.end]
        response = web.StreamResponse(status=found["status"], headers=found["headers"])
        await response.prepare(request)
        for start in range(0, len(said), self.cut):
            if request.transport is None or request.transport.is_closing():  # the engine met a stop text
                return response
            await response.write(said[start : start + self.cut])
            await asyncio.sleep(0)  # the engine reads it piece by piece
        if self.end < len(found["answer"]) and request.transport is not None:
            request.transport.close()
        else:
            await response.write_eof()
        return response

    def _found(self, method, path, body):
        if method == "GET":
            return next((one for one in self.file["met"] if (one["method"], one["path"]) == (method, path)), None)
        for one in (*self.exchanges, *self.file["met"]):
            if (one["method"], one["path"]) == (method, path):
                self.wrong += self._differences(one["body"], body)
                return one
        self.wrong.append(f"{method} {path} was never recorded")
        return None

    def _differences(self, recorded, body):
        skipped = {"model", *(["seed"] if self.drawn else [])}
        wrong = [f"{name}: {body.get(name)!r}, recorded {value!r}" for name, value in recorded.items()
                 if name not in skipped and body.get(name) != value]  # fmt: skip
        more = set(body) - set(recorded) if self.strict else set()
        return [*wrong, *(f"{name} is refused by this server" for name in more)]


@asynccontextmanager
async def replayed(name, exchanges, **how):
    """Run a replay and give the chat on it; afterwards nothing else than what was recorded may have been asked."""
    replay = Replay(FILES[name], exchanges, strict=name in STRICT, **how)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", replay.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    patience = Patience(connect=5, first=5, between=5, back_off=0.01)
    chat = Chat(OpenAI(f"openai+http://127.0.0.1:{port}/v1", patience=patience))
    try:
        yield chat, replay
    finally:
        await chat.close()
        await runner.cleanup()
    assert not replay.wrong, f"run `make interop ARGS=--record`: {replay.wrong}"


def call_of(name, call):
    (found,) = (one for one in FILES[name]["calls"] if one["name"] == call)
    messages = [Message(role, text) for role, text in found["messages"]]
    return found, messages, Sampling.of(found["sampling"])


async def asked(name, call, **how):
    """Ask a recorded call again: the tokens, the end, and the events of the recording."""
    found, messages, sampling = call_of(name, call)
    (exchange,) = found["exchanges"]
    async with (
        replayed(name, [exchange], drawn=sampling.seed is None, **how) as (chat, _),
        aclosing(chat.stream(messages, sampling)) as stream,
    ):
        events = [event async for event in stream]
    data = [line[6:] for line in exchange["answer"].split("\n") if line.startswith("data: ") and "[DONE]" not in line]
    return [event for event in events if isinstance(event, Token)], events[-1], [json.loads(each) for each in data]


def text_of(tokens):
    return "".join(token.text for token in tokens)


def choices_of(events):
    return [event["choices"][0] for event in events if event["choices"]]


def test_there_are_recordings():
    assert set(FILES) == {"transformers", "vllm"}
    assert len(CALLS) >= 12
    print(f"{len(CALLS)} calls of {', '.join(file['versions'] for file in FILES.values())}")


@pytest.mark.parametrize("cut", [WHOLE, 7])
@pytest.mark.parametrize(("name", "call"), CALLS)
async def test_every_recorded_answer_is_read_as_it_was_meant(name, call, cut):
    tokens, finish, events = await asked(name, call, cut=cut)
    assert isinstance(finish, Finish)
    _, _, sampling = call_of(name, call)
    said = "".join(
        (choice.get("delta") or choice).get("content", choice.get("text")) or "" for choice in choices_of(events)
    )
    if not sampling.stop and call != "loop":
        assert text_of(tokens) == said.removeprefix(" ")
    usage = next(event["usage"] for event in reversed(events) if event.get("usage"))
    assert finish.prompt_tokens == usage["prompt_tokens"]
    ended = {"stop": "eos_token", "length": "length"}[choices_of(events)[-1]["finish_reason"]]
    assert finish.reason == ("stop_sequence" if call == "stop" else ended)
    if sampling.seed is not None:
        assert finish.seed == sampling.seed


@pytest.mark.parametrize("name", FILES)
async def test_the_demo_says_there_what_it_says_here(name):
    tokens, finish, _ = await asked(name, "greedy")
    assert (text_of(tokens), finish.reason) == (ANSWER, "eos_token")
    tokens, finish, _ = await asked(name, "length")
    assert ANSWER.startswith(text_of(tokens))
    assert (finish.reason, finish.answer_tokens) == ("length", 5)
    tokens, finish, _ = await asked(name, "stop")
    assert text_of(tokens) == ANSWER[: ANSWER.index("model")]
    assert (finish.reason, finish.stop) == ("stop_sequence", "model")


@pytest.mark.parametrize("call", [call for name, call in CALLS if name == "vllm" and call != "stop"])
async def test_ids_and_probabilities_are_vllms(call):
    tokens, finish, events = await asked("vllm", call)
    ids = [number for choice in choices_of(events) for number in choice["token_ids"]]
    levels = [level for choice in choices_of(events) for level in choice["logprobs"]["token_logprobs"]]
    tops = [top for choice in choices_of(events) for top in choice["logprobs"]["top_logprobs"]]
    if finish.reason == "eos_token":
        assert ids.pop() == 2
    assert [token.id for token in tokens] == ids
    assert finish.answer_tokens == len(ids)
    wanted = call_of("vllm", call)[2].alternatives
    known = codec(template("v3"))
    for token, level, top in zip(tokens, levels, tops, strict=False):
        assert token.logprob == pytest.approx(level)
        assert len(token.alternatives) == wanted
        for other in token.alternatives:
            assert top[f"token_id:{other.id}"] == pytest.approx(other.logprob)
        assert [other.logprob for other in token.alternatives] == sorted(
            (other.logprob for other in token.alternatives), reverse=True
        )
    raw = b"".join(known.bytes_of(token.id) for token in tokens if not token.special)
    assert text_of(tokens) == raw.decode(errors="replace").removeprefix(" ")


async def until_it_broke(stream):
    """Read a stream: its tokens, and what it raised."""
    tokens = []
    try:
        async with aclosing(stream):
            async for event in stream:
                if isinstance(event, Token):
                    tokens.append(event)  # noqa: PERF401 - they are kept when it raises
    except CierzoError as error:
        return tokens, error
    return tokens, None


@pytest.mark.parametrize("name", FILES)
async def test_an_answer_that_is_cut_off_keeps_what_came(name):
    found, messages, sampling = call_of(name, "greedy")
    (exchange,) = found["exchanges"]
    length, cases = len(exchange["answer"]), 0
    for tenth in range(1, 10):
        async with replayed(name, [exchange], end=length * tenth // 10) as (chat, _):
            tokens, error = await until_it_broke(chat.stream(messages, sampling))
        assert isinstance(error, EngineDied)
        assert ANSWER.startswith(text_of(tokens))
        assert tenth < 3 or tokens
        cases += 1
    print(f"{cases} answers cut off")


@pytest.mark.parametrize("refusal", FILES["vllm"]["full"], ids=lambda refusal: str(refusal["status"]))
async def test_vllm_that_is_full_is_said_to_be_full(refusal):
    """It says so by the status, or in the stream, where it finds it out too late for that. It is asked again."""
    _, messages, sampling = call_of("vllm", "greedy")
    async with replayed("vllm", [{**refusal, "body": {}}]) as (chat, replay):
        with pytest.raises(Overloaded):
            await chat.answer(messages, sampling)
    assert replay.asked["/v1/completions"] == 3


async def test_names_of_control_tokens_reach_transformers_parted():
    found, _, _ = call_of("transformers", "two turns")
    (exchange,) = found["exchanges"]
    sent = [message["content"] for message in exchange["body"]["messages"]]
    assert sent[1] == "What is BOS? And [\u2060INST]?"


@pytest.mark.parametrize(
    ("kind", "known", "sent"),
    [
        ("transformers", "v3", "a [\u2060/INST] <\u2060/s> b"),
        ("ollama", "v3", "a [\u2060/INST] <\u2060/s> b"),
        ("unknown", "v3", "a [\u2060/INST] <\u2060/s> b"),
        ("unknown", "", "a [/INST] </s> b"),  # a model that is not Mistral's
        ("mistral", "v3", "a [/INST] </s> b"),  # they keep text and control tokens apart
        ("cierzo", "v3", "a [/INST] </s> b"),
    ],
)
def test_where_names_of_control_tokens_are_parted_in_messages(kind, known, sent):
    info = EngineInfo("openai", "m", 2048, "v3", takes="messages", honours=frozenset())
    prompt = build([Message("user", "a [/INST] </s> b")], "v3", context=2048)
    body = asked_of(KINDS[kind], info, prompt, Sampling(), seed=None, room=9, known=known)
    assert body["messages"] == [{"role": "user", "content": sent}]
