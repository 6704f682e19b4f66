"""One contract for all engines: the demo model, behind each of them, gives the same answer in the same way."""

from __future__ import annotations

import asyncio
import contextlib
import math

import pytest
from driving import everything, first_token, greedy, until
from served_by import Live, as_tgi, engine_at, llama_server

from cierzo import catalog
from cierzo.chat import Chat
from cierzo.engines.base import meet
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.engines.script import Reply
from cierzo.engines.scripted import Scripted
from cierzo.messages import Message, Sampling, Token
from cierzo.prompt import decode
from cierzo.settings import Settings

QUESTION = [Message("user", "¿Cuál es tu ingrediente favorito?")]
DEMO = ("embedded", "llamacpp", "openai by llama-server", "openai by Cierzo", "tgi by Cierzo", "tgi by TGI")
ALL = (*DEMO, "messages by llama-server", "messages by Cierzo")


@pytest.fixture(scope="module")
def places():
    """Three real servers of the demo model: llama.cpp's own, ours, and ours with the quirks of TGI."""
    model = catalog.find("cierzo-demo", Settings.load().home)
    address, end = llama_server(model.path)
    ours = Live(LlamaCpp(model, slots=1, threads=1))
    theirs = Live(LlamaCpp(model, slots=1, threads=1), front=as_tgi)
    yield {"llama-server": address, "Cierzo": ours.url, "ours": ours, "TGI": theirs.url}
    theirs.close()
    ours.close()
    end()


@pytest.fixture
async def engines(places):
    """Make any of the engines by its name; they are closed at the end."""
    made = []

    def make(name):
        form, _, by = name.partition(" by ")
        if name == "embedded":
            engine = LlamaCpp(catalog.find("cierzo-demo", Settings.load().home), slots=1, threads=1)
        elif form == "messages":
            engine = engine_at("openai", places[by] + "/v1?takes=messages")
        else:
            engine = engine_at(form, places[by or "llama-server"])
        made.append(engine)
        return engine

    yield make
    for engine in made:
        await engine.close()


async def test_all_engines_give_the_same_answer_token_by_token(engines):
    seen = {}
    for name in DEMO:
        engine = engines(name)
        prompt = await Chat(engine).prompt(QUESTION)
        _, tokens, finish = await everything(engine.stream(prompt, greedy(40, alternatives=3)))
        seen[name] = tokens
        info = engine.describe()
        assert (info.context >= 2046, info.template, finish.reason) == (True, "v3", "eos_token"), name
        assert (finish.prompt_tokens, finish.sent) == (len(prompt), info.takes), name
        assert 0 < finish.timings.first_token <= finish.timings.first_token + finish.timings.decode, name
        assert all(len(token.alternatives) == 3 for token in tokens), name
        assert all(token.alternatives[0].logprob >= token.alternatives[-1].logprob for token in tokens), name
        assert "ids" not in info.details or all(token.id for token in tokens), name
    reference = seen["embedded"]
    assert "".join(token.text for token in reference).strip() == "".join(token.text for token in reference)
    for name, tokens in seen.items():
        assert [token.text for token in tokens] == [token.text for token in reference], name
        assert [token.id for token in tokens] == [token.id for token in reference], name
        for ours, theirs in zip(tokens, reference, strict=True):
            assert ours.logprob == pytest.approx(theirs.logprob, abs=0.05), name
            assert math.isclose(ours.alternatives[0].logprob, theirs.alternatives[0].logprob, abs_tol=0.05), name


