"""How the page begins, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from person import Serve, Visit
from playwright.sync_api import expect

from cierzo import catalog
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.engines.script import Reply
from cierzo.engines.scripted import Scripted
from cierzo.page.words import LANGUAGES


@pytest.mark.parametrize(("locale", "tag"), [("es-MX", "es"), ("fr-CA", "fr"), ("en-GB", "en"), ("de-DE", "en")])
def test_the_page_speaks_the_browsers_language(serve: Serve, visit: Visit, locale: str, tag: str) -> None:
    person = visit(serve(Scripted("bien")), locale=locale)
    for key in ("temperature", "system", "look"):
        person.see(person.page.get_by_text(LANGUAGES[tag][key], exact=True).first)
    assert person.page.evaluate("document.documentElement.lang") == tag
    shown = person.page.inner_text("body")
    assert "__i18n__" not in shown
    others = {name: words for name, words in LANGUAGES.items() if name != tag}
    assert [words["temperature_info"] for words in others.values() if words["temperature_info"] in shown] == []


@pytest.mark.parametrize(
    ("locale", "first", "words"),
    [
        ("es-MX", "¿Quién eres?", "terminó por sí misma"),
        ("fr-CA", "Qui es-tu ?", "terminée d'elle-même"),
        ("de-DE", "Who are you?", "ended by itself"),
    ],
)
def test_examples_in_the_language_of_the_page(serve: Serve, visit: Visit, locale: str, first: str, words: str) -> None:
    person = visit(serve(Scripted("So.")), locale=locale)
    expect(person.page.locator(".example")).to_have_count(4)
    person.page.locator(".example").first.click()
    expect(person.page.locator("article.user .body")).to_have_text(first)
    expect(person.page.locator("article.assistant .line")).to_contain_text(words)


def test_a_newcomer_meets_the_demo_and_is_offered_more(serve: Serve, visit: Visit, tmp_path: Path) -> None:
    """The real engine on the model that ships, as after `make chat`."""
    person = visit(serve(LlamaCpp(catalog.find(catalog.DEMO, tmp_path))), locale="es-ES")
    person.see(".notice", "Responde cierzo-demo, un modelo muy pequeño")
    person.page.get_by_role("button", name="Conseguir Mistral 7B").click()
    dialog = person.page.get_by_role("dialog")
    expect(dialog).to_contain_text(re.compile(r"Esta máquina tiene \d+,\d GB de memoria, \d+,\d GB libres"))
    offered = dialog.locator(".models > li").nth(1)
    expect(offered.get_by_role("heading")).to_have_text("Mistral 7B Instruct v0.3")
    expect(offered).to_contain_text(re.compile(r"4,4 GB · Apache-2.0 · .*Unos 5,2 GB de memoria con 4096 tokens:"))
    expect(offered.get_by_role("button", name="Descargar: Mistral 7B Instruct v0.3")).to_be_visible()
    person.page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    person.page.locator(".example").nth(2).click()
    expect(person.page.locator("article.assistant .line")).to_contain_text("terminó por sí misma")
    expect(person.page.locator("article.assistant .body")).to_have_text(re.compile(r"\w+ \w+"))
    expect(person.page.locator("article.assistant .line")).to_contain_text("cierzo-demo")


def test_it_can_be_installed(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted()))
    told = person.page.evaluate(
        """async () => {
            const link = document.querySelector("link[rel=manifest]");
            const manifest = await (await fetch(link.href)).json();
            const icons = await Promise.all(manifest.icons.map(async ({src, sizes}) => {
                const image = new Image();
                image.src = src;
                await image.decode();
                return [sizes, image.naturalWidth];
            }));
            return [manifest.name, manifest.display, manifest.start_url, icons];
        }"""
    )
    assert told[:3] == ["Cierzo", "standalone", "/"]
    assert [width for sizes, width in told[3] if sizes == "512x512"] == [512, 512]
    assert [width for sizes, width in told[3] if sizes == "192x192"] == [192]


def test_whoever_wants_no_motion_has_none(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted(Reply.of([" on"], delay=0.05, repeat=True))), reduced_motion="reduce")
    person.send("Go on")
    expect(person.page.locator("article[aria-busy=true] .line")).to_contain_text("Writing")
    moving = person.page.evaluate("document.getAnimations().length")
    assert moving == 0
    person.page.keyboard.press("Escape")
    expect(person.page.locator("article[aria-busy=true]")).to_have_count(0)


def test_storage_that_is_switched_off_stops_nothing(serve: Serve, visit: Visit) -> None:
    address = serve(Scripted("Fine."))
    person = visit(address)
    person.context.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})"
    )
    person.open()
    person.send("Without storage")
    expect(person.page.locator("article.assistant .line")).to_contain_text("ended by itself")
