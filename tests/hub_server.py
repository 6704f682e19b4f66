"""A server on this machine that speaks the file routes of the Hugging Face hub, with faults to order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from threading import Thread

import pytest
from huggingface_hub import constants

from cierzo import downloads
from cierzo.downloads import fetching

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BLOCK = 2**16


class Hub(ThreadingHTTPServer):
    """Files by repository and name.

    Attributes:
        files: What there is.
        faults: Maps a repository to (status, value of X-Error-Code) of every answer.
        get_faults: The same, for what GET gets; HEAD goes well.
        break_after: Bytes of a body after which the connection ends, once.
        commit: What every branch leads to; empty for a server that is no hub.
        etag: What is said instead of the content's SHA-256.
        ignores_range: Whether every GET gets the whole file.
        elsewhere: Address of another server to which what GET asks for is redirected, as to a CDN.
        before_block: Called with the bytes sent so far of a body, before every `BLOCK`.
        asked: Method, path and range of every request.
        tokens: The Authorization of every request, empty where there was none.
        sent: Bytes of bodies, of all answers together.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[tuple[str, str], bytes] = {}
        self.faults: dict[str, tuple[int, str]] = {}
        self.get_faults: dict[str, tuple[int, str]] = {}
        self.break_after = 0
        self.commit = COMMIT
        self.etag = ""
        self.ignores_range = False
        self.elsewhere = ""
        self.before_block: Callable[[int], None] = lambda _: None
        self.asked: list[str] = []
        self.tokens: list[str] = []
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        hub = self.server
        hub.asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        hub.tokens.append(self.headers.get("Authorization", ""))
        parts = PurePosixPath(self.path.split("?")[0]).parts[1:]
        repo, file = "/".join(parts[:2]), "/".join(parts[4:])
        faults = {**(hub.get_faults if with_body else {}), **hub.faults}
        if repo in faults:
            status, code = faults[repo]
            return self.reply(status, b"", {"X-Error-Code": code} if code else {})
        if (repo, file) not in hub.files:
            known = any(repo == other for other, _ in hub.files)
            return self.reply(404, b"", {"X-Error-Code": "EntryNotFound" if known else "RepoNotFound"})
        if with_body and hub.elsewhere:
            return self.reply(302, b"", {"Location": hub.elsewhere + self.path})
        content = hub.files[repo, file]
        headers = {
            **({"X-Repo-Commit": hub.commit} if hub.commit else {}),
            "ETag": f'"{hub.etag or hashlib.sha256(content).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0]) if "Range" in self.headers else 0
        if hub.ignores_range:
            start = 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.reply(206 if start else 200, content[start:], headers, with_body=with_body)

    def reply(self, status: int, body: bytes, headers: dict[str, str], *, with_body: bool = True) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body and self.command == "GET":
            if self.server.break_after:
                body, self.server.break_after = body[: self.server.break_after], 0
                self.close_connection = True
            for place in range(0, len(body), BLOCK):
                self.server.before_block(place)
                self.wfile.write(body[place : place + BLOCK])
                self.server.sent += len(body[place : place + BLOCK])

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that leaves is no fault of the server
            super().handle()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve() -> Generator[Hub]:
    """Run a hub until the block ends."""
    with Hub() as hub:
        thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


@contextmanager
def in_use(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Generator[Hub]:
    """Serve a hub that this process takes for Hugging Face's, with a cache of its own and no token."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no token"))
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 60)
    monkeypatch.setattr(downloads, "_PATIENCE", 60.0)
    monkeypatch.setattr(fetching, "_PACE", 0)
    with serve() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub
