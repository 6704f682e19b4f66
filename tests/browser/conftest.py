"""A real page, served to a real browser: one Chromium for each file, a server for each engine, one drawing for all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from pages import page_served
from person import Person, Serve, Visit
from playwright.sync_api import Browser, Playwright, expect, sync_playwright

from cierzo.page.drawn import Drawn

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str:
    """Path of the browser; without one the test is skipped, saying so."""
    found = os.environ.get("CIERZO_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("no Chromium on this machine: install it (make system), or set CIERZO_CHROMIUM to its path")
    return found


@pytest.fixture(
    scope="module"
)  # while it lives an event loop runs in this thread, in which no other test could run one
def playwright() -> Iterator[Playwright]:
    expect.set_options(timeout=20_000)  # a busy machine is slow, not wrong; what has to be quick says so itself
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    running = playwright.chromium.launch(executable_path=chromium(), args=list(QUIET))
    yield running
    running.close()


@pytest.fixture
def serve(page_drawn: Drawn) -> Iterator[Serve]:
    """Serve the page over an engine on a free port, with a home of its own; give its address."""
    with ExitStack() as ends:
        yield lambda engine, **chosen: ends.enter_context(page_served(page_drawn, engine, **chosen))


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Open an address as somebody new: ``visit(address, locale="es-ES", …)`` takes what a browser context takes.

    However the test ends, the page must have met no error, asked no other host for anything, and left Gradio's queue
    alone.
    """
    people: list[Person] = []
    with ExitStack() as ends:

        def visiting(address: str, *, path: str = "/", **options: Any) -> Person:
            context = browser.new_context(**{"locale": "en-US", **options})
            ends.callback(context.close)
            context.set_default_timeout(30_000)
            people.append(Person(context, address))
            return people[-1].open(path)

        yield visiting
    assert [person.harm() for person in people] == [[]] * len(people)
