"""Settings in, the right engine out, or one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from cierzo import catalog
from cierzo.app import open_chat, open_conversations, open_engine
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.engines.llamaserver import LlamaServer
from cierzo.engines.openai import OpenAI
from cierzo.engines.options import Adapter, Options
from cierzo.engines.scripted import Scripted
from cierzo.engines.tgi import Tgi
from cierzo.errors import BadSetting, CierzoError, ModelError, UnknownModel
from cierzo.settings import Settings


async def test_the_default_is_the_demo_on_the_embedded_engine() -> None:
    engine = open_engine(Settings.load())
    assert isinstance(engine, LlamaCpp)
    info = engine.describe()
    assert (info.model, info.template, info.context) == (catalog.DEMO, "v3", 2048)
    await engine.close()


async def test_context_and_slots_reach_the_engine() -> None:
    engine = open_engine(Settings.load({"context": 512, "slots": 2}))
    assert (engine.describe().context, engine.describe().slots) == (512, 2)
    await engine.close()


async def test_what_is_chosen_for_the_embedded_engine_reaches_it(tmp_path: Path) -> None:
    engine = open_engine(Settings.load({"kv_type": "q8_0", "gpu_layers": 3, "lora": (f"{tmp_path}/a.gguf:0.5",)}))
    assert isinstance(engine, LlamaCpp)
    assert engine._options == Options("q8_0", 3, adapters=(Adapter(tmp_path / "a.gguf", 0.5),))
    await engine.close()
    for told in ({"speculation": "ngram"}, {"speculation": "ngram", "slots": 1}):
        engine = open_engine(Settings.load(told))
        assert engine.describe().slots == 1
        await engine.close()
    with pytest.raises(BadSetting, match="slots is 3, but with speculation ngram"):
        open_engine(Settings.load({"speculation": "ngram", "slots": 3}))
    with pytest.raises(BadSetting, match="is no scale"):
        open_engine(Settings.load({"lora": ("a.gguf:loud",)}))


async def test_a_script_is_an_engine(tmp_path: Path) -> None:
    script = tmp_path / "script.toml"
    script.write_text('[[reply]]\ntext = "hola"\n')
    for address in ("scripted:", f"scripted:{script}"):
        chat = open_chat(Settings.load({"engine": address}))
        assert isinstance(chat.engine, Scripted)
        await chat.close()


async def test_as_many_may_answer_as_the_engine_writes_at_a_time(tmp_path: Path) -> None:
    script = tmp_path / "script.toml"
    for said, slots in (("slots = 3", 3), ("", 512)):
        script.write_text(f'{said}\n[[reply]]\ntext = "hola"\n')
        settings = Settings.load({"engine": f"scripted:{script}", "slots": 2, "home": tmp_path})
        service = await open_conversations(settings, open_chat(settings))
        tickets = [service.admission.enter() for _ in range(slots + 1)]
        assert [ticket.position for ticket in tickets] == [0] * slots + [1]
        await service.store.close()


@pytest.mark.parametrize(
    "address", ["", "llama", "llamacpp:there", "tgi+ftp://127.0.0.1", "http://127.0.0.1", "openai:"]
)
def test_an_engine_that_does_not_exist_names_those_that_do(address: str) -> None:
    with pytest.raises(BadSetting, match=r"llamacpp: \(built in\)"):
        open_engine(Settings.load({"engine": address}))


async def test_a_server_is_an_engine_and_only_what_was_said_reaches_it() -> None:
    for address, kind in (
        ("openai+http://127.0.0.1:1/v1", OpenAI),
        ("tgi+https://example.org", Tgi),
        ("llamacpp+http://127.0.0.1:1", LlamaServer),
    ):
        engine = open_engine(Settings.load({"engine": address}))
        assert isinstance(engine, kind)
        assert engine.describe().model == ""
        assert "at " in engine.describe().where
        await engine.close()
    said = {"engine": "openai+http://127.0.0.1:1", "model": "m", "slots": 3, "context": 99, "template": "v1"}
    info = open_engine(Settings.load(said)).describe()
    assert (info.model, info.slots, info.context, info.template) == ("m", 3, 99, "v1")
    with pytest.raises(BadSetting, match="CIERZO_TEMPLATE"):
        open_engine(Settings.load({**said, "template": "v4"}))


async def test_conversations_open_also_while_the_server_is_not_there(tmp_path: Path) -> None:
    settings = Settings.load({"engine": "openai+http://127.0.0.1:9", "home": tmp_path})
    chat = open_chat(settings)
    service = await open_conversations(settings, chat)
    await chat.close()
    await service.store.close()


def test_a_model_that_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel):
        open_engine(Settings.load({"model": "mistral-8b"}))
    with pytest.raises(CierzoError):
        open_engine(Settings.load({"model": str(tmp_path / "none.gguf")}))
    (tmp_path / "noise.gguf").write_bytes(b"noise" * 100)
    with pytest.raises(ModelError):
        open_engine(Settings.load({"model": str(tmp_path / "noise.gguf")}))
