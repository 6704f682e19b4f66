"""Model files that are broken or made to harm: each ends in an ordinary error, and the parent does not notice."""

from __future__ import annotations

import asyncio
import random
import struct
import time

import pytest
import synthetic
from driving import everything, greedy, model_of, our_children, prompt_of

from cierzo.engines.llamacpp import LlamaCpp
from cierzo.errors import CierzoError, EngineDied, ModelUnreadable

LIMIT = 30.0
"""Seconds in which the error has to come."""

LOOP = "{% for i in range(10000000000) %}x{% endfor %}"
NESTED = "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}"


async def verdict(path):
    """Try to use a file; return the error, or None if it answered."""
    engine = LlamaCpp(model_of(path))
    began = time.monotonic()
    try:
        async with asyncio.timeout(LIMIT):
            await everything(engine.stream(prompt_of(1, 3, 1098, 4), greedy(2)))
    except CierzoError as error:
        return error
    else:
        return None
    finally:
        assert time.monotonic() - began < LIMIT
        await engine.close()
        assert not our_children()


def one_sentence(error):
    text = str(error)
    assert text
    assert "\n" not in text
    assert "Traceback" not in text
    assert ": " in text, "it says what to do"
    return text


@pytest.mark.timeout(400)
async def test_files_that_are_cut_or_garbage(tiny, tmp_path, short_tmp):
    whole = tiny.path.read_bytes()
    files = {"empty": b"", "zeros": bytes(100_000), "text": b"hello " * 1000, "magic": b"GGUF"}
    for cut in (5, 24, 100, 5_000, 400_000, 900_000, len(whole) // 2, len(whole) - 1000):
        files[f"cut at {cut}"] = whole[:cut]
    files["huge counts"] = b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60) + whole[24:]
    files["huge string"] = whole[:24] + struct.pack("<Q", 2**62) + whole[32:]
    files["version 99"] = b"GGUF" + struct.pack("<I", 99) + whole[8:]
    files["other bytes in the head"] = whole[:3000] + bytes(255 - byte for byte in whole[3000:9000]) + whole[9000:]
    for name, data in files.items():
        path = tmp_path / "bad.gguf"
        path.write_bytes(data)
        error = await verdict(path)
        assert isinstance(error, ModelUnreadable), f"{name}: {error!r}"
        print(f"{name}: {one_sentence(error)}")
    print(f"{len(files)} files")


@pytest.mark.timeout(400)
async def test_headers_that_lie(tmp_path, short_tmp):
    lies = [
        {"layers": 600},
        {"layers": 3},
        {"width": 128},
        {"heads": 3},
        {"heads": 64},
        {"kv_heads": 0},
        {"kv_heads": 3},
        {"hidden": 4096},
        {"heads": 2**31 - 1},
        {"layers": 0},
    ]
    refused = 0
    for lie in lies:
        error = await verdict(synthetic.write(tmp_path / "lie.gguf", **lie))
        assert error is None or isinstance(error, (ModelUnreadable, EngineDied)), f"{lie}: {error!r}"
        refused += error is not None
        print(f"{lie}: {one_sentence(error) if error else 'llama.cpp runs it'}")
    print(f"{len(lies)} files, {refused} refused")
    assert refused >= len(lies) - 2


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("name", "template"), [("a loop of 10^10", LOOP), ("20,000 parentheses", NESTED)])
async def test_chat_templates_are_never_run(tmp_path, short_tmp, name, template):
    error = await verdict(synthetic.write(tmp_path / "template.gguf", chat_template=template))
    print(f"{name}: {error or 'answers, its template was never looked at'}")
    assert error is None


@pytest.mark.timeout(400)
async def test_mutations(tiny, tmp_path, short_tmp):
    """Forty files with bytes changed at random in the head: an answer or an error, never anything else."""
    whole = tiny.path.read_bytes()
    outcomes = {"answers": 0, "refused": 0}
    for seed in range(40):
        dice = random.Random(seed)
        data = bytearray(whole)
        for _ in range(dice.choice((1, 3, 30))):
            data[dice.randrange(600) if dice.random() < 0.7 else dice.randrange(1_000_000)] = dice.randrange(256)
        path = tmp_path / "mutated.gguf"
        path.write_bytes(bytes(data))
        error = await verdict(path)
        if error is not None:
            one_sentence(error)
        outcomes["refused" if error else "answers"] += 1
    print(f"40 mutated files: {outcomes}")
    assert outcomes["refused"] > 5
