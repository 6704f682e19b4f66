"""Chat: messages to prompt to tokens, one way; an answer is the stream, folded."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing
from pathlib import Path

import pytest
from talking import until

from cierzo import holding
from cierzo.chat import Chat, PromptOptions
from cierzo.engines.scripted import Scripted
from cierzo.errors import BadText, EngineDied, PromptTooLong
from cierzo.messages import Finish, Message, Sampling, Token

QUESTION = [Message("user", "¿Cuál es tu ingrediente favorito?")]


async def test_an_answer_is_the_stream_folded() -> None:
    chat = Chat(Scripted("El aceite de oliva 🫒, claro."))
    answer = await chat.answer(QUESTION)
    async with aclosing(chat.stream(QUESTION)) as events:
        streamed = [event async for event in events]
    tokens = [event for event in streamed if isinstance(event, Token)]
    assert answer.text == "".join(token.text for token in tokens) == str(answer)
    assert answer.tokens == tuple(tokens)
    assert answer.finish.reason == "eos_token"
    assert isinstance(streamed[-1], Finish)
    assert sum(isinstance(event, Finish) for event in streamed) == 1


async def test_the_answer_continues_the_conversation() -> None:
    chat = Chat(Scripted("uno", "dos"))
    first = await chat.answer(QUESTION)
    assert first.message == Message("assistant", "uno")
    assert first.message.ids == tuple(token.id for token in first.tokens)
    prompt = await chat.prompt([*QUESTION, first.message, Message("user", "¿Y qué piensa al respecto?")])
    assert [message.text for message in prompt.kept] == [QUESTION[0].text, "uno", "¿Y qué piensa al respecto?"]


async def test_the_prompt_is_the_engines_template() -> None:
    chat = Chat(Scripted())
    prompt = await chat.prompt(QUESTION)
    assert prompt.template == chat.engine.describe().template
    assert prompt.text == "<s>[INST] ¿Cuál es tu ingrediente favorito?[/INST]"


async def test_prompt_options_reach_the_prompt() -> None:
    chat = Chat(Scripted())
    messages = [Message("system", "S"), Message("user", "A"), Message("assistant", "B"), Message("user", "C")]
    default = await chat.prompt(messages)
    official = await chat.prompt(messages, options=PromptOptions(system="official"))
    assert default.text == "<s>[INST] S\n\nA[/INST] B</s>[INST] C[/INST]"
    assert official.text == "<s>[INST] A[/INST] B</s>[INST] S\n\nC[/INST]"
    two = [Message("user", "A"), Message("user", "B")]
    separate = await chat.prompt(two, options=PromptOptions(consecutive="separate"))
    assert separate.text == "<s>[INST] A[/INST][INST] B[/INST]"


async def test_a_large_reserve_does_not_throw_the_conversation_away() -> None:
    chat = Chat(Scripted())
    context = chat.engine.describe().context
    turns = [Message("user", "hola " * (context // 8)), Message("assistant", "vale"), *QUESTION]
    prompt = await chat.prompt(turns, Sampling(max_new_tokens=context))
    assert prompt.dropped == ()


async def test_old_turns_are_dropped_and_named() -> None:
    chat = Chat(Scripted())
    context = chat.engine.describe().context
    turns = [Message("user", "hola " * context), Message("assistant", "vale"), *QUESTION]
    prompt = await chat.prompt(turns)
    assert [message.text[:4] for message in prompt.dropped] == ["hola", "vale"]
    assert prompt.kept == tuple(QUESTION)


async def test_closing_the_stream_stops_the_engine() -> None:
    engine = Scripted()
    chat = Chat(engine)
    async with aclosing(chat.stream(QUESTION)) as events:
        async for event in events:
            if isinstance(event, Token):
                assert engine.running == 1
                break
    assert engine.running == 0
    assert engine.stopped == 1


@pytest.mark.parametrize("messages", [[], [Message("system", "S")], [Message("user", "A"), Message("system", "S")]])
async def test_without_a_question_there_is_one_clear_line(messages: list[Message]) -> None:
    with pytest.raises(BadText) as refused:
        await Chat(Scripted()).answer(messages)
    assert "\n" not in str(refused.value)


async def test_a_question_longer_than_the_window_says_both_numbers() -> None:
    chat = Chat(Scripted())
    with pytest.raises(PromptTooLong) as refused:
        await chat.answer([Message("user", "hola " * 100_000)])
    assert str(refused.value.needed) in str(refused.value)
    assert str(refused.value.available) in str(refused.value)


async def test_an_engine_that_ends_without_a_finish_is_an_error() -> None:
    class Silent(Scripted):
        async def stream(self, prompt, sampling):
            async with aclosing(super().stream(prompt, sampling)) as events:
                async for event in events:
                    if not isinstance(event, Finish):
                        yield event

    with pytest.raises(EngineDied, match="ask again"):
        await Chat(Silent("uno")).answer(QUESTION)


async def test_closing_twice_is_fine() -> None:
    chat = Chat(Scripted())
    await chat.start()
    await chat.close()
    await chat.close()


async def test_a_nul_that_a_model_writes_does_not_break_the_conversation() -> None:
    answer = await Chat(Scripted(["a", Token(771, "\x00"), "b"])).answer(QUESTION)
    assert answer.text == "a\x00b"
    assert answer.message.text == "a\ufffdb"


async def test_the_models_file_is_known_by_its_hash(tmp_path: Path) -> None:
    chat = Chat(Scripted())
    chat.engine.file = tmp_path / "model"
    chat.engine.file.write_bytes(b"x" * 3_000_000)
    assert chat.model_hash == ""
    await chat.start()
    await until(lambda: chat.model_hash)
    assert chat.model_hash == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    await chat.close()


async def test_a_large_file_does_not_hold_up_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "_BLOCK", 1)  # forty million steps
    chat = Chat(Scripted())
    chat.engine.file = tmp_path / "model"
    chat.engine.file.write_bytes(b"x" * 40_000_000)
    await chat.start()
    await asyncio.sleep(0.05)
    await chat.close()
    assert chat.model_hash == ""


async def test_a_file_that_cannot_be_read_has_no_hash(tmp_path: Path) -> None:
    chat = Chat(Scripted())
    chat.engine.file = tmp_path / "none"
    await chat.start()
    await chat.close()
    assert chat.model_hash == ""


async def test_tokens_begun_with_end_the_prompt() -> None:
    chat = Chat(Scripted())
    begun = [Token(2345, "Ho"), Token(2346, "la")]
    plain, prompt = await chat.prompt(QUESTION), await chat.prompt(QUESTION, begun=begun)
    assert prompt.ids == (*plain.ids, 2345, 2346)
    assert prompt.text == plain.text + "Hola"
    assert (plain.leading_space, prompt.leading_space) == (True, False)
    with pytest.raises(PromptTooLong):
        await chat.prompt(QUESTION, begun=begun * 5000)
