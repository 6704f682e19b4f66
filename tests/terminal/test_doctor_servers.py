"""What the doctor says of engines that are servers: one that is well, and those that are not."""

import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from test_render import screen

sys.path.insert(0, str(Path(__file__).parents[1] / "api"))

from serving import Live

from cierzo.app import open_chat
from cierzo.engines.script import Reply
from cierzo.engines.scripted import Scripted
from cierzo.listening import listen
from cierzo.settings import Settings
from cierzo.terminal import doctor
from cierzo.terminal.flags import Doors


def checks(engine, **flags):
    """What `cierzo doctor --engine ENGINE` finds, by name."""
    doors = Doors(open_chat, "0")
    return {each.name: each for each in doctor._checks(doors, {"engine": engine, **flags}, screen(), try_it=True)}


@pytest.fixture(scope="module")
def cierzo():
    server = Live(Scripted(Reply.of("Hola.")))
    yield server.url
    server.close()


@pytest.mark.parametrize(("kind", "path"), [("openai", "/v1"), ("openai", ""), ("tgi", "")])
def test_another_cierzo_is_well(cierzo, kind, path):
    found = checks(f"{kind}+{cierzo}{path}", template="v3" if kind == "tgi" else None)
    assert {name: found[name].state for name in ("engine", "server", "answer")} == dict.fromkeys(
        ("engine", "server", "answer"), "ok"
    )
    assert "model" not in found, "no file of this machine is looked at"
    assert "scripted" in found["server"].found
    assert cierzo.removeprefix("http://") in found["server"].found
    assert re.search(r"8,19[12] tokens of window", found["server"].found)
    assert re.match(r"\d+ tokens, the first after", found["answer"].found)


HTML = (200, "text/html", "<!doctype html><html><title>Router login</title></html>")
SICK = {
    "html": HTML,
    "key": (401, "application/json", json.dumps({"error": {"message": "no key"}})),
    "forbidden": (403, "application/json", json.dumps({"error": "no"})),
    "nothing": (404, "text/plain", "not found"),
    "empty": (200, "application/json", json.dumps({"object": "list", "data": []})),
    "broken": (200, "application/json", '{"data": ['),
    "loading": (503, "application/json", json.dumps({"error": {"message": "Loading model"}})),
    "moved": (302, "text/html", ""),
}
SAID = {
    "html": "web page|HTML",
    "key": "key",
    "forbidden": "key|403",
    "nothing": "404|address|nothing",
    "empty": "model",
    "broken": "JSON",
    "loading": "busy|loading|Loading|again|503",
    "moved": "sends requests on",
}


@pytest.fixture(scope="module")
def sick():
    """One server that is sick in every way, each behind a path of its own."""

    class Sick(BaseHTTPRequestHandler):
        def answer(self):
            name = self.path.split("/")[1]
            status, kind, body = SICK[name]
            self.send_response(status)
            if name == "moved":
                self.send_header("Location", "http://192.0.2.1/")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = answer  # noqa: N815 - the library's names

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Sick)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_servers_that_are_not_well(sick):
    told = {}
    for name, words in SAID.items():
        found = checks(f"openai+http://{sick}/{name}")
        told[name] = found["server"].found
        assert (name, found["server"].state, "answer" in found) == (name, "fail", False)
        assert re.search(words, told[name]), told[name]
        assert "Traceback" not in told[name]
    print("\n" + "\n".join(f"{name}: {words}" for name, words in told.items()))


def test_nobody_is_there():
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
    found = checks(f"openai+http://127.0.0.1:{port}/v1")
    assert (found["server"].state, f"127.0.0.1:{port}" in found["server"].found) == ("fail", True)
    assert "answer" not in found


@pytest.mark.parametrize(
    "engine", ["openai+http://", "openai+ftp://a", "ollama+http://a", "openai+http://u:k@127.0.0.1"]
)
def test_what_is_no_address(engine):
    found = checks(engine)
    last = list(found.values())[-1]
    assert (last.state, last.name) == ("fail", "server" if "://" in engine else "engine")
    assert "CIERZO" in last.found or "use" in last.found or "address" in last.found


def test_a_key_that_would_be_read_on_the_way(cierzo):
    private = {
        "openai+http://127.0.0.1:1": True,
        "openai+http://[::1]:1/v1": True,
        "openai+http://localhost": True,
        "openai+https://example.org": True,
        "tgi+http://192.0.2.7:80": False,
        "openai+http://127.0.0.1.example.org": False,
        "hf://owner/model": True,
    }
    assert {engine: doctor._is_private(engine) for engine in private} == private
    settings = Settings.load({"engine": f"openai+{cierzo}", "engine_key": "k" * 20})
    assert doctor.server(open_chat, settings).state == "ok"
