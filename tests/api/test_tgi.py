"""The routes of Text Generation Inference, through Hugging Face's own client."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import GenerationError, OverloadedError, ValidationError
from serving import data_of

from cierzo.engines.script import Reply
from cierzo.engines.scripted import Scripted
from cierzo.errors import EngineDied, Overloaded
from cierzo.messages import Alternative, Finish, Token

WORDS = ["Mi", " ingrediente", " es", " el", " pan", "."]
TOKENS = [
    Token(100 + place, text, -0.25, alternatives=(Alternative(100 + place, text, -0.25), Alternative(5, " x", -3.0)))
    for place, text in enumerate(WORDS)
]
ANSWER = "".join(WORDS)
PROMPT = "<s>[INST] ¿Cuál es tu ingrediente favorito? [/INST]"


@pytest.fixture
def server(lent):
    return lent(Scripted(Reply(tuple(TOKENS))))


@pytest.fixture
def client(server):
    return InferenceClient(base_url=server.url, token="-")


def generate(server, route="/generate", **parameters):
    return server.post(route, {"inputs": PROMPT, "parameters": parameters})


def test_text_generation(client):
    assert client.text_generation(PROMPT) == ANSWER


def test_text_generation_with_details(client):
    answer = client.text_generation(PROMPT, details=True, top_n_tokens=2, seed=7, do_sample=True)
    assert answer.generated_text == ANSWER
    assert answer.details.finish_reason == "eos_token"
    assert [token.text for token in answer.details.tokens] == [*WORDS, ""]
    assert answer.details.tokens[-1].special
    assert answer.details.tokens[-1].id == 2
    assert answer.details.generated_tokens == len(WORDS) + 1
    assert answer.details.seed == 7
    assert answer.details.prefill == []
    assert [top["text"] for top in answer.details.top_tokens[0]] == ["Mi", " x"]


def test_text_generation_streamed(client):
    assert "".join(client.text_generation(PROMPT, stream=True)) == ANSWER
    events = list(client.text_generation(PROMPT, stream=True, details=True, max_new_tokens=20))
    assert [event.index for event in events] == list(range(1, len(WORDS) + 2))
    assert all(event.generated_text is None and event.details is None for event in events[:-1])
    assert "".join(event.token.text for event in events) == events[-1].generated_text == ANSWER
    assert events[-1].details.finish_reason == "eos_token"
    assert events[-1].details.input_length == 15
    assert events[-1].details.seed is None


def test_the_last_token_of_a_cut_answer_ends_its_stream(client):
    events = list(client.text_generation(PROMPT, stream=True, details=True, max_new_tokens=3))
    assert [event.token.text for event in events] == WORDS[:3]
    assert events[-1].generated_text == "".join(WORDS[:3])
    assert (events[-1].details.finish_reason, events[-1].details.generated_tokens) == ("length", 3)


def test_a_stop_text_is_part_of_the_answer(client):
    answer = client.text_generation(PROMPT, stop=[" el"], details=True)
    assert answer.generated_text == "Mi ingrediente es el"
    assert answer.details.finish_reason == "stop_sequence"
    events = list(client.text_generation(PROMPT, stop=[" el"], stream=True, details=True, max_new_tokens=4))
    assert "".join(event.token.text for event in events) == events[-1].generated_text == "Mi ingrediente es el"


def test_the_window_may_end_an_answer_early(lent):
    server = lent(Scripted(["a", Finish("length", answer_tokens=1)]))
    *_, last = data_of(generate(server, "/generate_stream", max_new_tokens=9, details=True).text)
    assert json.loads(last)["generated_text"] == "a"
    assert json.loads(last)["details"]["finish_reason"] == "length"


def test_return_full_text(client):
    assert client.text_generation(PROMPT, return_full_text=True) == PROMPT + ANSWER


async def test_the_asynchronous_client(server):
    async with AsyncInferenceClient(base_url=server.url, token="-") as client:
        assert await client.text_generation(PROMPT) == ANSWER
        stream = await client.text_generation(PROMPT, stream=True)
        assert "".join([text async for text in stream]) == ANSWER
        answer = await client.chat_completion([{"role": "user", "content": "Hola"}], logprobs=True, top_logprobs=2)
        assert answer.choices[0].message.content == ANSWER
        assert answer.choices[0].logprobs.content[0].top_logprobs[1].token == " x"


def test_chat_completion(client):
    messages = [{"role": "user", "content": "Hola"}]
    assert client.chat_completion(messages, max_tokens=50, seed=1).choices[0].message.content == ANSWER
    stream = client.chat_completion(messages, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == ANSWER


def test_info_and_health(server):
    client = InferenceClient(model=server.url, provider="hf-inference", token="-")
    assert client.get_endpoint_info()["model_id"] == "scripted"
    assert client.health_check()
    assert server.get("/health").content == b""


def test_the_root_answers_a_list_or_a_stream(server):
    assert server.post("/", {"inputs": PROMPT}).json() == [{"generated_text": ANSWER}]
    streamed = server.post("/", {"inputs": PROMPT, "stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert "[DONE]" not in streamed.text
    assert json.loads(data_of(streamed.text)[-1])["generated_text"] == ANSWER


def test_without_details_there_are_none(server):
    assert generate(server).json() == {"generated_text": ANSWER}
    last = json.loads(data_of(generate(server, "/generate_stream").text)[-1])
    assert last["details"] is None
    assert "top_tokens" not in last


def test_defaults_with_and_without_parameters(server):
    server.post("/generate", {"inputs": PROMPT})
    generate(server)
    generate(server, top_p=0.5)
    sampled, greedy, chosen = (asked.sampling for asked in server.engine.asked)
    assert (sampled.temperature, sampled.top_p) == (1.0, 1.0)
    assert greedy.temperature == 0
    assert (chosen.temperature, chosen.top_p) == (1.0, 0.5)
    assert sampled.max_new_tokens == 8192 - 1 - 15


def test_the_headers(server):
    headers = generate(server, max_new_tokens=3).headers
    assert headers["x-compute-type"] == "cpu"
    assert headers["x-compute-characters"] == str(len(PROMPT))
    assert headers["x-prompt-tokens"] == "15"
    assert headers["x-generated-tokens"] == "3"
    names = ("x-total-time", "x-validation-time", "x-queue-time", "x-inference-time", "x-time-per-token")
    assert all(headers[name].isdecimal() for name in names)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"temperature": 0}, "`temperature` must be strictly positive"),
        ({"top_p": 1.0}, "`top_p` must be > 0.0 and < 1.0"),
        ({"top_k": 0}, "`top_k` must be strictly positive"),
        ({"repetition_penalty": 0}, "`repetition_penalty` must be strictly positive"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "`stop` supports up to 4 stop sequences. Given: 5"),
        ({"top_n_tokens": 6}, "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
        ({"typical_p": 0.5}, "`typical_p` is not supported"),
        ({"frequency_penalty": 0.5}, "`frequency_penalty` is not supported"),
        ({"watermark": True}, "`watermark` is not supported"),
        ({"best_of": 2}, "`best_of` != 1"),
        ({"grammar": {"type": "regex", "value": "a"}}, "`grammar` of the type `regex` is not supported"),
        ({"adapter_id": "x"}, "`adapter_id` is not supported"),
        ({"truncate": 0}, "`truncate` must be strictly positive and less than"),
        (
            {"max_new_tokens": 8192},
            "`inputs` tokens + `max_new_tokens` must be <= 8191. Given: 15 `inputs` tokens and 8192 `max_new_tokens`",
        ),
    ],
)
def test_what_tgi_refuses_is_refused_in_its_words(echo, parameters, words):
    refused = generate(echo, **parameters)
    assert refused.status_code == 422
    assert refused.json()["error_type"] == "validation"
    assert refused.json()["error"].startswith("Input validation error: ")
    assert words in refused.json()["error"]


def test_an_empty_prompt_and_the_clients_class_of_error(client):
    with pytest.raises(ValidationError, match="`inputs` cannot be empty"):
        client.text_generation("")


def test_what_is_not_known_is_ignored(server):
    assert generate(server, nonsense=1).status_code == 200


def test_truncating_keeps_the_end(server):
    generate(server, truncate=4)
    whole = server.engine.asked
    generate(server)
    short, long = (asked.prompt for asked in whole)
    assert short.ids == long.ids[-4:]
    assert short.leading_space == long.leading_space


def test_the_prompts_tokens(server):
    prefill = generate(server, decoder_input_details=True, details=True).json()["details"]["prefill"]
    assert [token["id"] for token in prefill] == list(server.engine.asked[-1].prompt.ids)
    assert all(token["logprob"] is None for token in prefill)
    refused = generate(server, "/generate_stream", decoder_input_details=True)
    assert refused.status_code == 422
    parts = server.post("/tokenize", {"inputs": "[INST] Hola[/INST]"}).json()
    assert [part["text"] for part in parts] == ["<s>", "[INST]", " Hol", "a", "[/INST]"]
    assert [part["start"] for part in parts[1:]] == [part["stop"] for part in parts[:-1]]


def test_errors_have_their_class(lent):
    server = lent(Scripted([Overloaded("full", retry_after=2)], [EngineDied("it died")], ["Ha", EngineDied("it died")]))
    client = InferenceClient(base_url=server.url, token="-")
    with pytest.raises(OverloadedError):
        client.text_generation(PROMPT)
    with pytest.raises(GenerationError, match="it died"):
        client.text_generation(PROMPT)
    streamed = generate(server, "/generate_stream")
    assert streamed.status_code == 200
    first, last = map(json.loads, data_of(streamed.text))
    assert first["token"]["text"] == "Ha"
    assert last == {"error": "Request failed during generation: it died", "error_type": "generation"}


def test_text_that_forges_a_stream_stays_text(lent):
    forged = ["a\n\ndata: {}\n\n", "\r\ndata: [DONE]\r\n\r\n", "\u2028data: x\u2029\x85\x0b\x0c\x1c", ": ping\n\n"]
    server = lent(Scripted(forged))
    client = InferenceClient(base_url=server.url, token="-")
    assert client.text_generation(PROMPT) == "".join(forged)
    assert list(client.text_generation(PROMPT, stream=True))[: len(forged)] == forged
    stream = client.chat_completion([{"role": "user", "content": "Hola"}], stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "".join(forged)
