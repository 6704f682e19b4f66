"""The door of the page: who may ask for what, and what every answer carries."""

from __future__ import annotations

from itertools import product

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from cierzo.page.gate import HEADERS, MOST_BODY, OPEN, Gate


async def behind(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands in for Gradio: reads everything, then says how much."""
    body = await Request(scope, receive).body()
    await PlainTextResponse(f"{len(body)}")(scope, receive, send)


def client(host: str = "127.0.0.1", address: str = "http://127.0.0.1:7860") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(Gate(behind, host)), base_url=address)


FOREIGN = (
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "127.0.0.1@evil.example",
    "",
    "[",
    "2130706433",
)
OURS = ("127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860", "cierzo.localhost")
NEEDED = (
    ("GET", "/"),
    ("GET", "/config"),
    ("GET", "/theme.css"),
    ("GET", "/assets/index.js"),
    ("GET", "/gradio_api/heartbeat/abc"),
    ("GET", "/gradio_api/queue/data"),
    ("POST", "/gradio_api/queue/join"),
    ("POST", "/gradio_api/run/predict"),
    ("POST", "/gradio_api/cancel"),
)
SHUT = (
    ("POST", "/"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/gradio_api/openapi.json"),
    ("GET", "/monitoring"),
    ("GET", "/gradio_api/runs"),
    ("GET", "/gradio_api/run-history/records"),
    ("POST", "/gradio_api/upload"),
    ("GET", "/gradio_api/file=/etc/passwd"),
    ("GET", "/gradio_api/file/etc/passwd"),
    ("GET", "/gradio_api/proxy=http://evil.example"),
    ("GET", "/gradio_api/deep_link"),
    ("POST", "/gradio_api/component_server"),
    ("POST", "/gradio_api/call/chat"),
    ("GET", "/gradio_api/call/chat/1"),
    ("POST", "/gradio_api/run/chat"),
    ("POST", "/gradio_api/api/predict"),
    ("POST", "/gradio_api/vibe-edit"),
    ("POST", "/gradio_api/process_recording"),
    ("GET", "/gradio_api/heartbeat/a/../../upload"),
    ("POST", "/login"),
    ("DELETE", "/gradio_api/queue/join"),
    ("GET", "//evil.example"),
    ("TRACE", "/"),
)


async def test_only_our_own_names_lead_here() -> None:
    async with client() as web:
        for host in OURS:
            assert (await web.get("/", headers={"host": host})).status_code == 200, host
        for host in FOREIGN:
            assert (await web.get("/", headers={"host": host})).status_code == 400, host
    print(f"\n{len(OURS)} names of ours, {len(FOREIGN)} others")


async def test_other_sites_get_nothing() -> None:
    origins = ("http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost.evil.example", "file://", "")
    cases = list(product(origins, NEEDED))
    async with client() as web:
        for origin, (method, path) in cases:
            answer = await web.request(method, path, headers={"origin": origin})
            assert answer.status_code == 403, (origin, method, path)
            assert "access-control-allow-origin" not in answer.headers
        same = await web.post("/gradio_api/queue/join", headers={"origin": "http://127.0.0.1:7860"})
        assert same.status_code == 200
    print(f"\n{len(cases)} requests of other sites")


async def test_what_the_page_does_not_need_is_shut() -> None:
    async with client() as web:
        for method, path in NEEDED:
            assert (await web.request(method, path)).status_code == 200, path
    refused = [f"{method} {path}" for method, path in SHUT if OPEN.fullmatch(f"{method} {path}")]
    assert refused == []
    async with client() as web:
        for method, path in SHUT:
            answer = await web.request(method, httpx.URL("http://127.0.0.1:7860", raw_path=path.encode()))
            assert answer.status_code == 404, path
    print(f"\n{len(SHUT)} shut, {len(NEEDED)} open")


@pytest.mark.parametrize("path", ["/", "/gradio_api/upload"])
async def test_every_answer_carries_the_policy(path: str) -> None:
    async with client() as web:
        answer = await web.get(path)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "unsafe-eval" not in answer.headers["content-security-policy"]


async def test_a_body_has_a_limit_whether_it_says_its_length_or_not() -> None:
    read = 0

    async def endless(size: int) -> object:
        nonlocal read
        while read < size:
            read += 65_536
            yield b"x" * 65_536

    async with client() as web:
        fits = await web.post("/gradio_api/queue/join", content=b"x" * MOST_BODY)
        assert (fits.status_code, fits.text) == (200, f"{MOST_BODY}")
        over = await web.post("/gradio_api/queue/join", content=b"x" * (MOST_BODY + 1))
        assert over.status_code == 413
        assert f"{MOST_BODY:,}" in over.text
        untold = await web.post("/gradio_api/queue/join", content=endless(10 * MOST_BODY))
        assert untold.status_code == 413
        assert read <= MOST_BODY + 2 * 65_536
        for length in ("-1", "1e3", "x", "99999999999999999999"):
            said = await web.post("/gradio_api/queue/join", headers={"content-length": length})
            assert said.status_code == 413, length


async def test_beyond_loopback_addresses_and_this_machines_names_are_known() -> None:
    async with client("0.0.0.0") as web:
        assert (await web.get("/", headers={"host": "192.168.1.20:7860"})).status_code == 200
        assert (await web.get("/", headers={"host": "evil.example"})).status_code == 400
    async with client("chat.lan") as web:
        assert (await web.get("/", headers={"host": "chat.lan:7860"})).status_code == 200
        assert (await web.get("/", headers={"host": "other.lan"})).status_code == 400
