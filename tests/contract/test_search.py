"""Search, on both databases: the same answers, accents ignored, nothing typed is an error."""

from __future__ import annotations

import random

import pytest

from cierzo.errors import BadInput
from cierzo.store import Found, Store

TEXTS = [
    "¿Cuál es tu ingrediente favorito? El azafrán, claro.",
    "Le cœur de l'été: crème brûlée, naïveté, garçon",
    "Straße und Öl; ΑΘΗΝΑ; Москва; İstanbul; smørrebrød; ŁÓDŹ",
    "我喜欢你的猫。カタカナ",
    "e-mail to foo.bar@example.com, version 1.2.3, 1e5, -7, C++ and a_b",
    "word " * 10_000 + "needle",
]


@pytest.fixture
async def filled(store: Store) -> Store:
    for number, text in enumerate(TEXTS):
        made = await store.conversations.create(owner=None, title=f"Conversación {number}")
        await store.conversations.append(made.id, owner=None, parent=None, role="user", text=text)
    return store


def numbers(found: Found) -> list[int]:
    return [int(hit.title[-1]) for hit in found.hits if hit.message]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("azafran", [0]),
        ("AZAFRÁN cual", [0]),
        ("azafra\u0301n", [0]),
        ("azafran favor", [0]),
        ("favor azafran", []),
        ("coeur", [1]),
        ("cœur ete creme brul", [1]),
        ("strasse ol", [2]),
        ("αθηνα", [2]),
        ("моск", [2]),
        ("istanbul", [2]),
        ("smorrebrod lodz", [2]),
        ("喜欢", [3]),
        ("猫", [3]),
        ("欢喜", []),
        ("カタ", [3]),
        ("foo.bar@example.com", [4]),
        ("1.2.3", [4]),
        ("c++", [1, 2, 3, 4, 5, 0][:0] or None),
        ("a_b", None),
        ("needle", [5]),
        ("wor need", []),
        ("word need", [5]),
        ("nothing", []),
    ],
)
async def test_words_are_found(filled: Store, query: str, expected: list[int] | None) -> None:
    found = numbers(await filled.search(query, owner=None))
    assert 4 in found if expected is None else sorted(found) == expected


async def test_titles_are_found_by_their_new_name_only(filled: Store) -> None:
    [*_, first] = (await filled.search("conversacion", owner=None)).hits
    assert (first.message, first.role, first.title) == (None, None, "Conversación 0")
    await filled.conversations.change(first.conversation, owner=None, title="Especias")
    assert len((await filled.search("conversacion", owner=None)).hits) == len(TEXTS) - 1
    [hit] = (await filled.search("especias", owner=None)).hits
    assert hit.snippet == (("Especias", True),)


async def test_snippets_mark_the_words_as_they_were_written(filled: Store) -> None:
    [hit] = (await filled.search("creme ete", owner=None)).hits
    assert [piece for piece, marked in hit.snippet if marked] == ["été", "crème"]
    assert "".join(piece for piece, _ in hit.snippet) == TEXTS[1]
    [hit] = (await filled.search("needle", owner=None)).hits
    assert hit.snippet[0] == ("…", False)
    assert hit.snippet[-1] == ("needle", True)
    assert sum(len(piece) for piece, _ in hit.snippet) < 200


async def test_pages_have_no_gap_and_no_repeat(store: Store) -> None:
    made = (await store.conversations.create(owner=None)).id
    sent = [
        (await store.conversations.append(made, owner=None, parent=None, role="user", text=f"same {i}")).message.id
        for i in range(23)
    ]
    seen, before = [], None
    while True:
        page = await store.search("same", owner=None, limit=5, before=before)
        seen += [hit.message for hit in page.hits]
        before = page.before
        if before is None:
            break
    assert seen == sent[::-1]
    with pytest.raises(BadInput):
        await store.search("same", owner=None, limit=0)


async def test_nothing_typed_is_an_error(filled: Store) -> None:
    rng = random.Random(7)
    signs = "\"'*^:(){}[]<>&|!~-+.,;%_\\/$#@§\x00\ud800\u0301 \t\néñ" + "ab12"
    words = [
        "AND",
        "OR",
        "NOT",
        "NEAR",
        "NEAR(",
        "words:",
        "rowid",
        "search_index",
        "<->",
        ":*",
        "NULL",
        "猫",
        "ﷺ",
        "½",
    ]
    typed = ["".join(rng.choices(signs, k=rng.randint(0, 12))) for _ in range(200)]
    typed += [" ".join(rng.choices([*words, *signs], k=rng.randint(1, 6))) for _ in range(100)]
    typed += ["x" * 100_000, "x " * 50_000, "é" * 10_000, "%", "§", "§ word"]
    for query in typed:
        await filled.search(query, owner=None)
    print(f"{len(typed)} queries, none refused")
    assert (await filled.search("§", owner=None)).hits == ()
