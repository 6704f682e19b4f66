"""The reader of GGUF heads: true of real files, and nothing but an ordinary error for hostile ones."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import gguf
import pytest
from gguf_files import write

from cierzo import gguf_header
from cierzo.errors import ModelUnreadable
from cierzo.gguf_header import MAX_LAYERS, Header, read_header


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokens = [b"<unk>", b"<s>", b"</s>", b"[INST]", b"[/INST]", *(f"word {i}".encode() for i in range(300))]
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tokens=tokens)


def test_reads_what_the_gguf_package_wrote(file: Path) -> None:
    header = read_header(file, tokens=frozenset({200, 10**9}))
    reader = gguf.GGUFReader(file)
    for key in ("general.architecture", "general.name", "llama.block_count", "llama.rope.freq_base"):
        assert header.values[key] == reader.fields[key].contents()
    assert header.vocabulary == 305
    assert header.tokens[3] == "[INST]"
    assert header.tokens[200] == "word 195"
    assert len(header.tokens) == 65
    assert header.size == file.stat().st_size
    assert header.number("block_count") == 2
    assert header.number("no such key", 7) == 7
    assert header.text("llama.block_count") == ""


def test_a_number_for_each_layer_counts_as_its_largest() -> None:
    header = Header({"general.architecture": "llama", "llama.attention.head_count_kv": [2, 8, 4]})
    assert header.number("attention.head_count_kv") == 8


def test_sizes_of_tensor_types_are_those_of_ggml() -> None:
    theirs = {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {kind: theirs[kind] for kind in gguf_header._BLOCKS} == gguf_header._BLOCKS


def test_a_tekken_vocabulary_with_its_merges(tmp_path: Path) -> None:
    header = read_header(write(tmp_path / "tekken.gguf", "v7-tekken"))
    assert header.vocabulary == 131_072
    assert header.tokens[17] == "[SYSTEM_PROMPT]"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"layers": MAX_LAYERS + 88}, "600 layers"),
        ({"layers": 0}, "0 layers"),
        ({"heads": 0}, "head_count of 0"),
        ({"embedding": 2**30}, "embedding_length"),
        ({"context": 0}, "context_length"),
    ],
)
def test_shapes_on_which_llama_cpp_aborts(tmp_path: Path, changes: dict[str, int], reason: str) -> None:
    with pytest.raises(ModelUnreadable, match=reason):
        read_header(write(tmp_path / "bad.gguf", tokens=[b"a"], **changes))


def test_what_is_not_a_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.gguf"
    if hasattr(os, "mkfifo"):
        os.mkfifo(pipe)
    for path in (tmp_path, pipe, tmp_path / "missing.gguf", Path("/dev/zero")):
        with pytest.raises(ModelUnreadable, match="cannot be read"):
            read_header(path)


def test_cut_short_at_every_kind_of_place(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    places = [*range(600), *random.Random(1).sample(range(600, len(content)), 600), len(content) - 1]
    for place in places:
        refused(content[:place], tmp_path)
    print(f"cut short at {len(places)} places, each an ordinary error")


def test_the_sentence_says_how_much_is_missing(file: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.gguf"
    short.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelUnreadable, match=r"is cut short: it has [\d,]+ bytes and needs [\d,]+: download it again"):
        read_header(short)


def refused(content: bytes, folder: Path) -> None:
    path = folder / "hostile.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelUnreadable) as refusal:
        read_header(path)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def head(entries: int = 1, tensors: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries)


ABSURD: dict[str, bytes] = {
    "nothing": b"",
    "another kind of file": b"PK\x03\x04" + b"\0" * 1000,
    "version 1": head(version=1),
    "big endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 1),
    "2**64 - 1 entries": head(2**64 - 1) + b"\0" * 1000,
    "2**64 - 1 tensors": head(0, 2**64 - 1),
    "a key of 2**63 bytes": head() + struct.pack("<Q", 2**63),
    "a key of 2**64 - 1 bytes": head() + struct.pack("<Q", 2**64 - 1) + b"\0" * 100,
    "a kind that does not exist": head() + text(b"a") + struct.pack("<I", 77),
    "a text of 2**62 bytes": head() + text(b"a") + struct.pack("<IQ", 8, 2**62),
    "an array of 2**62 texts": head() + text(b"a") + struct.pack("<IIQ", 9, 8, 2**62),
    "an array of 2**62 numbers": head() + text(b"a") + struct.pack("<IIQ", 9, 10, 2**62),
    "an array of arrays": head() + text(b"a") + struct.pack("<IIQ", 9, 9, 1) * 50,
    "texts without end": head() + text(b"a") + struct.pack("<IIQ", 9, 8, 2_000_000) + b"\0" * 16_000_000,
    "as many texts as are allowed": head() + text(b"a") + struct.pack("<IIQ", 9, 8, 999_999) + b"\0" * 8_000_000,
    "no architecture": head(0),
    "an infinite alignment": head(2)
    + (text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama"))
    + (text(b"general.alignment") + struct.pack("<If", 6, float("inf"))),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_claims(name: str, tmp_path: Path) -> None:
    refused(ABSURD[name], tmp_path)


def shaped(**numbers: float) -> bytes:
    """A head whose numbers are floats, so that they can be infinite or none."""
    given = {"block_count": 2.0, "embedding_length": 64.0, "attention.head_count": 4.0, "context_length": 99.0}
    entries = [text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama")]
    entries += [text(f"llama.{k}".encode()) + struct.pack("<If", 6, v) for k, v in (given | numbers).items()]
    return head(len(entries)) + b"".join(entries)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), -1.0, 0.0, 1e30])
@pytest.mark.parametrize("key", ["block_count", "embedding_length", "attention.head_count", "context_length"])
def test_numbers_that_no_model_has(key: str, value: float, tmp_path: Path) -> None:
    refused(shaped(**{key: value}), tmp_path)


def mutations(content: bytes, rng: random.Random) -> Iterator[bytes]:
    head_length = 1_500
    for _ in range(1_500):
        changed = bytearray(content)
        for _ in range(rng.randrange(1, 6)):
            place = rng.randrange(head_length)
            changed[place] = rng.randrange(256)
        yield bytes(changed)
    for _ in range(500):
        place = rng.randrange(4, head_length)
        yield content[:place] + rng.randbytes(rng.randrange(64)) + content[place:]
    for _ in range(500):
        place = rng.randrange(4, head_length) // 4 * 4
        number = struct.pack("<Q", rng.choice((2**64 - 1, 2**63, 2**32, 2**31, 0, rng.randrange(2**64))))
        yield content[:place] + number + content[place + 8 :]
    for _ in range(500):
        yield b"GGUF" + struct.pack("<IQQ", 3, rng.randrange(9), rng.randrange(9)) + rng.randbytes(rng.randrange(3_000))


def test_damaged_at_random(file: Path, tmp_path: Path) -> None:
    content, path = file.read_bytes(), tmp_path / "hostile.gguf"
    cases = refusals = 0
    for changed in mutations(content, random.Random(2)):
        path.write_bytes(changed)
        cases += 1
        try:
            header = read_header(path)
        except ModelUnreadable:
            refusals += 1
        else:
            assert 1 <= header.number("block_count") <= MAX_LAYERS
    print(f"{cases} damaged files: {refusals} refused, the others still read, no other error")
    assert refusals > 1_000


def hostile_and_large(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files that are as greedy as the bounds allow."""

    def put(name: str, *parts: bytes) -> tuple[str, Path]:
        path = folder / f"{name}.gguf"
        path.write_bytes(b"".join(parts))
        return name, path

    for name in ("as many texts as are allowed", "texts without end"):
        yield put(name, ABSURD[name])
    longest = text(b"x" * 4_096)
    yield put("long texts", head(512), *(text(f"k{i}".encode()) + struct.pack("<I", 8) + longest for i in range(512)))
    numbers = struct.pack("<IIQ", 9, 10, 512) + struct.pack("<512Q", *range(2**60, 2**60 + 512))
    yield put("long arrays", head(512), *(text(f"k{i}".encode()) + numbers for i in range(512)))
    tensor = text(b"t") + struct.pack("<I4QIQ", 4, 2**63, 2**63, 2**63, 2**63, 0, 0)
    yield put("tensors", head(5, 32_768), shaped()[24:], tensor * 32_768)


def test_hostile_files_take_little_memory(tmp_path: Path) -> None:
    for name, path in hostile_and_large(tmp_path):
        tracemalloc.start()
        with pytest.raises(ModelUnreadable):
            read_header(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(f"{name}: {path.stat().st_size:,} bytes of file, {peak:,} bytes of memory")
        assert peak < 50_000_000


def test_import_is_light() -> None:
    code = "import sys, cierzo.gguf_header; print([n for n in ('gguf', 'numpy', 'mmap') if n in sys.modules])"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"
