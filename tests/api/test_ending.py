"""The process: `cierzo serve` from its first line to its last."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import httpx
import pytest
from pace import Pace
from serve_process import FINISHING
from serving import asking


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_at_once_and_in_silence(start, number):
    served = start()
    assert served.line.startswith("Cierzo's API is at http://127.0.0.1:")
    assert httpx.get(f"{served.url}/ready", timeout=60).json() == {"status": "ready", "model": "scripted"}
    status, seconds, said = served.end(number)
    assert (status, said) == (0, "")
    assert seconds < 2


def test_a_running_answer_finishes_within_the_grace(start):
    served = start(grace=60)
    body = {"inputs": "long", "parameters": {"max_new_tokens": 60}}
    with httpx.stream("POST", f"{served.url}/generate_stream", json=body, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        served.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        refused = [
            httpx.post(served.url + path, json=asking(), timeout=60) for path in ("/v1/chat/completions", "/generate")
        ]
        assert [each.status_code for each in refused] == [503, 503]
        assert refused[0].headers["Retry-After"]
        assert httpx.get(f"{served.url}/ready", timeout=60).json()["status"] == "ending"
        assert httpx.get(f"{served.url}/health", timeout=60).status_code == 200
        said = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    assert said[-1]["generated_text"]
    assert served.process.wait(60) == 0


def test_an_answer_that_does_not_finish_is_cut(start):
    served = start(grace=0.5)
    asked = asking("long", stream=True)
    with httpx.stream("POST", f"{served.url}/v1/chat/completions", json=asked, timeout=60) as answer, Pace() as pace:
        lines = answer.iter_lines()
        next(lines)
        began = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        said = [line for line in lines if line]
        assert served.process.wait(60) == 0
        seconds = time.monotonic() - began
    assert "the server is ending" in said[-1]
    assert seconds < 0.5 + 2 * pace.factor


def test_clients_that_hold_on_do_not_hold_the_server(start):
    served = start(grace=0.3)
    with httpx.Client(timeout=60) as idle:
        idle.get(f"{served.url}/health")
        status, seconds, said = served.end()
    assert status == 0
    assert re.fullmatch(FINISHING, said)
    assert seconds < 0.3 + 2


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "cierzo", *arguments], capture_output=True, text=True, check=False)


def test_an_address_that_others_can_reach_is_refused():
    refused = run("serve", "--engine", "scripted:", "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 2
    assert "--insecure" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_one_line(start):
    port = start().url.rsplit(":", 1)[1]
    refused = run("serve", "--engine", "scripted:", "--port", port)
    assert refused.returncode == 2
    assert f"port {port} is taken" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_the_log_is_json_without_what_was_said(start):
    served = start(log="info")
    httpx.post(f"{served.url}/generate", json={"inputs": "s3cret"}, timeout=60)
    httpx.get(f"{served.url}/s3cret?s3cret=s3cret", timeout=60)
    _, _, said = served.end()
    lines = [json.loads(line) for line in said.splitlines()]
    assert [line["route"] for line in lines if line["event"] == "request"] == ["/generate", "other"]
    assert {"time", "level", "id", "status", "seconds"} <= set(lines[0])
    assert "s3cret" not in said
