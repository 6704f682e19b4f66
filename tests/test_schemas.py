"""JSON schemas: which are taken, which are refused and in which words, and how long that takes."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import orjson
import pytest

from cierzo.errors import BadInput, BadSampling
from cierzo.messages import Sampling, content
from cierzo.schemas import MAX_BYTES, MAX_DEPTH, canonical, for_llama
from cierzo.store.rows import _sampling_of, written
from cierzo.transfer.form import _sampling


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def doubling(count: int) -> dict[str, Any]:
    """Definitions each of which names the one before twice: 2**count ways in a few hundred bytes."""
    places: dict[str, Any] = {"d0": {"type": "string"}}
    for n in range(count):
        places[f"d{n + 1}"] = {"anyOf": [{"$ref": f"#/$defs/d{n}"}, {"$ref": f"#/$defs/d{n}"}]}
    return {"$defs": places, "$ref": f"#/$defs/d{count}"}


HOSTILE: dict[str, tuple[Any, str]] = {
    "deep": (nested(40), f"over {MAX_DEPTH} times"),
    "very deep text": ('{"items":' * 5000 + "true" + "}" * 5000, "is not JSON"),
    "huge enum": ({"enum": [f"word {n}" for n in range(20_000)]}, "bytes, at most"),
    "many parts": ({"enum": list(range(9000))}, "parts"),
    "long": (f'{{"title": "{"x" * MAX_BYTES}"}}', "bytes, at most"),
    "itself": ({"$ref": "#"}, "back to itself"),
    "circle": ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}}, "back to itself"),
    "remote": ({"$ref": "http://169.254.169.254/latest"}, "a $ref must be"),
    "file": ({"$ref": "file:///etc/passwd#/a"}, "a $ref must be"),
    "nowhere": ({"$ref": "#/$defs/none"}, "a $ref must be"),
    "other id": ({"$id": "http://example.com/s", "type": "object"}, "at /$id"),
    "dynamic": ({"$dynamicRef": "#x"}, "at /$dynamicRef"),
    "doubling": (doubling(40), "ways"),
    "all of any": ({"allOf": [{"anyOf": [{"minLength": n} for n in range(9)]} for _ in range(9)]}, "ways"),
    "endless list": ({"type": "array", "minItems": 100_000, "maxItems": 10**9}, "at /minItems"),
    "lists of lists": ({"prefixItems": [{"maxItems": 1000}] * 5}, "together are over"),
    "long text": ({"type": "string", "maxLength": 10**9}, "at /maxLength"),
    "repeats": ({"pattern": "^(a{1000}){1000}$"}, "at /pattern"),
    "hidden repeats": ({"pattern": "^a{1,99999}$"}, "at /pattern"),
    "long pattern": ({"pattern": "(a|a)*" * 60}, "at /pattern"),
    "patterns at once": ({"allOf": [{"pattern": f"x{n}"} for n in range(9)]}, "hold at once"),
    "many patterns": ({"anyOf": [{"items": {"pattern": "^(a+)+$"}}] * 65}, "over 64 patterns"),
    "not": ({"not": {"type": "string"}}, "at /not: no engine here"),
    "if": ({"if": True, "then": False}, "at /if"),
    "unique": ({"items": {"uniqueItems": True}}, "at /items/uniqueItems"),
    "guidance": ({"grammar": "start: /a/"}, "at /grammar"),
    "no type": ({"type": "banana"}, "at /type"),
    "no types": ({"type": []}, "at /type"),
    "list": ([], "must be a JSON text or an object"),
    "list text": ("[]", "must be an object"),
    "true": ("true", "must be an object"),
    "number": (7, "must be a JSON text or an object"),
    "not JSON": ("{type: object}", "is not JSON"),
    "NaN": ('{"minimum": NaN}', "is not JSON"),
    "NaN value": ({"minimum": float("nan")}, "at /minimum"),
    "huge number": ({"minimum": 1e300}, "at /minimum"),
    "huge integer": ('{"const": 1' + "0" * 400 + "}", "is not JSON|/const"),
    "true count": ({"minItems": True}, "at /minItems"),
    "half a character": ('{"const": "\\ud800"}', "is not JSON"),
    "half a character in an object": ({"const": "\ud800"}, "is not JSON"),
    "property": ({"properties": {"a": 3}}, "at /properties/a"),
    "properties": ({"properties": []}, "at /properties"),
    "definition": ({"$defs": {"a": {"minLength": -1}}}, r"at /\$defs/a/minLength"),
    "required": ({"required": [1]}, "at /required"),
    "own object": ({"const": object()}, "is not JSON"),
}


def test_a_hostile_schema_is_refused_in_one_sentence_and_at_once() -> None:
    for name, (schema, words) in HOSTILE.items():
        began = time.perf_counter()
        with pytest.raises(BadSampling, match=words if "|" in words or "\\" in words else None) as refused:
            Sampling(json_schema=schema)
        assert time.perf_counter() - began < 1, name
        sentence = str(refused.value)
        assert words in sentence or "|" in words or "\\" in words, (name, sentence)
        assert sentence.startswith("json_schema "), name
        assert len(sentence) < 500, name
        assert "\n" not in sentence, name
    print(f"{len(HOSTILE)} hostile schemas refused")
    assert len(HOSTILE) >= 15


def test_a_schema_may_lead_back_to_itself_through_an_object_or_a_list() -> None:
    tree = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}}
    assert orjson.loads(canonical(tree)) == tree
    assert canonical({"$defs": {"a/b~c": {"items": {"$ref": "#/$defs/a~1b~0c"}}}, "$ref": "#/$defs/a~1b~0c"})
    assert canonical(doubling(8))


def test_text_and_object_are_one_schema_and_keys_keep_their_order() -> None:
    said = '{ "properties": {"b": {"type": "integer"}, "a": true},\n "type": "object" }'
    kept = '{"properties":{"b":{"type":"integer"},"a":true},"type":"object"}'
    assert canonical(said) == canonical(said.encode()) == canonical(orjson.loads(said)) == kept
    sampling = Sampling(json_schema=kept)
    assert sampling == Sampling.of({"json_schema": orjson.loads(said)}) == replace(sampling)
    assert hash(sampling) == hash(replace(sampling))
    assert sampling != Sampling()
    assert content(sampling)["json_schema"] == kept


def test_notes_for_people_do_not_reach_the_engine() -> None:
    schema = canonical(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "T",
            "x-order": 1,
            "properties": {
                "title": {"type": "string", "description": "d"},
                "x-y": {"default": 1, "const": {"title": 2}},
            },
            "anyOf": [{"examples": [1]}],
        }
    )
    made = dict(for_llama(schema))
    assert made.pop("x-guidance")["whitespace_flexible"] is False
    assert made == {
        "properties": {"title": {"type": "string"}, "x-y": {"const": {"title": 2}}},
        "anyOf": [{}],
    }


def test_what_was_kept_and_written_before_there_were_schemas_is_read() -> None:
    old = {name: value for name, value in content(Sampling(seed=7)).items() if name != "json_schema"}
    assert _sampling_of(orjson.dumps(old).decode()) == Sampling(seed=7)
    assert _sampling({**old, "stop": []}, "answer.sampling") == Sampling(seed=7)
    kept = Sampling(json_schema='{"type": "object"}')
    assert _sampling_of(written(kept)) == kept
    with pytest.raises(BadInput, match=r"the file is broken at answer\.sampling \(json_schema at /not"):
        _sampling({**old, "stop": [], "json_schema": '{"not": {}}'}, "answer.sampling")
