"""The process that holds the model, and the small one that watches over it.

`cierzo.engines.supervisor` starts this file by its path, so it imports nothing of Cierzo. On POSIX it forks before
llama.cpp is loaded, because loading holds Python's lock from the first byte to the last and a process that is
loading cannot watch anything:

- the **guardian** stays a few megabytes of Python. It reads its standard input; the end of it means that the parent
  is gone, however it went, and then the guardian kills the engine and removes the folder with the socket. It waits
  for the engine too, and tells the parent how it ended.
- the **engine** loads the model and serves it on a Unix socket in that folder.

The parent writes one line of JSON (`Job`) to standard input and keeps it open. Lines of JSON come back on standard
output: ``{"engine": pid}``, then ``{"ready": address}`` or ``{"missing": why}`` or ``{"refused": why}``, at the end
``{"ended": status}``, negative for a signal. What llama.cpp itself has to say goes to standard error.

Windows has no fork and no way to be told of a parent's death, so there the first process is the engine, on a
loopback port with the same key, and a thread waits for the end of standard input.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import sys
import threading
from typing import Any, NoReturn, TypedDict

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

PR_SET_PDEATHSIG = 1
OOM_PREFERRED = "800"
NGRAM = 4
"""So many tokens must have come in this order before for what followed them to be guessed; see docs/performance.md."""

TEMPLATE = "{{ messages[0].content }}"
"""Stands in for the template in the file, which is another's program: llama.cpp would parse and run it while it
loads, and a hostile one never ends or exhausts the stack. Prompts come as ids, so a Mistral model never needs one.
A model that is not Mistral's does; then the memory of the process is bounded, and the parent sees to the time."""


class Job(TypedDict):
    """What to run.

    ``folder`` is private and holds the socket and saved slots; ``address`` is the socket's path. ``memory`` bounds what
    the process may have of its own, in bytes, for a file whose own template is used; 0 uses none. ``gpu_layers`` is
    null for as many as fit, ``draft`` how many tokens n-gram speculation guesses at once (0 is none), ``adapters``
    are LoRA files, each with its scale.
    """

    model: str
    folder: str
    address: str
    key: str
    slots: int
    pool: int
    threads: int
    batch: int
    memory: int
    kv_type: str
    gpu_layers: int | None
    draft: int
    adapters: list[tuple[str, float]]


class Voice:
    """Speaks to the parent, on standard output as it was at the start; from then on that is standard error.

    llama.cpp prints to standard output too when it aborts, and a debugger's backtrace is no line of JSON.
    """

    def __init__(self) -> None:
        self._channel = os.dup(1)
        os.dup2(2, 1)

    def say(self, **line: Any) -> None:
        """Write one line; a parent that is gone is the guardian's business, not an error."""
        with contextlib.suppress(OSError):
            os.write(self._channel, json.dumps(line).encode() + b"\n")


def serve(job: Job, voice: Voice) -> Any:
    """Load the model and start to serve it. Returns the server, which lives as long as it is held."""
    try:
        import xllamacpp  # type: ignore[import-untyped]  # noqa: PLC0415 - in this process only, after the fork
    except (ImportError, OSError) as missing:
        voice.say(missing=str(missing))
        sys.exit(3)
    params = xllamacpp.CommonParams()
    params.model.path = job["model"]
    params.hostnames = [job["address"]]
    params.api_keys = [job["key"]]
    params.cors_origins = "http://none.invalid"
    params.cors_origins_explicit = True
    params.cors_credentials = False
    params.ui = False
    params.offline = True
    params.endpoint_props = False
    params.endpoint_slots = True  # behind the key: the parent asks whether a cancelled slot is really free
    params.slot_save_path = os.path.join(job["folder"], "")  # noqa: PTH118 - llama.cpp wants the closing slash
    params.use_jinja = job["memory"] > 0
    params.force_pure_content_parser = True  # answers are shown as they are, and a parser runs the template much more
    if not job["memory"]:
        params.chat_template = TEMPLATE
    params.n_parallel = job["slots"]
    params.n_ctx = job["pool"]
    params.kv_unified = True
    params.cache_idle_slots = False
    params.cache_ram_mib = 0
    params.fit_params = False
    params.n_batch = params.n_ubatch = job["batch"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = job["threads"]
    params.n_threads_http = job["slots"] + 4
    params.sse_ping_interval = -1
    params.verbosity = 1
    params.warmup = True
    has = devices(xllamacpp)
    _use_options(xllamacpp, params, job, any(device["kind"] in ("GPU", "IGPU") for device in has))
    try:
        server = xllamacpp.Server(params)
    except (RuntimeError, ValueError, OSError) as refused:
        voice.say(refused=str(refused))
        sys.exit(4)
    voice.say(ready=server.listening_address, devices=has)
    return server


def _use_options(xllamacpp: Any, params: Any, job: Job, has_gpu: bool) -> None:
    """Set what a person may choose: cache type, layers on the graphics card, guessing, adapters."""
    if job["kv_type"] != "f16":
        params.cache_type_k = params.cache_type_v = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{job['kv_type'].upper()}")
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
    if job["gpu_layers"] is not None:
        params.n_gpu_layers = job["gpu_layers"]
    else:
        params.fit_params = has_gpu  # llama.cpp then puts as many layers there as fit; window and batch are said
    if job["draft"]:
        guess = params.speculative.ngram_simple
        guess.size_n, guess.size_m = NGRAM, job["draft"]
        params.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, scale) for path, scale in job["adapters"]]


