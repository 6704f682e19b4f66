"""What a person may choose about the embedded engine: cache type, guessing, adapters, graphics card."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from dataclasses import replace

import gguf
import numpy as np
import pytest
import synthetic
from driving import everything, greedy, model_of, prompt_of

from cierzo import catalog
from cierzo.engines import llamacpp
from cierzo.engines.fitting import ENGINE_BYTES, fit
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.engines.options import DRAFT, Adapter, Options, adapters, check_adapter
from cierzo.engines.supervisor import CHILD
from cierzo.errors import BadSetting, ModelUnreadable, NotEnoughMemory
from cierzo.machine import Machine
from cierzo.messages import Sampling

PROMPT = prompt_of(1, 3, 1098, 4)
SHAPE = synthetic.Shape(layers=2, width=256, heads=8, kv_heads=4, hidden=512, context=2048)


async def answered(model, prompt, sampling, **more):
    """Ask one engine once."""
    engine = LlamaCpp(model, slots=more.pop("slots", 4), options=Options(**more))
    try:
        _, tokens, finish = await everything(engine.stream(prompt, sampling))
        return tokens, finish
    finally:
        await engine.close()


def ids_of(tokens):
    return [token.id for token in tokens]


# --- KV cache ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def wide(folder):
    """Heads of 32 values, which is one block of a quantised cache."""
    return model_of(synthetic.write(folder / "wide.gguf", SHAPE), SHAPE)


@pytest.mark.parametrize("kv_type", sorted(set(catalog.KV_BYTES) - {"f16"}))
async def test_every_type_of_cache_answers_nearly_alike(wide, short_tmp, kv_type):
    """One token after a prompt of some length: the same candidates, their probabilities close."""
    prompt = prompt_of(1, 3, *range(2000, 2200), 4)
    (plain,), _ = await answered(wide, prompt, greedy(1, alternatives=5))
    (token,), _ = await answered(wide, prompt, greedy(1, alternatives=5), kv_type=kv_type)
    assert abs(token.logprob - plain.logprob) < 0.5
    assert {each.id for each in token.alternatives} & {each.id for each in plain.alternatives}
    if kv_type.startswith("q"):  # else this would not have been another cache at all
        assert [each.logprob for each in token.alternatives] != [each.logprob for each in plain.alternatives]


async def test_a_cache_type_that_does_not_fit_the_heads_says_what_to_do(tiny, short_tmp):
    """Heads of 16 values are no whole block."""
    with pytest.raises(ModelUnreadable, match=r"KV cache of type q8_0 .* set CIERZO_KV_TYPE=f16"):
        await answered(tiny, PROMPT, greedy(1), kv_type="q8_0")


async def test_the_window_follows_the_type_of_the_cache(slow, short_tmp, monkeypatch):
    needs = slow.size + ENGINE_BYTES
    monkeypatch.setattr(llamacpp, "machine", lambda: Machine(needs, needs + 5000 * slow.kv_bytes, 1))
    engine = LlamaCpp(slow, options=Options(kv_type="q8_0"))
    await everything(engine.stream(PROMPT, greedy(1)))
    assert engine.describe().context == 8192, "with f16 it is 4096"
    await engine.close()


def test_memory_needed_follows_the_type_of_the_cache():
    model = catalog.Model("m", "m", "v3", 32_768, size=4_000_000_000, kv_bytes=131_072)
    with_f16, with_q8 = (catalog.memory_needed(model, 32_768, kind) for kind in ("f16", "q8_0"))
    assert with_f16 - with_q8 == 32_768 * 131_072 * 15 // 32
    arguments = {"context": 32_768, "slots": 1, "threads": 1, "options": Options()}
    with pytest.raises(NotEnoughMemory, match="set CIERZO_KV_TYPE=q8_0"):
        fit(model, model.size, free=with_q8, **arguments)
    arguments["options"] = Options(kv_type="q8_0")
    assert fit(model, model.size, free=with_q8, **arguments).window == 32_768
    with pytest.raises(NotEnoughMemory, match="close other programs, set a smaller context"):
        fit(model, model.size, free=model.size, **arguments)


# --- n-gram speculation ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def editor(folder):
    """A model that says a text of 120 tokens again with every 15th replaced, and the text."""
    text = list(range(2000, 2120))
    new = [token + 1000 if n % 15 == 14 else token for n, token in enumerate(text)]
    follows = dict(zip((4, *new), (*new, 2), strict=True))
    path = synthetic.write(folder / "editor.gguf", SHAPE, follows=follows)
    return model_of(path, SHAPE), prompt_of(1, 3, *text, 4), new


async def test_greedy_answers_are_the_same_tokens_with_and_without_guessing(editor, wide, short_tmp):
    model, prompt, new = editor
    asked = greedy(200, alternatives=3)
    plain, _ = await answered(model, prompt, asked)
    guessed, finish = await answered(model, prompt, asked, speculation=True)
    assert ids_of(plain) == ids_of(guessed) == new
    assert finish.reason == "eos_token"
    assert finish.answer_tokens == len(new)
    assert "".join(token.text for token in plain) == "".join(token.text for token in guessed)
    unknown = [token for token in guessed if token.logprob is None]
    print(f"{len(unknown)} of {len(guessed)} tokens were guessed")
    assert len(unknown) > len(guessed) / 3, "nothing was guessed, so this test says nothing"
    for before, after in zip(plain, guessed, strict=True):
        if after.logprob is None:
            assert after.alternatives == ()
        else:  # a batch of several tokens rounds otherwise than one token alone
            assert math.isclose(before.logprob, after.logprob, abs_tol=0.01)
            assert ids_of(before.alternatives) == ids_of(after.alternatives)
    for seed in range(3):
        prompt = prompt_of(1, 3, *range(5000 + 100 * seed, 5030 + 100 * seed), 4)
        one, two = [ids_of((await answered(wide, prompt, greedy(80), speculation=on))[0]) for on in (False, True)]
        assert one == two


async def test_sampled_answers_keep_their_seed_and_stops_end_them(editor, short_tmp):
    model, prompt, new = editor
    sampling = Sampling(temperature=0.7, max_new_tokens=200, seed=3)
    plain, _ = await answered(model, prompt, sampling)
    guessed, _ = await answered(model, prompt, sampling, speculation=True)
    assert ids_of(plain) == ids_of(guessed)
    stop = guessed[40].text.strip()
    stopped, finish = await answered(model, prompt, replace(sampling, stop=(stop,)), speculation=True)
    assert finish.stop == stop
    assert ids_of(stopped) == new[: len(stopped)]
    assert len(stopped) <= 41
    cut, finish = await answered(model, prompt, replace(sampling, max_new_tokens=37), speculation=True)
    assert (ids_of(cut), finish.reason) == (new[:37], "length")


async def test_an_engine_that_guesses_writes_one_answer_at_a_time(editor, short_tmp):
    """Several that guess at once are slower than several that do not: see docs/performance.md."""
    model, prompt, new = editor
    engine = LlamaCpp(model, slots=4, options=Options(speculation=True))
    try:
        info = engine.describe()
        assert (info.slots, info.details) == (1, frozenset({"ids"}))
        assert LlamaCpp(model, slots=4).describe().slots == 4
        ends = await asyncio.gather(*(everything(engine.stream(prompt, greedy(200))) for _ in range(3)))
        assert [ids_of(tokens) for _, tokens, _ in ends] == [new] * 3
        assert sum("queued" in {phase.name for phase in phases} for phases, _, _ in ends) == 2
    finally:
        await engine.close()


def test_a_batch_has_room_for_all_guesses(wide):
    """llama.cpp ends every answer where one's guesses do not fit."""
    large = replace(wide, size=10**11)
    arguments = {"context": 2048, "threads": 1, "free": 10**12}
    for slots in (1, 4):
        made = fit(large, large.size, slots=slots, options=Options(speculation=True), **arguments)
        assert made.batch >= slots * (DRAFT + 1)
    assert fit(large, large.size, slots=1, options=Options(), **arguments).batch == 4


