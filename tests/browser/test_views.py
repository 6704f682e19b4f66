"""One answer in many views: reloads, tabs, other browsers. The answer goes on, and every view ends the same."""

from __future__ import annotations

import json
import random
import re
import time
from typing import Any

import httpx
from person import Person, Serve, Visit
from playwright.sync_api import Locator, Page, expect

from cierzo.engines.script import Reply
from cierzo.engines.scripted import Scripted

RELOADS = 20


def last(page: Page) -> Locator:
    return page.locator("article.message.assistant").last


def begun(person: Person, text: str) -> None:
    person.send(text)
    expect(last(person.page)).to_have_attribute("aria-busy", "true")
    expect(person.page).to_have_url(re.compile(r"\?c="))


def assert_whole(page: Page) -> None:
    """From the first word to the newest, nothing is missing and nothing is there twice."""
    words = last(page).locator(".body").inner_text().split()
    assert words == [f"word{n}" for n in range(1, len(words) + 1)]


def test_reloads_at_random_moments(serve: Serve, visit: Visit) -> None:
    """Twenty reloads while it is written: nothing missing, nothing twice, and as in the browser that never reloaded."""
    engine = Scripted(Reply.of([f"word{n} " if n % 25 else f"word{n}\n\n" for n in range(1, 8001)], delay=0.03))
    address = serve(engine)
    person = visit(address)
    person.page.wait_for_selector("html[data-ready]")
    length = person.page.locator("#max_new_tokens input[type=number]")
    length.fill("8192")
    length.press("Tab")
    begun(person, "Write")
    still = visit(address, path=person.page.url.removeprefix(address))
    chance = random.Random(2026)
    for _ in range(RELOADS):
        person.page.wait_for_timeout(chance.uniform(0, 700))
        expect(last(person.page)).to_have_attribute("aria-busy", "true")
        person.page.reload()
        expect(last(person.page).locator(".body")).to_contain_text("word")
        assert_whole(person.page)  # what is seen now came over the stream; at its end all is read again
    print(f"\n{RELOADS} reloads while an answer was written")
    expect(last(person.page)).to_contain_text("word25")
    for page in (person.page, still.page):
        assert_whole(page)
    still.page.keyboard.press("Escape")
    texts = []
    for page in (person.page, still.page):
        expect(last(page)).to_have_attribute("aria-busy", "false")
        texts.append(last(page).locator(".body").inner_text().split())
    assert texts[0] == texts[1] == [f"word{n}" for n in range(1, len(texts[0]) + 1)]
    assert len(engine.asked) == 1


def test_a_stream_that_breaks_is_followed_again(serve: Serve, visit: Visit) -> None:
    """However it breaks: in the middle, by a refusal, by a word of the server. What is shown then is whole."""
    engine = Scripted(Reply.of([f"word{n} " for n in range(1, 8001)], delay=0.02))
    person = visit(serve(engine))
    person.pardon("503", "ERR_")
    events = {"content_type": "text/event-stream"}
    said = {"error": {"message": "the server is busy: wait", "type": "overloaded"}}
    breaks: list[dict[str, Any]] = [
        {**events, "body": 'event: html\ndata: {"first": 0, "blocks": ["<p>word1"], "tokens": 1}\n\nevent: html\nda'},
        {"status": 503, "json": said},
        {**events, "body": f"event: error\ndata: {json.dumps(said)}\n\n"},
    ]
    left = list(breaks)
    person.page.route(
        re.compile(r"/api/replies/\w+/html"),
        lambda route: route.fulfill(**left.pop(0)) if left else route.continue_(),
    )
    begun(person, "Write")
    expect(last(person.page).locator(".line")).to_contain_text("the server is busy")
    expect(last(person.page).locator(".body")).to_contain_text("word40")
    assert_whole(person.page)
    print(f"\n{len(breaks) - len(left)} broken streams")
    assert not left
    person.page.keyboard.press("Escape")
    expect(last(person.page)).to_have_attribute("aria-busy", "false")
    assert_whole(person.page)
    assert len(engine.asked) == 1


def test_stop_in_one_tab_ends_it_in_the_others(serve: Serve, visit: Visit) -> None:
    engine = Scripted(Reply.of([" on", " and"], delay=0.05, repeat=True))
    address = serve(engine)
    person = visit(address)
    begun(person, "Go on")
    path = person.page.url.removeprefix(address)
    other = person.tab(path)
    stranger = visit(address, path=path, locale="es-ES")
    for page in (other, stranger.page):
        expect(last(page)).to_contain_text("on and on")
    began = time.monotonic()
    other.keyboard.press("Escape")
    while engine.running:
        assert time.monotonic() - began < 1, "the engine still writes a second after Stop"
        time.sleep(0.01)
    expect(last(person.page).locator(".line")).to_contain_text("stopped", timeout=1000)
    texts = []
    for page in (person.page, other, stranger.page):
        expect(last(page)).to_have_attribute("aria-busy", "false")
        texts.append(last(page).locator(".body").inner_text())
    assert texts[0] == texts[1] == texts[2]
    expect(last(stranger.page).locator(".line")).to_contain_text("parada")


