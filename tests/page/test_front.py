"""What the page is made of: what is given to whom, with which headers, and everything that is not there."""

from __future__ import annotations

import gzip
import re
import socket
from base64 import b64encode
from hashlib import sha256
from itertools import product
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.responses import PlainTextResponse

from cierzo.page import Front
from cierzo.page.drawn import Drawn
from cierzo.page.front import FOR_EVER, HEADERS

POLICY = {
    "default-src": "'self'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "media-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "connect-src": "'self'",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}
"""The whole policy but its scripts; what may be looser than this is a decision, and stands in docs/decisions.md."""

FOREIGN = (
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "127.0.0.1@evil.example",
    "127.0.0.1/?x=",
    "",
    "[",
    "2130706433",
)
OURS = ("127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860", "cierzo.localhost")
ORIGINS = ("http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost.evil.example", "file://")

GRADIOS = (
    "queue/join",
    "queue/data",
    "queue/data?session_hash=1",
    "queue/status",
    "upload",
    "upload_progress",
    "file=/etc/passwd",
    "file/etc/passwd",
    "file=C:/Windows/win.ini",
    "file=http://evil.example",
    "proxy=http://evil.example",
    "proxy=https://x.hf.space/",
    "run/predict",
    "run/chat",
    "api/predict",
    "api/chat",
    "call/chat",
    "call/chat/1",
    "call/v2/chat",
    "component_server",
    "component_server/",
    "stream/a/b/c/playlist.m3u8",
    "stream/a/b/c/playlist-file",
    "heartbeat/1",
    "cancel",
    "reset",
    "config",
    "startup-events",
    "openapi.json",
    "runs",
    "run-history/records",
    "deep_link",
    "vibe-edit",
    "vibe-code",
    "process_recording",
    "dev/reload",
    "app_id",
    "token",
    "user",
    "mcp",
    "mcp/",
    "mcp/sse",
    "mcp/schema",
    "heartbeat/a/../../upload",
    "custom_component/x/client/component/index.js",
    "monitoring",
    "monitoring/summary",
    "logout",
    "theme.css",
    "static/img/logo.svg",
)
"""Every way into Gradio's server that was ever there, below each of the places where it had them."""

ELSEWHERE = (
    "/config",
    "/config/",
    "/login",
    "/login/",
    "/login/huggingface",
    "/login/callback",
    "/logout",
    "/monitoring",
    "/monitoring/k",
    "/mcp",
    "/queue/join",
    "/queue/data",
    "/upload",
    "/file=/etc/passwd",
    "/file/etc/passwd",
    "/proxy=http://evil.example",
    "/run/predict",
    "/call/chat",
    "/component_server",
    "/heartbeat/1",
    "/user",
    "/token",
    "/app_id",
    "/dev/reload",
    "/static/img/logo.svg",
    "/svelte/svelte.js",
    "/custom_component/x/y/z",
    "/robots.txt.bak",
    "/docs",
    "/redoc",
    "/gradio_api",
    "/gradio_api/",
    "/gradio_api/info/",
    "/_app/immutable/entry/start.js",
    "/service-worker.js",
    "/pwa_icon",
    "/index.html",
)

OUT = (
    "/cierzo/../front.py",
    "/cierzo/..%2ffront.py",
    "/cierzo/%2e%2e/front.py",
    "/cierzo/%2e%2e%2ffront.py",
    "/cierzo/..%5cfront.py",
    "/cierzo/..\\front.py",
    "/cierzo//etc/passwd",
    "/cierzo/%2fetc%2fpasswd",
    "/cierzo/index.html",
    "/cierzo/words/en.json",
    "/cierzo/main.js/",
    "/cierzo/main.js%00",
    "/cierzo/main.js%00.png",
    "/cierzo/main.js%0a",
    "/cierzo/main.js%0d%0aX-Evil:1",
    "/cierzo/MAIN.JS",
    "/cierzo/.js",
    "/cierzo/",
    "/cierzo",
    "/cierzo/%c0%ae%c0%ae/front.py",
    "/cierzo/main.py",
    "/assets/../index.html",
    "/assets/../../../__init__.py",
    "/assets/..%2f..%2f..%2f__init__.py",
    "/assets/%2e%2e/%2e%2e/%2e%2e/__init__.py",
    "/assets/....//....//__init__.py",
    "/assets/..;/__init__.py",
    "/assets/..js",
    "/assets/...css",
    "/assets/%2e%2e.js",
    "/assets/",
    "/assets",
    "/assets//etc/passwd.js",
    "/assets/C:%5cWindows%5cwin.js",
    "/assets/nul.js",
    "/assets/" + "a" * 4000 + ".js",
    "/static/../../../etc/passwd",
    "/../../../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "//evil.example",
    "//etc/passwd",
    "/theme.css/",
    "/manifest.webmanifest/../front.py",
)


