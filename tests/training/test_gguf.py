"""The file that ships: small, of the stated architecture, with the stated number of weights and Mistral's tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
from training.config import CONFIG

PATH = Path(__file__).parents[2] / "src" / "cierzo" / "models" / "cierzo-demo.gguf"
LARGEST = 15_000_000
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6


@pytest.fixture(scope="module")
def reader() -> gguf.GGUFReader:
    return gguf.GGUFReader(PATH)


def value(reader: gguf.GGUFReader, key: str) -> Any:
    return reader.fields[key].contents()


def test_it_is_small_and_as_large_as_it_says() -> None:
    assert PATH.stat().st_size <= LARGEST
    assert round(PATH.stat().st_size / 1e6) == CONFIG.file_megabytes


def test_the_architecture_is_the_configured_one(reader: gguf.GGUFReader) -> None:
    assert value(reader, "general.architecture") == "llama"
    assert {
        "context_length": CONFIG.context,
        "embedding_length": CONFIG.dim,
        "block_count": CONFIG.layers,
        "feed_forward_length": CONFIG.hidden,
        "attention.head_count": CONFIG.heads,
        "attention.head_count_kv": CONFIG.kv_heads,
        "rope.dimension_count": CONFIG.head_dim,
    } == {
        key: value(reader, f"llama.{key}")
        for key in (
            "context_length",
            "embedding_length",
            "block_count",
            "feed_forward_length",
            "attention.head_count",
            "attention.head_count_kv",
            "rope.dimension_count",
        )
    }


def test_it_has_as_many_weights_as_it_tells(reader: gguf.GGUFReader) -> None:
    weights = sum(int(tensor.n_elements) for tensor in reader.tensors)
    assert weights == CONFIG.parameters
    assert f"{weights / 1e6:.1f}" == CONFIG.millions


def test_the_embedding_is_the_output_matrix_too(reader: gguf.GGUFReader) -> None:
    assert "output.weight" not in {tensor.name for tensor in reader.tensors}


def test_the_tokenizer_is_mistrals_v3(reader: gguf.GGUFReader) -> None:
    pieces = value(reader, "tokenizer.ggml.tokens")
    kinds = value(reader, "tokenizer.ggml.token_type")
    assert len(pieces) == len(kinds) == 32768
    assert pieces[:5] == ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    assert kinds[:5] == [UNKNOWN, CONTROL, CONTROL, CONTROL, CONTROL]
    assert kinds[771:1027] == [BYTE] * 256
    assert kinds[-1] == NORMAL
    assert value(reader, "tokenizer.ggml.bos_token_id") == 1
    assert value(reader, "tokenizer.ggml.eos_token_id") == 2
    assert value(reader, "tokenizer.ggml.add_bos_token") is True
    assert value(reader, "tokenizer.ggml.add_space_prefix") is False


def test_it_says_what_it_is(reader: gguf.GGUFReader) -> None:
    assert value(reader, "general.name") == "cierzo-demo"
    assert value(reader, "general.license") == "apache-2.0"
    assert value(reader, "general.author") == "Cierzo authors"
    assert "[INST]" in value(reader, "tokenizer.chat_template")
    assert int(value(reader, "cierzo.training.steps")) > 0
