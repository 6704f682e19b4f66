"""Small files of models that are not Mistral's, with random weights: Llama 2's kind, and Qwen's with ChatML."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gguf
from sentencepiece import SentencePieceProcessor

from cierzo.gguf_header import gpt2_bytes

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import synthetic

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set messages = messages[1:] %}"
    "{% else %}{% set system = '' %}{% endif %}"
    "{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if loop.index0 == 0 and system %}{% set content = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + m['content'] %}"
    "{% else %}{% set content = m['content'] %}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + content | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + content | trim + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ '<start_of_turn>' + m['role'] + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{{ '<start_of_turn>model\n' }}"
)
_LISTED = "he in re on er nd th at en or hi ll lo hel hello the you what is me us user sys ass assist ant assistant"
WORDS = _LISTED.split()


def spm(writer: gguf.GGUFWriter) -> int:
    """Store 32,000 SentencePiece words as Llama 2 has: Mistral's in another order, so that no id is the same."""
    data = Path(gguf.__file__).parents[1] / "mistral_common" / "data" / synthetic.SPM_FILES["v1"]
    pieces = SentencePieceProcessor(model_file=str(data))
    order = [*range(259), *range(31_999, 258, -1)]
    kinds = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2, *[gguf.TokenType.BYTE] * 256]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([pieces.id_to_piece(n).encode() for n in order])
    writer.add_token_scores([pieces.get_score(n) for n in order])
    writer.add_token_types([*kinds, *[gguf.TokenType.NORMAL] * (32_000 - 259)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    return 32_000


def bpe(
    writer: gguf.GGUFWriter,
    marks: tuple[str, ...] = ("<|endoftext|>", "<|tool|>", "<|im_start|>", "<|im_end|>"),
    kind: gguf.TokenType = gguf.TokenType.CONTROL,
) -> int:
    """Store 256 bytes, a few words, and control tokens, the last of which ends an answer; filled up to 512."""
    letters = list(gpt2_bytes())
    words = sorted({f"{space}{word}" for word in WORDS for space in ("", "Ġ")}, key=len)
    known, merges = set(letters), []
    for word in words:
        cut = next((n for n in range(len(word) - 1, 0, -1) if word[:n] in known and word[n:] in known), 0)
        if cut:
            merges.append(f"{word[:cut]} {word[cut:]}")
            known.add(word)
    made = [word for word in words if word in known]
    filler = [f"Ġword{n}" for n in range(512 - len(letters) - len(made) - len(marks))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([token.encode() for token in (*letters, *made, *filler, *marks)])
    writer.add_token_types([*[gguf.TokenType.NORMAL] * (512 - len(marks)), *[kind] * len(marks)])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(511)
    writer.add_bos_token_id(512 - len(marks))
    writer.add_add_bos_token(False)
    return 512


def llama_2(path: Path, chat_template: str = LLAMA_2) -> Path:
    """Write a file of Llama 2's kind."""
    return synthetic.write(path, vocabulary=spm, chat_template=chat_template)


def qwen(path: Path, chat_template: str = CHATML, kind: gguf.TokenType = gguf.TokenType.CONTROL, **more: Any) -> Path:
    """Write a file of Qwen 2's kind."""
    return synthetic.write(
        path,
        vocabulary=lambda writer: bpe(writer, kind=kind),
        architecture="qwen2",
        chat_template=chat_template,
        **more,
    )


def gemma(path: Path) -> Path:
    """Write a file whose template has no place for a system prompt, as Gemma's."""
    marks = ("<bos>", "<start_of_turn>", "<end_of_turn>")
    return synthetic.write(
        path, vocabulary=lambda writer: bpe(writer, marks), architecture="qwen2", chat_template=NO_SYSTEM
    )
