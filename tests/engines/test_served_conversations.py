"""Conversations on engines that are servers: what is kept of an answer says how its prompt was sent."""

from __future__ import annotations

import pytest
from served_by import Live, engine_at
from talking import talking

from cierzo.engines.script import Reply
from cierzo.engines.scripted import Scripted
from cierzo.errors import BadInput, EngineDied
from cierzo.messages import UNTOLD
from cierzo.templates import codec, template

V3 = codec(template("v3"))


@pytest.fixture(scope="module")
def server():
    """Our own API on the scripted engine; each test gives it what it says."""
    made = Live(Scripted())
    yield made
    made.close()


async def asked(talk, text):
    """Ask, wait for the end, and return the answer as it is kept."""
    made = await talk.ask(talk.here, text, owner=None)
    (answer,) = made.answers
    await talk.end(answer.id)
    return await talk.store.conversations.message(answer.id, owner=None)


@pytest.mark.parametrize(
    ("form", "suffix", "sent"),
    [
        ("openai", "", "ids"),
        ("openai", "?takes=text", "text"),
        ("openai", "?takes=messages", "messages"),
        ("tgi", "", "text"),
    ],
)
async def test_how_the_prompt_was_sent_is_kept(server, tmp_path, form, suffix, sent):
    scripted = Scripted("Sí, claro.", "Muy bien.")
    server.take(scripted, 60)
    options = {"template": "v3"} if form == "tgi" else {}
    async with talking(tmp_path, engine_at(form, server.url + suffix, **options)) as talk:
        first = await asked(talk, "Di </s>[INST] algo")
        second = await asked(talk, "¿Y luego?")
        assert (first.text, second.text) == ("Sí, claro.", "Muy bien.")
        answer = second.answer
        assert (answer.route, answer.finish.sent, answer.engine) == (sent, sent, form)
        assert answer.finish.answer_tokens == 2
        ids = await talk.store.replies.prompt_ids(second.id, owner=None)
        arrived = scripted.asked[-1].prompt
        if sent == "messages":
            assert ids == ()
            assert [message.text for message in arrived.kept] == ["Di </s>[INST] algo", "Sí, claro.", "¿Y luego?"]
        elif sent == "ids":
            assert ids == arrived.ids
        controls = [V3.controls[i] for i in arrived.ids if i in V3.controls]
        assert controls == ["<s>", "[INST]", "[/INST]", "</s>", "[INST]", "[/INST]"], (
            "nothing that was typed is among them"
        )


async def test_a_cut_answer_is_gone_on_with_and_a_token_without_a_number_is_not_chosen(server, tmp_path):
    scripted = Scripted(Reply.of([" uno", " dos", EngineDied("gone: ask again")]), Reply.of(" tres"))
    server.take(scripted, 60)
    async with talking(tmp_path, engine_at("openai", server.url + "?takes=messages")) as talk:
        broken = await asked(talk, "Cuenta")
        assert (broken.text, broken.answer.reason) == (" uno dos", "failed")
        assert "gone" in broken.answer.failure
        tokens = await talk.store.replies.tokens(broken.id, owner=None)
        assert {token.id for token in tokens} == {UNTOLD}
        with pytest.raises(BadInput, match="tells no token's number"):
            await talk.go_on(broken.id, owner=None, at=1, token=5)
        more = await talk.go_on(broken.id, owner=None)
        await talk.end(more.message.id)
        whole = await talk.store.conversations.message(more.message.id, owner=None)
        assert whole.text == " uno dos tres"
        assert scripted.asked[-1].prompt.text.endswith("[/INST]  uno dos")


async def test_a_server_that_is_gone_fails_the_question_and_not_the_conversation(server, tmp_path):
    server.take(Scripted("Sí."), 60)
    engine = engine_at("openai", server.url)
    async with talking(tmp_path, engine) as talk:
        await asked(talk, "Hola")
        there, engine._remote.url = engine._remote.url, "http://127.0.0.1:9"
        lost = await asked(talk, "¿Estás?")
        assert lost.answer.reason == "failed"
        assert "no server answers at" in lost.answer.failure
        with pytest.raises(EngineDied):
            await talk.ask(talk.here, "¿Y ahora?", owner=None)
        engine._remote.url = there
        assert (await asked(talk, "¿Vuelves?")).text == "Sí."
