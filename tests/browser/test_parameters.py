"""The bar on the right in a real browser: what is seen there is what is sent, kept and said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pages import page_served
from person import Person, Serve, Visit
from playwright.sync_api import Locator, expect

from cierzo.engines.base import EngineInfo
from cierzo.engines.scripted import Scripted
from cierzo.messages import MAX_STOP_LENGTH, MAX_STOPS
from cierzo.page.drawn import Drawn
from cierzo.page.words import LANGUAGES

WORDS = LANGUAGES["en"]
SLIDERS = ("temperature", "max_new_tokens", "top_p", "repetition_penalty", "top_k", "min_p")
NOTEBOOK = {
    "temperature": 0.9,
    "max_new_tokens": 256,
    "top_p": 0.9,
    "repetition_penalty": 1.2,
    "top_k": 0,
    "min_p": 0,
}
WIDE = {"width": 1400, "height": 1000}
PHONE = {"width": 360, "height": 740}


class Settings:
    """The right bar, as somebody at the page uses it. Controls are found by role and name, as by a screen reader."""

    def __init__(self, person: Person, tag: str = "en") -> None:
        self.person, self.page, self.words = person, person.page, LANGUAGES[tag]
        self.wait()

    def wait(self) -> None:
        expect(self.page.locator("#settings-title")).to_be_attached(timeout=60_000)
        expect(self.page.locator("html[data-ready]")).to_be_attached(timeout=60_000)  # it takes the focus before

    def reload(self) -> None:
        self.page.reload()
        self.wait()

    def sent(self) -> dict[str, Any]:
        """What would be sent now, or the sentence that says why it cannot be."""
        got: dict[str, Any] = self.page.evaluate(
            """async () => {
                const { parameters } = await import('/cierzo/settings.js');
                try { return parameters(); } catch (error) { return { refused: error.message }; }
            }"""
        )
        return got

    def slider(self, name: str) -> Locator:
        return self.page.get_by_role("slider", name=self.words[name], exact=True)

    def number(self, name: str) -> Locator:
        return self.page.get_by_role("spinbutton", name=self.words[name], exact=True)

    def text(self, name: str) -> Locator:
        return self.page.get_by_role("textbox", name=self.words[name], exact=True)

    def button(self, words: str) -> Locator:
        return self.page.locator("#settings").get_by_role("button", name=words, exact=True)

    def pressed(self) -> list[str]:
        return self.page.locator("#presets [aria-pressed=true]").all_inner_texts()

    def unfold(self) -> None:
        self.page.locator("#more-head button").click()
        expect(self.page.locator("#more")).to_be_visible()


@pytest.fixture(scope="module")
def address(page_drawn: Drawn) -> Iterator[str]:
    """One server for nearly all of them: what is tested is in the browser, and each has a browser of their own."""
    with page_served(page_drawn, Scripted()) as served:
        yield served


def test_what_is_seen_is_what_is_sent(address: str, visit: Visit) -> None:
    here = Settings(visit(address, viewport=WIDE))
    assert here.sent() == {"sampling": NOTEBOOK, "system": ""}

    here.slider("temperature").press("Home")
    here.number("top_p").fill("0.33")
    here.number("top_p").fill("")  # half-way to another number: the last one counts
    here.number("repetition_penalty").fill("7")  # beyond the slider's end, which counts
    here.slider("max_new_tokens").press("Home")
    assert here.sent()["sampling"] == {
        **NOTEBOOK,
        "temperature": 0,
        "top_p": 0.35,  # as near as the slider shows it, while the box is empty
        "repetition_penalty": 2,
        "max_new_tokens": 1,  # the notebook's slider begins at 0, an answer at 1
    }
    for name, shown in (("temperature", "0"), ("top_p", "0.35"), ("repetition_penalty", "2"), ("max_new_tokens", "1")):
        here.number(name).focus()
        here.number(name).blur()
        expect(here.number(name)).to_have_value(shown)
    here.slider("max_new_tokens").press("ArrowRight")
    assert here.sent()["sampling"]["max_new_tokens"] == 64
    here.number("max_new_tokens").fill("1000")
    here.number("max_new_tokens").press("Tab")
    assert here.sent()["sampling"]["max_new_tokens"] == 1000

    here.text("system").fill("Sé breve.")
    here.unfold()
    here.number("top_k").fill("40.4")
    here.slider("min_p").press("ArrowRight")
    here.text("seed").fill(" 4294967294 ")
    here.text("stop_strings").fill("\\nUser:\n\n   \n END\n\\\\n")
    said = here.sent()
    assert said["system"] == "Sé breve."
    assert said["sampling"]["top_k"] == 40
    assert said["sampling"]["min_p"] == 0.01
    assert said["sampling"]["seed"] == 4294967294
    assert said["sampling"]["stop"] == ["\nUser:", " END", "\\n"]

    with here.page.expect_request(lambda asked: asked.url.endswith("/messages")) as asked:
        here.person.send("hola")
    body = json.loads(asked.value.post_data or "")
    assert {key: body[key] for key in ("sampling", "system")} == said


def test_a_reset_goes_back_to_the_notebook_whatever_was_remembered(address: str, visit: Visit) -> None:
    here = Settings(visit(address, viewport=WIDE))
    here.unfold()
    for name in SLIDERS:
        expect(here.page.locator(f"#{name} .reset-button")).to_be_hidden()  # there is nothing to go back to
        here.slider(name).press("End")
        expect(here.page.locator(f"#{name} .reset-button")).to_be_visible()
    here.reload()
    for name, usual in NOTEBOOK.items():
        assert here.sent()["sampling"][name] != usual
        here.button(f"{WORDS[name]}: back to {usual}").click()
        assert here.sent()["sampling"][name] == usual
        expect(here.number(name)).to_be_focused()
        expect(here.number(name)).to_have_value(str(usual))
        expect(here.page.locator(f"#{name} .reset-button")).to_be_hidden()


def test_what_cannot_be_a_seed_or_a_stop_string_is_said_at_once(address: str, visit: Visit) -> None:
    here = Settings(visit(address, viewport=WIDE))
    here.person.send("hola")
    here.page.wait_for_url("**/?c=*")
    here.person.see("article.assistant .line", "ended by itself")  # nothing is sent while an answer is written
    here.unfold()
    seed, stop = here.text("seed"), here.text("stop_strings")
    for wrong in ("-1", "1.5", "4294967295", "seven", "1e3", "0x10", "٣"):
        seed.fill(wrong)
        expect(here.page.locator("#seed-wrong")).to_have_text(WORDS["seed_wrong"])
        expect(seed).to_have_attribute("aria-invalid", "true")
        assert here.sent() == {"refused": WORDS["seed_wrong"]}
    here.page.locator("#more-head button").click()
    here.person.send("otra vez")
    here.person.see(".note", WORDS["seed_wrong"])
    expect(here.person.box).to_have_value("otra vez")
    expect(seed).to_be_visible()  # the field that is meant is shown
    seed.fill("0")
    expect(here.page.locator("#seed-wrong")).to_be_empty()
    assert here.sent()["sampling"]["seed"] == 0

    most = WORDS["stop_many"].format(most=MAX_STOPS, longest=MAX_STOP_LENGTH)
    for lines, fits in (
        (["x"] * MAX_STOPS, True),
        (["x"] * (MAX_STOPS + 1), False),
        (["😀" * MAX_STOP_LENGTH], True),
        (["😀" * (MAX_STOP_LENGTH + 1)], False),
    ):
        stop.fill("\n".join(lines))
        expect(here.page.locator("#stop_strings-wrong")).to_have_text("" if fits else most)
        expect(stop).to_have_attribute("aria-invalid", "false" if fits else "true")
        assert here.sent().get("refused") == (None if fits else most)


def test_presets_are_chosen_saved_replaced_and_deleted(address: str, visit: Visit) -> None:
    here = Settings(visit(address, viewport=WIDE))
    assert here.pressed() == ["Balanced"]
    here.number("max_new_tokens").fill("512")
    expect(here.button("Balanced")).to_have_attribute("aria-pressed", "false")
    here.button("Precise").click()
    assert here.sent()["sampling"] == {
        **NOTEBOOK,
        "temperature": 0.2,
        "repetition_penalty": 1.1,
        "max_new_tokens": 512,
    }
    expect(here.button("Precise")).to_have_attribute("aria-pressed", "true")
    here.button("Creative").click()
    expect(here.button("Creative")).to_have_attribute("aria-pressed", "true")
    assert here.sent()["sampling"]["temperature"] == 1
    expect(here.page.locator("#more-head")).to_contain_text("Min-p 0.05")  # what is folded away is not hidden
    here.slider("temperature").press("ArrowLeft")
    expect(here.button("Creative")).to_have_attribute("aria-pressed", "false")
    assert here.pressed() == []

    def save(name: str) -> None:
        here.button(WORDS["preset_save"]).click()
        expect(here.text("preset_name")).to_be_focused()
        here.page.keyboard.type(name)
        here.page.keyboard.press("Enter")

    here.text("system").fill("Translate.")
    mine = here.sent()
    name = "<img src=x onerror='window.ran = 1'>"
    save(name)
    assert here.pressed() == [name]
    expect(here.button(WORDS["preset_save"])).to_be_focused()
    here.button("Balanced").click()
    here.text("system").fill("")
    here.reload()
    here.button(name).click()
    assert here.sent() == mine
    assert here.page.evaluate("window.ran") is None

    here.slider("temperature").press("Home")
    save(name)
    here.person.see(".note", name)
    assert here.pressed() == [name]
    here.page.get_by_role("button", name=WORDS["undo"]).click()
    assert here.pressed() == []
    save("other")
    here.button(WORDS["preset_delete"].format(name=name)).click()
    expect(here.button(name)).to_have_count(0)
    here.reload()
    expect(here.button(name)).to_have_count(0)
    here.button(WORDS["preset_delete"].format(name="other")).click()
    here.page.get_by_role("button", name=WORDS["undo"]).click()
    here.reload()
    expect(here.button("other")).to_have_attribute("aria-pressed", "true")


def test_everything_is_remembered_and_what_is_not_ours_is_not_believed(address: str, visit: Visit) -> None:
    here = Settings(visit(address, viewport=WIDE))
    here.unfold()
    for name in SLIDERS:
        here.slider(name).press("ArrowRight")
    here.text("seed").fill("7")
    here.text("stop_strings").fill("END")
    expect(here.page.locator("#more-head .folded")).to_contain_text("Seed 7")
    here.text("system").fill("Be brief.")
    before = here.sent()
    here.page.wait_for_function("localStorage.getItem('cierzo.system') === 'Be brief.'")
    here.reload()
    assert here.sent() == before
    expect(here.text("seed")).to_be_visible()  # it was unfolded

    for kept in (
        "{",
        "null",
        "[1]",
        '{"temperature": "x", "top_p": 9, "max_new_tokens": null, "seed": 7, "top_k": {}, "stop_strings": [1]}',
        '{"temperature": -1, "repetition_penalty": 1e99}',
    ):
        here.page.evaluate(
            "kept => { for (const name of ['parameters', 'presets', 'look', 'language', 'bar.side', 'system'])"
            " localStorage.setItem(`cierzo.${name}`, kept); }",
            kept,
        )
        here.page.evaluate("localStorage.removeItem('cierzo.language')")
        here.reload()
        assert here.sent() == {"sampling": NOTEBOOK, "system": kept}
        assert here.page.locator("#presets .pill").count() == 3


def test_a_conversation_has_a_system_prompt_of_its_own(address: str, visit: Visit) -> None:
    here = Settings(visit(address, viewport=WIDE))
    here.text("system").fill("For new chats.")
    here.page.wait_for_function("localStorage.getItem('cierzo.system') === 'For new chats.'")

    def shown(text: str | None) -> None:
        here.page.evaluate("async text => (await import('/cierzo/settings.js')).setSystem(text)", text)

    shown("Of one conversation.")
    assert here.sent()["system"] == "Of one conversation."
    here.text("system").fill("Changed there.")
    shown(None)
    expect(here.text("system")).to_have_value("For new chats.")


class Deaf(Scripted):
    """An engine that honours a few things only."""

    def describe(self) -> EngineInfo:
        return replace(super().describe(), honours=frozenset({"temperature", "max_new_tokens", "stop"}))


def test_each_control_says_whether_the_engine_heeds_it(serve: Serve, visit: Visit) -> None:
    here = Settings(visit(serve(Deaf()), viewport=WIDE))
    here.unfold()
    said = WORDS["unhonoured"].format(engine="scripted")
    expect(here.page.get_by_text(said)).to_have_count(5)
    for name in (*SLIDERS, "seed", "stop_strings"):
        heeded = name in {"temperature", "max_new_tokens", "stop_strings"}
        control = here.slider(name) if name in SLIDERS else here.text(name)
        expect(control).to_have_accessible_description(WORDS[f"{name}_info"] + ("" if heeded else f" {said}"))
        expect(control).to_be_enabled()  # another engine may follow


ENGLISH_ONLY = ("Toggle Sidebar", "Reset to default", "range slider", "number input")
"""What Gradio says in English whatever the language."""


def test_the_language_is_chosen_by_keyboard_and_kept(address: str, visit: Visit) -> None:
    here = Settings(visit(address, viewport=WIDE))
    here.text("system").fill("Sé breve.")
    for name, tag in (("Español", "es"), ("Français", "fr"), (LANGUAGES["fr"]["as_browser"], "en")):
        picker = here.page.get_by_role("combobox", name=here.words["language"])
        picker.focus()
        option = here.page.get_by_role("option", name=name)
        expect(option).to_be_visible()
        wanted = option.get_attribute("id")
        while (at := picker.get_attribute("aria-activedescendant")) != wanted:
            here.page.keyboard.press("ArrowDown")
            expect(picker).not_to_have_attribute("aria-activedescendant", at or "")
        with here.page.expect_navigation():
            here.page.keyboard.press("Enter")
        here = Settings(here.person, tag)
        assert here.page.evaluate("document.documentElement.lang") == tag
        expect(here.text("system")).to_have_value("Sé breve.")
        for side in ("toggle_list", "toggle_settings"):
            expect(here.page.get_by_role("button", name=here.words[side], exact=True)).to_have_count(1)
        everything = here.page.evaluate("document.body.outerHTML")
        assert [words for words in ENGLISH_ONLY if words in everything] == []


def test_the_look_changes_at_once_and_follows_the_system_where_it_should(address: str, visit: Visit) -> None:
    here = Settings(visit(address, viewport=WIDE, color_scheme="light"))
    here.page.evaluate("window.same = true")

    def dark(is_dark: bool) -> None:
        state = (
            "() => [document.documentElement, document.body].map(e => e.classList.contains('dark')).join()"
            " + getComputedStyle(document.body).colorScheme + document.querySelector('meta[name=theme-color]').content"
        )
        wanted = "true,truedark#151413" if is_dark else "false,falsenormal#faf9f7"
        here.page.wait_for_function(f"wanted => ({state})() === wanted", arg=wanted)

    def choose(name: str) -> None:
        here.page.get_by_role("combobox", name=WORDS["look"]).click()
        here.page.get_by_role("option", name=WORDS[name]).click()

    dark(False)
    here.page.emulate_media(color_scheme="dark")
    dark(True)
    choose("light")
    dark(False)
    here.page.emulate_media(color_scheme="light")
    choose("dark")
    dark(True)
    assert here.page.evaluate("window.same")  # without reading the page again
    here.reload()
    dark(True)
    here.page.emulate_media(color_scheme="dark")
    here.page.emulate_media(color_scheme="light")
    dark(True)
    choose("as_system")
    dark(False)
    here.page.emulate_media(color_scheme="dark")
    dark(True)


@pytest.mark.parametrize(
    ("width", "side", "settings"), [(1400, True, True), (1100, True, False), (800, True, False), (360, False, False)]
)
def test_the_bars_have_room_or_are_closed(address: str, visit: Visit, width: int, side: bool, settings: bool) -> None:
    here = Settings(visit(address, viewport={"width": width, "height": 800}))
    page = here.page
    bars = {"side": side, "settings": settings}

    def open_now() -> dict[str, bool]:
        return {name: page.locator(f"#{name} .toggle-button").get_attribute("aria-expanded") == "true" for name in bars}

    assert open_now() == bars
    here.reload()
    assert open_now() == bars  # it was nobody's choice: the width decides again
    for name, is_open in bars.items():
        inside = page.locator(f"#{name} .sidebar-content")
        (expect(inside).to_be_visible if is_open else expect(inside).to_be_hidden)()
    page.locator("#settings .toggle-button").click()
    assert open_now() == {**bars, "settings": not settings}
    content = page.locator("#settings .sidebar-content")
    (expect(content).to_be_hidden if settings else expect(content).to_be_visible)()  # so Tab passes it by
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    here.reload()
    assert open_now() == (bars if width == 360 else {**bars, "settings": not settings})


def test_a_phone_shows_one_thing_at_a_time(address: str, visit: Visit) -> None:
    here = Settings(visit(address, viewport=WIDE))
    here.page.set_viewport_size(PHONE)
    expect(here.page.locator("#settings .toggle-button")).to_have_attribute("aria-expanded", "false")
    expect(here.page.locator("#side .toggle-button")).to_have_attribute("aria-expanded", "false")
    here.button(WORDS["toggle_settings"]).click()
    here.unfold()
    expect(here.page.locator("#settings")).to_have_css("transform", "matrix(1, 0, 0, 1, -360, 0)")
    wider = here.page.evaluate(
        "[...document.querySelectorAll('#settings *')].filter(e => e.getBoundingClientRect().right > 361"
        " || e.getBoundingClientRect().left < -1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wider == []
    small = here.page.evaluate(
        "[...document.querySelectorAll('#settings :is(textarea, input[type=text], input[type=number])')]"
        ".map(e => parseFloat(getComputedStyle(e).fontSize)).filter(size => size < 16)"
    )
    assert small == []  # phones zoom in on those


def test_the_tab_key_goes_through_all_of_it_in_order(address: str, visit: Visit) -> None:
    here = Settings(visit(address, viewport=WIDE))
    here.unfold()
    here.button(WORDS["toggle_settings"]).focus()
    names: list[str] = []
    for _ in range(30):
        here.page.keyboard.press("Tab")
        name = here.page.evaluate(
            "(document.activeElement.closest('#settings') && document.activeElement.ariaLabel)"
            " || document.activeElement.innerText"
        )
        names.append(name.split("\n")[0])
        if name == WORDS["look"]:
            break
    twice = [WORDS[name] for name in SLIDERS for _ in (0, 1)]  # its number, its slider
    assert (
        names
        == [
            "scripted",  # the model, which opens the list of all
            *(WORDS[name] for name in ("precise", "balanced", "creative", "preset_save")),
            *twice[:8],
            WORDS["system"],
            WORDS["more"],
            *twice[8:],
            *(WORDS[name] for name in ("seed", "stop_strings", "language", "look")),
        ]
    )