def devices(xllamacpp: Any) -> list[dict[str, Any]]:
    """Return what the installed library can compute on: ``name``, ``description``, ``kind``, ``memory`` in bytes."""
    return [
        {
            "name": str(device["name"]),
            "description": str(device["description"]),
            "kind": device["type"].name.removeprefix("GGML_BACKEND_DEVICE_TYPE_"),
            "memory": int(device["memory_total"]),
        }
        for device in xllamacpp.get_device_info()
    ]


def run_engine(job: Job, voice: Voice, guardian: int) -> NoReturn:
    """Be the engine until standard input ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guardian:  # it died before the line above
            os._exit(1)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123
            score.write(OOM_PREFERRED)
    if job["memory"] and resource is not None:
        with contextlib.suppress(OSError, ValueError):  # a lower bound than this may be set already
            resource.setrlimit(resource.RLIMIT_DATA, (job["memory"], job["memory"]))
    server = serve(job, voice)
    while os.read(0, 4096):
        pass
    # The parent is gone. So is this process in a moment, unless the guardian is stopped; then nobody else is left.
    shutil.rmtree(job["folder"], ignore_errors=True)
    if os.getppid() == guardian:
        os.kill(guardian, signal.SIGKILL)
    del server
    os._exit(0)


def run_guardian(job: Job, voice: Voice) -> NoReturn:
    """Fork the engine, then wait for its end or the parent's, whichever comes first."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    guardian = os.getpid()
    engine = os.fork()
    if engine == 0:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.close(wake)
        os.close(woken)
        run_engine(job, voice, guardian)
    voice.say(engine=engine)
    status = _watch(engine, wake)
    shutil.rmtree(job["folder"], ignore_errors=True)
    voice.say(ended=status)
    os._exit(0)


def _watch(engine: int, wake: int) -> int:
    """Return how the engine ended, negative for a signal; kill it if the parent is gone."""
    while True:
        ready, _, _ = select.select([0, wake], [], [])
        signals = os.read(wake, 64) if wake in ready else b""
        if (0 in ready and not os.read(0, 4096)) or signal.SIGTERM in signals or signal.SIGHUP in signals:
            os.kill(engine, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(engine, 0)[1])
        ended, status = os.waitpid(engine, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)


def run_alone(job: Job, voice: Voice) -> NoReturn:
    """Be the engine on a system without fork."""

    def until_the_parent_is_gone() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=until_the_parent_is_gone, daemon=True).start()
    voice.say(engine=os.getpid())
    server = serve(job, voice)
    threading.Event().wait()
    del server
    os._exit(0)


def main() -> NoReturn:
    """Read the job from standard input and do it; with ``--devices``, only print what can be computed on."""
    voice = Voice()
    if sys.argv[1:] == ["--devices"]:
        import xllamacpp  # noqa: PLC0415 - as above

        voice.say(devices=devices(xllamacpp), system=xllamacpp.get_system_info())
        os._exit(0)
    line = b""
    while not line.endswith(b"\n"):
        more = os.read(0, 65_536)
        if not more:
            os._exit(0)
        line += more
    job: Job = json.loads(line)
    if hasattr(os, "fork"):
        run_guardian(job, voice)
    run_alone(job, voice)


if __name__ == "__main__":
    main()