def linked(page: Drawn) -> list[str]:
    """What a browser fetches because it stands in the page."""
    return re.findall(r'(?:src|href)="([^"]+\.\w+)"', page.html)


def test_everything_that_the_page_names_is_there(web: httpx.Client, page_drawn: Drawn) -> None:
    names = linked(page_drawn)
    assert {name.rsplit(".", 1)[1] for name in names} >= {"js", "css", "svg", "webmanifest"}
    icons = web.get("/manifest.webmanifest").json()["icons"]
    names += [icon["src"] for icon in icons]
    scripts = [name for name in names if name.startswith("cierzo/") and name.endswith(".js")]
    for script in scripts:  # what a module of ours imports lies beside it; it grows meanwhile
        text = web.get(f"/{script}").text
        found = [f"cierzo/{name}" for name in re.findall(r'from "\./([^"]+)"', text)]
        scripts += [name for name in found if name not in scripts]
    names += scripts
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".png": "image/png"}
    for name in ["", "theme.css", "favicon.ico", *names]:
        answer = web.get(f"/{name.lstrip('./')}")
        assert answer.status_code == 200, name
        assert answer.content, name
        ending = re.search(r"\.\w+$", name)
        if ending and ending[0] in kinds:
            assert answer.headers["content-type"].startswith(kinds[ending[0]]), name
    print(f"\n{len(set(names)) + 3} parts of the page, all there")


def test_a_script_is_one_whose_hash_stands_in_the_policy(web: httpx.Client) -> None:
    """Change one character of a script in the page, and the browser would not run it."""
    answer = web.get("/")
    policy = policy_of(answer)
    scripts = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    hashes = [f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in scripts]
    assert len(hashes) == 2
    assert policy.pop("script-src").split() == ["'self'", *hashes]
    assert policy == POLICY
    tags = re.findall(r"<script[^>]*>", answer.text)
    assert len(tags) == len(scripts) + 2
    assert not re.search(r"<[^>]+\son\w+\s*=", re.sub(r"<(script|style)>.*?</\1>", "", answer.text, flags=re.DOTALL))


def policy_of(answer: httpx.Response) -> dict[str, str]:
    parts = [part.strip().partition(" ") for part in answer.headers["content-security-policy"].split(";")]
    assert len({name for name, _, _ in parts}) == len(parts), "a directive stands there twice"
    return {name: value for name, _, value in parts}


def test_every_answer_carries_a_policy_and_cannot_be_framed(web: httpx.Client) -> None:
    ours = ("/", "/theme.css", "/cierzo/main.js", "/cierzo/none.js", "/gradio_api/info", "/manifest.webmanifest")
    theirs = ("/health", "/v1/models", "/api/conversations", "/nothing", "/metrics")
    for path in ours + theirs:
        answer = web.get(path)
        policy = policy_of(answer)
        assert policy["frame-ancestors"] == "'none'", path
        assert not {"'unsafe-inline'", "'unsafe-eval'", "*", "data:", "blob:", "http:", "https:"} & set(
            policy.get("script-src", policy["default-src"]).split()
        )
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in answer.headers
        assert not [name for name in answer.headers if name.startswith("access-control")]
        if path in ours:
            assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert web.get("/", headers={"if-none-match": web.get("/").headers["etag"]}).headers.keys() >= {
        "content-security-policy"
    }


def test_the_page_names_no_other_host(web: httpx.Client, page_drawn: Drawn) -> None:
    places = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"')]*", page_drawn.html + page_drawn.theme)
    assert {urlsplit(place).netloc for place in places} <= {"www.w3.org"}
    assert "www.w3.org" not in web.get("/").headers["content-security-policy"]


