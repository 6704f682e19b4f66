"""Takes the page's pictures for the documentation: `make screenshots`.

It serves the page with the model that comes with Cierzo, asks what is below, and writes ``docs/images/*.png``.
The temperature is 0, so that the same model gives the same pictures.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

IMAGES = Path(__file__).parent / "images"
MOST_BYTES = 2_000_000

QUESTIONS = {
    "es": ("¿Qué es la temperatura?", "¿Cuál es tu ingrediente favorito?", "¿Qué es un token?"),
    "en": ("What is temperature?", "What is your favourite ingredient?", "What is a token?"),
}
NEW = {"es": "Nueva charla", "en": "New chat"}
LOCALES = {"es": "es-ES", "en": "en-GB"}
SCREENS = {"desktop": (1280, 800, 1), "phone": (360, 740, 1.5)}


def main() -> None:
    """Take them all, and say how large they are."""
    IMAGES.mkdir(exist_ok=True)
    chromium = os.environ.get("CIERZO_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        sys.exit("no Chromium on this machine: install it (make system), or set CIERZO_CHROMIUM to its path")
    for old in IMAGES.glob("*.png"):
        old.unlink()
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        for language, scheme, screen in product(QUESTIONS, ("light", "dark"), SCREENS):
            with served() as address:  # each begins with a list of its own
                page = visit(browser, address, language, scheme, screen)
                take(page, language, scheme, screen)
                page.context.close()
        browser.close()
    sizes = {path.name: path.stat().st_size for path in sorted(IMAGES.glob("*.png"))}
    for name, size in sizes.items():
        print(f"{size / 1000:6.0f} kB  {name}")
    if sum(sizes.values()) > MOST_BYTES:
        sys.exit(f"together they have {sum(sizes.values()):,} bytes, at most {MOST_BYTES:,} are allowed")


def take(page: Page, language: str, scheme: str, screen: str) -> None:
    """Take the pictures of one visit: the beginning, a conversation, and on a phone the list."""
    page.screenshot(path=IMAGES / f"start-{language}-{scheme}-{screen}.png")
    talk(page, language, screen)
    page.screenshot(path=IMAGES / f"page-{language}-{scheme}-{screen}.png")
    if screen == "phone":
        page.locator("#side > .toggle-button").click()
        page.wait_for_timeout(600)
        page.screenshot(path=IMAGES / f"list-{language}-{scheme}-{screen}.png")


@contextmanager
def served() -> Iterator[str]:
    """Run ``cierzo`` on a free port, in a home of its own; give its address."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "cierzo", "--no-open", "--port", "0"]
        environment = {**os.environ, "CIERZO_HOME": home}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
            try:
                line = process.stdout.readline() if process.stdout else ""
                said = re.search(r"http://\S+", line)
                if not said:
                    sys.exit(f"the page did not open: {line}")
                yield said[0]
            finally:
                process.terminate()


def visit(browser: Browser, address: str, language: str, scheme: str, screen: str) -> Page:
    """Open the page as somebody with this language, colour scheme and screen."""
    width, height, scale = SCREENS[screen]
    page = browser.new_context(
        locale=LOCALES[language],
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": width, "height": height},
        device_scale_factor=scale,
        has_touch=screen == "phone",
    ).new_page()
    page.goto(address)
    page.locator("html[data-ready]").wait_for(state="attached", timeout=60_000)
    expect(page.locator(".example")).to_have_count(4)
    page.wait_for_timeout(700)
    return page


def talk(page: Page, language: str, screen: str) -> None:
    """Ask the questions, each when the answer before it is whole; on a desktop the first in a chat of its own."""
    page.evaluate("localStorage.setItem('cierzo.parameters', JSON.stringify({temperature: 0}))")
    page.reload()
    page.locator("html[data-ready]").wait_for(state="attached", timeout=60_000)
    for place, question in enumerate(QUESTIONS[language]):
        page.locator("#box").fill(question)
        page.locator("#send").click()
        expect(page.locator("article.user").last).to_contain_text(question)
        expect(page.locator("article.assistant[aria-busy=false]").last).to_be_visible(timeout=120_000)
        expect(page.locator("article[aria-busy=true]")).to_have_count(0)
        if not place and screen == "desktop":
            page.keyboard.press("Control+Shift+O")
            expect(page.locator("#title")).to_have_text(NEW[language])
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(700)


if __name__ == "__main__":
    main()
