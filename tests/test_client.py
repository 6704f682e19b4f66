"""The library's two clients: one implementation, the same answers, nothing left behind."""

from __future__ import annotations

import inspect
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import cierzo
from cierzo.errors import BadSampling, BadText, EngineDied, UnknownModel
from cierzo.messages import Finish, Phase, Token

GREEDY = {"temperature": 0, "max_new_tokens": 24}


def test_ask_stream_and_prompt_agree() -> None:
    with cierzo.Client() as client:
        answer = client.ask("What is a token?", alternatives=3, **GREEDY)
        events = list(client.stream("What is a token?", alternatives=3, **GREEDY))
        assert client.prompt("What is a token?") == answer.prompt
    tokens = tuple(event for event in events if isinstance(event, Token))
    assert [token.id for token in tokens] == [token.id for token in answer.tokens]
    assert "".join(token.text for token in tokens) == answer.text == str(answer)
    assert all(len(token.alternatives) == 3 for token in tokens)
    assert isinstance(events[-1], Finish)
    assert isinstance(events[0], Phase)


async def test_the_asynchronous_client_gives_the_same_answer() -> None:
    async with cierzo.AsyncClient() as client:
        answer = await client.ask("What is a token?", **GREEDY)
        streamed = [
            event.text async for event in client.stream("What is a token?", **GREEDY) if isinstance(event, Token)
        ]
        prompt = await client.prompt("What is a token?")
    assert answer.text == "".join(streamed)
    assert answer.prompt == prompt


def test_messages_and_a_system_prompt() -> None:
    with cierzo.Client(engine="scripted:") as client:
        history = [cierzo.Message("user", "A"), cierzo.Message("assistant", "B"), cierzo.Message("user", "C")]
        assert client.prompt(history, system="S").text == "<s>[INST] S\n\nA[/INST] B</s>[INST] C[/INST]"


def test_both_clients_have_the_same_methods() -> None:
    def names(client: type) -> set[str]:
        return {name for name, value in inspect.getmembers(client, callable) if not name.startswith("_")}

    assert names(cierzo.Client) == names(cierzo.AsyncClient)


def test_leaving_a_stream_early_stops_the_engine() -> None:
    with cierzo.Client(engine="scripted:") as client:
        engine = client._client.chat.engine
        for event in client.stream("one two three four five six seven eight nine ten"):
            if isinstance(event, Token):
                break
        waited = time.monotonic()
        while engine.running and time.monotonic() - waited < 5:
            time.sleep(0.01)
        assert engine.running == 0
        assert engine.stopped == 1


def test_several_threads_at_once() -> None:
    with cierzo.Client() as client, ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: client.ask("¿Quién eres?", **GREEDY).text, range(6)))
    assert len(answers) == 6
    assert all(answers)


def test_closing_ends_a_stream_in_another_thread() -> None:
    client = cierzo.Client(engine="scripted:")
    started = threading.Event()
    ended: list[Exception] = []

    def read() -> None:
        try:
            for event in client.stream("a " * 200):
                if isinstance(event, Token):
                    started.set()
        except EngineDied as error:
            ended.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert started.wait(10)
    client.close()
    reader.join(10)
    assert not reader.is_alive()
    assert isinstance(ended[0], EngineDied)
    client.close()


def test_no_thread_stays_behind() -> None:
    before = threading.active_count()
    for _ in range(3):
        with cierzo.Client(engine="scripted:") as client:
            client.ask("hola")
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("question", "options", "error"),
    [
        ("", {}, BadText),
        ("a\x00b", {}, BadText),
        ("a\ud800b", {}, BadText),
        ("hola", {"temperature": float("nan")}, BadSampling),
        ("hola", {"top_p": 1.5}, BadSampling),
        ("hola", {"warmth": 1}, BadSampling),
        ("hola", {"max_new_tokens": 0}, BadSampling),
    ],
)
def test_bad_input_is_one_clear_line(question: str, options: dict[str, object], error: type[Exception]) -> None:
    with cierzo.Client(engine="scripted:") as client:
        for call in (client.ask, lambda *a, **k: list(client.stream(*a, **k))):
            with pytest.raises(error) as refused:
                call(question, **options)
            assert "\n" not in str(refused.value)


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(UnknownModel, match="mistral-8b"):
        cierzo.Client("mistral-8b")
