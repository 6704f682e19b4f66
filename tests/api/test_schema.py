"""``/openapi.json`` is true: requests made from it never give a 500, and what comes back is what it says.

``CIERZO_EXAMPLES`` sets the examples a route (short by default).
"""

from __future__ import annotations

import json
import os
import re

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving import Live

from cierzo.engines.script import Reply
from cierzo.engines.scripted import Scripted

EXAMPLES = int(os.environ.get("CIERZO_EXAMPLES", "12"))
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


@pytest.fixture(scope="module")
def schema():
    server = Live(Scripted(Reply.of(["Hola", "."])))
    yield schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    server.close()


def test_the_routes_are_all_there(schema):
    paths = schema.raw_schema["paths"]
    assert set(paths) == {
        *("/", "/generate", "/generate_stream", "/tokenize", "/info", "/health", "/ready", "/metrics"),
        *("/v1/models", "/v1/models/{model}", "/v1/chat/completions", "/v1/completions"),
    }
    for path, methods in paths.items():
        for method, described in methods.items():
            assert described["summary"], (path, method)
            assert "200" in described["responses"]
            if method == "post":
                assert {"400", "422", "429", "413"} <= set(described["responses"]), path
    streamed = paths["/v1/chat/completions"]["post"]["responses"]["200"]["content"]
    assert set(streamed) == {"application/json", "text/event-stream"}
    data = streamed["text/event-stream"]["schema"]["properties"]["data"]
    assert {"const": "[DONE]"} in data["anyOf"]
    components = schema.raw_schema["components"]["schemas"]
    names = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(schema.raw_schema)))
    assert names <= set(components)
    assert {"ChatChunk", "CompletionAnswer", "StreamEvent"} <= set(components)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
def test_requests_made_from_the_schema(schema, mode):
    tried = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and operation.method == "get":
            continue  # nothing of theirs could be wrong
        tried[operation.label] = _try(operation, mode)
    print(f"\n{mode.value}: {sum(tried.values())} requests on {len(tried)} routes, no 500, every answer as described")


def _try(operation, mode):
    count = 0

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case):
        nonlocal count
        count += 1
        case.call_and_validate(checks=CHECKS)

    one()
    return count
