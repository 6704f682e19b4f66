"""The list of conversations, as people use it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pages import page_served
from person import Person, Visit
from playwright.sync_api import Locator, Route, expect

from cierzo.engines.scripted import Scripted
from cierzo.page.drawn import Drawn
from cierzo.page.words import LANGUAGES

EN = LANGUAGES["en"]
MONTHS = ["enero", "febrero", "marzo", "abril", "mayo", "junio", "julio", "agosto", "septiembre"]
MONTHS += ["octubre", "noviembre", "diciembre"]


HTTP = httpx.Client(timeout=30)


@pytest.fixture(scope="module")
def served(page_drawn: Drawn) -> Iterator[str]:
    """One server for this file: no test of it needs an answer."""
    with page_served(page_drawn, Scripted("bien")) as address, HTTP:
        yield address


@pytest.fixture
def address(served: str) -> str:
    """The server, with nothing in any of its lists."""
    for archived in (False, True):
        while there(served, archived=archived):
            for each in HTTP.get(f"{served}/api/conversations?limit=200&archived={archived}").json()["conversations"]:
                HTTP.delete(f"{served}/api/conversations/{each['id']}")
    return served


def make(address: str, *titles: str) -> list[str]:
    """Make conversations, each newer than the one before; give their ids."""
    made = [HTTP.post(f"{address}/api/conversations", json={"title": title}) for title in titles]
    return [answer.raise_for_status().json()["id"] for answer in made]


def file_of(*conversations: dict[str, Any]) -> bytes:
    """A file of conversations; `plain` says what each is given as."""
    full = [plain(number, **given) for number, given in enumerate(conversations)]
    head = {"format": "cierzo-conversations", "version": 1, "exported": dated(0)}
    return json.dumps({**head, "conversations": full}).encode()


def plain(number: int, title: str, days: int = 0, text: str = "Hola", *, pinned: bool = False) -> dict[str, Any]:
    date, message = dated(days), f"m{number}"
    said = {"id": message, "parent": None, "role": "user", "text": text, "created": date, "client_id": None}
    dates = {"created": date, "updated": date, "pinned": pinned, "archived": False, "deleted": None}
    return {"id": f"c{number}", "title": title, **dates, "head": message, "messages": [{**said, "answer": None}]}


def dated(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def send_file(address: str, content: bytes) -> httpx.Response:
    return HTTP.post(f"{address}/api/import", content=content, headers={"content-type": "application/json"})


def bring(address: str, *conversations: dict[str, Any]) -> None:
    """Import such conversations."""
    send_file(address, file_of(*conversations)).raise_for_status()


def there(address: str, **query: Any) -> list[str]:
    """The titles that the server lists."""
    listed = HTTP.get(f"{address}/api/conversations", params=query).json()["conversations"]
    return [conversation["title"] for conversation in listed]


def arrive(person: Person) -> Person:
    """Wait until the page has put the focus into the message box: it would take it away from what is done before."""
    person.page.wait_for_selector("html[data-ready]")
    return person


def rows(person: Person) -> Locator:
    return person.page.locator("#conversations .row .row-name")


def row(person: Person, title: str) -> Locator:
    return person.page.locator("#conversations .row").filter(has=person.page.get_by_text(title, exact=True))


def choose(person: Person, title: str, *, do: str) -> None:
    """Open the menu of a row, and choose."""
    row(person, title).hover()
    row(person, title).get_by_role("button").click()
    person.page.get_by_role("menuitem", name=do, exact=True).click()


def choose_in_list(person: Person, words: str) -> None:
    person.page.get_by_role("button", name=EN["list_menu"]).click()
    person.page.get_by_role("menuitem", name=words, exact=True).click()


def note(person: Person, words: str) -> Locator:
    return person.see(person.page.locator("#notes .note"), words)


def look(person: Person) -> None:
    """Let the page read again what there is, as it does every few seconds, and wait until it has drawn it."""
    for _ in range(2):
        with person.page.expect_response(lambda answer: "/api/conversations?" in answer.url):
            person.page.evaluate("dispatchEvent(new Event('online'))")


def search(person: Person, text: str) -> Locator:
    box = person.page.get_by_role("searchbox", name=EN["search"])
    box.fill(text)
    return box


def focused(person: Person) -> str:
    text: str = person.page.evaluate("document.activeElement.textContent")
    return text


def test_a_row_is_a_link_and_a_click_stays_on_the_page(address: str, visit: Visit) -> None:
    one, two = make(address, "uno", "dos")
    person = arrive(visit(address))
    expect(rows(person)).to_have_text(["dos", "uno"])
    person.page.evaluate("window.stayed = true")
    row(person, "uno").get_by_role("link").click()
    expect(person.page).to_have_url(f"{address}/?c={one}")
    expect(person.page.locator("#conversations [aria-current=page]")).to_have_text("uno")
    with person.context.expect_page() as tab:
        row(person, "dos").get_by_role("link").click(button="middle")
    expect(tab.value).to_have_url(f"{address}/?c={two}")
    expect(tab.value.locator("#conversations [aria-current=page]")).to_have_text("dos")
    person.page.get_by_role("button", name=EN["new_chat"]).click()
    expect(person.page).to_have_url(f"{address}/")
    expect(person.page.locator("#conversations [aria-current]")).to_have_count(0)
    assert person.page.evaluate("window.stayed") is True


def test_conversations_stand_by_day(address: str, visit: Visit) -> None:
    person = arrive(visit(address, locale="es-ES", timezone_id="UTC"))
    spanish = LANGUAGES["es"]
    person.see(person.page.get_by_text(spanish["no_conversations"]))
    days = {"hace mucho": 400, "hoy": 0, "ayer": 1, "hace dos": 2, "hace siete": 7, "hace ocho": 60}
    bring(address, {"title": "fijada", "days": 90, "pinned": True}, *[{"title": t, "days": d} for t, d in days.items()])
    look(person)
    months = [datetime.now(UTC) - timedelta(days=days[title]) for title in ("hace ocho", "hace mucho")]
    names = [f"{MONTHS[date.month - 1]} de {date.year}" for date in months]
    groups = [spanish[name] for name in ("pinned_group", "today", "yesterday", "earlier_week")] + names
    expect(person.page.locator("#conversations h3")).to_have_text(groups)
    expect(rows(person)).to_have_text(["fijada", "hoy", "ayer", "hace dos", "hace siete", "hace ocho", "hace mucho"])
    expect(person.page.locator("#conversations section").nth(3).locator(".row")).to_have_count(2)
    expect(person.page.get_by_text(spanish["no_conversations"])).to_have_count(0)


def test_more_brings_the_rest(address: str, visit: Visit) -> None:
    bring(address, *[{"title": f"n{number}", "days": number} for number in range(120)])
    person = arrive(visit(address))
    more = person.page.get_by_role("button", name=EN["more_conversations"], exact=True)
    expect(rows(person)).to_have_count(50)
    more.click()
    expect(rows(person)).to_have_count(100)
    look(person)
    expect(rows(person)).to_have_count(100)
    more.click()
    expect(rows(person)).to_have_count(120)
    expect(more).to_be_hidden()
    assert len(set(rows(person).all_text_contents())) == 120


def test_search_as_one_types(address: str, visit: Visit) -> None:
    texts = {"Viento": "El cierzo sopla del noroeste", "Cocina": "Migas con uvas", "Cierzo": "Nada de nada"}
    bring(address, *[{"title": title, "text": text} for title, text in texts.items()])
    make(address, *[f"otra {number}" for number in range(3)])
    person = arrive(visit(address))
    expect(rows(person)).to_have_count(6)
    asked: list[str] = []
    person.page.on("request", lambda sent: asked.append(sent.url) if "/api/search" in sent.url else None)
    box = search(person, "")
    box.press_sequentially("Ciérz", delay=20)
    expect(rows(person)).to_have_count(2)
    expect(row(person, "Cierzo").locator(".row-name mark")).to_have_text("Cierzo")
    expect(row(person, "Viento").locator(".row-snippet")).to_have_text("El cierzo sopla del noroeste")
    expect(row(person, "Viento").locator("mark")).to_have_text("cierzo")
    expect(person.page.locator("#conversations h3")).to_have_count(0)
    assert len(asked) == 1, asked  # not one for each letter
    search(person, "zzz")
    person.see(person.page.get_by_text("Nothing found for “zzz”."))
    box.press("Escape")
    expect(box).to_have_value("")
    expect(rows(person)).to_have_count(6)
    search(person, "noroeste")
    expect(rows(person)).to_have_text(["Viento"])
    row(person, "Viento").get_by_role("link").click()
    expect(person.page.get_by_role("heading", level=1)).to_have_text("Viento")
    expect(rows(person)).to_have_text(["Viento"])


def test_what_was_found_is_shown_where_it_stands(address: str, visit: Visit) -> None:
    """Far back in a long conversation, and in a version that is not in use."""
    long = plain(1, "Larga")
    (first,) = long["messages"]
    texts = {f"n{n}": f"frase {n}" for n in range(120)} | {"n2": "una aguja"}
    parents = dict(zip(texts, [None, *texts], strict=False))
    messages = [{**first, "id": each, "parent": parents[each], "text": text} for each, text in texts.items()]
    other = {**first, "id": "other", "parent": "n60", "text": "un dedal"}
    file = {**json.loads(file_of()), "conversations": [{**long, "head": "n119", "messages": [*messages, other]}]}
    send_file(address, json.dumps(file).encode()).raise_for_status()
    person = arrive(visit(address))
    for words, last, count in (("aguja", "frase 119", 120), ("dedal", "un dedal", 62)):
        search(person, words)
        expect(rows(person)).to_have_text(["Larga"])
        person.page.locator("#conversations .row-snippet mark", has_text=words).click()
        found = person.page.locator("article.found")
        expect(found.locator(".body")).to_contain_text(words)
        expect(found).to_be_in_viewport(ratio=0.9)
        expect(found).to_be_focused()
        expect(person.page.locator("article .body").last).to_have_text(last)
        assert person.page.locator("article").count() <= count
    person.page.locator("#conversations .list-search").press("Escape")


def test_what_was_found_too_late_is_dropped(address: str, visit: Visit) -> None:
    make(address, "uno", "dos")
    person = arrive(visit(address))
    late: list[Route] = []
    person.page.route("**/api/search?q=uno*", lambda route: late.append(route))  # noqa: PLW0108 - Playwright marks what it is given
    search(person, "uno")
    person.page.wait_for_timeout(400)
    search(person, "dos")
    expect(rows(person)).to_have_text(["dos"])
    with person.page.expect_response("**/api/search?q=uno*"):
        late[0].continue_()
    person.page.wait_for_timeout(100)
    expect(rows(person)).to_have_text(["dos"])


def test_rename_in_place(address: str, visit: Visit) -> None:
    make(address, "abajo", "arriba")
    person = arrive(visit(address))
    box = person.page.get_by_role("textbox", name=EN["title_of"])
    choose(person, "arriba", do=EN["rename"])
    expect(box).to_be_focused()
    expect(box).to_have_value("arriba")
    box.fill("con Intro")
    box.press("Enter")
    expect(rows(person)).to_have_text(["con Intro", "abajo"])
    assert focused(person) == "con Intro"
    person.page.keyboard.press("F2")
    box.fill("nunca")
    box.press("Escape")
    expect(box).to_have_count(0)
    assert focused(person) == "con Intro"
    person.page.keyboard.press("F2")
    box.fill("al salir")
    person.box.click()
    expect(rows(person)).to_have_text(["al salir", "abajo"])
    choose(person, "abajo", do=EN["rename"])
    box.fill("  ")
    box.press("Enter")
    expect(rows(person)).to_have_text(["al salir", "abajo"])
    assert there(address) == ["al salir", "abajo"]


def test_a_new_title_stays_while_it_is_written(address: str, visit: Visit) -> None:
    make(address, "vieja")
    person = arrive(visit(address))
    waiting: list[Route] = []
    own = re.compile(r"/api/conversations/[^/]+$")
    person.page.route(own, lambda route: waiting.append(route))  # noqa: PLW0108 - Playwright marks what it is given
    choose(person, "vieja", do=EN["rename"])
    person.page.get_by_role("textbox", name=EN["title_of"]).fill("nueva")
    person.page.keyboard.press("Enter")
    look(person)
    expect(rows(person)).to_have_text(["nueva"])
    assert there(address) == ["vieja"]
    waiting[0].continue_()
    person.page.unroute(own)
    look(person)
    expect(rows(person)).to_have_text(["nueva"])
    assert there(address) == ["nueva"]


def test_pin_archive_and_back(address: str, visit: Visit) -> None:
    make(address, "una", "dos", "tres")
    person = arrive(visit(address))
    choose(person, "una", do=EN["pin"])
    expect(rows(person)).to_have_text(["una", "tres", "dos"])
    expect(person.page.locator("#conversations h3").first).to_have_text(EN["pinned_group"])
    choose(person, "una", do=EN["unpin"])
    expect(rows(person)).to_have_text(["tres", "dos", "una"])
    choose(person, "dos", do=EN["archive"])
    expect(rows(person)).to_have_text(["tres", "una"])
    note(person, EN["archived"].format(title="dos")).get_by_role("button", name=EN["undo"]).click()
    expect(rows(person)).to_have_text(["tres", "dos", "una"])
    choose(person, "dos", do=EN["archive"])
    note(person, EN["archived"].format(title="dos"))
    choose_in_list(person, EN["archive_shown"])
    expect(person.page.get_by_role("heading", name=EN["archive_shown"])).to_be_visible()
    expect(rows(person)).to_have_text(["dos"])
    choose(person, "dos", do=EN["unarchive"])
    person.see(person.page.get_by_text(EN["archive_none"]))
    person.page.get_by_role("button", name=EN["back_to_list"]).click()
    expect(rows(person)).to_have_text(["tres", "dos", "una"])


def test_export(address: str, visit: Visit, tmp_path: Path) -> None:
    make(address, "primera", "segunda")
    person = arrive(visit(address))

    def kept(act: Callable[[], None]) -> str:
        with person.page.expect_download() as download:
            act()
        download.value.save_as(tmp_path / "file")
        return f"{download.value.suggested_filename}\n{(tmp_path / 'file').read_text('utf-8')}"

    one = kept(lambda: choose(person, "primera", do=EN["export_json"]))
    assert one.startswith("conversations.json\n")
    assert "primera" in one
    assert "segunda" not in one
    assert kept(lambda: choose(person, "primera", do=EN["export_markdown"])).startswith("conversations.md\n# primera")
    everything = kept(lambda: choose_in_list(person, EN["export_all"]))
    assert "primera" in everything
    assert "segunda" in everything


def test_delete_and_undo(address: str, visit: Visit) -> None:
    _, two, _ = make(address, "una", "dos", "tres")
    person = arrive(visit(address, path=f"/?c={two}"))
    expect(rows(person)).to_have_text(["tres", "dos", "una"])
    choose(person, "una", do=EN["delete"])
    said = note(person, EN["deleted"].format(title="una"))
    expect(rows(person)).to_have_text(["tres", "dos"])
    expect(person.page).to_have_url(f"{address}/?c={two}")
    said.get_by_role("button", name=EN["undo"]).click()
    expect(rows(person)).to_have_text(["tres", "dos", "una"])
    expect(row(person, "una").get_by_role("link")).to_be_focused()
    choose(person, "dos", do=EN["delete"])
    note(person, EN["deleted"].format(title="dos"))
    expect(person.page).to_have_url(f"{address}/")
    assert there(address) == ["tres", "una"]
    note(person, EN["deleted"].format(title="dos")).get_by_role("button", name=EN["undo"]).click()
    expect(person.page).to_have_url(f"{address}/?c={two}")
    expect(person.page.locator("#conversations [aria-current=page]")).to_have_text("dos")


def drop(person: Person, name: str, content: bytes, kind: str = "application/json") -> None:
    """Drag a file over the page and drop it on the message box."""
    files = person.page.evaluate_handle(
        "([name, text, type]) => { const held = new DataTransfer();"
        " held.items.add(new File([text], name, {type})); return held }",
        [name, content.decode(), kind],
    )
    sheet = person.page.get_by_text(EN["import_drop"])
    person.box.dispatch_event("dragover", {"dataTransfer": files})
    expect(sheet).to_be_visible()
    person.box.dispatch_event("drop", {"dataTransfer": files})
    expect(sheet).to_be_hidden()


def test_import_a_file(address: str, visit: Visit) -> None:
    person = arrive(visit(address))
    with person.page.expect_file_chooser() as chooser:
        choose_in_list(person, EN["import"])
    two = file_of({"title": "primera"}, {"title": "segunda", "days": 1})
    chooser.value.set_files({"name": "dos.json", "mimeType": "application/json", "buffer": two})
    note(person, "2 conversations were imported.")
    expect(rows(person)).to_have_text(["primera", "segunda"])
    drop(person, "una.json", file_of({"title": "tercera", "days": 2}))
    note(person, "1 conversation was imported.")
    expect(person.page.locator("#conversations [aria-current=page]")).to_have_text("tercera")
    drop(person, "foto.png", b"no", "image/png")
    note(person, EN["import_not_json"].format(name="foto.png"))
    person.pardon("400")
    drop(person, "rota.json", b'{"format": "other"}')
    note(person, send_file(address, b'{"format": "other"}').json()["error"]["message"])
    assert there(address) == ["tercera", "primera", "segunda"]


def test_a_file_that_leaves_again_leaves_no_sheet_behind(address: str, visit: Visit) -> None:
    person = arrive(visit(address))
    sheet = person.page.get_by_text(EN["import_drop"])
    over = "new DragEvent('dragover', {dataTransfer: held, bubbles: true, cancelable: true})"
    hold = "const held = new DataTransfer(); held.items.add(new File(['x'], 'x.json'));"
    person.page.evaluate(f"{hold} document.body.dispatchEvent({over})")
    expect(sheet).to_be_visible()
    expect(sheet).to_be_hidden(timeout=3000)
    text = "const held = new DataTransfer(); held.setData('text/plain', 'x');"
    taken = person.page.evaluate(f"{text} !document.body.dispatchEvent({over})")
    assert taken is False  # text that is dragged is the browser's business
    expect(sheet).to_be_hidden()


def test_keyboard(address: str, visit: Visit) -> None:
    ids = make(address, "una", "dos", "tres", "cuatro")
    person = arrive(visit(address))
    keys = person.page.keyboard
    expect(rows(person)).to_have_count(4)
    search(person, "").press("ArrowDown")
    seen = [focused(person)]
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "End", "ArrowDown", "Home"):
        keys.press(key)
        seen.append(focused(person))
    assert seen == ["cuatro", "tres", "dos", "tres", "una", "una", "cuatro"]
    assert person.page.locator("#conversations .row a[tabindex='0']").all_text_contents() == ["cuatro"]
    keys.press("ArrowUp")
    expect(person.page.get_by_role("searchbox")).to_be_focused()
    for key in ("ArrowDown", "ArrowDown", "Delete"):
        keys.press(key)
    note(person, EN["deleted"].format(title="tres"))
    expect(rows(person)).to_have_text(["cuatro", "dos", "una"])
    assert focused(person) == "dos"  # the one that is now in its place
    keys.press("Tab")
    expect(row(person, "dos").get_by_role("button")).to_be_focused()
    keys.press("Enter")
    expect(person.page.get_by_role("menuitem").first).to_be_focused()
    keys.press("Escape")
    expect(person.page.locator(".menu")).to_have_count(0)
    expect(row(person, "dos").get_by_role("button")).to_be_focused()
    keys.press("ArrowDown")
    assert focused(person) == "una"
    keys.press("Enter")
    expect(person.page).to_have_url(f"{address}/?c={ids[0]}")


WATCH = """() => {
    window.changes = 0;
    const list = document.querySelector('#conversations');
    new MutationObserver((seen) => window.changes += seen.length)
        .observe(list, {subtree: true, childList: true, characterData: true, attributes: true});
}"""


def test_reading_again_disturbs_nothing(address: str, visit: Visit) -> None:
    ids = make(address, *[f"n{number}" for number in range(40)])
    person = arrive(visit(address, viewport={"width": 1000, "height": 500}))
    expect(rows(person)).to_have_count(40)
    person.page.evaluate(WATCH)
    look(person)
    assert person.page.evaluate("window.changes") == 0
    nav = person.page.locator("#conversations nav")
    row(person, "n10").get_by_role("link").focus()
    place = nav.evaluate("nav => nav.scrollTop")
    assert place > 0
    make(address, "nueva")
    HTTP.patch(f"{address}/api/conversations/{ids[10]}", json={"pinned": True})
    look(person)
    expect(rows(person)).to_have_count(41)
    assert focused(person) == "n10"
    HTTP.patch(f"{address}/api/conversations/{ids[10]}", json={"pinned": False})
    look(person)
    assert focused(person) == "n10"
    assert abs(nav.evaluate("nav => nav.scrollTop") - place) < 200
    row(person, "n10").get_by_role("button").click()
    look(person)
    expect(person.page.get_by_role("menu")).to_be_visible()
    person.page.get_by_role("menuitem", name=EN["rename"]).click()
    box = person.page.get_by_role("textbox", name=EN["title_of"])
    box.fill("a medias")
    make(address, "otra más")
    look(person)
    expect(box).to_be_focused()
    expect(box).to_have_value("a medias")
    box.press("Enter")
    expect(rows(person).first).to_have_text("otra más")
    expect(row(person, "a medias")).to_have_count(1)


HOSTILE = (
    "<script>window.ran = 1</script>",
    "<img src=x onerror='window.ran = 1'>",
    "<svg onload='window.ran = 1'></svg>",
    "<iframe srcdoc='<script>parent.ran = 1</script>'></iframe>",
    "<a href='javascript:window.ran=1'>x</a>",
    "<base href='http://127.0.0.2:9/'>",
    "<style>*{display:none}</style>",
    "<img src='http://127.0.0.2:9/a.png'>",
    "</a></li></ul></nav><h1>out</h1>",
    '"><script>window.ran = 1</script>',
    "' onmouseover='window.ran = 1' x='",
    "javascript:window.ran=1",
    "{title}{count}",
    "$& $1 $$",
    "__proto__",
    "constructor",
    "${window.ran=1}",
    "{{constructor.constructor('window.ran=1')()}}",
    "\u202eright to left\u202c",
    "\u2067\u202eunbalanced",
    "\u2069\u202e\u2066broken out",
    "שלום עולם abc مرحبا",
    "a\nb\tc",
    "&lt;b&gt; &amp; &#x3c;",
    "W" * 300,
    "\u200b",
    "a" + "\u0301" * 200,
    "𒐫" * 100,
    "👩‍👩‍👧‍👦🏴󠁧󠁢󠁥󠁮󠁧󠁿🇪🇸",
    "﷽" * 50,
    " ",
    "../../etc/passwd?x#y",
)
UNSEEN = ("\u200b", " ")
"""Nobody could see these, nor click on them."""


def test_hostile_titles_are_text(address: str, visit: Visit) -> None:
    make(address, *HOSTILE)
    person = arrive(visit(address))
    expect(rows(person)).to_have_count(len(HOSTILE))
    drawn = rows(person).all_text_contents()
    assert drawn == [EN["untitled"] if text in UNSEEN else text for text in reversed(HOSTILE)]
    search(person, "window")
    expect(rows(person).first).to_contain_text("window")
    expect(person.page.locator("#conversations mark").first).to_have_text("window")
    person.page.get_by_role("searchbox").press("Escape")
    expect(rows(person)).to_have_count(len(HOSTILE))
    for place in range(len(HOSTILE)):
        person.page.locator("#conversations .row a").first.focus()
        person.page.keyboard.press("F2")
        person.page.keyboard.press("Escape")
        person.page.keyboard.press("Delete")
        expect(rows(person)).to_have_count(len(HOSTILE) - place - 1)
    assert person.page.evaluate("window.ran") is None
    alien = "#conversations :is(script, iframe, style, base, svg:not(.sign), img:not([src='/cierzo/icon.svg']))"
    expect(person.page.locator(alien)).to_have_count(0)
    expect(person.page.locator("#notes :is(script, iframe, style, base, img)")).to_have_count(0)
    print(f"\n{len(HOSTILE)} hostile titles, each in the list, in a box and in a note: nothing ran")


def test_no_title_draws_outside_its_row(address: str, visit: Visit) -> None:
    make(address, *HOSTILE)
    person = arrive(visit(address))
    expect(rows(person)).to_have_count(len(HOSTILE))
    sizes = person.page.evaluate("""() => [...document.querySelectorAll('#conversations .row')].map((row) => {
        const [inner, outer] = [row, row.closest('nav')].map((element) => element.getBoundingClientRect());
        const clipped = getComputedStyle(row.querySelector('.row-name')).overflow;
        return [Math.round(inner.height), inner.left >= outer.left && inner.right <= outer.right, clipped];
    })""")
    assert sizes == [[34, True, "hidden"]] * len(HOSTILE)
    row(person, "W" * 300).get_by_role("link").press("Delete")
    note(person, "W" * 59 + "…")
    assert person.page.evaluate("document.querySelector('#notes').offsetWidth <= innerWidth")


def test_what_goes_wrong_is_said_with_a_retry(address: str, visit: Visit) -> None:
    make(address, "una")
    person = arrive(visit(address))
    person.pardon("503", "Failed to load")
    refusal = json.dumps({"error": {"type": "StoreUnavailable", "message": "the disk is full: make room"}})

    def refused(route: Route) -> None:
        route.fulfill(status=503, body=refusal, content_type="application/json")

    own = re.compile(r"/api/conversations/[^/]+$")
    person.page.route(own, lambda route: refused(route) if route.request.method == "PATCH" else route.fallback())
    expect(rows(person)).to_have_text(["una"])
    choose(person, "una", do=EN["rename"])
    box = person.page.get_by_role("textbox", name=EN["title_of"])
    box.fill("otra")
    box.press("Enter")
    said = note(person, "the disk is full: make room")
    expect(rows(person)).to_have_text(["una"])
    person.page.unroute(own)
    said.get_by_role("button", name=EN["retry"]).click()
    expect(rows(person)).to_have_text(["otra"])
    person.page.route("**/api/search?*", refused)
    search(person, "algo")
    person.see(person.page.locator("#conversations [role=status]"), "the disk is full: make room")
    person.page.unroute("**/api/search?*")
    person.page.locator("#conversations").get_by_role("button", name=EN["retry"]).click()
    person.see(person.page.get_by_text("Nothing found for “algo”."))


def test_a_phone(address: str, visit: Visit) -> None:
    one, *_ = make(address, "una conversación con un título bien largo, más de lo que cabe", "dos")
    person = arrive(visit(address, viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True))
    expect(rows(person)).to_have_count(2)
    for bar, is_open in (("#settings", False), ("#side", True)):
        toggle = person.page.locator(f"{bar} .toggle-button")
        if ("open" in (person.page.locator(bar).get_attribute("class") or "").split()) != is_open:
            toggle.tap()
    menu = person.page.locator("#conversations .row button").first
    expect(menu).to_be_in_viewport()
    expect(menu).to_have_css("opacity", "1")  # no pointer will ever hover over it
    assert person.page.evaluate("document.querySelector('#conversations').offsetWidth") >= 355
    assert person.page.evaluate("document.querySelector('#conversations').scrollWidth") <= 360
    rows(person).last.tap()
    expect(person.page).to_have_url(f"{address}/?c={one}")
    expect(person.page.locator("#side")).not_to_have_class(re.compile(r"\bopen\b"))  # it lay over the conversation


@pytest.mark.parametrize(("wish", "moves"), [("reduce", "none"), ("no-preference", "list-busy")])
def test_nothing_moves_for_those_who_want_it_still(address: str, visit: Visit, wish: str, moves: str) -> None:
    make(address, "una")
    person = arrive(visit(address, reduced_motion=wish))
    expect(rows(person)).to_have_count(1)
    nav = person.page.locator("#conversations nav")
    busy = "nav => (nav.setAttribute('aria-busy', 'true'), getComputedStyle(nav, '::before').animationName)"
    assert nav.evaluate(busy) == moves
    faded = person.page.locator("#conversations .row button").evaluate("it => getComputedStyle(it).transitionDuration")
    assert (faded == "0s") is (wish == "reduce")