async def test_a_bound_a_stop_text_and_a_seed_are_heeded_by_all(engines):
    stops = ("ite de", "no such text", "neither", "nor this", "nor that", "a sixth")
    for name in ALL:
        engine = engines(name)
        prompt = await Chat(engine).prompt(QUESTION)
        _, tokens, finish = await everything(engine.stream(prompt, greedy(3)))
        assert (finish.reason, len(tokens)) == ("length", 3), name

        _, tokens, finish = await everything(engine.stream(prompt, greedy(40, stop=stops)))
        assert (finish.reason, finish.stop) == ("stop_sequence", "ite de"), name
        assert "".join(token.text for token in tokens).endswith("ace"), name

        hot = Sampling(temperature=2.0, max_new_tokens=12, top_p=1.0, seed=7)
        runs = [await everything(engine.stream(prompt, hot)) for _ in range(2)]
        texts = ["".join(token.text for token in tokens) for _, tokens, _ in runs]
        assert texts[0] == texts[1], name
        assert [finish.seed for _, _, finish in runs] == [7, 7], name
        other = await everything(engine.stream(prompt, Sampling(temperature=2.0, max_new_tokens=12, top_p=1.0)))
        assert isinstance(other[2].seed, int), name
        assert "".join(token.text for token in other[1]) != texts[0], name


async def test_what_a_person_leaves_stops_at_the_server(engines, places):
    for name in ("llamacpp", "openai by llama-server", "messages by llama-server"):
        engine = engines(name)
        prompt = await Chat(engine).prompt(QUESTION)
        stream = engine.stream(prompt, Sampling(temperature=2.0, max_new_tokens=1500, stop=("never",)))
        await first_token(stream)
        assert await _busy(places["llama-server"]), name
        await stream.aclose()
        async with asyncio.timeout(1):
            while await _busy(places["llama-server"]):  # noqa: ASYNC110 - it can only be asked
                await asyncio.sleep(0.01)


async def _busy(url):
    import aiohttp  # noqa: PLC0415 - only here

    async with aiohttp.ClientSession() as session, session.get(f"{url}/slots") as response:
        return any(slot["is_processing"] for slot in await response.json())


@pytest.mark.parametrize("form", ["scripted", "openai", "tgi"])
async def test_a_scripted_answer_comes_through_whole(form):
    """Characters of four tokens, a stop text across tokens, a stream that is left: the same behind every face."""
    scripted = Scripted(Reply.of(" Sí 😀, ¡claro! Bien."), Reply.of("uno dos tres", delay=0.01, repeat=True))
    server = None if form == "scripted" else Live(scripted)
    engine = scripted if server is None else engine_at(form, server.url, template="v3")
    try:
        chat = Chat(engine)
        prompt = await chat.prompt(QUESTION)
        _, tokens, finish = await everything(engine.stream(prompt, Sampling(max_new_tokens=30)))
        assert "".join(token.text for token in tokens) == " Sí 😀, ¡claro! Bien."
        assert finish.reason == "eos_token"
        assert scripted.asked[-1].prompt.ids == prompt.ids

        stream = engine.stream(prompt, Sampling(max_new_tokens=3000))
        token = await first_token(stream)
        assert token.text == "uno"
        assert scripted.running == 1
        await stream.aclose()
        async with asyncio.timeout(1):
            await until(lambda: scripted.running == 0)
        assert scripted.stopped == 1

        kept = (Token(0, "Al"), Token(0, " fin"))
        begun = await chat.prompt(QUESTION, begun=kept)
        with contextlib.suppress(StopAsyncIteration):
            await first_token(stream := engine.stream(begun, Sampling(max_new_tokens=2)))
            await stream.aclose()
        assert scripted.asked[-1].prompt.ids == begun.ids
        assert decode(begun.ids, "v3", controls=True).endswith("[/INST] Al fin")
    finally:
        await engine.close()
        if server is not None:
            server.close()


async def test_who_is_met_says_what_it_is(engines):
    for name in ALL:
        info = await meet(engines(name))
        assert {"temperature", "top_p", "top_k", "seed", "stop", "max_new_tokens"} <= info.honours, name
        assert info.slots == (512 if name == "scripted" else info.slots)
        assert "cierzo-demo" in info.model, name
        assert info.where, name
