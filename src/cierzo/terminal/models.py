"""`cierzo models`: which models there are, what each one needs, and fetching one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cierzo import catalog
from cierzo.catalog import WINDOW
from cierzo.terminal.events import Lines, reported
from cierzo.terminal.flags import Doors, json_flag
from cierzo.terminal.render import Screen, one_line, pad, width_of

if TYPE_CHECKING:
    from cierzo.catalog import Model


@click.group("models")
def models() -> None:
    """Which models there are; download one."""


@models.command("list")
@json_flag
@click.pass_obj
def list_models(doors: Doors, /, as_json: bool) -> None:
    """List the models that Cierzo knows, and the GGUF files in the models folder of CIERZO_HOME."""
    screen = Screen.standard()
    lines = Lines(screen.out) if as_json else None
    with reported(lines):
        settings = doors.settings({})
        known = catalog.models(settings.home)
    if lines:
        for model in known:
            lines.write("model", **_fields(model))
        return
    rows: list[tuple[str, ...]] = [("", "NAME", "SIZE", "MEMORY", "WINDOW", "TEMPLATE", "LICENCE", "")]
    rows += [_row(model, chosen=model.name == settings.model) for model in known]
    widths = [max(width_of(row[place]) for row in rows) for place in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = (pad(one_line(cell), width) for cell, width in zip(row, widths, strict=True))
        screen.line("  ".join(cells).rstrip(), "" if number else "dim")
    screen.note(
        f"* is chosen · memory with {WINDOW:,} tokens of window · `cierzo models pull NAME` downloads · "
        f"own GGUF files: {settings.home / 'models'}"
    )


def _row(model: Model, *, chosen: bool) -> tuple[str, ...]:
    return (
        "*" if chosen else " ",
        model.name,
        size(model.size),
        size(catalog.memory_needed(model)),
        f"{model.context:,}",
        model.template,
        model.license or "not known",
        "here" if model.path else "not downloaded",
    )


@models.command("show")
@click.argument("name", required=False)
@json_flag
@click.pass_obj
def show(doors: Doors, /, name: str | None, as_json: bool) -> None:
    """Show all about one model. NAME as in the list, or the path of a GGUF; left out, the one that is chosen."""
    screen = Screen.standard()
    lines = Lines(screen.out) if as_json else None
    with reported(lines):
        settings = doors.settings({})
        model = catalog.find(name or settings.model, settings.home)
    if lines:
        lines.write("model", **_fields(model))
        return
    told = {
        "name": model.name,
        "title": model.title,
        "template": model.template,
        "window": f"{model.context:,} tokens",
        "file": f"{model.path or 'not downloaded: `cierzo models pull ' + model.name + '`'}",
        "size": size(model.size),
        "memory": f"{size(catalog.memory_needed(model))} with a window of {min(WINDOW, model.context):,} tokens",
        "licence": model.license or "not known",
        "from": f"{model.repo} {model.file}" if model.repo else "this machine",
    }
    for key, value in told.items():
        screen.line(f"{key:<9} {one_line(value)}")


@models.command("pull")
@click.argument("name")
@json_flag
@click.pass_obj
def pull(doors: Doors, /, name: str, as_json: bool) -> None:
    """Download a model from the Hugging Face hub. One that was broken off goes on where it stopped."""
    screen = Screen.standard()
    lines = Lines(screen.out) if as_json else None
    told = -1

    def progress(done: int, total: int) -> None:
        nonlocal told
        share = 100 * done // total if total else 0
        screen.status(f"{name}  {'█' * (share // 5):<20}  {share} %  {size(done)} of {size(total)}")
        if lines and share > told:
            told = share
            lines.write("download", name=name, done=done, total=total)

    with reported(lines):
        settings = doors.settings({})
        try:
            model = catalog.pull(catalog.find(name, settings.home), settings.home, progress)
        finally:
            screen.clear()
    if lines:
        lines.write("model", **_fields(model))
    else:
        screen.line(f"{model.path}")


def _fields(model: Model) -> dict[str, Any]:
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
        "memory": catalog.memory_needed(model),
    }


def size(count: int) -> str:
    """Return bytes as a person reads them."""
    if count >= 10**9:
        return f"{count / 10**9:.1f} GB"
    return f"{count / 10**6:.0f} MB" if count >= 10**6 else f"{count / 10**3:.0f} kB"
