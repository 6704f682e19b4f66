"""The page as people use it, in a real browser."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import pairwise

import pytest
from person import GRADIO_USES_OLD_PANDAS, Serve, Visit
from playwright.sync_api import expect

from cierzo.app import open_engine
from cierzo.engines.base import Engine
from cierzo.engines.script import Reply, Wait
from cierzo.engines.scripted import Scripted
from cierzo.errors import EngineDied, NotEnoughMemory
from cierzo.messages import Finish, Phase, Prompt, Sampling, StreamEvent, Token
from cierzo.page.words import EXAMPLES, LANGUAGES
from cierzo.settings import Settings

pytestmark = GRADIO_USES_OLD_PANDAS


def within(seconds: float, scripted: Scripted, running: int) -> float:
    """Wait until the engine has so many running streams; give how long it took."""
    started = time.monotonic()
    while scripted.running != running:
        assert time.monotonic() - started < seconds, f"{scripted.running} streams run, not {running}"
        time.sleep(0.01)
    return time.monotonic() - started


class Unhurried:
    """An engine with a pause after each token: the demo model writes a whole answer between two looks at the page."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.describe, self.close = engine.describe, engine.close

    async def stream(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[StreamEvent, None]:
        async with aclosing(self._engine.stream(prompt, sampling)) as events:
            async for event in events:
                yield event
                await asyncio.sleep(0.05)


def test_the_demo_model_answers_in_two_turns(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Unhurried(open_engine(Settings.load()))), locale="es-ES")
    expect(person.page.locator("#notice")).to_contain_text("cierzo models pull mistral-7b")
    person.page.locator("#temperature input[type=number]").fill("0")
    person.page.locator("#temperature input[type=number]").press("Tab")
    first = person.ask("¿Cuál es tu ingrediente favorito?")
    assert len(first) > 10
    seen = person.seen()
    assert len(seen) > 1, "the answer came all at once"
    assert seen == sorted(seen, key=len)
    assert seen[-1] == first
    expect(person.status).to_contain_text(re.compile(r"\d tokens"))
    second = person.ask("¿Y qué piensa al respecto?")
    assert second
    expect(person.questions).to_have_count(2)
    expect(person.answers).to_have_count(2)
    assert person.answers.first.inner_text().strip() == first
    assert person.abroad == []


def test_an_answer_grows_and_the_next_one_knows_it(serve: Serve, visit: Visit) -> None:
    scripted = Scripted(Reply.of("uno dos tres cuatro cinco seis siete ocho", delay=0.15), Reply.of("ya"))
    person = visit(serve(scripted))
    assert person.ask("cuenta") == "uno dos tres cuatro cinco seis siete ocho"
    seen = person.seen()
    assert len(seen) >= 5
    assert all(later.startswith(earlier) for earlier, later in pairwise(seen))
    assert person.ask("¿y qué más?") == "ya"
    kept = [(message.role, message.text) for message in scripted.asked[-1].prompt.kept]
    assert kept == [
        ("user", "cuenta"),
        ("assistant", "uno dos tres cuatro cinco seis siete ocho"),
        ("user", "¿y qué más?"),
    ]


def test_an_example_is_asked_when_it_is_chosen(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted("claro")), locale="es-ES")
    person.examples.first.click()
    expect(person.answers.last).to_have_text("claro")
    expect(person.questions.first).to_have_text(EXAMPLES["es"][0])


def test_stop_frees_the_engine_and_keeps_what_was_written(serve: Serve, visit: Visit) -> None:
    scripted = Scripted(Reply.of(" y sigue", delay=0.1, repeat=True), Reply.of("de nuevo"))
    person = visit(serve(scripted))
    person.say("no pares")
    expect(person.answers.last).to_contain_text("sigue y sigue")
    person.box.fill("lo siguiente")  # the box stays usable meanwhile
    person.stop.click()
    print(f"\nfree {within(1.0, scripted, 0):.2f} s after Stop")
    person.rest()
    expect(person.status).to_contain_text("Stopped after")
    kept = person.answers.last.inner_text().strip()
    assert kept.startswith("y sigue y sigue")
    expect(person.box).to_have_value("lo siguiente")
    person.box.press("Enter")
    expect(person.answers).to_have_count(2)
    expect(person.answers.last).to_have_text("de nuevo")
    assert scripted.asked[-1].prompt.kept[1].text.strip() == kept


