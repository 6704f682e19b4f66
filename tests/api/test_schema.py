"""``/openapi.json`` is true: requests made from it never give a 500, and what comes back is what it says.

``CIERZO_EXAMPLES`` sets the examples a route (short by default).
"""

from __future__ import annotations

import json
import os
import re

import pytest
import schemathesis
from following import Follower, begin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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


OURS = {
    "/api/conversations": ("post", "get"),
    "/api/conversations/{conversation}": ("get", "patch", "delete"),
    "/api/conversations/{conversation}/state": ("get",),
    "/api/conversations/{conversation}/restore": ("post",),
    "/api/conversations/{conversation}/messages": ("post",),
    "/api/conversations/{conversation}/export": ("get",),
    "/api/conversations/{conversation}/branch": ("get",),
    "/api/messages/{message}/again": ("post",),
    "/api/messages/{message}/fork": ("post",),
    "/api/replies/{reply}": ("get",),
    "/api/replies/{reply}/events": ("get",),
    "/api/replies/{reply}/html": ("get",),
    "/api/replies/{reply}/stop": ("post",),
    "/api/replies/{reply}/continue": ("post",),
    "/api/engine": ("get", "put"),
    "/api/models": ("get",),
    "/api/models/{model}": ("delete",),
    "/api/downloads": ("get", "post"),
    "/api/downloads/{download}": ("get", "delete"),
    "/api/search": ("get",),
    "/api/export": ("get",),
    "/api/import": ("post",),
    "/api/prompt": ("post",),
    "/api/tokens": ("post",),
}


@pytest.fixture(scope="module")
def server():
    server = Live(Scripted(Reply.of(["Hola", "."])))
    yield server
    server.close()


@pytest.fixture(scope="module")
def schema(server):
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def test_the_routes_are_all_there(schema):
    paths = schema.raw_schema["paths"]
    assert set(paths) == {
        *("/", "/generate", "/generate_stream", "/tokenize", "/info", "/health", "/ready", "/metrics"),
        *("/v1/models", "/v1/models/{model}", "/v1/chat/completions", "/v1/completions"),
        *OURS,
    }
    assert {path: tuple(paths[path]) for path in OURS} == OURS
    for path, methods in paths.items():
        for method, described in methods.items():
            assert described["summary"], (path, method)
            assert {"200", "201"} & set(described["responses"])
            if method == "post":
                assert {"400", "422", "429", "413"} <= set(described["responses"]), path
    streamed = paths["/v1/chat/completions"]["post"]["responses"]["200"]["content"]
    assert set(streamed) == {"application/json", "text/event-stream"}
    data = streamed["text/event-stream"]["schema"]["properties"]["data"]
    assert {"const": "[DONE]"} in data["anyOf"]
    components = schema.raw_schema["components"]["schemas"]
    names = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(schema.raw_schema)))
    assert names <= set(components)
    assert {"ChatChunk", "CompletionAnswer", "StreamEvent", "PhaseEvent", "HtmlEvent", "EndEvent"} <= set(components)
    followed = paths["/api/replies/{reply}/events"]["get"]["responses"]
    assert set(followed["200"]["content"]) == {"text/event-stream"}
    assert {"404", "503"} <= set(followed)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
def test_requests_made_from_the_schema(server, schema, mode):
    tried = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and (operation.method == "get" or not list(operation.body)):
            continue  # nothing of theirs could be wrong
        tried[operation.label] = _try(operation, mode, _some(server) if "/api/" in operation.path else {})
    print(f"\n{mode.value}: {sum(tried.values())} requests on {len(tried)} routes, no 500, every answer as described")


def _some(server):
    """Things that there are, to put into the places of made-up ids."""
    conversation, reply = begin(server)
    Follower().follow(server.url, reply)
    return {"conversation": conversation, "message": reply, "reply": reply}


def _try(operation, mode, there):
    count = 0

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode), real=st.booleans())
    def one(case, real):
        nonlocal count
        count += 1
        for name in case.path_parameters if real else ():
            case.path_parameters[name] = there.get(name, case.path_parameters[name])
        case.call_and_validate(checks=CHECKS)

    one()
    return count