# --- LoRA -----------------------------------------------------------------------------------------------------------


def lora(path, *, kind="adapter", architecture="llama", adapter="lora", width=SHAPE.width, rank=4):
    """Write a small adapter for the first layer's queries and feed-forward, of noise loud enough to be seen."""
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(kind)
    writer.add_string("adapter.type", adapter)
    writer.add_float32("adapter.lora.alpha", float(rank))
    for name, rows, columns in (("attn_q", width, width), ("ffn_down", width, SHAPE.hidden)):
        for part, shape in (("a", (rank, columns)), ("b", (rows, rank))):
            writer.add_tensor(f"blk.0.{name}.weight.lora_{part}", random.normal(0, 0.1, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


async def test_an_adapter_changes_the_answer_and_one_of_scale_zero_does_not(wide, short_tmp, tmp_path):
    path = lora(tmp_path / "adapter.gguf")
    asked = greedy(20, alternatives=2)
    plain, _ = await answered(wide, PROMPT, asked)
    silent, _ = await answered(wide, PROMPT, asked, adapters=(Adapter(path, 0.0),))
    loud, _ = await answered(wide, PROMPT, asked, adapters=(Adapter(path),))
    twice, _ = await answered(wide, PROMPT, asked, adapters=(Adapter(path, 0.5), Adapter(path, 0.5)))
    assert silent == plain
    assert abs(loud[0].logprob - plain[0].logprob) > 0.001
    assert math.isclose(twice[0].logprob, loud[0].logprob, abs_tol=0.01)


async def test_what_is_no_adapter_for_this_model_is_said_in_words(wide, short_tmp, tmp_path):
    cases = {
        "not there": (tmp_path / "none.gguf", "there is no LoRA adapter"),
        "a model": (wide.path, "is not a LoRA adapter"),
        "a vector": (lora(tmp_path / "v.gguf", adapter="control_vector"), "is not a LoRA adapter"),
        "another architecture": (
            lora(tmp_path / "q.gguf", architecture="qwen2"),
            "for models of the architecture qwen2",
        ),
        "another width": (lora(tmp_path / "w.gguf", width=64), r"LoRA adapter does not fit wide.gguf \(tensor"),
        "no GGUF": (tmp_path / "text.gguf", "is not a GGUF"),
        "cut short": (tmp_path / "cut.gguf", "cut short|ends too early"),
        "empty": (tmp_path / "empty.gguf", "ends too early"),
        "a folder": (tmp_path, "there is no LoRA adapter"),
    }
    (tmp_path / "text.gguf").write_text("not a model at all")
    whole = lora(tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "empty.gguf").touch()
    for name, (path, words) in cases.items():
        with pytest.raises(ModelUnreadable, match=words) as refused:
            await answered(wide, PROMPT, greedy(1), adapters=(Adapter(path),))
        assert "\n" not in str(refused.value), name
    print(f"{len(cases)} files that are no adapter for this model")
    check_adapter(Adapter(tmp_path / "whole.gguf"), wide.path)


def test_adapters_are_read_as_a_person_writes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = tmp_path / "a.gguf"
    assert adapters(["a.gguf", "a.gguf:0.5", f"{here}:-1", "b:c.gguf", "d:e/f.gguf"]) == (
        Adapter(here),
        Adapter(here, 0.5),
        Adapter(here, -1.0),
        Adapter(tmp_path / "b:c.gguf"),
        Adapter(tmp_path / "d:e" / "f.gguf"),
    )
    for wrong in ("a.gguf:loud", "a.gguf:", "a.gguf:nan", "a.gguf:1e9", "a.gguf:inf"):
        with pytest.raises(BadSetting, match="which is no scale"):
            adapters([wrong])


# --- graphics card ---------------------------------------------------------------------------------------------------


async def test_layers_for_a_card_that_is_not_there_stay_on_the_processor(wide, short_tmp):
    plain, _ = await answered(wide, PROMPT, greedy(10))
    asked, _ = await answered(wide, PROMPT, greedy(10), gpu_layers=99)
    assert ids_of(plain) == ids_of(asked)


def test_the_child_says_what_it_can_compute_on():
    said = subprocess.run([sys.executable, "-P", CHILD, "--devices"], capture_output=True, timeout=60, check=True)
    found = json.loads(said.stdout)
    assert [device["kind"] for device in found["devices"]].count("CPU") == 1
    assert all(device["memory"] > 0 and device["description"] for device in found["devices"])
    assert "AVX2" in found["system"] or "NEON" in found["system"]
