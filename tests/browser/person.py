"""Somebody at the page, in a browser of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Page, Request, expect

INLINE = ("data", "blob", "about")
"""Schemes of addresses that lead nowhere."""


class Person:
    """Somebody at the page: one browser of their own, with one tab or more.

    Attributes:
        page: The first tab, for what is not here.
        address: Where the page is, such as ``http://127.0.0.1:41234``.
        errors: Errors that no one caught, and what the console called an error, in any tab.
        foreign: Addresses on other hosts that were asked for.
        queue_calls: Addresses of Gradio's queue that were asked for.
        dialogs: What the browser's own dialogs said; each is dismissed.
    """

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.context, self.address = context, address
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self.queue_calls: list[str] = []
        self.dialogs: list[str] = []
        self._pardoned: list[str] = []
        context.on("request", self._asked)
        context.on("console", self._said)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        context.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        self.page = context.new_page()

    def open(self, path: str = "/", page: Page | None = None) -> Person:
        """Open an address of the page and wait until Gradio has drawn it."""
        page = page or self.page
        page.goto(self.address + path)
        page.locator("#talk").wait_for(state="attached", timeout=60_000)
        return self

    def tab(self, path: str = "/") -> Page:
        """Open another tab of the same browser, and return it."""
        page = self.context.new_page()
        self.open(path, page)
        return page

    def see(self, what: str | Locator, text: str | re.Pattern[str] | None = None, seconds: float = 20) -> Locator:
        """Wait until something is seen, holding that text if one is given; return it."""
        found = self.page.locator(what) if isinstance(what, str) else what
        if text is None:
            expect(found).to_be_visible(timeout=seconds * 1000)
        else:
            expect(found).to_contain_text(text, timeout=seconds * 1000)
        return found

    @property
    def box(self) -> Locator:
        """Where people write."""
        return self.page.locator("textarea#box")

    def type(self, text: str) -> None:
        """Write something without sending it."""
        self.box.fill(text)

    def send(self, text: str) -> None:
        """Write something and send it."""
        self.type(text)
        self.box.press("Enter")

    def pardon(self, *patterns: str) -> None:
        """Say which errors this test provokes: those in whose text a pattern is found are not held against the page."""
        self._pardoned += patterns

    def harm(self) -> list[str]:
        """Return everything that no visit may end with."""
        errors = [error for error in self.errors if not any(re.search(known, error) for known in self._pardoned)]
        foreign = [f"asked another host: {url}" for url in self.foreign]
        return [*errors, *foreign, *[f"asked Gradio's queue: {url}" for url in self.queue_calls]]

    def _asked(self, request: Request) -> None:
        place = urlsplit(request.url)
        if place.scheme not in INLINE and f"{place.scheme}://{place.netloc}" != self.address:
            self.foreign.append(request.url)
        if place.path.startswith("/gradio_api/queue"):
            self.queue_calls.append(request.url)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")


Serve = Callable[..., str]
"""Serves the page over an engine on a free port and gives its address; takes settings, such as ``grace``."""

Visit = Callable[..., Person]
"""Opens an address as somebody new; takes what a browser context takes, such as ``locale``, and ``path``."""
