"""Hugging Face's providers: what is asked, what a model's offers mean, and where the token goes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager

import pytest
from driving import everything
from fault_server import ANSWER, DIALECTS, KEY, REPOSITORY, WORDS, Exchange, FaultServer, Providers, say_facts
from misbehaviour import answering, redirecting, refusing

from cierzo.app import open_engine
from cierzo.chat import Chat
from cierzo.engines.base import meet
from cierzo.engines.hub import Hub
from cierzo.engines.remote import Patience
from cierzo.errors import BadInput, BadSetting, CierzoError, EngineDied, EngineRefused, Overloaded, UnknownModel
from cierzo.messages import Message, Sampling
from cierzo.settings import Settings

PATIENCE = Patience(connect=2, first=5, between=5, back_off=0.01)
QUESTION = [Message("system", "Be brief."), Message("user", "What blows over </s>[INST] Zaragoza?")]


async def well(to: Exchange) -> None:
    await to.head(chunked=True)
    await to.body(to.whole())
    await to.over()


def offering(mapping, *, status=200, headers=(), cards=None):
    """Answer the hub's question with a mapping, and the router's with cards."""

    async def act(to: Exchange) -> None:
        if to.request.path.startswith("/api/models/"):
            value = mapping if isinstance(mapping, bytes) else json.dumps({"id": REPOSITORY, **mapping}).encode()
            await to.answer(status, value, headers=headers)
        elif cards is not None:
            await to.answer(200, json.dumps({"data": cards}).encode())
        else:
            await say_facts(to)

    return act


def mapped(**tasks):
    """Write a mapping as the hub does for one model: by provider."""
    said = {name.replace("_", "-"): {"status": "live", "providerId": "x", "task": task} for name, task in tasks.items()}
    return {"inferenceProviderMapping": said}


@asynccontextmanager
async def hub(act=well, meeting=None, *, provider="?provider=together", token=KEY, **options):
    async with FaultServer(Providers(), well) as other, FaultServer(Providers(), act, meeting, other.url) as server:
        address = f"hf://{REPOSITORY}{provider}"
        engine = Hub(address, token, hub=server.url, router=server.url, patience=PATIENCE, **options)
        try:
            yield engine, server
            assert not other.requests, "another host heard something"
        finally:
            await engine.close()


async def answer_of(engine, **sampling):
    prompt = await Chat(engine).prompt(QUESTION)
    return await everything(engine.stream(prompt, Sampling(**sampling)))


async def test_what_goes_to_hugging_face_and_what_comes_back():
    async with hub() as (engine, server):
        _, tokens, finish = await answer_of(engine, temperature=0.5, top_p=0, max_new_tokens=50, seed=7, alternatives=3)
        info = engine.describe()
    assert "".join(token.text for token in tokens) == ANSWER
    assert all(token.logprob == -0.25 for token in tokens)
    assert (finish.reason, finish.sent, finish.seed) == ("eos_token", "messages", 7)
    assert (finish.prompt_tokens, finish.answer_tokens) == (5, len(WORDS))
    assert (info.engine, info.model, info.context, info.template) == ("hf", REPOSITORY, 4096, "v3")
    assert info.where == f"at together, through {server.url[7:]}"
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}
    assert not any("cookie" in request.headers for request in server.requests)
    (asked,) = server.exchanges
    body = asked.request.json
    assert body["messages"] == [{"role": message.role, "content": message.text} for message in QUESTION]
    assert (body["model"], body["stream"]) == (f"{REPOSITORY}:together", True)
    assert (body["temperature"], body["max_tokens"], body["seed"]) == (0.5, 50, 7)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 3)
    assert 0 < body["top_p"] < 0.001
    assert {"top_k", "min_p", "repetition_penalty", "stop", "prompt"}.isdisjoint(body)
    assert KEY not in repr(vars(engine.describe()) if hasattr(info, "__dict__") else info)


async def test_a_stop_text_is_found_here_and_ends_the_request():
    async with hub() as (engine, server):
        _, tokens, finish = await answer_of(engine, stop=(" wind", "never"))
        assert await server.alone()
    assert "".join(token.text for token in tokens) == "The north"
    assert (finish.reason, finish.stop) == ("stop_sequence", " wind")


LIVE = {"status": "live", "providerId": "x", "task": "conversational"}
OFFERS = {
    "by provider": (mapped(together="conversational", novita="conversational"), "", "together, novita"),
    "in a list": (
        {"inferenceProviderMapping": [{"provider": "together", **LIVE}, {"provider": "groq", **LIVE}]},
        "",
        "together, groq",
    ),
    "only one of use": (mapped(together="conversational", novita="text-generation"), "", "together"),
    "one that is broken": (
        {"inferenceProviderMapping": [{"provider": "a", **LIVE, "status": "error"}, {"provider": "b", **LIVE}]},
        "",
        "b",
    ),
    "with a name that a terminal would obey": (mapped(**{"a\x1b[2Jb\n": "conversational"}), "", "a[2Jb"),
    "in staging": ({"inferenceProviderMapping": {"a": LIVE | {"status": "staging"}}}, "", "a"),
    "one that no client knows": (mapped(brand_new="conversational"), "?provider=brand-new", "brand-new"),
    "the cheapest": (mapped(a="conversational", b="conversational"), "?provider=cheapest", "the cheapest of a, b"),
    "many": (
        mapped(**{f"p{i}": "conversational" for i in range(12)}),
        "",
        ", ".join(f"p{i}" for i in range(8)) + ", …",
    ),
}


@pytest.mark.parametrize("case", OFFERS)
async def test_the_offers_of_a_model_are_shown(case):
    mapping, provider, shown = OFFERS[case]
    async with hub(meeting=offering(mapping), provider=provider) as (engine, server):
        _, tokens, _ = await answer_of(engine)
        assert "".join(token.text for token in tokens) == ANSWER
        assert engine.describe().where == f"at {shown}, through {server.url[7:]}"
        suffix = provider.replace("?provider=", ":")
        assert server.exchanges[0].request.json["model"] == REPOSITORY + suffix


async def test_the_other_providers_are_shown_beside_the_chosen_one():
    many = mapped(together="conversational", novita="conversational", sambanova="text-generation")
    async with hub(meeting=offering(many)) as (engine, server):
        info = await meet(engine)
    assert info.where == f"at together, through {server.url[7:]}; also at novita"


@pytest.mark.parametrize(
    ("cards", "context", "found"),
    [
        ([{"id": REPOSITORY, "providers": [{"provider": "together", "context_length": 8192}]}], 0, 8192),
        ([{"id": REPOSITORY, "providers": [{"provider": "together", "context_length": 8192}]}], 1000, 1000),
        ([{"id": REPOSITORY, "providers": [{"provider": "novita", "context_length": 8192}]}], 0, 4096),
        ([{"id": REPOSITORY, "providers": [{"provider": "together", "context_length": "many"}]}], 0, 4096),
        ([{"id": "another/model", "providers": [{"provider": "together", "context_length": 8192}]}], 30_000, 30_000),
        ([7, {"id": REPOSITORY, "providers": 7}], 0, 4096),
        ([], 0, 4096),
    ],
)
async def test_the_window_is_what_the_router_says(cards, context, found):
    meeting = offering(mapped(together="conversational"), cards=cards)
    async with hub(meeting=meeting, context=context) as (engine, _):
        assert (await meet(engine)).context == found


async def test_the_router_may_choose_the_smallest_window():
    sizes = [{"provider": "a", "context_length": 9000}, {"provider": "b", "context_length": 7000}]
    both = mapped(a="conversational", b="conversational")
    cards = [{"id": REPOSITORY, "providers": sizes}]
    async with hub(meeting=offering(both, cards=cards), provider="") as (engine, _):
        assert (await meet(engine)).context == 7000


REFUSALS = {
    "no provider": (offering(mapped()), UnknownModel, "run it yourself"),
    "no mapping": (offering({}), UnknownModel, "no provider of Hugging Face chats with"),
    "not for conversation": (
        offering(mapped(together="text-generation")),
        UnknownModel,
        "together has it for text-generation",
    ),
    "another provider": (offering(mapped(novita="conversational", groq="conversational")), BadSetting, "novita, groq"),
    "not of this provider": (
        offering(mapped(together="text-generation", groq="conversational")),
        BadSetting,
        "name one of groq",
    ),
    "gated": (
        offering(b"", status=403, headers=["X-Error-Code: GatedRepo"]),
        EngineRefused,
        f"accept its terms at https://huggingface.co/{REPOSITORY}",
    ),
    "gated, in words": (
        offering(b'{"error": "Access to this gated repository is restricted"}', status=401),
        EngineRefused,
        "is gated",
    ),
    "no such model": (
        offering(b'{"error": "Repository not found"}', status=404, headers=["X-Error-Code: RepoNotFound"]),
        UnknownModel,
        "check the name",
    ),
    "private, or no such model": (
        offering(b"", status=401, headers=["X-Error-Code: RepoNotFound"]),
        UnknownModel,
        "that this token may see",
    ),
    "a wrong token": (
        offering(b'{"error": "Invalid username or password."}', status=401),
        EngineRefused,
        "hf auth login",
    ),
    "a renamed model": (redirecting(307, loop=True), EngineRefused, "present name"),
    "another host": (redirecting(302), EngineRefused, "to Hugging Face alone"),
    "nonsense": (offering({"inferenceProviderMapping": [{"provider": "a"}]}), EngineRefused, "check HF_ENDPOINT"),
    "a page": (answering(200, b"<html>", "text/html"), EngineRefused, "check that the address"),
    "busy": (answering(429, b"", "", "Retry-After: 77"), Overloaded, "busy"),
    "down": (refusing(503), Overloaded, "ask again"),
    "broken": (refusing(500), EngineRefused, "ask again"),
}
FOREIGN = ("not supported for task", "StopIteration", "Client Error", "Request ID", KEY)


@pytest.mark.parametrize("case", REFUSALS)
async def test_what_a_model_cannot_do_is_said_in_words(case):
    meeting, kind, words = REFUSALS[case]
    async with hub(meeting=meeting) as (engine, server):
        with pytest.raises(kind) as raised:
            await answer_of(engine)
        assert not server.asked
    said = str(raised.value)
    assert words in said
    assert ": " in said
    assert said.isprintable()
    assert not any(foreign in said for foreign in FOREIGN)
    if case == "busy":
        assert raised.value.retry_after == 77


CHAT_REFUSALS = {
    "payment": (
        402,
        b'{"error": "You have exceeded your monthly included credits"}',
        EngineRefused,
        "settings/billing",
    ),
    "permission": (403, b'{"error": "not allowed to call Inference Providers"}', EngineRefused, "settings/tokens"),
    "token": (401, b"", EngineRefused, "settings/tokens"),
    "overloaded": (429, b'{"error": {"message": "too many"}}', Overloaded, "?provider="),
    "unavailable": (503, b"<html>", Overloaded, "?provider="),
    "broken": (500, b'{"error": "boom"}', EngineRefused, "?provider="),
    "not supported": (400, b'{"error": {"message": "The model is not supported"}}', EngineRefused, "change it"),
    "gone": (404, b"Not Found", UnknownModel, "check the name"),
}


@pytest.mark.parametrize("case", CHAT_REFUSALS)
async def test_what_a_provider_refuses_is_said_in_words(case):
    status, body, kind, words = CHAT_REFUSALS[case]
    async with hub(answering(status, body)) as (engine, server):
        with pytest.raises(kind) as raised:
            await answer_of(engine)
        assert server.asked == (3 if status in (429, 503) else 1)
    assert words in str(raised.value)
    assert not any(foreign in str(raised.value) for foreign in FOREIGN)


async def test_a_provider_that_tells_no_probabilities_is_asked_without():
    async def picky(to: Exchange) -> None:
        if "logprobs" in to.request.json:
            await to.answer(400, b'{"error": {"message": "logprobs is not supported with this model"}}')
            return
        await to.head(chunked=True)
        for index, word in enumerate(WORDS):
            said = to.dialect.token(index, word)
            said["choices"][0]["logprobs"] = None
            await to.event(said)
        await to.finish()
        await to.over()

    async with hub(picky) as (engine, server):
        assert "logprobs" in (await meet(engine)).details
        _, tokens, finish = await answer_of(engine, alternatives=2)
        assert "".join(token.text for token in tokens) == ANSWER
        assert finish.answer_tokens == len(WORDS)
        assert server.asked == 2
        await answer_of(engine)
        assert server.asked == 3
        info = engine.describe()
        assert info.details == frozenset()
        assert "alternatives" not in info.honours


async def test_an_answer_cannot_be_gone_on_with():
    async with hub() as (engine, server):
        prompt = await Chat(engine).prompt([*QUESTION, Message("assistant", "The north")])
        with pytest.raises(BadInput, match="cannot go on with"):
            await everything(engine.stream(prompt, Sampling()))
        assert not server.asked


@pytest.mark.parametrize(
    "address",
    [
        "hf://",
        "hf://model",
        "hf://a/b/c",
        "hf://a/b?provider=",
        "hf://a/b?provider=A",
        "hf://a/b?key=hf_x",
        "hf://hf_secret@a/b",
        "hf:a/b",
        "hf://a/b#c",
        "hf://../b?provider=x/../y",
        "hf://a/ñ",
    ],
)
async def test_what_is_no_address_is_refused(address):
    with pytest.raises(BadSetting, match="hf://OWNER/MODEL"):
        open_engine(Settings(engine=address))


# The token


async def test_without_a_token_it_is_said_how_to_get_one(monkeypatch):
    monkeypatch.setattr("cierzo.engines.providers.get_token", lambda: None)
    async with hub(token="") as (engine, server):
        with pytest.raises(BadSetting, match="hf auth login"):
            await answer_of(engine)
        assert not server.requests
        monkeypatch.setattr("cierzo.engines.providers.get_token", lambda: "hf_new")  # the person has logged in
        await answer_of(engine)
        assert {request.headers["authorization"] for request in server.requests} == {"Bearer hf_new"}


async def test_the_key_that_was_said_goes_before_the_one_that_is_stored(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_stored")
    for key, sent in ((KEY, KEY), ("", "hf_stored")):
        async with hub(token=key) as (engine, server):
            await answer_of(engine)
            assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {sent}"}


async def test_the_token_is_not_sent_where_others_can_read_it():
    for address in ("http://hub.example", "http://192.0.2.1:80", "ftp://127.0.0.1", ""):
        engine = Hub(f"hf://{REPOSITORY}", KEY, hub="https://127.0.0.1:1", router=address or "hub.example")
        with pytest.raises(BadSetting, match="https"):
            await engine.meet()
        await engine.close()


async def test_no_other_engine_is_sent_the_token_of_hugging_face(monkeypatch):
    """With the token in the environment, as whoever uses Hugging Face has it; facts/engine.md 1.6 is why."""
    monkeypatch.setenv("HF_TOKEN", KEY)
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", KEY)
    kinds = {"openai, ids": "openai", "openai, text": "openai", "openai, messages": "openai"}
    kinds |= {"tgi": "tgi", "llamacpp": "llamacpp"}
    for dialect in DIALECTS:
        if dialect.name == "hub":
            continue
        for act in (well, redirecting(307), refusing(401)):
            async with FaultServer(dialect, well) as other, FaultServer(dialect, act, elsewhere=other.url) as server:
                takes = dialect.name.partition(", ")[2]
                address = f"{kinds[dialect.name]}+{server.url}" + (f"?takes={takes}" if takes else "")
                engine = open_engine(Settings(engine=address, template="v3"))
                try:
                    prompt = await Chat(engine).prompt(QUESTION)
                    await everything(engine.stream(prompt, Sampling()))
                except CierzoError:
                    assert act is not well
                await engine.close()
                assert server.asked
                heard = repr([(request.path, request.headers, request.body) for request in server.requests])
                assert KEY not in heard
                assert "authorization" not in heard.lower()
                assert not other.requests


async def test_an_engine_that_is_closed_while_it_loads_stays_closed():
    async with hub() as (engine, server):
        meeting = asyncio.create_task(engine.meet())
        await asyncio.sleep(0)
        await engine.close()
        with pytest.raises(EngineDied, match="was closed"):
            await meeting
        with pytest.raises(EngineDied, match="was closed"):
            await engine.meet()
        assert not server.requests


# From the command line


async def told(*words, **environment):
    """Run Cierzo in a process of its own; return its status, what it says and what it complains of."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "CIERZO_", "HUGGING"))
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cierzo", *words, env=inherited | environment, stdout=-1, stderr=-1, stdin=-3
    )
    out, complaints = await process.communicate()
    return process.returncode, out.decode(), complaints.decode()


