"""Starts the servers that others wrote, each as its own process on a loopback port, and ends it by its number."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
PLACE = ROOT / ".interop"
CHECKPOINT = PLACE / "cierzo-demo"
PATIENCE = 300.0
"""Seconds for a server to come up: vLLM takes half a minute on an idle machine of two cores."""

# One thread each: the model is small, and threads that wait for one another stand still on a machine that is busy.
QUIET = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Server:
    """A server that is up.

    Attributes:
        url: Where it is, without a path.
        log: What it says.
    """

    url: str
    log: Path


def free_port() -> int:
    """Return a loopback port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def transformers() -> tuple[list[str], dict[str, str]]:
    """How `transformers serve` is started; ``PORT`` stands for the port."""
    program = PLACE / "transformers" / "bin" / "transformers"
    options = ["--host", "127.0.0.1", "--port", "PORT", "--device", "cpu", "--dtype", "float32"]
    return [str(program), "serve", str(CHECKPOINT), *options], {"OMP_NUM_THREADS": "1"}


def vllm() -> tuple[list[str], dict[str, str]]:
    """How vLLM is started: two answers at a time, four more may wait."""
    program = [str(PLACE / "vllm" / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server"]
    model = ["--model", str(CHECKPOINT), "--served-model-name", "cierzo-demo", "--max-model-len", "2048"]
    speed = ["--dtype", "float32", "--enforce-eager", "--max-num-seqs", "2", "--max-num-queued-reqs", "6"]
    memory = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    return [*program, *model, *speed, "--host", "127.0.0.1", "--port", "PORT"], {**memory, "VLLM_NO_USAGE_STATS": "1"}


def llama_server() -> tuple[list[str], dict[str, str]]:
    """How llama.cpp's server is started, out of xllamacpp, with the model's file."""
    model = ROOT / "src" / "cierzo" / "models" / "cierzo-demo.gguf"
    return [sys.executable, str(HERE / "llama_server.py"), str(model), "PORT"], {}


SERVERS = {"transformers": transformers, "vllm": vllm, "llama-server": llama_server}


@contextlib.contextmanager
def running(name: str, *, patience: float = PATIENCE) -> Iterator[Server]:
    """Start a server, give it when it answers ``/health``, and end it with all that it started.

    Raises:
        SystemExit: It did not come up.
    """
    command, environment = SERVERS[name]()
    port = free_port()
    PLACE.mkdir(exist_ok=True)
    log = PLACE / f"{name}.log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [str(port) if part == "PORT" else part for part in command],
            env={**os.environ, **QUIET, **environment, "HF_HOME": str(PLACE / "hub")},
            stdout=written,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=ROOT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _await(process, f"{url}/health", patience, log)
        yield Server(url, log)
    finally:
        _end(process)


def _await(process: subprocess.Popen[bytes], url: str, patience: float, log: Path) -> None:
    until = time.monotonic() + patience
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.1)
    raise SystemExit(f"{process.args[0]} did not come up: look into {log}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and its children: they are one session, which nobody else is in."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def versions(name: str) -> str:
    """Return the versions of what an environment has, for the report."""
    wanted = {"transformers": ("transformers", "torch"), "vllm": ("vllm-cpu", "torch", "transformers")}.get(name)
    python = sys.executable if wanted is None else str(PLACE / name / "bin" / "python")
    names: Sequence[str] = wanted or ("xllamacpp",)
    code = f"import importlib.metadata as m; print(', '.join(n + ' ' + m.version(n) for n in {tuple(names)!r}))"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