def test_stop_before_the_first_word_gives_the_question_back(serve: Serve, visit: Visit) -> None:
    scripted = Scripted(Reply.of([Phase("reading", 512, 4096), Wait(), "nunca"]))
    person = visit(serve(scripted))
    person.say("una pregunta larga")
    expect(person.status).to_contain_text("Reading the conversation · 512 of 4096 tokens")
    clock = person.status.inner_text()
    expect(person.status).not_to_have_text(clock)  # it goes on, although nothing happens
    person.stop.click()
    within(1.0, scripted, 0)
    person.rest()
    expect(person.box).to_have_value("una pregunta larga")
    expect(person.questions).to_have_count(0)


@pytest.mark.parametrize("leave", ["close", "reload"])
def test_leaving_the_page_frees_the_engine(serve: Serve, visit: Visit, leave: str) -> None:
    scripted = Scripted(Reply.of(" y sigue", delay=0.1, repeat=True))
    person = visit(serve(scripted))
    person.say("no pares")
    expect(person.answers.last).to_contain_text("sigue y sigue")
    if leave == "close":
        person.page.close()
    else:
        person.page.reload()
    print(f"\nfree {within(5.0, scripted, 0):.2f} s after the page went ({leave})")


def test_two_people_get_their_own_answers_at_once(serve: Serve, visit: Visit) -> None:
    scripted = Scripted(
        Reply.of(" para ana", delay=0.1, repeat=True, when="soy Ana"),
        Reply.of(" para luis", delay=0.1, repeat=True, when="soy Luis"),
    )
    address = serve(scripted)
    ana, luis = visit(address), visit(address, locale="fr-FR")
    ana.say("soy Ana")
    luis.say("soy Luis")
    expect(ana.answers.last).to_contain_text("para ana para ana")
    expect(luis.answers.last).to_contain_text("para luis para luis")
    assert scripted.running == 2
    ana.stop.click()
    ana.rest()
    assert scripted.running == 1, "stopping one answer stopped another"
    before = luis.answers.last.inner_text()
    expect(luis.answers.last).not_to_have_text(before)  # it goes on
    luis.stop.click()
    luis.rest()
    assert "ana" not in luis.answers.last.inner_text()
    assert "luis" not in ana.answers.last.inner_text()


def test_the_sliders_reach_the_engine(serve: Serve, visit: Visit) -> None:
    scripted = Scripted("bien")
    person = visit(serve(scripted))
    assert person.ask("con los valores del principio") == "bien"
    sampling = scripted.asked[-1].sampling
    assert (sampling.temperature, sampling.max_new_tokens) == (0.9, 256)
    assert (sampling.top_p, sampling.repetition_penalty) == (0.9, 1.2)
    changed = {"temperature": "0.35", "max_new_tokens": "128", "top_p": "0.5", "repetition_penalty": "1.05"}
    for name, value in changed.items():
        person.page.locator(f"#{name} input[type=number]").fill(value)
        person.page.locator(f"#{name} input[type=number]").press("Tab")
    person.page.locator("#system textarea").fill("Habla como un pirata.")
    assert person.ask("con otros") == "bien"
    asked = scripted.asked[-1]
    assert {name: f"{getattr(asked.sampling, name):g}" for name in changed} == changed
    assert [message.text for message in asked.prompt.kept if message.role == "system"] == ["Habla como un pirata."]


def test_an_error_is_one_sentence_and_the_question_comes_back(serve: Serve, visit: Visit) -> None:
    scripted = Scripted(
        Reply.of([NotEnoughMemory("the model needs 5 GB and 1 GB is free: choose a smaller one")]),
        Reply.of(["Mi ingrediente ", EngineDied("the engine's process ended: ask again")]),
        Reply.of("ahora sí"),
    )
    person = visit(serve(scripted))
    person.say("¿estás?")
    expect(person.status).to_have_text("No answer: the model needs 5 GB and 1 GB is free: choose a smaller one.")
    expect(person.box).to_have_value("¿estás?")
    expect(person.questions).to_have_count(0)
    person.rest()
    person.box.press("Enter")
    expect(person.status).to_have_text("The answer broke off: the engine's process ended: ask again.")
    expect(person.answers.last).to_have_text("Mi ingrediente")
    person.rest()
    assert person.ask("¿y ahora?") == "ahora sí"
    assert "Traceback" not in person.page.content()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("   ", "the user message is empty"),
        ("a\x00b", "holds a NUL character at position 1"),
        ("largo " * 20_000, "and the model's window has room for"),
        ("x" * 2_000_001, "has 2,000,001 characters, at most 2,000,000 are allowed"),
    ],
    ids=["empty", "nul", "longer than the window", "two million"],
)
def test_a_question_that_cannot_be_asked_stays_in_the_box(serve: Serve, visit: Visit, text: str, sentence: str) -> None:
    person = visit(serve(Scripted("bien")))
    person.say(text)
    expect(person.status).to_contain_text(sentence)
    expect(person.questions).to_have_count(0)
    person.rest()
    assert person.box.input_value() == text
    assert person.ask("corta") == "bien"


