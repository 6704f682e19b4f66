"""Changing what answers, in a real browser: by the menu, in the middle of answers, and as other tabs see it."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf_files import write
from person import Person, Serve, Visit
from playwright.sync_api import Page, expect

from cierzo import app, catalog
from cierzo.engines.base import EngineInfo
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.engines.script import Reply, Script
from cierzo.engines.scripted import Scripted
from cierzo.page.words import LANGUAGES
from cierzo.settings import Settings

WORDS = LANGUAGES["en"]
PLAIN = "openai+http://127.0.0.1:9/v1"


def ready(page: Page) -> Page:
    expect(page.locator("html[data-ready]")).to_be_attached(timeout=60_000)
    return page


def choose(page: Page, name: str | re.Pattern[str]) -> None:
    page.locator("#model").click()
    page.get_by_role("menuitem", name=name).click()


def last_line(person: Person) -> Any:
    return person.page.locator("article.assistant .line").last


def test_another_model_answers_in_every_tab(serve: Serve, visit: Visit, tmp_path: Path) -> None:
    """The real engine: the demo model, a second copy of it, and a file that only llama.cpp finds hollow."""
    demo = catalog.find(catalog.DEMO, tmp_path)
    if demo.path is None:
        pytest.skip("the demo model is not in this checkout")
    (tmp_path / "models").mkdir()
    shutil.copy(demo.path, tmp_path / "models" / "segunda.gguf")
    write(tmp_path / "models" / "hueca.gguf", tensors=False)
    person = visit(serve(LlamaCpp(demo), home=tmp_path), locale="en-US")
    person.pardon("422")
    other = person.tab()
    for page in (person.page, other):
        expect(ready(page).locator("#model")).to_have_text("cierzo-demo")
    expect(other.locator(".notice")).to_contain_text("cierzo-demo")
    person.send("Who are you?")
    expect(last_line(person)).to_contain_text("cierzo-demo")

    choose(person.page, "segunda")
    expect(person.page.locator("#model")).to_have_text("segunda", timeout=60_000)
    person.see(".note", "segunda answers now.")
    expect(other.locator("#model")).to_have_text("segunda")
    expect(other.locator(".notice")).to_have_count(0)
    expect(other.locator("#announcer")).to_have_text("segunda answers now.")
    person.send("And what is a token?")
    expect(last_line(person)).to_contain_text("segunda · ")

    choose(person.page, "hueca")
    person.see(".note.failed", "hueca.gguf", seconds=60)
    for page in (person.page, other):
        expect(page.locator("#model")).to_have_text("segunda")
    person.page.locator("#model").click()
    expect(person.page.get_by_role("menuitem", name="segunda · in use")).to_be_visible()
    person.page.get_by_role("menuitem", name=WORDS["engine_about"]).click()
    about = person.page.get_by_role("dialog")
    for words in ("segunda", "llamacpp:", "v3", "2,048 tokens", "Temperature, ", "alternatives"):
        expect(about).to_contain_text(words)
    expect(about).not_to_contain_text(WORDS["engine_ignores"])


class Plain(Scripted):
    """A server of little: it heeds two values only."""

    def describe(self) -> EngineInfo:
        return replace(super().describe(), honours=frozenset({"temperature", "max_new_tokens"}))


def test_sliders_follow_in_every_tab_without_a_reload(
    serve: Serve, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(settings: Settings) -> Scripted:
        kind = Plain if settings.engine == PLAIN else Scripted
        return kind(script=Script((Reply.of("sí"),), model=settings.engine[:5]))

    monkeypatch.setattr(app, "open_engine", opened)
    first = Scripted(Reply.of(" ".join(["largo"] * 200), delay=0.05))
    person = visit(serve(first, engines=PLAIN), locale="en-US", viewport={"width": 1400, "height": 1000})
    other = ready(person.tab())
    ready(person.page)
    person.send("Write at length")
    expect(last_line(person)).to_contain_text("tokens")
    choose(person.page, PLAIN)
    for page in (person.page, other):
        expect(page.locator("#model")).to_have_text("opena")
        expect(page.locator("#repetition_penalty-unheeded")).to_have_text(WORDS["unhonoured"].format(engine="scripted"))
        expect(page.locator("#temperature-unheeded")).to_be_empty()
    assert first.running == 1, "the answer under way goes on with what it began with"
    expect(last_line(person)).to_contain_text("ended by itself", timeout=60_000)
    expect(last_line(person)).to_contain_text("scripted")
    choose(other, "cierzo-demo")
    for page in (person.page, other):
        expect(page.locator("#model")).to_have_text("llama")
        expect(page.locator("#repetition_penalty-unheeded")).to_be_empty()


def test_a_change_is_seen_while_it_goes_on(serve: Serve, visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Scripted(Reply.of("a", first=9), script=None)
    monkeypatch.setattr(app, "open_engine", lambda _: slow)
    person = visit(serve(Scripted("b"), engines=PLAIN), locale="es-ES")
    other = ready(person.tab())
    choose(ready(person.page), PLAIN)
    for page in (person.page, other):
        expect(page.locator("#model")).to_contain_text(f"Cambiando a {PLAIN}")
    for page in (person.page, other):
        expect(page.locator("#model")).to_have_text("scripted")
