"""What somebody does in a conversation: asks, reads, stops, goes on, asks again, edits, forks."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from person import Person, Serve, Visit
from playwright.sync_api import Locator, expect

from cierzo import catalog
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.engines.script import Reply, Script, Wait
from cierzo.engines.scripted import Scripted
from cierzo.errors import EngineDied, Overloaded
from cierzo.messages import Phase

MARKDOWN = """Some **bold** and `code`, from $5 to $10, and $e^{i\\pi} = -1$.

```python
def f(x):
    return x  # same
```

| a | b |
|---|---|
| 1 | 2 |

- one
- two

[a link](https://example.org/) and ![a picture](https://example.org/p.png)
"""


def endless(delay: float = 0.03) -> Reply:
    return Reply.of([" on", " and"], delay=delay, repeat=True)


def answers(person: Person) -> Locator:
    return person.page.locator("article.message.assistant")


def over(person: Person) -> None:
    expect(person.page.locator("article[aria-busy=true]")).to_have_count(0)


def ask(person: Person, text: str) -> None:
    """Ask, and wait for the end of the answer."""
    before = answers(person).count()
    person.send(text)
    expect(answers(person)).to_have_count(before + 1)
    over(person)


def test_an_answer_is_drawn_as_markdown(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted(MARKDOWN)))
    ask(person, "Show me")
    body = answers(person).locator(".body")
    expect(body.locator("strong")).to_have_text("bold")
    expect(body.locator("p").first).to_contain_text("from $5 to $10")
    expect(body.locator("math")).to_have_count(1)
    expect(body.locator("td").nth(1)).to_have_text("2")
    expect(body.locator("li")).to_have_text(["one", "two"])
    expect(body.locator("pre.code .k")).to_have_text(["def", "return"])
    expect(body.locator("a.link")).to_have_attribute("rel", re.compile("noopener"))
    expect(body.locator("img")).to_have_count(0)
    expect(body.locator("a.picture")).to_have_text("a picture")
    assert body.locator("pre .k").first.evaluate("e => getComputedStyle(e).color") != body.locator("pre").evaluate(
        "e => getComputedStyle(e).color"
    )


@pytest.mark.parametrize("secure", [True, False])
def test_code_and_messages_are_copied(serve: Serve, visit: Visit, secure: bool) -> None:
    person = visit(serve(Scripted(MARKDOWN)), permissions=["clipboard-read", "clipboard-write"])
    if not secure:  # what a browser gives a page that came over plain http
        person.page.evaluate("Object.defineProperty(window, 'isSecureContext', {value: false})")
    ask(person, "Show me")
    person.page.get_by_role("button", name="Copy the code").click()
    expect(person.page.get_by_role("button", name="Copied")).to_be_visible()
    assert person.page.evaluate("navigator.clipboard.readText()") == "def f(x):\n    return x  # same\n"
    answers(person).get_by_role("button", name="Copy", exact=True).click()
    expect(answers(person).get_by_role("button", name="Copied").first).to_be_visible()
    assert person.page.evaluate("navigator.clipboard.readText()") == MARKDOWN.rstrip("\n") or (
        person.page.evaluate("navigator.clipboard.readText()") == MARKDOWN
    )


def test_one_quiet_line_says_how_it_was(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted(Reply.of(["One", " two", " three"], first=0.3, delay=0.2))))
    person.send("Count")
    line = answers(person).locator(".line")
    expect(line).to_contain_text("ended by itself")
    said = line.inner_text()
    told = re.search(r"3 tokens · first after (\d\.\d\d) s", said)
    assert told, said
    assert 0.3 <= float(told[1]) < 3, "it is seconds, and a machine that others use is late"
    assert re.search(r"\b[2-5](\.\d)? tokens/s", said), said
    expect(line).to_have_attribute("title", re.compile(r"temperature 0\.9 .*repetition_penalty 1\.2"))


def test_phases_and_a_clock(serve: Serve, visit: Visit) -> None:
    steps = [
        Phase("loading", 40, 100),
        Wait(1.5),
        Phase("reading", 300, 800),
        Wait(1.5),
    ]
    person = visit(serve(Scripted(Reply.of([*steps, "Done."]))))
    person.send("Go")
    line = answers(person).locator(".line")
    for words in ("Loading the model · 40 % · ", "Reading your message · 300 of 800 tokens · "):
        expect(line).to_have_text(re.compile(re.escape(words) + r"[12]?\d\.\d s"))
    over(person)


def test_a_place_in_the_queue(serve: Serve, visit: Visit) -> None:
    engine = Scripted(script=Script((endless(),), slots=1))
    address = serve(engine)
    people = [visit(address) for _ in range(3)]
    for person in people:
        person.send("Go on")
        expect(answers(person)).to_have_count(1)
    expect(answers(people[1]).locator(".line")).to_have_text(re.compile(r"Waiting, place 1 · \d+\.\d s"))
    expect(answers(people[2]).locator(".line")).to_have_text(re.compile(r"Waiting, place 2 · \d+\.\d s"))
    people[0].page.keyboard.press("Escape")
    expect(answers(people[1]).locator(".line")).to_contain_text("Writing")
    expect(answers(people[2]).locator(".line")).to_have_text(re.compile(r"Waiting, place 1 · \d+\.\d s"))
    people[2].page.keyboard.press("Escape")  # whoever waits can stop too
    over(people[2])
    people[1].page.keyboard.press("Escape")
    over(people[1])


def test_stop_keeps_what_was_written_and_frees_the_engine(serve: Serve, visit: Visit) -> None:
    engine = Scripted(endless())
    person = visit(serve(engine))
    stops = (lambda: person.page.locator("#stop").click(), lambda: person.page.keyboard.press("Escape"))
    for count, press in enumerate(stops, 1):
        person.send("Go on")
        expect(answers(person)).to_have_count(count)  # else the last one may still be the one before
        expect(answers(person).last.locator(".body")).to_contain_text("on and on")
        began = time.monotonic()
        press()
        while engine.running:
            assert time.monotonic() - began < 1, "the engine still writes a second after Stop"
            time.sleep(0.01)
        over(person)
        expect(answers(person).last.locator(".line")).to_contain_text("stopped: continue")
        expect(answers(person).last.locator(".body")).to_contain_text("on and on")


def test_stop_frees_the_slot_of_the_model_that_ships(serve: Serve, visit: Visit, tmp_path: Path) -> None:
    """llama.cpp itself writes no more: what the page shows is not all that counts."""
    engine = LlamaCpp(catalog.find(catalog.DEMO, tmp_path), slots=1)
    person = visit(serve(engine))
    person.page.wait_for_selector("html[data-ready]")
    for name, value in {"temperature": "0", "repetition_penalty": "1", "max_new_tokens": "8192"}.items():
        person.page.locator(f"#{name} input[type=number]").fill(value)
        person.page.locator(f"#{name} input[type=number]").press("Tab")
    for press in (person.page.locator("#stop").click, lambda: person.page.keyboard.press("Escape")):
        person.page.keyboard.press("Control+Shift+O")
        expect(answers(person)).to_have_count(0)
        person.send("1 " * 200)  # to which the demo goes on until its window is full
        person.page.locator("article[aria-busy=true] .block").wait_for()
        assert engine._slots.slots[0].busy
        press()
        began = time.monotonic()
        while engine._slots.slots[0].busy:
            assert time.monotonic() - began < 1, "the model still writes a second after Stop"
            time.sleep(0.01)
        expect(answers(person).locator(".line")).to_contain_text("stopped: continue")


def test_the_box_is_for_the_next_draft_meanwhile(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted(endless())))
    person.send("Go on")
    expect(person.page.locator("#stop")).to_be_visible()
    person.box.press_sequentially("The next one")
    person.box.press("Enter")
    expect(person.box).to_have_value("The next one")
    expect(person.page.locator("article.user")).to_have_count(1)
    person.page.keyboard.press("Escape")
    over(person)
    person.box.press("Enter")
    expect(person.page.locator("article.user")).to_have_count(2)
    expect(person.box).to_have_value("")


def test_an_answer_that_was_cut_goes_on(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted(Reply.of(["one"] + [f" {n}" for n in range(400)], delay=0.001))))
    person.send("Count")
    line = answers(person).locator(".line")
    expect(line).to_contain_text("reached its limit of 256 tokens: continue")
    before = answers(person).locator(".body").inner_text()
    line.get_by_role("button", name="continue").click()
    expect(answers(person).locator(".siblings")).to_contain_text("2/2")
    over(person)
    after = answers(person).locator(".body").inner_text()
    assert after.startswith(before)
    assert len(after) > len(before)


def test_answers_beside_each_other(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted("The first.", "The second.", "The third.")))
    ask(person, "Say something")
    for place in (2, 3):
        answers(person).get_by_role("button", name="Answer again").click()
        expect(answers(person).locator(".siblings")).to_contain_text(f"{place}/{place}")
        over(person)
    expect(answers(person).locator(".body")).to_have_text("The third.")
    answers(person).get_by_role("button", name="Previous version").click()
    expect(answers(person).locator(".body")).to_have_text("The second.")
    answers(person).get_by_role("button", name="Previous version").click()
    expect(answers(person).locator(".body")).to_have_text("The first.")
    expect(answers(person).get_by_role("button", name="Previous version")).to_be_disabled()
    person.page.reload()
    expect(answers(person).locator(".body")).to_have_text("The first.")
    answers(person).get_by_role("button", name="Next version").press("Enter")
    expect(answers(person).locator(".body")).to_have_text("The second.")


def test_a_question_is_edited_and_the_old_one_stays(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted("First answer.", "Second answer.")))
    ask(person, "Frist question")
    person.box.press("ArrowUp")  # with an empty box: edit the last question
    form = person.page.locator("form.editing textarea")
    expect(form).to_have_value("Frist question")
    form.press("Escape")
    expect(person.page.locator("article.user .body")).to_have_text("Frist question")
    person.page.locator("article.user").get_by_role("button", name="Edit").click()
    form.fill("First question")
    form.press("Control+Enter")
    expect(person.page.locator("article.user .body")).to_have_text("First question")
    over(person)
    expect(answers(person).locator(".body")).to_have_text("Second answer.")
    person.page.locator("article.user").get_by_role("button", name="Previous version").click()
    expect(person.page.locator("article.user .body")).to_have_text("Frist question")
    expect(answers(person).locator(".body")).to_have_text("First answer.")


def test_what_is_being_edited_outlives_an_answer_that_ends(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted(Reply.of(["slow"] * 30, delay=0.05))))
    person.send("Tell me")
    expect(answers(person).locator(".body")).to_contain_text("slow")
    person.page.locator("article.user").get_by_role("button", name="Edit").click()
    person.page.locator("form.editing textarea").fill("Half an edit")
    over(person)
    expect(answers(person).locator(".line")).to_contain_text("ended by itself")
    expect(person.page.locator("form.editing textarea")).to_have_value("Half an edit")


def test_a_branch_becomes_a_conversation(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted("One.", "Two.", "Three.")))
    for text in ("First", "Second"):
        ask(person, text)
    before = person.page.url
    answers(person).first.get_by_role("button", name="Continue in a new conversation").click()
    expect(answers(person)).to_have_count(1)
    expect(person.page).not_to_have_url(before)
    ask(person, "Another second")
    expect(answers(person).locator(".body")).to_have_text(["One.", "Three."])
    person.page.goto(before)
    expect(answers(person).locator(".body")).to_have_text(["One.", "Two."])


def test_the_address_is_the_conversation(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted("One.", "Two.")))
    ask(person, "First")
    first = person.page.url
    assert "/?c=" in first
    person.page.keyboard.press("Control+Shift+O")
    expect(answers(person)).to_have_count(0)
    assert "?c=" not in person.page.url
    ask(person, "Second")
    person.page.go_back()
    expect(person.page.get_by_text("What would you like to know?")).to_be_visible()
    person.page.go_back()
    expect(answers(person).locator(".body")).to_have_text("One.")
    assert person.page.url == first
    person.page.go_forward()
    person.page.go_forward()
    expect(answers(person).locator(".body")).to_have_text("Two.")
    expect(person.page).to_have_title("Second · Cierzo")


def test_an_address_that_leads_nowhere(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted()), path="/?c=nothing")
    person.pardon("404")
    person.see("#transcript [role=alert]", "is not here")
    person.page.locator("#transcript").get_by_role("button", name="New chat").click()
    expect(person.page.get_by_text("What would you like to know?")).to_be_visible()


def test_an_address_sends_nothing_by_itself(serve: Serve, visit: Visit) -> None:
    engine = Scripted("No.")
    for query in ("q=Hello", "text=Hello", "message=Hello&send=1", "prompt=Hello&submit=true"):
        person = visit(serve(engine), path=f"/?{query}")
        person.page.wait_for_timeout(300)
        expect(person.page.locator("article")).to_have_count(0)
    assert not engine.asked


def test_whoever_scrolls_up_stays_there(serve: Serve, visit: Visit) -> None:
    lines = [f"line {n}\n\n" for n in range(60)]
    person = visit(serve(Scripted(Reply.of([*lines, Wait(0.3), *lines], delay=0.01))))
    person.send("Write a lot")
    expect(answers(person)).to_contain_text("line 40")
    view = person.page.locator("#transcript")
    assert view.evaluate("e => e.scrollHeight - e.scrollTop - e.clientHeight") < 100  # it follows
    person.page.mouse.move(500, 300)
    person.page.mouse.wheel(0, -600)
    person.page.wait_for_timeout(100)
    there = view.evaluate("e => e.scrollTop")
    over(person)
    assert view.evaluate("e => e.scrollTop") == there
    person.page.get_by_role("button", name="To the newest message").click()
    expect(person.page.get_by_role("button", name="To the newest message")).to_be_hidden()
    assert view.evaluate("e => e.scrollHeight - e.scrollTop - e.clientHeight") < 2


def test_drafts_survive_each_in_its_place(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted("One.")))
    person.type("Half a thought")
    person.page.reload()
    expect(person.box).to_have_value("Half a thought")
    ask(person, "A whole one")
    expect(person.box).to_have_value("")
    person.type("Draft in here")
    person.page.keyboard.press("Control+Shift+O")
    expect(person.box).to_have_value("")
    person.type("Draft of a new one")
    person.page.go_back()
    expect(person.box).to_have_value("Draft in here")
    person.page.reload()
    expect(person.box).to_have_value("Draft in here")


def test_an_answer_that_fails_says_why_and_can_be_asked_for_again(serve: Serve, visit: Visit) -> None:
    person = visit(
        serve(Scripted(Reply.of(["half", " of it", EngineDied("the engine is gone: ask again")]), "All of it."))
    )
    person.send("Try")
    line = answers(person).locator(".line.failed")
    expect(line).to_contain_text("failed: the engine is gone: ask again")
    expect(answers(person).locator(".body")).to_have_text("half of it")
    line.get_by_role("button", name="try again").click()
    expect(answers(person).locator(".body")).to_have_text("All of it.")


def test_a_message_that_is_refused_stays_in_the_box(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted("Fine.", "Yes.")))
    person.pardon("413", "400", "422")
    long = "word " * 20_000
    person.type(long)
    person.box.press("Enter")
    expect(person.page.locator(".note.failed")).to_contain_text("tokens")
    expect(person.box).to_have_value(long)
    expect(person.page.locator("article")).to_have_count(0)
    assert person.page.evaluate("fetch('/api/conversations').then(r => r.json())")["conversations"] == []
    person.type("Short")
    person.page.locator(".note.failed").get_by_role("button", name="Try again").click()
    over(person)
    expect(answers(person).locator(".body")).to_have_text("Fine.")


def test_a_server_that_is_away_loses_nothing(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted("Here again.", "And again.")))
    person.pardon("ERR_", "Failed to load")
    person.page.wait_for_selector("html[data-ready]")
    person.context.set_offline(True)
    person.send("Are you there?")
    expect(person.page.locator(".note.failed")).to_contain_text("still in the box")
    expect(person.box).to_have_value("Are you there?")
    expect(person.page.locator("#offline")).to_be_visible()
    person.context.set_offline(False)
    person.page.locator(".note.failed").get_by_role("button", name="Try again").click()
    over(person)
    expect(answers(person).locator(".body")).to_have_text("Here again.")
    expect(person.page.locator("#offline")).to_be_hidden()
    expect(person.page.locator("article.user")).to_have_count(1)


def test_an_acknowledgement_that_was_lost_makes_no_second_question(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted("Once.", "Twice.")))
    person.pardon("ERR_", "Failed to load")
    person.page.wait_for_selector("html[data-ready]")
    lose = [True]

    def answer_lost(route: object) -> None:
        route.fetch()  # type: ignore[attr-defined]  # it reaches the server
        if lose.pop() if lose else False:
            route.abort()  # type: ignore[attr-defined]
        else:
            route.continue_()  # type: ignore[attr-defined]

    person.page.route("**/messages", answer_lost)
    person.send("Only once")
    expect(person.page.locator(".note.failed")).to_contain_text("still in the box")
    person.page.unroute("**/messages")
    person.page.locator(".note.failed").get_by_role("button", name="Try again").click()
    over(person)
    expect(person.page.locator("article.user")).to_have_count(1)
    expect(answers(person).locator(".body")).to_have_text("Once.")
    assert person.page.evaluate("fetch('/api/conversations').then(r => r.json())")["conversations"][0]["messages"] == 2


def test_a_full_queue_says_so(serve: Serve, visit: Visit) -> None:
    person = visit(
        serve(Scripted(Reply.of([Overloaded("every place is taken: try again in a moment", retry_after=1)]), "Now."))
    )
    person.send("Please")
    line = answers(person).locator(".line.failed")
    expect(line).to_contain_text("every place is taken")
    line.get_by_role("button", name="try again").click()
    expect(answers(person).locator(".body")).to_have_text("Now.")


def test_who_hears_the_page_hears_beginning_and_end_once(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted(Reply.of(["a"] * 20, delay=0.03))))
    person.page.wait_for_selector("html[data-ready]")
    person.page.evaluate(
        """() => {
            window.heard = [];
            const spot = document.getElementById("announcer");
            const observer = new MutationObserver(() => heard.push(spot.textContent));
            observer.observe(spot, {childList: true, characterData: true, subtree: true});
        }"""
    )
    person.send("Speak")
    expect(person.page.locator("#transcript")).to_have_attribute("aria-busy", "true")
    over(person)
    expect(person.page.locator("#announcer")).to_have_text("The answer is complete.")
    expect(person.page.locator("#transcript")).to_have_attribute("aria-busy", "false")
    assert person.page.evaluate("heard") == ["The answer is being written.", "The answer is complete."]
    expect(
        person.page.locator("#transcript [aria-live], #transcript [role=log], #transcript [role=status]")
    ).to_have_count(0)


def test_keys(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted("One.")))
    person.page.wait_for_selector("html[data-ready]")
    person.page.locator("#title").click()
    person.page.keyboard.press("?")
    dialog = person.page.get_by_role("dialog", name="Keyboard")
    expect(dialog).to_contain_text("Stop the answer")
    person.page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    person.box.press("?")  # in a box it is a letter
    expect(person.box).to_have_value("?")
    person.box.press("Shift+Enter")
    expect(person.box).to_have_value("?\n")
    person.page.keyboard.press("Control+k")
    expect(person.page.get_by_role("searchbox")).to_be_focused()


def test_a_menu_takes_no_focus_that_went_elsewhere(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted("One.")))
    ask(person, "First")
    person.page.locator("#conversations li.row").hover()
    dots = person.page.locator("#conversations li.row").get_by_role("button")
    menu = person.page.get_by_role("menu")
    dots.click()
    expect(menu).to_be_visible()
    dots.click()  # the same press closes it
    expect(menu).to_have_count(0)
    person.page.wait_for_timeout(300)
    dots.click()
    expect(menu).to_be_visible()
    person.page.keyboard.press("Escape")
    expect(menu).to_have_count(0)
    expect(dots).to_be_focused()
    person.page.wait_for_timeout(300)
    dots.click()
    expect(menu).to_be_visible()
    person.box.click()
    expect(menu).to_have_count(0)
    person.page.wait_for_timeout(100)
    expect(person.box).to_be_focused()
