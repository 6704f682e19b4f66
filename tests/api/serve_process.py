"""`cierzo serve` in a process of its own, for tests of how it begins and ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from pace import Pace
from serving import HTTP

SCRIPT = """
[[reply]]
when = "long"
text = "{long}"
delay = 0.05
[[reply]]
text = "Hola."
"""


FINISHING = r"(finishing the answers that are being written, at most [\d.]+ s — press Ctrl\+C again to end now\n)?"
"""All that a server may write when it ends in order: the line is there where it has to wait."""


class Process:
    """`cierzo serve` in a process of its own."""

    def __init__(self, tmp_path, *flags, grace=2.0, log="warning"):
        script = tmp_path / "script.toml"
        script.write_text(SCRIPT.format(long="palabra " * 400), "utf-8")
        command = [sys.executable, "-m", "cierzo", "serve", "--engine", f"scripted:{script}", "--port", "0", *flags]
        variables = {**os.environ, "CIERZO_GRACE": str(grace), "CIERZO_LOG": log}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=variables)
        self.line = self.process.stdout.readline()
        found = re.search(r"http://\S+", self.line)
        assert found, self.process.stderr.read()
        self.url = found[0]

    def post(self, path, body):
        return HTTP.post(self.url + path, json=body)

    def get(self, path):
        return HTTP.get(self.url + path)

    def end(self, number=signal.SIGTERM):
        """Tell it to end; return its status, the seconds it would take on a free machine, and what it wrote."""
        with Pace() as pace:
            began = time.monotonic()
            self.process.send_signal(number)
            out, err = self.process.communicate(timeout=60)
            seconds = time.monotonic() - began
        return self.process.returncode, seconds / pace.factor, out + err


@pytest.fixture
def start(tmp_path):
    begun = []

    def starting(*flags, **options):
        begun.append(Process(tmp_path, *flags, **options))
        return begun[-1]

    yield starting
    for each in begun:
        each.process.kill()
        each.process.communicate()
