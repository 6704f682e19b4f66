"""What no decent client sends: never a 500, never a crash, never somebody else's page."""

from __future__ import annotations

import json
import socket

import httpx
import pytest
from serving import JSON, asking

from cierzo.api.gate import MOST_BODY

POSTS = ("/", "/generate", "/generate_stream", "/tokenize", "/v1/chat/completions", "/v1/completions")
ODD_NUMBERS = (
    "-1",
    "0",
    "2147483648",
    "9223372036854775808",
    "1e308",
    "1e999",
    "NaN",
    "-Infinity",
    '"1"',
    "[]",
    "{}",
    "true",
    "null",
)
FIELDS = {
    "/generate": (
        "temperature top_p top_k repetition_penalty max_new_tokens seed truncate top_n_tokens best_of typical_p stop"
    ),
    "/v1/chat/completions": (
        "temperature top_p top_k min_p repetition_penalty max_tokens max_completion_tokens seed n top_logprobs "
        "logprobs stop logit_bias stream_options messages model frequency_penalty nonsense"
    ),
    "/v1/completions": "temperature max_tokens seed logprobs best_of prompt echo suffix stop",
}


@pytest.fixture(scope="module")
def client(echo):
    with httpx.Client(base_url=echo.url, timeout=30) as made:
        yield made


def well(answer):
    """An answer in order: no 500, and an error is said in the family's own words."""
    assert answer.status_code < 500, (answer.status_code, answer.text[:200])
    if answer.status_code >= 400:
        error = answer.json()["error"]
        if answer.request.url.path.startswith("/v1"):
            assert set(error) == {"message", "type", "param", "code"}
            assert error["message"]
        else:
            assert isinstance(error, str)
            assert answer.json()["error_type"]
    return answer


def bodies():
    deep = "[" * 100_000
    yield from (b"", b"{", b"null", b"[]", b'"x"', b"1", b"\xff\xfe", b"\x00", deep.encode(), b'{"a":' * 5000)
    yield b'{"inputs":"\\ud800","prompt":"\\ud800","messages":[{"role":"user","content":"\\udfff"}]}'
    yield b'{"inputs":"a\\u0000b","prompt":"a\\u0000b","max_tokens":1,"messages":[{"role":"user","content":"\\u0000"}]}'
    yield json.dumps({"inputs": "", "prompt": "", "messages": []}).encode()
    yield json.dumps({"inputs": "palabra " * 200_000}).encode()
    yield json.dumps({"prompt": "palabra " * 200_000}).encode()
    yield json.dumps(asking("palabra " * 200_000)).encode()
    yield json.dumps({"prompt": list(range(100_000))}).encode()
    yield json.dumps({"prompt": [10**6]}).encode()
    yield json.dumps({"prompt": [[1], [2]]}).encode()
    yield json.dumps({"inputs": "a" * 400_000}).encode()
    yield json.dumps({"inputs": " " * 400_000}).encode()
    yield json.dumps({"messages": [{"role": "user", "content": "x"}] * 20_000}).encode()
    yield json.dumps({"messages": [{"role": "assistant", "content": "x"}]}).encode()
    yield json.dumps({"messages": [{"role": "tool", "content": "x"}]}).encode()
    yield b'{"inputs":"a","inputs":"b"}'


def test_bodies_that_are_wrong(client):
    count = 0
    for body in bodies():
        for path in POSTS:
            well(client.post(path, content=body, headers=JSON))
            count += 1
    print(f"\n{count} wrong bodies, no 500")


def test_numbers_that_are_wrong(client):
    count = 0
    for path, names in FIELDS.items():
        start = {"/generate": '{"inputs":"Hi","parameters":{"max_new_tokens":4', "/v1/completions": '{"prompt":"Hi"'}
        opening = start.get(path, '{"messages":[{"role":"user","content":"Hi"}],"max_tokens":4')
        for name in names.split():
            for value in ODD_NUMBERS:
                closing = "}}" if path == "/generate" else "}"
                well(client.post(path, content=f'{opening},"{name}":{value}{closing}', headers=JSON))
                count += 1
    print(f"\n{count} wrong values, no 500")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {},
        {**JSON, "Origin": "http://evil.example"},
        {**JSON, "Origin": "null"},
        {**JSON, "Sec-Fetch-Site": "cross-site"},
        {**JSON, "Content-Encoding": "gzip"},
    ],
)
def test_a_page_of_another_site_gets_nothing(client, headers):
    for path in POSTS:
        answer = well(
            client.post(path, content=json.dumps({"inputs": "x", "prompt": "x", **asking()}), headers=headers)
        )
        assert answer.status_code in (403, 400, 415, 422)
        assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1/?x=", "a@127.0.0.1", "", "[::"])
def test_a_foreign_host_gets_nothing(client, host):
    for path in ("/health", "/openapi.json", "/v1/models"):
        assert client.get(path, headers={"Host": host}).status_code == 400


def test_our_own_names_are_known(client):
    for host in ("localhost", "127.0.0.1:1", "[::1]:80", "x.localhost"):
        assert client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "path", ["//v1/models", "/v1/../v1/models", "/V1/models", "/v1/models/", "/%2e%2e/x", "/nothing"]
)
def test_paths_that_are_not_ours(echo, path):
    place = echo.socket.getsockname()
    with socket.create_connection(place) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 404")


def test_methods_that_are_not_ours(client):
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert well(client.request(method, "/v1/completions")).status_code == 405
    assert well(client.request("OPTIONS", "/generate", headers={"Origin": str(client.base_url)})).status_code in (
        403,
        405,
    )


def test_bodies_without_end(client, echo):
    assert well(client.post("/generate", content=b"x" * (MOST_BODY + 1), headers=JSON)).status_code == 413
    chunked = (b"x" * 100_000 for _ in range(30))
    assert well(client.post("/v1/completions", content=chunked, headers=JSON)).status_code == 413
    for length in ("-5", "1e3", "99999999999999999999"):
        with socket.create_connection(echo.socket.getsockname()) as connection:
            head = f"POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n"
            connection.sendall(head.encode())
            assert connection.recv(100).startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))


def test_what_somebody_wrote_is_neither_repeated_nor_logged(client, caplog):
    with caplog.at_level("DEBUG", logger="cierzo"):
        for body in (
            {"inputs": "s3cret"},
            {"inputs": ["s3cret"]},
            {"s3cret": 1},
            asking("s3cret", temperature="s3cret"),
        ):
            for path in POSTS:
                answer = client.post(path, json=body)
                if answer.status_code >= 400 and "s3cret" not in body:
                    assert "s3cret" not in answer.text
    lines = [str(vars(record)) for record in caplog.records if record.name.startswith("cierzo")]
    assert lines
    assert not any("s3cret" in line for line in lines)


def test_every_answer_carries_its_headers(client):
    for path in ("/health", "/nothing", "/v1/models", "/metrics", "/openapi.json"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Request-ID"].startswith("req_")
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "server" not in headers


def test_forged_numbers_do_not_reach_the_metrics(client, echo):
    for place in range(50):
        client.get(f"/v1/{place}")
    text = client.get("/metrics").text
    assert 'route="/v1/7"' not in text
    assert 'route="other"' in text