def test_a_question_from_elsewhere_appears(serve: Serve, visit: Visit) -> None:
    address = serve(Scripted("One.", Reply.of([" slow"] * 40, delay=0.1)))
    person = visit(address)
    person.send("First")
    expect(last(person.page)).to_contain_text("ended by itself")
    other = visit(address, path=person.page.url.removeprefix(address))
    expect(last(other.page)).to_contain_text("One.")
    other.type("my draft")
    person.send("Second")
    expect(other.page.locator("article.user")).to_have_count(2, timeout=8000)
    expect(last(other.page)).to_have_attribute("aria-busy", "true")
    expect(other.box).to_have_value("my draft")
    for page in (person.page, other.page):
        expect(last(page)).to_have_attribute("aria-busy", "false")
    assert last(person.page).locator(".body").inner_text() == last(other.page).locator(".body").inner_text()


def test_a_page_that_nobody_sees_asks_for_nothing(serve: Serve, visit: Visit) -> None:
    address = serve(Scripted("One.", "Two."))
    person = visit(address)
    person.send("First")
    expect(last(person.page)).to_contain_text("ended by itself")
    other = visit(address)
    other.page.clock.install()
    other.open(person.page.url.removeprefix(address))
    expect(last(other.page)).to_contain_text("One.")
    other.page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    asked: list[str] = []
    other.page.on("request", lambda request: asked.append(request.url))
    person.send("Second")
    expect(last(person.page)).to_contain_text("ended by itself")
    other.page.clock.run_for(60_000)
    assert not asked
    other.page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    expect(last(other.page)).to_contain_text("Two.")


def test_a_stale_tab_overwrites_nothing(serve: Serve, visit: Visit) -> None:
    """Both ask at the same moment, each without knowing of the other: both questions stay, side by side."""
    address = serve(Scripted("One.", "Two.", "Three."))
    person = visit(address)
    person.send("First")
    expect(last(person.page)).to_contain_text("ended by itself")
    other = visit(address, path=person.page.url.removeprefix(address))
    expect(last(other.page)).to_contain_text("One.")
    for who in (person, other):
        who.page.evaluate("document.hidden || Object.defineProperty(document, 'hidden', {get: () => true})")  # no polls
    person.send("Second, here")
    expect(person.page.locator("article.user").last).to_contain_text("Second, here")
    other.send("Second, there")
    expect(other.page.locator("article.user").last).to_contain_text("Second, there")
    siblings = other.page.locator("article.user").last.locator(".siblings")
    expect(siblings).to_contain_text("2/2")
    other.page.locator("article.user").last.get_by_role("button", name="Previous version").click()
    expect(other.page.locator("article.user").last).to_contain_text("Second, here")


def test_a_long_conversation_opens_at_its_end(serve: Serve, visit: Visit) -> None:
    address = serve(Scripted("Fine."))
    person = visit(address)
    made = person.page.evaluate(
        """async () => {
            const headers = {"Content-Type": "application/json"};
            const post = async (path, body) =>
                (await fetch(path, {method: "POST", headers, body: JSON.stringify(body)})).json();
            const {id} = await post("/api/conversations", {});
            for (let n = 1; n <= 60; n++) {
                const {answers} = await post(`/api/conversations/${id}/messages`, {text: `question ${n}`});
                while ((await (await fetch(`/api/replies/${answers[0].id}`)).json()).message.answer.state !== "done")
                    await new Promise((go) => setTimeout(go, 10));
            }
            return id;
        }"""
    )
    person.open(f"/?c={made}")
    expect(person.page.locator("article.user").last).to_have_text(re.compile("question 60"))
    expect(person.page.locator("article")).to_have_count(30)
    view = person.page.locator("#transcript")
    assert view.evaluate("e => e.scrollHeight - e.scrollTop - e.clientHeight") < 2
    place = "e => document.querySelector(`article[data-id='${e}']`).getBoundingClientRect().top"
    for loaded in (80, 120):
        first = person.page.locator("article").first.get_attribute("data-id")
        view.evaluate("e => { e.scrollTop = 0; }")
        there = person.page.evaluate(place, first)
        expect(person.page.locator("article")).to_have_count(loaded)
        assert abs(person.page.evaluate(place, first) - there) < 2, "what one reads stays where it is"
        tall = view.evaluate("e => e.scrollHeight")
        view.evaluate("e => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert abs(view.evaluate("e => e.scrollHeight") - tall) < 2, "what is far away keeps its height"
    expect(person.page.locator("article.user").first).to_have_text(re.compile("question 1$", re.MULTILINE))
    texts = person.page.locator("article.user .body").all_inner_texts()
    assert texts == [f"question {n}" for n in range(1, 61)]


def test_the_place_in_the_list_survives_a_reload(serve: Serve, visit: Visit) -> None:
    address = serve(Scripted())
    for number in range(70):
        httpx.post(f"{address}/api/conversations", json={"title": f"Conversation {number}"}).raise_for_status()
    person = visit(address)
    rows = person.page.locator("#conversations li.row")
    expect(rows).to_have_count(50)
    person.page.get_by_role("button", name="More", exact=True).click()
    expect(rows).to_have_count(70)
    view = person.page.locator("#conversations nav")
    view.evaluate("e => { e.scrollTop = 900; }")
    there = view.evaluate("e => e.scrollTop")
    assert there > 500
    person.page.reload()
    expect(rows).to_have_count(70)
    person.page.wait_for_selector("html[data-ready]")
    assert abs(view.evaluate("e => e.scrollTop") - there) < 5
