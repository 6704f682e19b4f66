"""A JSON schema through every route, kept to by the demo model, and refused where it cannot be."""

from __future__ import annotations

import json

import jsonschema
import openai
import pytest
from following import Follower, begin
from huggingface_hub import InferenceClient
from serving import asking

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def fits(text, schema=SCHEMA):
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))


def test_openai(demo):
    with openai.OpenAI(base_url=f"{demo.url}/v1", api_key="-", max_retries=0) as client:
        wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
        ask = {"model": "any", "messages": [{"role": "user", "content": "¿Quién eres?"}], "max_tokens": 60, "seed": 1}
        said = client.chat.completions.create(**ask, response_format=wanted, logprobs=True, top_logprobs=2)
        assert said.choices[0].finish_reason == "stop"
        fits(said.choices[0].message.content)
        assert "".join(token.token for token in said.choices[0].logprobs.content) == said.choices[0].message.content
        pieces = client.chat.completions.create(**ask, response_format=wanted, stream=True)
        fits("".join(chunk.choices[0].delta.content or "" for chunk in pieces if chunk.choices))
        said = client.chat.completions.create(**ask, response_format={"type": "json_object"})
        assert said.choices[0].message.content.startswith("{")
        said = client.chat.completions.create(**ask, response_format={"type": "text"})
        assert not said.choices[0].message.content.startswith("{")


def test_tgi(demo):
    client = InferenceClient(base_url=demo.url, token="-")
    for grammar in (
        {"type": "json", "value": SCHEMA},
        {"type": "json_object", "value": json.dumps(SCHEMA)},
        {"type": "json_schema", "value": {"name": "person", "schema": SCHEMA}},
    ):
        fits(client.text_generation("<s>[INST] ¿Quién eres? [/INST]", grammar=grammar, max_new_tokens=60))


def test_our_own_and_what_is_kept_of_it(demo):
    sampling = {"json_schema": SCHEMA, "max_new_tokens": 60, "seed": 2}
    demo.post("/api/conversations", {"id": "kept-to-schema"})
    _, reply = begin(demo, "¿Quién eres?", "kept-to-schema", sampling=sampling)
    client = Follower().follow(demo.url, reply)
    fits(client.text)
    kept = demo.get(f"/api/replies/{reply}").json()["message"]["answer"]["sampling"]["json_schema"]
    assert json.loads(kept) == SCHEMA
    unstored = demo.post("/api/tokens", {"messages": [{"role": "user", "text": "¿Quién eres?"}], "sampling": sampling})
    assert unstored.json()["text"] == client.text
    refused = demo.post(f"/api/replies/{reply}/continue", {"sampling": sampling})
    assert refused.status_code == 400, "a schema holds for a whole answer"
    assert "json_schema" in demo.get("/api/engine").json()["honours"]
    exported = demo.get("/api/conversations/kept-to-schema/export").text
    assert kept.replace('"', '\\"') in exported
    back = demo.post("/api/import", json.loads(exported))
    assert back.status_code in (200, 201), back.text


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        (
            "/v1/chat/completions",
            asking(response_format={"type": "json_object"}),
            400,
            "cannot be kept to by the engine",
        ),
        (
            "/v1/chat/completions",
            asking(response_format={"type": "json_schema", "json_schema": {"schema": {"not": {}}}}),
            400,
            "json_schema at /not",
        ),
        ("/v1/chat/completions", asking(response_format={"type": "json_schema"}), 400, "json_schema is missing"),
        (
            "/v1/chat/completions",
            asking(response_format={"type": "json_schema", "json_schema": {"schema": {"$ref": "http://x/y"}}}),
            400,
            "a $ref must be",
        ),
        ("/generate", {"inputs": "Hi", "parameters": {"grammar": {"type": "json", "value": "{"}}}, 422, "is not JSON"),
        ("/generate", {"inputs": "Hi", "parameters": {"grammar": {"type": "regex", "value": "a"}}}, 422, "regex"),
        ("/generate", {"inputs": "Hi", "parameters": {"grammar": {"type": "json", "value": {}}}}, 422, "by the engine"),
        ("/api/tokens", {"messages": [{"role": "user", "text": "Hi"}], "sampling": {"json_schema": {}}}, 400, "by the"),
        (
            "/api/tokens",
            {"messages": [{"role": "user", "text": "Hi"}], "sampling": {"json_schema": {"minItems": 10**9}}},
            400,
            "json_schema at /minItems",
        ),
    ],
)
def test_what_cannot_be_kept_to_is_refused_and_never_left_out(echo, path, body, status, words):
    refused = echo.post(path, body)
    assert refused.status_code == status, refused.text
    assert words in refused.text