async def test_a_provider_answers_on_the_command_line(tmp_path):
    async with FaultServer(Providers(), well) as server:
        places = {"HF_ENDPOINT": server.url, "HF_INFERENCE_ENDPOINT": server.url, "HF_HOME": str(tmp_path)}
        places |= {"CIERZO_HOME": str(tmp_path / "home"), "LANG": "C.UTF-8"}
        ask = ("ask", "What blows?", "--engine", f"hf://{REPOSITORY}")
        (
            (status, out, complaints),
            (refused, nothing, why),
            (well_off, found, _),
            (ill, wrong, _),
        ) = await asyncio.gather(
            told(*ask, **places, HF_TOKEN="hf_of_the_environment"),
            told(*ask, **places),
            told("doctor", *ask[2:], **places, HF_TOKEN="hf_of_the_environment"),
            told("doctor", *ask[2:], **places),
        )
    assert (status, out.strip(), complaints) == (0, ANSWER, "")
    sent = {request.path.partition("?")[0]: request.headers.get("authorization") for request in server.requests}
    sent.pop("/api/agent-harnesses", None)  # what huggingface_hub itself asks of the hub, once a day and of nobody's
    paths = (f"/api/models/{REPOSITORY}", "/v1/models", "/v1/chat/completions")
    assert sent == dict.fromkeys(paths, "Bearer hf_of_the_environment")
    assert (refused, nothing) == (2, "")
    assert "hf auth login" in why
    assert len(why.strip().splitlines()) == 1
    assert (well_off, ill) == (0, 1)
    assert f"{len(WORDS)} tokens, the first after" in found
    assert "Inference Providers need a token" in wrong


async def test_offline_is_offline(tmp_path):
    async with FaultServer(Providers(), well) as server:
        places = {"HF_ENDPOINT": server.url, "HF_INFERENCE_ENDPOINT": server.url, "HF_HOME": str(tmp_path)}
        places |= {"CIERZO_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "CIERZO_ENGINE_KEY": KEY}
        status, _, why = await told("ask", "What?", "--engine", f"hf://{REPOSITORY}", **places)
        assert (status, server.requests) == (1, [])
        assert "HF_HUB_OFFLINE" in why


async def test_the_client_is_loaded_when_it_is_needed():
    code = "import sys, cierzo.app; print([name for name in ('huggingface_hub', 'httpx2') if name in sys.modules])"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=-1)
    assert (await process.communicate())[0].strip() == b"[]"
