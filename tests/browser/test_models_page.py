"""The models in the page: what is said of each, a download from its button through a reload to its end, its faults."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from gguf_files import write
from hub_server import BLOCK, Hub, in_use
from huggingface_hub import constants
from person import Person, Serve, Visit
from playwright.sync_api import Locator, expect
from test_axe import violations

from cierzo import catalog
from cierzo.engines.scripted import Scripted

HF = "hf:some/repo/tiny.gguf"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("models") / "tiny.gguf", title="A tiny one").read_bytes()


class Slow:
    """Lets a hub send half a file, and the rest when it is told to go on."""

    def __init__(self, hub: Hub) -> None:
        self.go_on = threading.Event()
        hub.before_block = lambda place: place < 5 * BLOCK or self.go_on.wait(60)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> Iterator[Hub]:
    with in_use(monkeypatch, tmp_path / "cache") as hub:
        model = catalog.find("mistral-7b", tmp_path)
        hub.files[model.repo, model.file] = hub.files["some/repo", "tiny.gguf"] = content
        yield hub


def card(person: Person, title: str) -> Locator:
    return person.page.locator(".models > li", has=person.page.get_by_role("heading", name=title, exact=True))


def opened(person: Person) -> Person:
    person.page.wait_for_selector("html[data-ready]")
    person.page.locator("#model-now .chosen").click()
    expect(person.page.get_by_role("dialog").locator(".models > li").first).to_be_visible()
    return person


SEVEN = "Mistral 7B Instruct v0.3"


def test_a_download_through_a_reload_to_the_removal(serve: Serve, visit: Visit, hub: Hub, content: bytes) -> None:
    slow = Slow(hub)
    person = opened(visit(serve(Scripted())))
    page, dialog = person.page, person.page.get_by_role("dialog")
    seven = card(person, SEVEN)
    expect(seven).to_contain_text(re.compile(r"About 5\.2 GB of memory with 4,096 tokens: .*About 9\.0 GB .* 32,768"))
    expect(seven).to_contain_text(re.compile(r"About [\d.]+ to [\d.]+ tokens/s on this processor \(estimate\)"))
    button = seven.get_by_role("button", name=f"Download: {SEVEN}")
    button.focus()
    page.keyboard.press("Enter")
    bar = seven.get_by_role("progressbar", name=f"Download of {SEVEN}")
    expect(bar).to_be_visible()
    expect(dialog.get_by_role("status")).to_have_text(f"The download of {SEVEN} has begun.")
    expect(seven.locator(".going p")).to_contain_text(re.compile(r"\d+ kB of \d+ kB · [3-9]\d %"))
    expect(seven.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.locator("#model-line progress")).to_be_visible()
    page.reload()
    expect(page.locator("#model-line progress")).to_be_visible()
    opened(person)
    expect(bar).to_be_visible()
    slow.go_on.set()
    expect(seven.get_by_role("button", name=f"Remove: {SEVEN}")).to_be_visible()
    expect(dialog.get_by_role("status")).to_have_text(f"{SEVEN} is on this machine.")
    expect(page.locator("#model-line progress")).to_have_count(0)
    expect(seven.get_by_role("button", name=f"Use: {SEVEN}")).to_be_visible()
    seven.get_by_role("button", name="Remove").click()
    expect(seven.get_by_role("button", name="Keep")).to_be_focused()
    page.keyboard.press("Enter")
    expect(seven.get_by_role("button", name="Remove")).to_be_focused()
    page.keyboard.press("Enter")
    seven.get_by_role("button", name="Remove").click()
    expect(seven.get_by_role("button", name="Download")).to_be_visible()
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.gguf"))


def test_cancelled_then_gone_on_with(serve: Serve, visit: Visit, hub: Hub, content: bytes) -> None:
    slow = Slow(hub)
    person = opened(visit(serve(Scripted()), locale="es-ES"))
    seven, status = card(person, SEVEN), person.page.get_by_role("dialog").get_by_role("status")
    seven.get_by_role("button", name="Descargar").click()
    expect(seven.locator(".going p")).to_contain_text(re.compile(r"[3-9]\d %"))
    seven.get_by_role("button", name="Cancelar").click()
    expect(status).to_contain_text("Se ha cancelado la descarga")
    slow.go_on.set()
    expect(seven.get_by_role("button", name="Quitar")).to_be_visible()
    seven.get_by_role("button", name="Seguir en el").click()
    expect(status).to_have_text(f"{SEVEN} está en esta máquina.")
    assert hub.sent < 1.9 * len(content)


def test_any_file_of_the_hub_and_what_goes_wrong(serve: Serve, visit: Visit, hub: Hub) -> None:
    hub.faults["some/repo"] = (403, "GatedRepo")
    person = opened(visit(serve(Scripted())))
    person.pardon("409", "404")
    page, box = person.page, person.page.get_by_label("Any other GGUF file")
    box.fill(HF)
    box.press("Enter")
    wrong = page.get_by_role("dialog").locator(".wrong")
    expect(wrong).to_contain_text("asks for an agreement: accept it at")
    expect(page.get_by_role("dialog").get_by_role("status")).to_have_text(f"The download of {HF} failed.")
    hub.faults.clear()
    box.fill(HF)
    box.press("Enter")
    expect(card(person, "A tiny one")).to_contain_text("619 kB")
    expect(wrong).to_have_count(0)
    box.fill("hf:nonsense")
    box.press("Enter")
    expect(page.get_by_role("alert").filter(has_text="names no file of the hub")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_in_any_state(serve: Serve, visit: Visit, hub: Hub, scheme: str) -> None:
    slow = Slow(hub)
    hub.faults["bartowski/Mistral-Nemo-Instruct-2407-GGUF"] = (403, "GatedRepo")
    person = visit(
        serve(Scripted()), color_scheme=scheme, viewport={"width": 360, "height": 740}, reduced_motion="reduce"
    )
    person.page.wait_for_selector("html[data-ready]")
    person.page.locator("#settings > .toggle-button").click()
    person.page.get_by_role("button", name=re.compile(r"^Model ")).click()
    seven, nemo = card(person, SEVEN), card(person, "Mistral Nemo 12B Instruct 2407")
    nemo.get_by_role("button", name="Download").click()
    expect(nemo.locator(".wrong")).to_be_visible()
    seven.get_by_role("button", name="Download").click()
    expect(seven.get_by_role("progressbar")).to_be_visible()
    found = violations(person)
    slow.go_on.set()
    seven.get_by_role("button", name="Remove").click()
    expect(seven.get_by_role("button", name="Keep")).to_be_visible()
    assert found + violations(person) == []
    assert person.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert person.page.evaluate("(d => d.scrollWidth <= d.clientWidth)(document.querySelector('dialog'))")