def test_the_page_tells_nothing_of_the_machine_that_drew_it(page_drawn: Drawn) -> None:
    told = page_drawn.html + page_drawn.theme
    for secret in (__file__.split("/tests/")[0], "/site-packages", "/home/", "/root", socket.gethostname() + "."):
        assert secret not in told


def test_a_file_that_was_had_before_is_not_sent_again(web: httpx.Client, page_drawn: Drawn) -> None:
    entry = next(name for name in linked(page_drawn) if "assets/index" in name)
    for path in ("/", "/theme.css", "/cierzo/main.js", "/cierzo/icon.svg", f"/{entry.lstrip('./')}"):
        first = web.get(path)
        tag = first.headers["etag"]
        again = web.get(path, headers={"if-none-match": tag})
        assert (again.status_code, again.content) == (304, b""), path
        assert again.headers["etag"] == tag
        assert again.headers["cache-control"] == first.headers["cache-control"]
        assert web.get(path, headers={"if-none-match": '"else"'}).status_code == 200
        assert first.headers["vary"] == "Accept-Encoding"


def test_only_what_is_named_after_its_content_is_kept_for_ever(web: httpx.Client, page_drawn: Drawn) -> None:
    entry = next(name for name in linked(page_drawn) if "assets/index" in name)
    assert web.get(f"/{entry.lstrip('./')}").headers["cache-control"] == FOR_EVER
    for path in ("/", "/theme.css", "/cierzo/main.js", "/cierzo/words.js", "/manifest.webmanifest", "/cierzo/none.js"):
        assert web.get(path).headers.get("cache-control", "no-cache") == "no-cache", path
    assert "immutable" not in web.get("/assets/none.js").headers.get("cache-control", "")


def test_texts_are_packed_for_those_who_can_read_it(address: str) -> None:
    with httpx.Client(base_url=address) as web:
        for path in ("/", "/theme.css", "/cierzo/main.js"):
            plain = web.get(path, headers={"accept-encoding": "identity"})
            assert "content-encoding" not in plain.headers
            with web.stream("GET", path, headers={"accept-encoding": "br, gzip;q=0.8"}) as packed:
                raw = b"".join(packed.iter_raw())
            assert packed.headers["content-encoding"] == "gzip"
            assert gzip.decompress(raw) == plain.content
            assert len(raw) == int(packed.headers["content-length"]) < len(plain.content)
            refused = web.get(path, headers={"accept-encoding": "gzip;q=0, identity"})
            assert "content-encoding" not in refused.headers, "gzip was refused"


def test_head_is_as_get_without_the_body(web: httpx.Client) -> None:
    for path in ("/", "/theme.css", "/cierzo/main.js", "/gradio_api/info", "/cierzo/none.js"):
        got, head = web.get(path), web.head(path)
        assert head.status_code == got.status_code
        assert head.content == b""
        same = ("content-type", "content-length", "etag", "content-security-policy", "cache-control")
        assert {name: head.headers.get(name) for name in same} == {name: got.headers.get(name) for name in same}


def test_nothing_of_gradios_server_is_there(web: httpx.Client) -> None:
    paths = [f"{place}/{name}" for name in GRADIOS for place in ("/gradio_api", "", "/gradio_api/gradio_api")]
    paths = [path for path in dict.fromkeys([*paths, *ELSEWHERE]) if path not in ("/theme.css", "/openapi.json")]
    cases = list(product(("GET", "POST", "PUT", "DELETE", "OPTIONS"), paths))
    body = {"data": ["secreto"], "fn_index": 0, "session_hash": "1", "event_id": "1", "trigger_id": 1}
    for method, path in cases:
        asked = {"json": body} if method in ("POST", "PUT") else {}
        answer = web.request(method, path, **asked)
        assert answer.status_code in (404, 405), (method, path, answer.status_code)
        assert "secreto" not in answer.text
        assert "set-cookie" not in answer.headers
    print(f"\n{len(cases)} ways into Gradio's server, all shut")


