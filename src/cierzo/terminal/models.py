"""`cierzo models`: which models there are, what each one needs, fetching one, removing one, choosing one."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cierzo import catalog, downloads, estimates, settings_file
from cierzo.errors import BadInput
from cierzo.machine import Machine, bandwidth, machine
from cierzo.templates import shown
from cierzo.terminal import model_facts
from cierzo.terminal.events import Lines, reported
from cierzo.terminal.flags import Doors, json_flag
from cierzo.terminal.render import Screen, one_line, pad, width_of

if TYPE_CHECKING:
    from cierzo.catalog import Model
    from cierzo.downloads.fetching import Progress

_FITS = {"yes": "fits", "tight": "tight", "no": "does not fit"}


@click.group("models")
def models() -> None:
    """Which models there are; download, remove or choose one."""


@models.command("list")
@json_flag
@click.pass_obj
def list_models(doors: Doors, /, as_json: bool) -> None:
    """List the models that Cierzo knows, and the GGUF files in CIERZO_HOME/models and in the hub's cache."""
    screen = Screen.standard()
    lines = Lines(screen.out) if as_json else None
    with reported(lines):
        settings = doors.settings({})
        known = catalog.models(settings.home)
    has = machine()
    if lines:
        for model in known:
            lines.write("model", **_fields(model, has))
        return
    rows: list[tuple[str, ...]] = [
        ("", "NAME", "SIZE", "MEMORY", "AT 32K", "", "TOKENS/S", "WINDOW", "TEMPLATE", "LICENCE", "")
    ]
    rows += [_row(model, has, chosen=model.name == settings.model) for model in known]
    widths = [max(width_of(row[place]) for row in rows) for place in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = (pad(one_line(cell), width) for cell, width in zip(row, widths, strict=True))
        screen.line("  ".join(cells).rstrip(), "" if number else "dim")
    screen.note(
        f"* is chosen · memory with {catalog.WINDOW:,} and {catalog.LONG_WINDOW:,} tokens of window, or all it has; "
        f"{size(has.free_memory)} of {size(has.memory)} are free · tokens/s: an estimate for this processor · "
        f"`cierzo models pull NAME` downloads · own GGUF files: {settings.home / 'models'} · "
        "any of the hub: hf:OWNER/REPO/FILE.gguf"
    )


def _row(model: Model, has: Machine, *, chosen: bool) -> tuple[str, ...]:
    needs = estimates.needs(model, has)
    return (
        "*" if chosen else " ",
        model.name,
        size(model.size),
        size(needs[0].memory),
        size(needs[-1].memory) if needs[-1].context > catalog.WINDOW else "",
        _FITS[needs[0].fits],
        _speed(model),
        f"{model.context:,}",
        shown(model.template),
        model.license or "not known",
        "here" if model.path else "not downloaded",
    )


@models.command("show")
@click.argument("name", required=False)
@json_flag
@click.pass_obj
def show(doors: Doors, /, name: str | None, as_json: bool) -> None:
    """Show all about one model; left out, the one that is chosen.

    NAME as in the list, the path of a GGUF, or hf:OWNER/REPO/FILE.gguf, for which the hub is asked.
    """
    screen = Screen.standard()
    lines = Lines(screen.out) if as_json else None
    with reported(lines):
        settings = doors.settings({})
        model = catalog.find(name or settings.model, settings.home)
        if not model.size and model.repo:
            model = catalog.asked(model)
        model = model_facts.looked_into(model)
        facts = {} if lines else model_facts.rows(model)
    has = machine()
    if lines:
        lines.write("model", **_fields(model, has))
        return
    told = {
        "name": model.name,
        "title": model.title,
        "template": shown(model.template) or "known when it is here",
        "window": f"{model.context:,} tokens" if model.context else "known when it is here",
        **facts,
        "file": f"{model.path or 'not downloaded: `cierzo models pull ' + model.name + '`'}",
        "size": size(model.size),
        "sha256": model.sha256 or "the hub gives it with the file, which is checked" if model.repo else "",
        "memory": _memory(model, has),
        "speed": f"{_speed(model)} tokens/s, an estimate for this machine's processor",
        "licence": model.license or "not known",
        "from": f"{model.repo} {model.file}" if model.repo else "this machine",
    }
    for key, value in told.items():
        if value:
            screen.line(f"{key:<9} {one_line(value)}")


@models.command("pull")
@click.argument("name")
@json_flag
@click.pass_obj
def pull(doors: Doors, /, name: str, as_json: bool) -> None:
    """Download a model from the Hugging Face hub: NAME as in the list, or hf:OWNER/REPO/FILE.gguf.

    One that was broken off goes on where it stopped. The file is checked before anything can use it.
    """
    screen = Screen.standard()
    lines = Lines(screen.out) if as_json else None
    with reported(lines):
        settings = doors.settings({})
        model = catalog.find(name, settings.home)
        if model.path is None and model.repo:
            model = catalog.asked(model)
            screen.note(f"{model.title}: {size(model.size)} · {_memory(model, machine())}")
            if begun := downloads.begun(catalog.place_of(model)):
                screen.note(f"{size(begun)} are here already: it goes on there")
        try:
            model = catalog.pull(model, settings.home, _Told(name, screen, lines))
        except KeyboardInterrupt:
            screen.note("what has come is kept: the same command goes on there")
            raise
        finally:
            screen.clear()
    if lines:
        lines.write("model", **_fields(model, machine()))
    else:
        screen.line(f"{model.path}")
        screen.note(f"`cierzo models use {model.name}` makes it the one that answers")


class _Told:
    """Shows how a download goes."""

    def __init__(self, name: str, screen: Screen, lines: Lines | None) -> None:
        self._name, self._screen, self._lines = name, screen, lines
        self._share = -1
        self._began = (0.0, 0)
        self._phase = ""

    def __call__(self, progress: Progress) -> None:
        done, total = progress.done, progress.total
        if progress.phase != self._phase:
            self._phase, self._began = progress.phase, (time.monotonic(), done)
        share = 100 * done // total if total else 0
        words = {
            "waiting": "another program fetches it",
            "checking": "checking it",
            "fetching": self._pace(done, total),
        }
        bar = f"{'█' * (share // 5):<20}  {share} %  {size(done)} of {size(total)}"
        self._screen.status(f"{self._name}  {bar}  {words[self._phase]}")
        if self._lines and self._phase == "fetching" and share > self._share:
            self._share = share
            self._lines.write("download", name=self._name, done=done, total=total)

    def _pace(self, done: int, total: int) -> str:
        at, first = self._began
        passed = time.monotonic() - at
        if passed < 1 or done == first:
            return ""
        rate = (done - first) / passed
        left = (total - done) / rate
        clock = f"{left // 60:.0f}:{left % 60:02.0f}" if left < 3600 else f"{left / 3600:.1f} h"  # noqa: PLR2004
        return f"{size(int(rate))}/s  {clock} left"


@models.command("rm")
@click.argument("name")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_flag
@click.pass_obj
def remove(doors: Doors, /, name: str, yes: bool, as_json: bool) -> None:
    """Remove a model's file from this machine, and what a broken download of it has left."""
    screen = Screen.standard()
    lines = Lines(screen.out) if as_json else None
    with reported(lines):
        settings = doors.settings({})
        model = catalog.find(name, settings.home)
        there = model.size if model.path else downloads.begun(catalog.place_of(model)) if model.repo else 0
        if not there:
            raise BadInput(f"{model.name} is not on this machine: there is nothing to remove")
        if model.repo or model.name != catalog.DEMO:
            _agreed(f"remove {model.path or model.name} ({size(there)})?", yes=yes)
        freed = catalog.remove(model, settings.home)
    if lines:
        lines.write("removed", name=model.name, freed=freed)
        return
    screen.line(f"removed {model.name}: {size(freed)} are free again")
    if model.name == settings.model:
        screen.note(f"it was the one that answers: choose another, such as `cierzo models use {catalog.DEMO}`")


def _agreed(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin or not sys.stdin.isatty():
        raise BadInput(f"to {question.rstrip('?')}, say --yes: nobody is here who could be asked")
    click.confirm(question, abort=True, err=True)


@models.command("use")
@click.argument("name")
@json_flag
@click.pass_obj
def use(doors: Doors, /, name: str, as_json: bool) -> None:
    """Choose the model that answers where nothing else is said. It is written into cierzo.toml in CIERZO_HOME."""
    screen = Screen.standard()
    lines = Lines(screen.out) if as_json else None
    with reported(lines):
        settings = doors.settings({})
        model = catalog.find(name, settings.home)
        name = _lasting(model)
        file = settings_file.set_entry(settings.writable_home(), "model", name)
        now = doors.settings({}).model
    if lines:
        lines.write("setting", name="model", value=name, file=str(file))
    else:
        screen.line(f"{file} now says: model = {name!r}")
    if now != name:
        screen.note(f"CIERZO_MODEL or --model says {now!r} and counts more")
    if model.path is None:
        screen.note(f"it is not on this machine yet: `cierzo models pull {name}`")


def _lasting(model: Model) -> str:
    """Return a name that means the same from every folder: for a file that was named by its path, the whole path."""
    by_path = model.path is not None and Path(model.name).absolute() == model.path
    return str(model.path) if by_path else model.name


def _speed(model: Model) -> str:
    speed = estimates.speed(model, bandwidth())
    if speed is None:
        return "?"
    digits = 1 if speed.fastest < 10 else 0  # noqa: PLR2004 - below, a half matters
    return f"{speed.slowest:.{digits}f}-{speed.fastest:.{digits}f}"


def _memory(model: Model, has: Machine) -> str:
    needs = [
        f"{size(need.memory)} with a window of {need.context:,} tokens ({_FITS[need.fits]})"
        for need in estimates.needs(model, has)
    ]
    return f"{', '.join(needs)}; {size(has.free_memory)} of {size(has.memory)} are free"


def _fields(model: Model, has: Machine) -> dict[str, Any]:
    speed = estimates.speed(model, bandwidth())
    return {
        "name": model.name,
        "title": model.title,
        "template": model.template,
        "context": model.context,
        "license": model.license,
        "path": None if model.path is None else str(model.path),
        "repo": model.repo,
        "file": model.file,
        "size": model.size,
        "sha256": model.sha256,
        "memory": catalog.memory_needed(model),
        "needs": [
            {"context": need.context, "memory": need.memory, "fits": need.fits} for need in estimates.needs(model, has)
        ],
        "kind": model_facts.fields(model),
        "speed": None if speed is None else [round(speed.slowest, 2), round(speed.fastest, 2)],
    }


def size(count: int) -> str:
    """Return bytes as a person reads them."""
    if count >= 10**9:
        return f"{count / 10**9:.1f} GB"
    return f"{count / 10**6:.0f} MB" if count >= 10**6 else f"{count / 10**3:.0f} kB"
