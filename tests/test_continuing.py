"""Going on from a place in an answer: which places there are, which tokens, and what the engine then gets."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from talking import Talk, talking

from cierzo import catalog
from cierzo.continuing import begin_with, ends
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.engines.script import Reply, Script
from cierzo.engines.scripted import Scripted
from cierzo.errors import BadInput, Conflict, NotFound
from cierzo.messages import Alternative, Finish, Sampling, Token
from cierzo.settings import Settings
from cierzo.templates import codec, template

CODEC = codec(template("v3"))
GREEDY = Sampling(temperature=0.0, max_new_tokens=200, alternatives=3)


def tokens_of(text: str, name: str = "v3") -> tuple[Token, ...]:
    """Cut a text as a model writes it: the text of a character stands at its last token, the first space nowhere."""
    known = codec(template(name))
    made, raw = [], b""
    for number in known.encode(text):
        raw += known.bytes_of(number)
        try:
            said, raw = raw.decode(), b""
        except UnicodeDecodeError:
            said = ""
        first = known.template.leading_space and not any(token.text for token in made)
        made.append(Token(number, said.removeprefix(" ") if first else said, -0.5))
    assert "".join(token.text for token in made) == text
    return tuple(made)


def places(tokens: tuple[Token, ...], name: str = "v3") -> list[int]:
    """Where an answer can be gone on from."""
    found = []
    for at in range(len(tokens) + 1):
        try:
            kept = begin_with(tokens, at, None, name)
        except BadInput:
            continue
        assert kept == tokens[:at]
        found.append(at)
    return found


@pytest.mark.parametrize("name", ["v1", "v3", "v3-tekken"])
@pytest.mark.parametrize("text", ["Hola, ¿qué tal?", "🫒", "a🫒b", "日本語 🏳️‍🌈.", "  dos espacios", "Ħ\nĦ"])
def test_every_place_but_those_within_a_character(text: str, name: str) -> None:
    tokens = tokens_of(text, name)
    known = codec(template(name))
    whole = []
    for at in range(len(tokens) + 1):
        try:
            b"".join(known.bytes_of(token.id) for token in tokens[:at]).decode()
        except UnicodeDecodeError:
            continue
        whole.append(at)
    assert places(tokens, name) == whole


@pytest.mark.parametrize("at", [-1, 5, 2**31])
def test_a_place_that_is_not_there(at: int) -> None:
    with pytest.raises(BadInput, match="between 0 and"):
        begin_with(tokens_of("Hola"), at, None, "v3")


def test_an_answer_cut_within_a_character_goes_on_from_before_it() -> None:
    tokens = tokens_of("Va 🫒")
    assert tokens[-2].text == ""
    assert begin_with(tokens[:-1], None, None, "v3") == tokens[:-4]
    assert begin_with(tokens, None, None, "v3") == tokens


def test_an_answer_cut_by_a_stop_text_goes_on_from_before_it() -> None:
    """The ids of a stop text stay in the answer, its text does not: what a person does not see must not be sent."""
    whole = tokens_of("Sí, claro. FIN de todo")
    place = next(n for n, token in enumerate(whole) if "F" in token.text)
    cut = (*whole[:place], *[Token(token.id, " " if n == 0 else "") for n, token in enumerate(whole[place:])])
    assert places(cut) == list(range(place + 1))
    assert begin_with(cut, None, None, "v3") == whole[:place]


def test_an_empty_answer_can_be_gone_on_from() -> None:
    assert begin_with((), None, None, "v3") == ()
    assert begin_with((), 0, CODEC.encode("vale")[0], "v3")[0].text == "vale"


def test_a_chosen_token_says_what_the_vocabulary_says() -> None:
    tokens = tokens_of("Hola, amigo")
    [word] = CODEC.encode("vale")
    assert begin_with(tokens, 2, word, "v3")[2:] == (Token(word, " vale"),)
    assert begin_with(tokens, 0, word, "v3") == (Token(word, "vale"),), "the first space stands for no character"
    assert begin_with(tokens, 1, tokens[1].id, "v3") == tokens[:2]


def test_a_tekken_vocabulary_marks_no_words() -> None:
    known = codec(template("v3-tekken"))
    word = known.encode(" vale")[0]
    said = known.bytes_of(word).decode()
    assert said.startswith(" ")
    assert begin_with((), 0, word, "v3-tekken")[0].text == said


def test_a_chosen_alternative_brings_its_probability() -> None:
    [word] = CODEC.encode("vale")
    first = Token(1234, "Hola", -0.5, alternatives=(Alternative(1234, " Hola", -0.5), Alternative(word, " vale", -1.5)))
    [chosen] = begin_with((first,), 0, word, "v3")
    assert (chosen.text, chosen.logprob, chosen.alternatives) == ("vale", -1.5, first.alternatives)


BYTES = [n for n in range(CODEC.template.vocabulary) if n not in CODEC.controls and CODEC.bytes_of(n) == b"\xf0"]


@pytest.mark.parametrize("wrong", [-1, 32_768, 2**31, 1, 3, 4, BYTES[0]])
def test_tokens_that_nobody_may_choose(wrong: int) -> None:
    """Neither those that are none, nor control tokens, nor parts of characters, whatever the engine calls them."""
    told = Token(1234, "Hola", -0.5, alternatives=(Alternative(wrong, "[INST]" if wrong == 3 else "<0xF0>", -1.0),))
    with pytest.raises(BadInput):
        begin_with((told,), 0, wrong, "v3")


def test_the_end_may_be_chosen() -> None:
    kept = begin_with(tokens_of("Hola, amigo"), 2, CODEC.eos, "v3")
    assert kept[-1] == Token(CODEC.eos, "", special=True)
    assert ends(kept, "v3")
    assert not ends(kept[:-1], "v3")
    assert not ends((), "v3")


@pytest.fixture
async def talk(tmp_path: Path) -> AsyncGenerator[Talk]:
    tokens = tokens_of("Va 🫒, claro")
    async with talking(tmp_path, Scripted(Reply.of([*tokens], delay=0.002), Reply.of(" sí."))) as opened:
        yield opened


async def test_the_engine_gets_the_prompt_and_then_exactly_the_tokens_kept(talk: Talk) -> None:
    engine = talk.chat.engine
    assert isinstance(engine, Scripted)
    first = (await talk.ask(talk.here, "¿Aceite?", owner=None, system="Sé breve")).answer.id
    await talk.end(first)
    tokens = await talk.store.replies.tokens(first, owner=None)
    asked = engine.asked[-1].prompt
    for at in (n for n in places(tokens) if n):
        more = (await talk.go_on(first, owner=None, at=at)).message
        end = await talk.end(more.id)
        sent = engine.asked[-1].prompt
        assert sent.ids == asked.ids + tuple(token.id for token in tokens[:at])
        assert sent.ids == await talk.store.replies.prompt_ids(more.id, owner=None)
        assert not sent.leading_space
        assert await talk.text(more.id) == "".join(token.text for token in tokens[:at]) + " sí."
        assert (more.answer.kept, more.answer.continues) == (at, first)  # type: ignore[union-attr] # it is one
        assert end.finish is not None
        assert (end.finish.answer_tokens, end.finish.kept) == (at + 1, at)
        stored = (await talk.store.conversations.message(more.id, owner=None)).answer
        assert stored is not None
        assert stored.finish is not None
        assert (stored.finish.kept, stored.finish.rate) == (at, end.finish.rate)
    again = (await talk.go_on(first, owner=None, at=0)).message
    await talk.end(again.id)
    assert engine.asked[-1].prompt == asked


async def test_choosing_the_end_asks_no_engine(talk: Talk) -> None:
    engine = talk.chat.engine
    assert isinstance(engine, Scripted)
    first = (await talk.ask(talk.here, "¿Aceite?", owner=None)).answer.id
    await talk.end(first)
    for at, text in ((1, "Va"), (0, "")):
        more = (await talk.go_on(first, owner=None, at=at, token=CODEC.eos)).message
        assert (await talk.end(more.id)).reason == "eos_token"
        assert await talk.text(more.id) == text
    assert len(engine.asked) == 1
    asked = await talk.ask(talk.here, "¿Y después de nada?", owner=None)
    assert (await talk.end(asked.answer.id)).reason == "eos_token"


async def test_what_cannot_be_continued(talk: Talk) -> None:
    asked = await talk.ask(talk.here, "¿Aceite?", owner=None)
    with pytest.raises(Conflict, match="still being written"):
        await talk.go_on(asked.answer.id, owner=None)
    await talk.end(asked.answer.id)
    with pytest.raises(BadInput, match="is complete"):
        await talk.go_on(asked.answer.id, owner=None)
    with pytest.raises(BadInput, match="no answer of a model"):
        await talk.go_on(asked.question.id, owner=None)
    with pytest.raises(NotFound):
        await talk.go_on(asked.answer.id, owner="ana", at=1)
    with pytest.raises(BadInput, match="within a character"):
        await talk.go_on(asked.answer.id, owner=None, at=3)
    talk.turn_to(Scripted(script=Script(template="v3-tekken")))
    with pytest.raises(BadInput, match="other tokens"):
        await talk.go_on(asked.answer.id, owner=None, at=1)


@pytest.mark.parametrize("end", ["length", "stopped", "failed"])
async def test_a_cut_answer_goes_on_where_it_was_cut(tmp_path: Path, end: str) -> None:
    said = {"failed": ["Uno,", Finish("failed")], "stopped": ["Uno,", Finish("stopped")], "length": ["Uno,", " dos"]}
    engine = Scripted(Reply.of(said[end], disorder=end != "length"), " tres.")
    async with talking(tmp_path, engine) as talk:
        sampling = Sampling(max_new_tokens=1) if end == "length" else Sampling()
        answer = (await talk.ask(talk.here, "cuenta", owner=None, sampling=sampling)).answer.id
        assert (await talk.end(answer)).reason == end
        begun = [await talk.go_on(answer, owner=None, client_id="c") for _ in range(3)]
        assert [each.created for each in begun] == [True, False, False]
        more = [each.message for each in begun]
        assert len({each.id for each in more}) == 1
        await talk.end(more[0].id)
        assert await talk.text(more[0].id) == "Uno, tres."
        assert more[0].parent == (await talk.store.conversations.message(answer, owner=None)).parent


async def test_with_the_same_token_the_real_model_gives_the_same_answer(tmp_path: Path) -> None:
    model = catalog.find("cierzo-demo", Settings.load().home)
    if model.path is None:
        pytest.skip("the demo model is not in this checkout")
    async with talking(tmp_path, LlamaCpp(model, slots=1, threads=1), running=1) as talk:
        question = "¿Cuál es tu ingrediente favorito?"
        first = (await talk.ask(talk.here, question, owner=None, sampling=GREEDY)).answer.id
        assert (await talk.end(first)).reason == "eos_token"
        tokens = await talk.store.replies.tokens(first, owner=None)
        text = await talk.text(first)
        asked = await talk.store.replies.prompt_ids(first, owner=None)
        chosen = [n for n in places(tokens) if n < len(tokens)]
        for at in {chosen[0], chosen[len(chosen) // 2], chosen[-1]}:
            more = (await talk.go_on(first, owner=None, at=at, token=tokens[at].id, sampling=GREEDY)).message
            await talk.end(more.id)
            assert await talk.text(more.id) == text, at
            sent = await talk.store.replies.prompt_ids(more.id, owner=None)
            assert sent == asked + tuple(token.id for token in tokens[: at + 1])
        other = next(each for each in tokens[chosen[1]].alternatives if each.id != tokens[chosen[1]].id)
        more = (await talk.go_on(first, owner=None, at=chosen[1], token=other.id, sampling=GREEDY)).message
        await talk.end(more.id)
        before = "".join(token.text for token in tokens[: chosen[1]])
        assert (await talk.text(more.id)).startswith(before + other.text)
        assert await talk.text(more.id) != text
