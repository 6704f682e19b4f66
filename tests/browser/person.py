"""Somebody at the page, in a browser of their own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from cierzo.engines.base import Engine

GRADIO_USES_OLD_PANDAS = pytest.mark.filterwarnings("ignore:.*(no_silent_downcasting|copy keyword is deprecated)")
"""For every test that lets Gradio's queue finish an event: it then asks pandas for what pandas deprecates."""

RECORD = """() => {
    window.seen = [];
    const look = () => {
        const text = [...document.querySelectorAll('[data-testid=bot]')].pop()?.innerText.trim() ?? '';
        if (text && window.seen.at(-1) !== text) window.seen.push(text);
    };
    new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""
"""Remembers every text that the last answer has had."""


class Person:
    """Somebody at the page.

    Attributes:
        page: The browser's page, for what is not here.
        abroad: Addresses elsewhere that it asked for.
        complaints: What the browser's console called an error.
    """

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.abroad: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda sent: None if self._near(sent.url, address) else self.abroad.append(sent.url))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(address)
        self.examples = page.locator("#conversation .example")
        expect(self.examples).to_have_count(4, timeout=60_000)
        page.evaluate(RECORD)
        self.box = page.locator("#box textarea")
        self.questions = page.get_by_test_id("user")
        self.answers = page.get_by_test_id("bot")
        self.status = page.locator("#status")
        self.stop = page.locator("#box .stop-button")

    @staticmethod
    def _near(url: str, address: str) -> bool:
        return url.startswith((f"{address}/", "data:", "blob:"))

    def say(self, text: str) -> None:
        self.box.fill(text)
        self.box.press("Enter")

    def ask(self, text: str) -> str:
        """Send it, wait for the whole answer and return it."""
        before = self.answers.count()
        self.say(text)
        expect(self.answers).to_have_count(before + 1, timeout=60_000)
        self.rest()
        return self.answers.last.inner_text().strip()

    def rest(self) -> None:
        """Wait until nothing is being written: the button sends again."""
        expect(self.page.locator("#box .submit-button")).to_be_visible(timeout=60_000)

    def seen(self) -> list[str]:
        """Every text that the last answer has had on the page, oldest first."""
        texts: list[str] = self.page.evaluate("window.seen")
        return texts


Serve = Callable[[Engine], str]
"""Serves the page over an engine on a free port and gives its address."""

Visit = Callable[..., Person]
"""Opens an address as somebody new; takes what a browser context takes, such as ``locale``."""
