"""How the page begins, in a real browser."""

from __future__ import annotations

import pytest
from person import Serve, Visit

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
