"""`cierzo doctor`: what is installed, what would be used, what is wrong and what to do."""

from __future__ import annotations

import asyncio
import ctypes
import json
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import click

from cierzo import catalog
from cierzo.engines.supervisor import CHILD
from cierzo.errors import CierzoError
from cierzo.machine import machine
from cierzo.messages import Message, Sampling
from cierzo.settings import LOOPBACK
from cierzo.switching import EMBEDDED
from cierzo.templates import shown
from cierzo.terminal.events import Lines
from cierzo.terminal.flags import Doors, json_flag, model_flags
from cierzo.terminal.models import size
from cierzo.terminal.render import Screen, Style, one_line

if TYPE_CHECKING:
    from cierzo.chat import Answer, Chat
    from cierzo.engines.base import EngineInfo
    from cierzo.settings import Settings

State = Literal["ok", "warn", "fail"]
_MARKS: dict[State, tuple[str, Style]] = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}

PATIENCE = 120
"""Seconds that the engine's library, and then a whole answer, may take before something is wrong."""


MEETING = 60
"""Seconds in which a server has to say what it is."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        state: ``ok``; ``warn`` where Cierzo works but not as well; ``fail`` where it does not.
        found: What is there.
        advice: What to do, empty where nothing needs to be done.
    """

    name: str
    state: State
    found: str
    advice: str = ""


@click.command("doctor")
@click.option("--no-try", is_flag=True, help="Do not load the model for a short answer.")
@model_flags
@json_flag
@click.pass_obj
def doctor(doors: Doors, /, no_try: bool, as_json: bool, **flags: str | None) -> None:
    """Say what is installed, what would be used, what is wrong and what to do.

    Ends with status 1 where something is wrong.
    """
    screen = Screen.standard()
    lines = Lines(screen.out) if as_json else None
    failed = 0
    for check in _checks(doors, flags, screen, try_it=not no_try):
        failed += check.state == "fail"
        if lines:
            lines.write("check", **asdict(check))
        else:
            _show(screen, check)
    if failed:
        raise click.exceptions.Exit(1)


def _show(screen: Screen, check: Check) -> None:
    mark, style = _MARKS[check.state]
    screen.clear()
    screen.out.write(f"{screen.paint(mark, style)}  {check.name:<9}  {one_line(check.found)}\n")
    screen.out.flush()
    if check.advice:
        screen.line(f"      {'':<9}  → {one_line(check.advice)}")


def _checks(doors: Doors, flags: dict[str, str | None], screen: Screen, *, try_it: bool) -> Iterator[Check]:
    python = f"Python {platform.python_version()}, {platform.platform(terse=True)}"
    yield Check("cierzo", "ok", f"{doors.version}, {python}")
    yield _machine()
    try:
        settings = doors.settings(flags)
    except CierzoError as wrong:
        yield Check("settings", "fail", str(wrong), "correct it, then run this again")
        return
    yield _home(settings)
    yield _port(settings)
    yield Check("engine", "ok", f"{settings.engine} would answer")
    working = True
    for look in _looks(doors, settings):
        screen.status(f"{look.__name__.strip('_')} …")
        check = look(settings)
        working = working and check.state != "fail"
        yield check
    if try_it and working:
        screen.status("asking …")
        yield _answer(doors.open_chat, settings)


def _looks(doors: Doors, settings: Settings) -> list[Callable[[Settings], Check]]:
    """Return what there is to look at before the engine is asked anything."""
    if settings.engine == EMBEDDED:
        return [_library, _model]

    def _server(settings: Settings) -> Check:
        return server(doors.open_chat, settings)

    return [_server] if "://" in settings.engine else []


def _machine() -> Check:
    has = machine()
    found = f"{has.cpus} cores, {size(has.memory)} of memory, {size(has.free_memory)} free, {platform.machine()}"
    return Check("machine", "ok", found)


def _home(settings: Settings) -> Check:
    try:
        return Check("home", "ok", f"{settings.writable_home()} can be written")
    except CierzoError as denied:
        return Check("home", "warn", str(denied), "questions are answered all the same; what you type is not kept")


def _port(settings: Settings) -> Check:
    try:
        family, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            if sys.platform != "win32":  # as servers do: a port just left is free; there the option means another thing
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as denied:
        found = f"{settings.host} port {settings.port}: {denied.strerror or denied}"
        return Check("port", "warn", found, "open the page with another --port, or --port 0 for any free one")
    return Check("port", "ok", f"{settings.host} port {settings.port} is free for the page")


def _library(settings: Settings) -> Check:
    """Look at the engine's library without loading it here: it may end the process that does."""
    try:
        found = f"xllamacpp {version('xllamacpp')}"
    except PackageNotFoundError:
        return Check(
            "library", "fail", "xllamacpp is not installed", "install it: pip install --force-reinstall cierzo"
        )
    if sys.platform == "linux" and not _loads("libgomp.so.1"):
        advice = "install it: apt install libgomp1, dnf install libgomp, or apk add libgomp"
        return Check("library", "fail", f"{found}, but the system's libgomp.so.1 is missing", advice)
    try:
        command = [sys.executable, "-P", str(CHILD), "--devices"]
        trial = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)  # noqa: S603 - fixed
    except (OSError, subprocess.TimeoutExpired) as failed:
        return Check("library", "fail", f"{found} cannot be tried: {failed}", "restart the machine and try again")
    if trial.returncode == 0:
        return _computes_on(json.loads(trial.stdout)["devices"], found, settings)
    if trial.returncode == -getattr(signal, "SIGILL", 0):
        advice = "this processor lacks AVX2, which the library needs: use a machine from 2015 or later"
        return Check("library", "fail", f"{found} uses an instruction that this processor lacks", advice)
    reason = (trial.stderr.strip().splitlines() or [f"exit status {trial.returncode}"])[-1]
    return Check(
        "library", "fail", f"{found} does not load: {reason}", "reinstall it: pip install --force-reinstall xllamacpp"
    )