def test_an_answer_without_a_word_is_said(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted([Finish("eos_token")], "ahora sí")))
    person.say("¿y?")
    expect(person.status).to_contain_text("without a word")
    person.rest()
    expect(person.box).to_have_value("¿y?")
    assert person.ask("¿y?") == "ahora sí"


def test_no_tokens_at_all_is_refused_in_words(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted("bien")))
    person.page.locator("#max_new_tokens input[type=number]").fill("0")
    person.page.locator("#max_new_tokens input[type=number]").press("Tab")
    person.say("¿nada?")
    expect(person.status).to_contain_text("max_new_tokens must be between 1 and 131072, not 0")
    expect(person.box).to_have_value("¿nada?")


def test_what_the_window_left_out_is_said(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted("bien")))
    for _ in range(3):
        person.ask("palabra " * 2500)
    expect(person.status).to_contain_text("the first 4 messages of this conversation were left out")


def test_retry_edit_undo(serve: Serve, visit: Visit) -> None:
    scripted = Scripted("primera", "segunda", "tercera")
    person = visit(serve(scripted))
    person.ask("pregunta")
    person.page.get_by_role("button", name="Retry").click()
    expect(person.answers.last).to_have_text("segunda")
    expect(person.questions).to_have_count(1)
    person.rest()
    person.page.get_by_role("button", name="Edit").click()
    person.page.locator("#conversation textarea").fill("otra pregunta")
    person.page.get_by_label("Submit").click()
    expect(person.answers.last).to_have_text("tercera")
    expect(person.questions).to_have_text(["otra pregunta"])
    assert [message.text for message in scripted.asked[-1].prompt.kept] == ["otra pregunta"]
    person.rest()
    person.page.get_by_role("button", name="Undo").click()
    expect(person.box).to_have_value("otra pregunta")
    expect(person.questions).to_have_count(0)


@pytest.mark.parametrize(("locale", "tag"), [("es-MX", "es"), ("fr-CA", "fr"), ("en-GB", "en"), ("de-DE", "en")])
def test_the_page_speaks_the_browsers_language(serve: Serve, visit: Visit, locale: str, tag: str) -> None:
    person = visit(serve(Scripted("bien")), locale=locale)
    words = LANGUAGES[tag]
    for key in ("tagline", "notice_scripted", "settings", "system", "temperature", "top_p_info"):
        expect(person.page.get_by_text(words[key], exact=True)).to_be_visible()
    expect(person.box).to_have_attribute("placeholder", words["write"])
    expect(person.examples).to_contain_text(list(EXAMPLES[tag]))
    expect(person.page.locator("#conversation")).to_contain_text(words["greeting"])
    shown = person.page.inner_text("body")
    assert "__i18n__" not in shown
    others = {name: text for name, text in LANGUAGES.items() if name != tag}
    assert [text["temperature_info"] for text in others.values() if text["temperature_info"] in shown] == []


def test_light_and_dark_follow_the_browser(serve: Serve, visit: Visit) -> None:
    address = serve(Scripted("bien"))
    brightness = {}
    for scheme in ("light", "dark"):
        person = visit(address, color_scheme=scheme)
        color = person.page.evaluate(
            "getComputedStyle(document.querySelector('gradio-app') ?? document.body).backgroundColor"
        )
        brightness[scheme] = sum(int(part) for part in color[color.index("(") + 1 : -1].split(",")[:3])
    assert brightness["light"] > 600
    assert brightness["dark"] < 120


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_runs_off_the_side(serve: Serve, visit: Visit, width: int) -> None:
    long = "palabra" * 60 + "\n\n```\n" + "codigo " * 60 + "\n```\n\n| a | b |\n|---|---|\n| " + "celda" * 40 + " | 2 |"
    person = visit(serve(Scripted(Reply((Token(1, long),)))), viewport={"width": width, "height": 740})
    person.ask("x" * 300)
    widths = person.page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]")
    assert widths == [width] * 3
    expect(person.box).to_be_in_viewport()
    last = person.page.locator("#repetition_penalty input[type=range]")
    last.scroll_into_view_if_needed()
    expect(last).to_be_in_viewport()


def test_nothing_is_fetched_from_elsewhere(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted("bien")))
    person.ask("hola")
    person.page.get_by_role("button", name="Clear").click()
    expect(person.questions).to_have_count(0)
    assert person.abroad == []
    assert person.complaints == []
    assert person.page.evaluate("Object.keys(localStorage).length + Object.keys(sessionStorage).length") == 0
