"""The notebook's own cells, and the same answer by every road: two families of routes, four clients, one model."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import openai
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from serving import asking

from cierzo import Message, Sampling
from cierzo.engines.scripted import Scripted
from cierzo.prompt import format_prompt

CELLS = (Path(__file__).parents[1] / "data" / "notebook_calls.txt").read_text("utf-8").split("# %%\n")
QUESTION = "¿Cuál es tu ingrediente favorito?"
SEED, LENGTH = 42, 40


def run_cells(url):
    cells = {"client": InferenceClient(base_url=url, token="-")}
    for cell in CELLS:
        exec(compile(cell, "a cell of the notebook", "exec"), cells)  # the test's own text
    return cells


def test_the_notebooks_cells_on_an_exact_engine(lent, capsys):
    server = lent(Scripted("Mi ingrediente favorito es el pan.", "Mi ingrediente", "Pienso en ello."))
    cells = run_cells(server.url)
    said = capsys.readouterr().out
    assert said.startswith("Mi ingrediente favorito es el pan.\n")
    assert "TextGenerationStreamOutput" in said
    assert "ketchup" in said
    outputs = list(cells["generate"]("¿Y qué piensa al respecto?", cells["history"]))
    assert outputs[-1] == "Pienso en ello."
    assert cells["format_prompt"]("a", [["b", "c"]]) == format_prompt("a", [("b", "c")])
    sampling = server.engine.asked[-1].sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed, sampling.max_new_tokens) == (0.9, 0.95, 42, 256)
    first = server.engine.asked[0]
    assert (first.sampling.temperature, first.sampling.max_new_tokens) == (0.0, 95)


def test_the_notebooks_cells_on_the_demo_model(demo, capsys):
    cells = run_cells(demo.url)
    assert capsys.readouterr().out.strip()
    outputs = list(cells["generate"](QUESTION, []))
    assert outputs[-1].strip()
    assert not outputs[-1].endswith("</s>")
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(outputs))


def by_the_library(server, sampling):
    """What the chat below the API says, without any wire."""

    async def ask():
        return await server.work.chat.answer([Message("user", QUESTION)], sampling)

    answer = asyncio.run_coroutine_threadsafe(ask(), server.loop).result(60)
    return answer.text, [(token.text, token.logprob) for token in answer.tokens]


def by_openai_chat(server, *, stream):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-") as client:
        extra = {"temperature": 0.8, "top_p": 0.9, "seed": SEED, "max_tokens": LENGTH, "logprobs": True}
        answer = client.chat.completions.create(model="any", **asking(QUESTION), **extra, stream=stream)
        if not stream:
            said = [(entry.token, entry.logprob) for entry in answer.choices[0].logprobs.content]
            return answer.choices[0].message.content, said
        said = []
        for chunk in answer:
            if chunk.choices[0].logprobs:
                said += [(entry.token, entry.logprob) for entry in chunk.choices[0].logprobs.content]
        return "".join(text for text, _ in said), said


def by_openai_completion(server):
    prompt = f"<s>[INST] {QUESTION}[/INST]"
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-") as client:
        answer = client.completions.create(
            model="any", prompt=prompt, temperature=0.8, top_p=0.9, seed=SEED, max_tokens=LENGTH, logprobs=0
        ).choices[0]
    return answer.text, list(zip(answer.logprobs.tokens, answer.logprobs.token_logprobs, strict=True))


def tgi_options():
    return {"temperature": 0.8, "top_p": 0.9, "seed": SEED, "max_new_tokens": LENGTH, "do_sample": True}


def by_text_generation(server, *, stream):
    client = InferenceClient(base_url=server.url, token="-")
    prompt = f"<s>[INST] {QUESTION}[/INST]"
    answer = client.text_generation(prompt, **tgi_options(), details=True, stream=stream)
    if stream:
        events = list(answer)
        return events[-1].generated_text, [(e.token.text, e.token.logprob) for e in events if not e.token.special]
    return answer.generated_text, [(t.text, t.logprob) for t in answer.details.tokens if not t.special]


def by_hugging_faces_chat(server):
    async def ask():
        async with AsyncInferenceClient(base_url=server.url, token="-") as client:
            return await client.chat_completion(
                asking(QUESTION)["messages"], temperature=0.8, top_p=0.9, seed=SEED, max_tokens=LENGTH, logprobs=True
            )

    choice = asyncio.run(ask()).choices[0]
    return choice.message.content, [(entry.token, entry.logprob) for entry in choice.logprobs.content]


def by_langchain(server):
    langchain = pytest.importorskip("langchain_openai")
    model = langchain.ChatOpenAI(
        base_url=f"{server.url}/v1",
        api_key="-",
        model="any",
        temperature=0.8,
        top_p=0.9,
        seed=SEED,
        max_tokens=LENGTH,
        logprobs=True,
    )
    answer = model.invoke(QUESTION)
    said = [(entry["token"], entry["logprob"]) for entry in answer.response_metadata["logprobs"]["content"]]
    return answer.content, said


def test_every_road_says_the_same(demo):
    sampling = Sampling(temperature=0.8, top_p=0.9, seed=SEED, max_new_tokens=LENGTH)
    text, said = by_the_library(demo, sampling)
    assert text
    roads = {
        "openai chat": by_openai_chat(demo, stream=False),
        "openai chat, streamed": by_openai_chat(demo, stream=True),
        "openai completion": by_openai_completion(demo),
        "text_generation": by_text_generation(demo, stream=False),
        "text_generation, streamed": by_text_generation(demo, stream=True),
        "chat_completion": by_hugging_faces_chat(demo),
        "langchain": by_langchain(demo),
    }
    for road, (answer, tokens) in roads.items():
        assert answer == text, road
        assert [token for token, _ in tokens] == [token for token, _ in said], road
        assert [p for _, p in tokens] == pytest.approx([p for _, p in said], abs=1e-3), road
    print(f"\n{len(roads)} roads beside the library: the same {len(said)} tokens")


def test_many_answers_at_once_on_the_real_engine(demo):
    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"{demo.url}/v1", api_key="-") as client:
            calls = (client.chat.completions.create(model="any", **asking(QUESTION), max_tokens=8) for _ in range(8))
            return await asyncio.gather(*calls)

    answers = asyncio.run(all_of_them())
    assert all(answer.usage.completion_tokens <= 8 for answer in answers)
    assert all(answer.choices[0].message.content for answer in answers)
