"""What `make interop` does that needs nothing installed: the exported checkpoint, and how answers are held."""

from __future__ import annotations

import itertools
import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize
from sentencepiece import SentencePieceProcessor

from cierzo import catalog

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))

import agreement
import export


@pytest.fixture(scope="module")
def reader():
    """The model's file; reading its tokenizer takes a second."""
    return GGUFReader(demo())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, reader):
    folder = tmp_path_factory.mktemp("checkpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "GGUFReader", lambda source: reader)
        export.export(demo(), folder)
    return folder


def demo():
    (path,) = (model.path for model in catalog.models(Path("/none")) if model.name == catalog.DEMO)
    return path


def read_safetensors(path):
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = (8 + size + place for place in entry["data_offsets"])
            assert entry["dtype"] == "F32"
            found[name] = np.frombuffer(raw[start:end], "<f4").reshape(entry["shape"])
    assert end == len(raw), "numbers that no tensor has"
    return found


def test_the_order_of_q_and_k_is_undone():
    heads, size, width = 3, 8, 5
    theirs = np.arange(heads * size * width, dtype=np.float32).reshape(heads * size, width)
    # as convert_hf_to_gguf.py has it
    in_file = theirs.reshape(heads, 2, size // 2, width).swapaxes(1, 2).reshape(theirs.shape)
    assert not np.array_equal(in_file, theirs)
    assert np.array_equal(export.halves(in_file, heads), theirs)


def test_the_checkpoint_has_the_weights_of_the_file(checkpoint, reader):
    written = read_safetensors(checkpoint / "model.safetensors")
    assert len(written) == len(reader.tensors)
    for tensor in reader.tensors:
        ours, value = written[export.name_of(tensor.name)], dequantize(tensor.data, tensor.tensor_type)
        assert ours.shape == value.shape, tensor.name
        if ".attn_q." in tensor.name or ".attn_k." in tensor.name:
            assert not np.array_equal(ours, value), tensor.name
            assert np.array_equal(np.sort(ours, axis=0), np.sort(value, axis=0)), tensor.name
        else:
            assert np.array_equal(ours, value), tensor.name


def test_the_checkpoint_says_what_it_is(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    assert config["architectures"] == ["MistralForCausalLM"]
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]) == (8, 2, 32)
    assert config["tie_word_embeddings"] is True
    assert not list(checkpoint.glob("*.bin"))


def test_the_tokenizer_cuts_as_sentencepiece_does(checkpoint):
    told = json.loads((checkpoint / "tokenizer.json").read_text("utf-8"))["model"]
    ranks = {tuple(pair): rank for rank, pair in enumerate(told["merges"])}
    model = SentencePieceProcessor(model_file=str(export.TOKENIZER))
    words = "¿Cuántas cabezas de atención tiene Mistral 7B? What about the key-value cache: où est-il gardé, 1234 naïve"
    for word in words.split():
        parts = list("▁" + word)
        while pairs := [pair for pair in itertools.pairwise(parts) if pair in ranks]:
            best = min(pairs, key=ranks.__getitem__)
            place = next(i for i in range(len(parts) - 1) if (parts[i], parts[i + 1]) == best)
            parts[place : place + 2] = ["".join(best)]
        assert [told["vocab"][part] for part in parts] == model.encode(word), word


def test_another_tokenizer_is_refused(tmp_path, monkeypatch, reader):
    monkeypatch.setattr(export, "GGUFReader", lambda source: reader)
    monkeypatch.setattr(export, "TOKENIZER", export.TOKENIZER.with_name("mistral_instruct_tokenizer_241114.model.v7"))
    with pytest.raises(SystemExit, match="another tokenizer"):
        export.export(demo(), tmp_path / "none")


def dialogue(name="es-01"):
    turn = {
        "text": "uno dos tres",
        "ids": [11, 12, 13],
        "end": 2,
        "texts": ["uno", " dos", " tres"],
        "likeliest": [[[11, -0.1], [21, -0.3]], [[12, -0.01], [22, -5.0]], [[13, -0.2], [2, -1.8]]],
    }
    return {"id": name, "turns": [turn]}


@pytest.mark.parametrize(
    ("theirs", "place", "gap"),
    [
        ([21, 12, 13], 0, 0.2),
        ([11, 22, 13], 1, 4.99),
        ([11, 99, 13], 1, math.inf),
        ([11, 12], 2, 1.6),
        ([11, 12, 13, 14], 3, math.inf),
        ([], 0, math.inf),
    ],
)
def test_where_answers_part_and_how_near_it_was(theirs, place, gap):
    held = agreement.Agreement()
    held.add(dialogue(), [theirs])
    (difference,) = held.differences
    assert (difference.place, difference.gap) == (place, pytest.approx(gap))
    assert held.share == 0
    assert ("not a near-tie" in str(difference)) == (gap > 0.5)


def test_the_share_counts_dialogues_and_not_answers():
    held = agreement.Agreement()
    for number in range(19):
        held.add(dialogue(f"en-{number}"), [[11, 12, 13]])
    assert held.share == 1
    two = dialogue("fr-01")
    two["turns"] *= 2
    held.add(two, [[11, 12, 9], [21, 12, 13]])
    assert (held.share, len(held.differences)) == (0.95, 2)
    assert "19 of 20 dialogues the same (21 turns, 63 tokens)" in str(held)


def test_texts_are_held_where_no_ids_are_told():
    held = agreement.Agreement()
    held.add_texts(dialogue(), ["uno dos tres"])
    held.add_texts(dialogue("fr-01"), ["uno doce"])
    (difference,) = held.differences
    assert (difference.place, difference.ours) == (1, "…uno| dos")
    assert held.share == 0.5