def test_gradio_is_told_that_there_is_no_api(web: httpx.Client) -> None:
    assert web.get("/gradio_api/info").json() == {"named_endpoints": {}, "unnamed_endpoints": {}}
    assert web.post("/gradio_api/info", json={}).status_code in (404, 405)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_path_leads_out(address: str, method: str) -> None:
    """They are sent as they stand here: a client would tidy them up."""
    place = urlsplit(address)
    assert place.hostname
    for path in OUT:
        with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
            head = f"{method} {path} HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode())
            said = b"".join(iter(lambda: connection.recv(65_536), b""))
        assert re.match(rb"HTTP/1\.1 40[045] ", said), (path, said[:60])
        head, _, body = said.partition(b"\r\n\r\n")
        assert b"X-Evil" not in head
        for secret in (b"root:", b"import ", b"<!doctype"):
            assert secret not in body, path
    print(f"\n{len(OUT)} paths by {method}, none leads out")


def test_only_our_own_names_lead_here(web: httpx.Client) -> None:
    paths = ("/", "/theme.css", "/cierzo/main.js", "/gradio_api/info", "/cierzo/none.js", "/api/engine")
    for path, host in product(paths, FOREIGN):
        answer = web.get(path, headers={"host": host})
        assert answer.status_code == 400, (path, host)
        assert "<script" not in answer.text
        assert "etag" not in answer.headers
    for host in OURS:
        assert web.get("/", headers={"host": host}).status_code == 200, host
    print(f"\n{len(OURS)} names of ours, {len(paths) * len(FOREIGN)} requests by other names")


def test_other_sites_can_read_nothing(web: httpx.Client) -> None:
    """The page holds no secret, so a site may ask for it; that it cannot read or frame it is the browser's part."""
    for origin, path in product(ORIGINS, ("/", "/cierzo/main.js", "/theme.css")):
        answer = web.get(path, headers={"origin": origin})
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert not [name for name in answer.headers if name.startswith("access-control")]
    for origin, (method, path) in product(
        ORIGINS, (("GET", "/api/conversations"), ("POST", "/api/conversations"), ("POST", "/"), ("GET", "/v1/models"))
    ):
        answer = web.request(method, path, headers={"origin": origin, "content-type": "application/json"}, content="{}")
        assert answer.status_code == 403, (origin, path)
    across = {"sec-fetch-site": "cross-site"}
    assert web.post("/api/conversations", json={}, headers=across).status_code == 403


def test_the_api_is_there_behind_the_page(web: httpx.Client) -> None:
    assert web.get("/api/engine").json()["engine"] == "scripted"
    assert web.post("/", json={"inputs": "Hola"}).json()[0]["generated_text"].endswith("Hola.")
    assert web.post("/generate", json={"inputs": "Hola"}).status_code == 200
    assert web.get("/v1/models").json()["data"]
    assert web.get("/health").status_code == 200
    assert web.get("/ready").status_code == 200
    assert "cierzo_" in web.get("/metrics").text
    assert "/api/engine" in web.get("/openapi.json").json()["paths"]
    assert web.get("/nothing").json()["error"]
    made = web.post("/api/conversations", json={}).json()
    assert web.get(f"/api/conversations/{made['id']}/branch").json()["messages"] == []
    big = web.post("/api/conversations", content=b"x" * 2_000_001, headers={"content-type": "application/json"})
    assert big.status_code == 413


async def behind(scope: object, receive: object, send: object) -> None:
    """Stands in for the API."""
    await PlainTextResponse("the API")(scope, receive, send)  # type: ignore[arg-type]


async def test_beyond_loopback_addresses_and_this_machines_names_are_known(page_drawn: Drawn) -> None:
    async def status(listens: str, host: str) -> int:
        front = Front(behind, page_drawn, listens)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=httpx.ASGITransport(front), base_url="http://x") as web:
            return (await web.get("/", headers={"host": host})).status_code

    assert await status("0.0.0.0", "192.168.1.20:7860") == 200
    assert await status("0.0.0.0", f"{socket.gethostname()}:7860") == 200
    assert await status("0.0.0.0", "evil.example") == 400
    assert await status("chat.lan", "chat.lan:7860") == 200
    assert await status("chat.lan", "other.lan") == 400


async def test_what_is_no_part_of_the_page_is_the_apis(page_drawn: Drawn) -> None:
    front = Front(behind, page_drawn, "127.0.0.1")  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(front), base_url="http://127.0.0.1") as web:
        for method, path in (("POST", "/"), ("PUT", "/theme.css"), ("GET", "/x"), ("DELETE", "/cierzo/main.js")):
            assert (await web.request(method, path)).text == "the API", path
