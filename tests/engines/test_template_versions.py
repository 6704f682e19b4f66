"""A file with the tokenizer of each version, and a mixture of experts: recognised, loaded, and heard to the end."""

from __future__ import annotations

import pytest
import synthetic

from cierzo import prompt as prompts
from cierzo.catalog import find
from cierzo.chat import Chat
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.messages import Message, Sampling
from cierzo.templates import codec, template

SAID = [
    Message("system", "Be brief."),
    Message("user", "¿Qué tal, 世界 🌬?"),
    Message("assistant", "Bien."),
    Message("user", "Y?"),
]
SAMPLING = Sampling(max_new_tokens=24, temperature=1.0, seed=3, alternatives=2)

FILES = {
    "v1": ("v1", synthetic.TINY),
    "v1, a mixture of experts": ("v1", synthetic.TINY_MIXTURE),
    "v3": ("v3", synthetic.TINY),
    "v7": ("v7", synthetic.TINY),
    "v3-tekken": ("tekken", synthetic.TINY),
    "v7-tekken": ("v7-tekken", synthetic.TINY),
    "v11": ("v11", synthetic.TINY),
    "v13": ("v13", synthetic.TINY),
}


@pytest.mark.parametrize("name", FILES)
async def test_loads_and_streams(name, tmp_path, short_tmp):
    vocabulary, shape = FILES[name]
    path = synthetic.write(tmp_path / "file.gguf", shape, vocabulary=vocabulary)
    model = find(path, tmp_path)
    assert model.kind is not None
    assert (model.template, model.kind.tokenizer) == (name.partition(",")[0], "equal")
    assert (model.kind.experts, model.kind.active_experts) == (shape.experts, shape.active)
    chat = Chat(LlamaCpp(model, slots=1))
    try:
        answer = await chat.answer(SAID, SAMPLING)
    finally:
        await chat.close()
    assert answer.prompt == prompts.build(SAID, model.template, context=shape.context, reserve=24)
    assert answer.finish.reason in ("length", "eos_token")
    assert answer.finish.answer_tokens == len(answer.tokens) > 0
    assert answer.text == "".join(token.text for token in answer.tokens)
    known = codec(template(model.template))
    said = known.decode(token.id for token in answer.tokens)
    if "\ufffd" not in said + answer.text:
        assert answer.text == (said.removeprefix(" ") if known.template.leading_space else said)
    for token in answer.tokens:
        if token.logprob is not None:
            assert len(token.alternatives) == 2


def test_a_mixture_is_told_from_a_dense_model(tmp_path):
    path = synthetic.write(tmp_path / "mixture.gguf", synthetic.TINY_MIXTURE, vocabulary="v1")
    model = find(path, tmp_path)
    dense = find(synthetic.write(tmp_path / "dense.gguf", vocabulary="v1"), tmp_path)
    experts = 2 * 3 * 128 * 64 * 34 // 32  # layers, matrices, their sizes, bytes of a weight in Q8_0
    router = 2 * 8 * 64 * 4
    assert model.active == dense.active + experts + router, "two experts are read where there was one"
    assert model.size - dense.size > 7 * experts
