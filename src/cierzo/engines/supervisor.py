"""Keeps the engine's process alive: starts it, waits for it, notices when it ends or hangs, starts it again.

What the process is and what it says is told in `cierzo.engines.child`. This file knows of the process and its
socket; it knows nothing of prompts and slots.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import psutil

from cierzo.engines.constraint import complaint_of
from cierzo.engines.failures import died_loading, missing, unreadable
from cierzo.engines.options import DEFAULTS, Options
from cierzo.errors import CierzoError, EngineDied, EngineMissing, ModelUnreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

CHILD = Path(__file__).with_name("child.py")

FIRST_BACK_OFF, LONGEST_BACK_OFF = 0.1, 30.0
DEATHS_IN_LOADING = 4
WATCH_EVERY = 0.5
ANSWER_WITHIN = 1.0
MISSES = 2
"""Every `WATCH_EVERY` seconds one sign of life is awaited for `ANSWER_WITHIN`; after so many misses it is killed."""

SLOWEST_DISK = 20_000_000
LOAD_BASE = 20.0
"""A load may take this many seconds, and one more for each `SLOWEST_DISK` bytes of the file."""

SHORTEST_LIMIT_OF_A_SOCKET_PATH = 100
KEPT_ENVIRONMENT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "PYTHONPATH",
    "PYTHONHOME",
    "LD_LIBRARY_PATH",
    "SYSTEMROOT",
    "TEMP",
)
QUIET = {"GGML_NO_BACKTRACE": "1", "GOMP_SPINCOUNT": "5000"}
"""No waiting for a debugger after a crash; and a thread that waits for another, which some other program has pushed
off its core, sleeps instead of spinning: without this, two busy cores slow two threads down fiftyfold."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start: the fields of the child's ``Job`` that do not depend on this one process.

    Where ``memory`` is given, the file's own chat template is loaded too, within so many bytes.
    """

    model: Path
    slots: int
    pool: int
    threads: int
    batch: int
    memory: int = 0
    options: Options = DEFAULTS


class Running:
    """One life of the engine's process, from its socket's folder to its end."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.key = secrets.token_urlsafe(32)
        self.folder = _private_folder()
        self.address = str(self.folder / "s.sock") if hasattr(os, "fork") else "127.0.0.1"
        self.url = "http://engine"
        self.engine: psutil.Process | None = None
        self.session: aiohttp.ClientSession | None = None
        self.ended: int | None = None
        self.hung = False
        self.devices: list[dict[str, Any]] = []
        self.complaints, self.complaint = 0, ""  # how often llama.cpp gave a JSON schema up, and why the last time
        self.useful = False  # whether it ever answered; one that did not is started again ever more slowly
        self._guardian: asyncio.subprocess.Process | None = None
        self._errors: deque[str] = deque(maxlen=40)
        self._drain: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Start the process and return when the model answers.

        Raises:
            ModelUnreadable: llama.cpp cannot load the file, or dies of it.
            NotEnoughMemory: It asked for more than there is, or was killed for it.
            EngineMissing: llama.cpp's library cannot be loaded here.
            EngineDied: Something else ended the process.
        """
        limit = LOAD_BASE + self.launch.model.stat().st_size / SLOWEST_DISK
        try:
            async with asyncio.timeout(limit):
                await self._start()
                await self._until_ready()
                await self._open_session()
        except TimeoutError:
            blame = (
                "the file is damaged, its chat template does not end," if self.launch.memory else "the file is damaged"
            )
            raise ModelUnreadable(
                f"{self.launch.model.name} was not loaded within {limit:.0f} seconds: {blame} or the disk "
                "is very slow; download it again or try another model"
            ) from None
        except OSError as refused:
            raise EngineMissing(f"the engine's process cannot be started ({refused}): check this Python") from None

    async def _start(self) -> None:
        self._guardian = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", str(CHILD)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ} | QUIET,
            start_new_session=True,  # Ctrl+C in the terminal is for the parent alone
        )
        assert self._guardian.stdin is not None
        assert self._guardian.stderr is not None
        self._drain = asyncio.create_task(self._read_errors(self._guardian.stderr))
        job = {
            "model": str(self.launch.model),
            "folder": str(self.folder),
            "address": self.address,
            "key": self.key,
            "slots": self.launch.slots,
            "pool": self.launch.pool,
            "threads": self.launch.threads,
            "batch": self.launch.batch,
            "memory": self.launch.memory,
            **self.launch.options.job(),
        }
        self._guardian.stdin.write(orjson.dumps(job) + b"\n")

    async def _until_ready(self) -> None:
        while True:
            line = await self._next(lambda: False)
            if "engine" in line:
                with contextlib.suppress(psutil.NoSuchProcess):
                    self.engine = psutil.Process(line["engine"])
            elif "ready" in line:
                if not self.address.endswith(".sock"):
                    self.url = line["ready"]
                self.devices = line.get("devices", [])
                return
            elif "missing" in line:
                raise missing(line["missing"])
            elif "refused" in line:
                await self._all_said()
                raise unreadable(self.launch.model, list(self._errors))
            else:
                await self._all_said()
                raise died_loading(self.launch.model, line.get("ended", -signal.SIGKILL), list(self._errors))

    async def _line(self) -> dict[str, Any]:
        """Read one line of the child; the end of its output reads as its death."""
        assert self._guardian is not None
        assert self._guardian.stdout is not None
        raw = await self._guardian.stdout.readline()
        return dict(orjson.loads(raw)) if raw.endswith(b"\n") else {"ended": -signal.SIGKILL}

    async def _all_said(self) -> None:
        """Wait until the last line on standard error was read, but not for a process that keeps it open."""
        if self._drain is not None:
            await asyncio.wait([self._drain], timeout=1)

    async def _read_errors(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        with contextlib.suppress(asyncio.CancelledError):
            while chunk := await stream.read(4096):
                *lines, rest = (rest + chunk).split(b"\n")
                for reason in filter(None, map(complaint_of, lines)):
                    self.complaints, self.complaint = self.complaints + 1, reason
                self._errors.extend(line[:500].decode(errors="replace") for line in lines if line.strip())
                rest = rest[:4096]

    async def _open_session(self) -> None:
        on_socket = self.address.endswith(".sock")
        self.session = aiohttp.ClientSession(
            # closed after each request: a connection that is kept alive keeps one of the server's threads
            connector=aiohttp.UnixConnector(self.address, limit=0, force_close=True)
            if on_socket
            else aiohttp.TCPConnector(limit=0, force_close=True),
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            read_bufsize=2**18,
        )
        while not await self.healthy():  # noqa: ASYNC110 - it can only be asked
            await asyncio.sleep(0.02)

    async def healthy(self) -> bool:
        """Ask for a sign of life. Its HTTP threads answer also while the model computes."""
        assert self.session is not None
        try:
            async with asyncio.timeout(ANSWER_WITHIN), self.session.get(f"{self.url}/health") as answer:
                return answer.status == 200  # noqa: PLR2004 - HTTP's own number
        except (TimeoutError, aiohttp.ClientError, OSError):
            return False

    def percent(self) -> int:
        """How much of the file is in memory, 0 to 99; 0 where the system does not tell."""
        if self.engine is None:
            return 0
        try:
            memory = self.engine.memory_info()
        except psutil.Error:
            return 0
        mapped = getattr(memory, "shared", 0)
        return min(99, 100 * max(mapped, memory.rss - mapped) // max(1, self.launch.model.stat().st_size))

    async def until_it_ends(self, silent: Callable[[], bool]) -> None:
        """Return when the process has ended, by itself or because it hung and was killed.

        Args:
            silent: Whether an answer is under way from which nothing came for a while.
        """
        self.ended = (await self._next(silent)).get("ended", -signal.SIGKILL)

    async def _next(self, silent: Callable[[], bool]) -> dict[str, Any]:
        """Return the child's next line; meanwhile see that it lives, and kill it if it does not."""
        said = asyncio.create_task(self._line())
        missed = 0
        try:
            while not said.done():
                await asyncio.wait([said], timeout=WATCH_EVERY)
                missed = missed + 1 if self._stopped() or (silent() and not await self.healthy()) else 0
                if missed >= MISSES and not said.done():
                    self.hung = True
                    self.kill()
                    await asyncio.wait([said], timeout=WATCH_EVERY)
                    break
            return said.result() if said.done() else {"ended": -signal.SIGKILL}
        finally:
            said.cancel()

    def _stopped(self) -> bool:
        """Whether the engine is stopped, or dead without its guardian having said so."""
        try:
            return self.engine is not None and self.engine.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return True

    def how_it_ended(self) -> str:
        """Say it for a person, as the end of "the engine's process …"."""
        if self.hung:
            return "did not respond any more and was ended"
        if self.ended is not None and self.ended < 0:
            return f"was ended by signal {-self.ended} ({signal.Signals(-self.ended).name})"
        return "ended by itself"

    def kill(self) -> None:
        """End both processes at once, stopped or not."""
        if self.engine is not None:
            with contextlib.suppress(psutil.Error):
                self.engine.kill()
        if self._guardian is not None and self._guardian.stdin is not None:
            self._guardian.stdin.close()

    async def clean(self) -> None:
        """Leave nothing behind: no process, no socket, no open pipe. Never raises."""
        self.kill()
        if self._guardian is not None:
            try:
                async with asyncio.timeout(1):
                    await self._guardian.wait()
            except TimeoutError:  # stopped, so it cannot see that its input has ended
                self._guardian.kill()
                await self._guardian.wait()
            assert self._guardian.stdin is not None
            with contextlib.suppress(OSError):
                await self._guardian.stdin.wait_closed()
        if self._drain is not None:
            self._drain.cancel()
            await asyncio.wait([self._drain])
        if self.session is not None:
            await asyncio.sleep(0.02)  # every reader sees its connection end first; a closed session wakes none
            await self.session.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Supervisor:
    """Keeps one `Running` up, one after another.

    Args:
        launch: Makes what to start; called for every start, since free memory changes. May raise `CierzoError`.
        silent: Whether an answer is under way from which nothing came for a while.
    """

    def __init__(self, launch: Callable[[], Launch], silent: Callable[[], bool]) -> None:
        self._launch = launch
        self._silent = silent
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self.failures = self.starts = 0
        self.current: Running | None = None
        self.loading: Running | None = None
        self.error: CierzoError | None = None
        self.closed = False
        self.load_seconds = 0.0

    def start(self) -> None:
        """Begin to load in the background, if that is not under way and nothing is loaded."""
        if self.closed:
            raise EngineDied("the engine was closed: make a new one")
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep())

    async def changed(self, timeout: float) -> None:  # noqa: ASYNC109 - it is not an error when it passes
        """Wait until something about the process changes, or ``timeout`` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _keep(self) -> None:
        back_off, deaths = FIRST_BACK_OFF, 0
        while True:
            running = None
            try:
                running = self.loading = Running(self._launch())
                began = time.monotonic()
                await running.load()
                self.starts += 1
                self.load_seconds = time.monotonic() - began
                self.current, self.loading, deaths = running, None, 0
                self._tell()
                await running.until_it_ends(self._silent)
            except (CierzoError, OSError) as broken:
                failed = broken if isinstance(broken, CierzoError) else EngineDied(f"{broken}: ask again")
                self.error, self.failures, deaths = failed, self.failures + 1, deaths + 1
                if not isinstance(failed, EngineDied) or deaths == DEATHS_IN_LOADING:
                    return
            finally:
                self.current = self.loading = None
                self._tell()
                if running is not None:
                    await _to_the_end(running.clean())
            if running is not None and running.useful:
                back_off = FIRST_BACK_OFF
            await asyncio.sleep(back_off)
            back_off = min(LONGEST_BACK_OFF, back_off * 2)

    async def close(self) -> None:
        """End the process and whatever waits for it. May be called twice."""
        self.closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self._tell()


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Await ``work`` even if this task is cancelled meanwhile; the cancellation comes after it."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def _private_folder() -> Path:
    """Make a folder that only this user may enter, with a path short enough for a Unix socket.

    The system allows about 104 bytes for a socket's path, and ``TMPDIR`` may be longer than that.
    """
    for parent in (None, "/tmp", "/var/tmp"):  # noqa: S108 - mkdtemp makes a new one for this user alone
        with contextlib.suppress(OSError):
            folder = Path(tempfile.mkdtemp(prefix="cierzo-", dir=parent))
            if len(os.fsencode(folder / "s.sock")) < SHORTEST_LIMIT_OF_A_SOCKET_PATH or not hasattr(os, "fork"):
                return folder
            folder.rmdir()
    raise EngineMissing("no folder for temporary files can be written: set TMPDIR to one with a short path")