def _computes_on(devices: list[dict[str, Any]], library: str, settings: Settings) -> Check:
    """Say what the engine computes on. Only some builds of the library know a graphics card."""
    cards = [device for device in devices if device["kind"] in ("GPU", "IGPU")]
    if cards:
        named = ", ".join(f"{card['description']} ({card['name']}, {size(card['memory'])})" for card in cards)
        where = "the processor, as gpu_layers is 0" if settings.gpu_layers == 0 else "it"
        return Check("library", "ok", f"{library} loads and knows {named}; layers go to {where}")
    found = f"{library} loads; it computes on the processor and knows no graphics card"
    if settings.gpu_layers in ("auto", 0):
        return Check("library", "ok", found)
    advice = "install the build of xllamacpp for yours: see docs/engine.md, or leave gpu_layers out"
    return Check("library", "warn", f"{found}, but gpu_layers is {settings.gpu_layers}", advice)


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _model(settings: Settings) -> Check:
    try:
        model = catalog.find(settings.model, settings.home)
    except CierzoError as wrong:
        return Check("model", "fail", str(wrong), "see `cierzo models list`")
    if model.path is None:
        advice = (
            f"download it: cierzo models pull {model.name}" if model.repo else "reinstall Cierzo: its model is missing"
        )
        return Check("model", "fail", f"{model.name} is not on this machine", advice)
    try:
        with model.path.open("rb") as file:
            file.read(1)
    except OSError as denied:
        return Check("model", "fail", f"{model.path} cannot be read ({denied.strerror})", "check who may read it")
    needed, free = _needs(model, settings), machine().free_memory
    found = f"{model.name}, {size(model.size)}, template {shown(model.template)}, needs {size(needed)} of memory"
    if needed > free:
        return Check(
            "model", "warn", f"{found}; {size(free)} are free", "close other programs, or choose a smaller model"
        )
    return Check("model", "ok", found)


def _needs(model: catalog.Model, settings: Settings) -> int:
    return catalog.memory_needed(model, settings.context or catalog.WINDOW, settings.kv_type)


def server(open_chat: Callable[[Settings], Chat], settings: Settings) -> Check:
    """Ask a server elsewhere what it is, and say what will be different with it."""
    try:
        info = asyncio.run(_met(open_chat(settings)))
    except CierzoError as wrong:  # the sentence says what to do
        return Check("server", "fail", str(wrong), "docs/engines.md tells of every kind of server")
    except TimeoutError:
        advice = "is it still loading its model? ask again in a moment"
        return Check("server", "fail", f"{settings.engine} said nothing within {MEETING} s", advice)
    version = f" ({info.version})" if info.version else ""
    window = f"{info.context:,} tokens of window"
    found = f"{info.model} {info.where}{version}, {window}, takes {info.takes}, {_prompts(info)}"
    if settings.engine_key.get_secret_value() and not _is_private(settings.engine):
        return Check(
            "server", "warn", found, "the key goes to it unencrypted: use https, or an address of this machine"
        )
    return Check("server", "ok", found)


def _prompts(info: EngineInfo) -> str:
    if info.takes == "messages":
        return "which makes the prompt itself"
    return f"template {info.template}"


def _is_private(engine: str) -> bool:
    """Whether nobody on the way can read what goes to this address."""
    place = urlsplit(engine.partition("+")[2] or engine)
    if place.scheme != "http" or place.hostname in LOOPBACK:
        return True
    try:
        return ip_address(place.hostname or "").is_loopback
    except ValueError:
        return False


async def _met(chat: Chat) -> EngineInfo:
    try:
        async with asyncio.timeout(MEETING):
            return await chat.meet()
    finally:
        await chat.close()


def _answer(open_chat: Callable[[Settings], Chat], settings: Settings) -> Check:
    """Really ask something, and say how long it took."""
    try:
        answer = asyncio.run(_ask(open_chat(settings)))
    except CierzoError as failed:
        return Check("answer", "fail", str(failed), "set CIERZO_LOG=debug and run this again for the details")
    except TimeoutError:
        advice = "is the machine busy? set CIERZO_LOG=debug for the details"
        return Check("answer", "fail", f"none within {PATIENCE} s", advice)
    finish = answer.finish
    rate = "" if finish.rate is None else f", {finish.rate:.0f} tokens/s"
    found = f"{len(answer.tokens)} tokens, the first after {finish.timings.first_token:.1f} s{rate}"
    return Check("answer", "ok", found)


async def _ask(chat: Chat) -> Answer:
    try:
        async with asyncio.timeout(PATIENCE):
            return await chat.answer([Message("user", "Hello")], Sampling(temperature=0, max_new_tokens=16))
    finally:
        await chat.close()
