"""The OpenAI routes, through OpenAI's own client."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from pace import Pace
from serving import asking, data_of, until

from cierzo.engines.script import Reply
from cierzo.engines.scripted import Scripted
from cierzo.errors import EngineDied, EngineRefused, Overloaded
from cierzo.messages import Alternative, Finish, Token

WORDS = ["Un", " cierzo", " frío", " 🌬", "."]
TOKENS = [
    Token(
        1000 + place,
        text,
        -0.5 - place,
        alternatives=(Alternative(1000 + place, text, -0.5 - place), Alternative(5, "x", -7.0)),
    )
    for place, text in enumerate(WORDS)
]
ANSWER = "".join(WORDS)


@pytest.fixture
def server(lent):
    return lent(Scripted(Reply(tuple(TOKENS))))


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as made:
        yield made


def chat(client, **more):
    return client.chat.completions.create(model="any", **asking(**more))


def test_models(client, server):
    (card,) = client.models.list().data
    assert card.id == "scripted"
    assert client.models.retrieve("scripted").owned_by == "cierzo"
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.models.retrieve("gpt-4")


def test_a_chat(client):
    answer = chat(client)
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].logprobs is None
    assert answer.model == "scripted"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + len(WORDS)
    assert answer._request_id.startswith("req_")


def test_a_chat_with_logprobs(client):
    content = chat(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert [entry.token for entry in content] == WORDS
    assert [entry.logprob for entry in content] == [token.logprob for token in TOKENS]
    assert bytes(b for entry in content for b in entry.bytes).decode() == ANSWER
    assert [(top.token, top.logprob) for top in content[1].top_logprobs] == [(" cierzo", -1.5), ("x", -7.0)]


def test_a_streamed_chat(client):
    chunks = list(chat(client, stream=True, logprobs=True, top_logprobs=1, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == ANSWER
    said = [entry for chunk in chunks[1:-2] for entry in chunk.choices[0].logprobs.content]
    assert [entry.token for entry in said] == WORDS
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(WORDS) + 1) + ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == len(WORDS)
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_without_usage_has_none(server):
    *chunks, done = data_of(server.post("/v1/chat/completions", asking(stream=True)).text)
    assert done == "[DONE]"
    assert not any("usage" in json.loads(chunk) for chunk in chunks)


@pytest.mark.parametrize(
    "prompt", ["<s>[INST] Hi[/INST]", ["<s>[INST] Hi[/INST]"], [1, 3, 16127, 4], [[1, 3, 16127, 4]]]
)
def test_a_completion_of_a_string_or_of_ids(client, server, prompt):
    answer = client.completions.create(model="any", prompt=prompt, logprobs=2)
    assert answer.choices[0].text == ANSWER
    assert server.engine.asked[-1].prompt.ids == (1, 3, 16127, 4)
    assert server.engine.asked[-1].prompt.leading_space
    probabilities = answer.choices[0].logprobs
    assert probabilities.tokens == WORDS
    assert probabilities.token_logprobs == [token.logprob for token in TOKENS]
    assert probabilities.top_logprobs[0] == {"Un": -0.5, "x": -7.0}
    assert [ANSWER[offset:][:1] for offset in probabilities.text_offset] == [word[:1] for word in WORDS]


def test_a_streamed_completion(client):
    chunks = list(client.completions.create(model="any", prompt="Hi", stream=True, logprobs=0))
    assert "".join(chunk.choices[0].text for chunk in chunks) == ANSWER
    offsets = [chunk.choices[0].logprobs.text_offset[0] for chunk in chunks[:-1]]
    assert offsets == [len("".join(WORDS[:place])) for place in range(len(WORDS))]
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_defaults_are_openais(client, server):
    chat(client)
    client.completions.create(model="any", prompt="Hi")
    first, second = (asked.sampling for asked in server.engine.asked)
    assert (first.temperature, first.top_p, first.max_new_tokens) == (1.0, 1.0, 131_072)
    assert second.max_new_tokens == 16


def test_what_was_asked_for_arrives(client, server):
    extra = {"top_k": 7, "min_p": 0.05, "repetition_penalty": 1.2}
    chat(client, temperature=0, top_p=0.5, seed=-1, stop="x", max_tokens=9, max_completion_tokens=3, extra_body=extra)
    sampling = server.engine.asked[-1].sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_new_tokens, sampling.stop) == (0.0, 0.5, 3, ("x",))
    assert (sampling.top_k, sampling.min_p, sampling.repetition_penalty) == (7, 0.05, 1.2)
    assert sampling.seed == 2**32 - 2


def test_stops_and_length(client):
    stopped = chat(client, stop=[" frío", "never"]).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == ("Un cierzo", "stop")
    cut = chat(client, max_tokens=2).choices[0]
    assert (cut.message.content, cut.finish_reason) == ("Un cierzo", "length")


def test_the_roles_and_parts_of_messages(client, server):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Ho"}, {"type": "text", "text": "la"}]},
        {"role": "assistant", "content": "Hi", "tool_calls": []},
        {"role": "user", "content": "And?", "name": "ana"},
    ]
    client.chat.completions.create(model="any", messages=messages)
    assert [(m.role, m.text) for m in server.engine.asked[-1].prompt.kept] == [
        ("system", "Be brief."),
        ("user", "Hola"),
        ("assistant", "Hi"),
        ("user", "And?"),
    ]


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"n": 2}, "n", "unsupported_value"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_value"),
        ({"logit_bias": {"5": 1.0}}, "logit_bias", "unsupported_value"),
        ({"presence_penalty": 0.5}, "presence_penalty", "unsupported_value"),
        ({"response_format": {"type": "yaml"}}, "response_format", "unsupported_value"),
        ({"response_format": {"type": "json_object"}}, "response_format", "invalid_value"),
        ({"temperature": 9}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": True}, "max_tokens", "invalid_type"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"nonsense": 1}, "nonsense", "unknown_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
    ],
)
def test_what_is_wrong_is_refused_by_name(echo, change, param, code):
    body = {**asking(), "model": "any", **change}
    with (
        openai.OpenAI(base_url=f"{echo.url}/v1", api_key="-", max_retries=0) as client,
        pytest.raises(openai.BadRequestError) as refused,
    ):
        client.post("/chat/completions", body=body, cast_to=dict)
    assert (refused.value.param, refused.value.code) == (param, code)
    assert refused.value.type == "invalid_request_error"


def test_what_openai_has_and_a_local_model_needs_not_is_ignored(client):
    chat(client, user="u", metadata={"a": "b"}, store=False, service_tier="auto", parallel_tool_calls=True)


def test_a_prompt_that_is_too_long(client):
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, text="palabra " * 20_000)
    assert refused.value.code == "context_length_exceeded"


def test_errors_have_their_status(lent):
    engine = Scripted([Overloaded("too many", retry_after=3)], [EngineDied("it died")], [EngineRefused("it would not")])
    server = lent(engine)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as busy:
            chat(client)
        assert busy.value.response.headers["Retry-After"] == "3"
        for sentence in ("it died", "it would not"):
            with pytest.raises(openai.InternalServerError, match=sentence):
                chat(client, stream=True)


def test_an_error_in_a_stream_is_its_last_event(lent):
    server = lent(Scripted(["Half", EngineDied("it died: ask again")]))
    body = server.post("/v1/chat/completions", asking(stream=True))
    assert body.status_code == 200
    *_, last = data_of(body.text)
    assert json.loads(last)["error"]["type"] == "server_error"
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client:
        heard = []
        with pytest.raises(openai.APIError, match="it died"):
            heard.extend(chunk.choices[0].delta.content for chunk in chat(client, stream=True))


async def test_cancelling_stops_the_engine(lent):
    server = lent(Scripted(Reply.of(["a"], repeat=True, delay=0.01)))
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client:
        stream = await client.chat.completions.create(model="any", **asking(stream=True))
        async for _ in stream:
            break
        await stream.close()
        whole = asyncio.create_task(client.chat.completions.create(model="any", **asking()))
        await asyncio.sleep(0.3)
        whole.cancel()
        await asyncio.wait([whole])
    with Pace() as pace:
        seconds = until(lambda: server.engine.running == 0)
    assert seconds < pace.factor
    assert server.engine.stopped == 2


def test_many_at_once_share_nothing(lent):
    engine = Scripted(*(Reply.of(f"I am {name}.", when=name, delay=0.001) for name in ("Ana", "Bob", "Cid", "Dio")))
    server = lent(engine)

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="-") as client:
            names = [name for name in ("Ana", "Bob", "Cid", "Dio") for _ in range(8)]
            calls = (client.chat.completions.create(model="any", **asking(name)) for name in names)
            return names, [answer.choices[0].message.content for answer in await asyncio.gather(*calls)]

    names, answers = asyncio.run(all_of_them())
    assert answers == [f"I am {name}." for name in names]


def test_the_engine_says_length_by_itself(lent):
    server = lent(Scripted(["a", Finish("length", answer_tokens=1)]))
    assert server.post("/v1/chat/completions", asking()).json()["choices"][0]["finish_reason"] == "length"


def test_token_ids_are_told_as_vllm_tells_them(lent):
    reply = Reply.of([Token(1032, " a", -0.5, alternatives=(Alternative(1032, " a", -0.5), Alternative(2, "", -2.0)))])
    server = lent(Scripted(reply))
    asked = {"prompt": "Hola", "logprobs": 2, "return_token_ids": True, "return_tokens_as_token_ids": True}
    (choice,) = server.post("/v1/completions", asked).json()["choices"]
    assert choice["token_ids"] == [1032]
    assert choice["logprobs"]["tokens"] == ["token_id:1032"]
    assert choice["logprobs"]["top_logprobs"] == [{"token_id:1032": -0.5, "token_id:2": -2.0}]
    events = [json.loads(data) for data in data_of(server.post("/v1/completions", {**asked, "stream": True}).text)[:-1]]
    assert [event["choices"][0].get("token_ids") for event in events] == [[1032], None]
    plain = server.post("/v1/completions", {"prompt": "Hola"}).json()["choices"][0]
    assert "token_ids" not in plain
