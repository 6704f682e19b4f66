"""A server on this machine that speaks the file routes of the Hugging Face hub, with faults to order."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Files by repository and name. ``faults`` maps a repository to (status, value of X-Error-Code)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[tuple[str, str], bytes] = {}
        self.faults: dict[str, tuple[int, str]] = {}
        self.break_after = 0
        self.commit = COMMIT
        self.asked: list[str] = []

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
        self.server.asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        parts = PurePosixPath(self.path.split("?")[0]).parts[1:]
        repo, file = "/".join(parts[:2]), "/".join(parts[4:])
        if repo in self.server.faults:
            status, code = self.server.faults[repo]
            return self.reply(status, b"", {"X-Error-Code": code} if code else {})
        if (repo, file) not in self.server.files:
            known = any(repo == other for other, _ in self.server.files)
            return self.reply(404, b"", {"X-Error-Code": "EntryNotFound" if known else "RepoNotFound"})
        content = self.server.files[repo, file]
        headers = {
            **({"X-Repo-Commit": self.server.commit} if self.server.commit else {}),
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0]) if "Range" in self.headers else 0
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
            self.wfile.write(body)

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
