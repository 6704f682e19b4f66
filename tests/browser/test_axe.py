"""The page under axe-core: nothing serious or critical, in es and en, light and dark, in every state it can be in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from pages import page_served
from person import Person, Visit
from playwright.sync_api import expect

from cierzo.engines.script import Reply
from cierzo.engines.scripted import Scripted
from cierzo.errors import EngineDied
from cierzo.page.drawn import Drawn

TALK = """Some **bold**, `code`, a [link](https://example.org/) and $e^{i\\pi} = -1$.

```python
def f(x):
    return x  # a comment
```

| a | b |
|---|---|
| 1 | 2 |

> a quotation
"""


@pytest.fixture(scope="module")
def address(page_drawn: Drawn) -> Iterator[str]:
    """A server that answers with everything that an answer may hold, with half an answer, and without an end."""
    engine = Scripted(
        Reply.of([TALK], when="all"),
        Reply.of(["half", EngineDied("the engine is gone: ask again")], when="half"),
        Reply.of([" on", " and"], delay=0.05, repeat=True, when="on"),
        "A short answer.",
    )
    with page_served(page_drawn, engine) as served:
        yield served


def violations(person: Person) -> list[str]:
    """What axe-core finds that is serious or critical, with the elements that it is about."""
    found = Axe().run(person.page).response["violations"]
    return [
        f"{each['id']} ({each['impact']}): {[node['html'][:120] for node in each['nodes'][:3]]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("locale", ["es-ES", "en-GB"])
def test_nothing_serious(address: str, visit: Visit, locale: str, scheme: str) -> None:
    person = visit(address, locale=locale, color_scheme=scheme, reduced_motion="reduce")
    page, found = person.page, {}
    page.wait_for_selector("html[data-ready]")
    found["start"] = violations(person)
    for question in ("all", "half"):
        person.send(question)
        expect(page.locator("article.user").last).to_contain_text(question)
        expect(page.locator("article[aria-busy=true]")).to_have_count(0)
    page.locator("#more-head button").click()
    found["a conversation, all parameters"] = violations(person)
    page.locator("article.user").first.hover()
    page.locator("article.user").first.locator(".actions button").nth(1).click()
    expect(page.locator("form.editing")).to_be_visible()
    found["editing"] = violations(person)
    page.keyboard.press("Escape")
    person.send("on")
    expect(page.locator("article[aria-busy=true] .line")).to_be_visible()
    found["while it writes"] = violations(person)
    page.keyboard.press("Escape")
    expect(page.locator("article[aria-busy=true]")).to_have_count(0)
    page.locator("#conversations li.row").first.hover()
    page.locator("#conversations li.row").first.get_by_role("button").click()
    expect(page.get_by_role("menu")).to_be_visible()
    found["a menu"] = violations(person)
    page.keyboard.press("Escape")
    page.locator("#keys").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    found["the keys"] = violations(person)
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": 360, "height": 740})
    found["a phone"] = violations(person)
    print(f"\n{len(found)} states in {locale}, {scheme}")
    assert {state: wrong for state, wrong in found.items() if wrong} == {}


def test_axe_sees_what_is_wrong(address: str, visit: Visit) -> None:
    """The instrument itself: a box without a name and text that nobody can read are found."""
    person = visit(address)
    person.page.evaluate(
        """() => document.getElementById("talk").insertAdjacentHTML("beforeend",
            '<input type="text"><p style="color: #ddd; background: #fff">pale</p>')"""
    )
    assert {line.split()[0] for line in violations(person)} >= {"label", "color-contrast"}
