"""The embedded engine on real llama.cpp with small models of random weights."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import aiohttp
import orjson
import pytest
import synthetic
from driving import everything, first_token, greedy, model_of, our_children, prompt_of, until

from cierzo.engines import fitting, llamacpp, supervisor
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.engines.vocabulary import Vocabulary
from cierzo.engines.wire import Reader, request
from cierzo.errors import (
    BadText,
    EngineDied,
    EngineMissing,
    EngineRefused,
    ModelUnreadable,
    NotEnoughMemory,
    Overloaded,
    PromptTooLong,
)
from cierzo.machine import Machine
from cierzo.messages import Phase, Sampling, Token

PROMPT = prompt_of(1, 3, 1098, 4)


def words(count, seed=0):
    return tuple(random.Random(seed).randrange(2000, 30_000) for _ in range(count))


async def whole(engine, prompt, sampling, seed):
    """What llama.cpp says when it is asked for the whole answer at once: all ids, none merged."""
    body = orjson.loads(request(prompt, sampling, seed=seed, slot=0, room=sampling.max_new_tokens))
    # from the same cache: one token read alone rounds otherwise than four read at once
    last = max(engine._slots.slots, key=lambda slot: slot.used).number
    body |= {"stream": False, "return_tokens": True, "id_slot": last, "response_fields": []}
    running = engine._supervisor.current
    async with running.session.post(f"{running.url}/completion", data=orjson.dumps(body)) as answer:
        return orjson.loads(await answer.read())


async def test_phases_then_tokens_then_finish(engine):
    phases, tokens, finish = await everything(engine.stream(PROMPT, Sampling(max_new_tokens=20, alternatives=3)))
    assert {phase.name for phase in phases} == {"loading", "reading"}
    assert phases[-1].done == phases[-1].total == len(PROMPT)
    assert len(tokens) == 20
    assert finish.reason == "length"
    assert finish.prompt_tokens == len(PROMPT)
    assert finish.seed is not None
    assert any(token.logprob is not None for token in tokens)
    for token in tokens:
        if token.logprob is None:  # one of the bytes of a character: llama.cpp reports them with the last of them only
            assert not token.text
            continue
        assert token.logprob <= 0
        assert len(token.alternatives) == 3
        ranked = [alternative.logprob for alternative in token.alternatives]
        assert ranked == sorted(ranked, reverse=True)
        assert math.fsum(map(math.exp, ranked)) <= 1
    times = finish.timings
    assert 0 < times.load <= times.first_token
    assert times.engine_rate > 0


@pytest.mark.parametrize("vocabulary", ["v1", "v3", "v7", "tekken"])
async def test_ids_and_text_where_characters_take_several_tokens(folder, vocabulary, short_tmp):
    """Bytes are made loud, so that whole and broken characters of several tokens come in every answer."""
    first = {"v1": 3, "v3": 771, "v7": 771, "tekken": 1000}[vocabulary]
    loud = (range(first + 0xC2, first + 0xF4) if vocabulary != "tekken" else range(1194, 1244), 2.5)
    path = synthetic.write(folder / f"loud-{vocabulary}.gguf", vocabulary=vocabulary, loud=loud)
    engine = LlamaCpp(model_of(path))
    vocabulary_of = Vocabulary(path)
    merged = different = total = 0
    try:
        await everything(engine.stream(PROMPT, greedy(1)))
        for seed in range(12):
            sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=120, seed=seed)
            _, tokens, finish = await everything(engine.stream(PROMPT, sampling))
            truth = await whole(engine, PROMPT, sampling, seed)
            ids = [token.id for token in tokens]
            true_ids = truth["tokens"][: len(ids)]
            if finish.reason == "eos_token":
                assert truth["tokens"][-1] == 2
            lost = len(truth["tokens"]) - len(ids) - (finish.reason == "eos_token")
            assert 0 <= lost <= 120
            # a byte token and a plain token may spell the same byte; the plain one is what a tokenizer gives
            assert [vocabulary_of.pieces[n] for n in ids] == [vocabulary_of.pieces[n] for n in true_ids]
            different += sum(one != two for one, two in zip(ids, true_ids, strict=True))
            total += len(ids)
            text = "".join(token.text for token in tokens)
            assert "".join(text.split("\ufffd")) == "".join(truth["content"].split("\ufffd"))
            merged += sum(token.logprob is None for token in tokens)
    finally:
        await engine.close()
    print(f"{merged} tokens of merged characters, {different} of {total} ids spelled otherwise, 12 answers")
    assert merged > 20
    assert different <= total / 100


async def test_greedy_takes_the_most_probable(engine):
    await everything(engine.stream(PROMPT, greedy(1)))  # so that all that follow start from the same cache
    _, tokens, _ = await everything(engine.stream(PROMPT, greedy(30, alternatives=1, seed=1)))
    _, again, _ = await everything(engine.stream(PROMPT, greedy(30, alternatives=1, seed=2)))
    assert [token.id for token in tokens] == [token.id for token in again]
    assert all(token.id == token.alternatives[0].id for token in tokens)


async def test_the_same_seed_says_the_same(engine):
    await everything(engine.stream(PROMPT, greedy(1)))  # so that all that follow start from the same cache
    _, tokens, finish = await everything(engine.stream(PROMPT, Sampling(max_new_tokens=20)))
    _, again, _ = await everything(engine.stream(PROMPT, Sampling(max_new_tokens=20, seed=finish.seed)))
    assert [token.id for token in tokens] == [token.id for token in again]
    _, other, _ = await everything(engine.stream(PROMPT, Sampling(max_new_tokens=20, seed=finish.seed ^ 1)))
    assert [token.id for token in tokens] != [token.id for token in other]


async def test_logprobs_are_the_model_s_own_before_any_sampler(engine):
    await everything(engine.stream(PROMPT, greedy(1)))  # so that all that follow start from the same cache
    _, plain, _ = await everything(engine.stream(PROMPT, greedy(1, alternatives=5)))
    shaped = Sampling(
        temperature=3, top_p=0.5, top_k=7, min_p=0.2, repetition_penalty=2, max_new_tokens=1, alternatives=5
    )
    _, other, _ = await everything(engine.stream(PROMPT, shaped))
    assert [a.id for a in plain[0].alternatives] == [a.id for a in other[0].alternatives]
    for one, two in zip(plain[0].alternatives, other[0].alternatives, strict=True):
        assert one.logprob == pytest.approx(two.logprob, abs=1e-3)


@pytest.mark.parametrize("values", [{"top_p": 0.0}, {"top_k": 1}, {"min_p": 1.0}, {"temperature": 0.0}])
async def test_values_that_leave_one_token(engine, values):
    await everything(engine.stream(PROMPT, greedy(1)))  # so that all that follow start from the same cache
    _, best, _ = await everything(engine.stream(PROMPT, greedy(5)))
    _, tokens, _ = await everything(engine.stream(PROMPT, Sampling(max_new_tokens=5, **values)))
    assert [token.id for token in tokens] == [token.id for token in best]


async def test_repetition_penalty_counts_the_whole_context(engine):
    """A penalty of 10 forbids what was said, 0.01 says nothing else; the token stands 300 places back."""
    _, [said], _ = await everything(engine.stream(prompt_of(1, 3, *words(300), 4), greedy(1)))
    prompt = prompt_of(1, 3, said.id, *words(300), 4)
    _, plain, _ = await everything(engine.stream(prompt, greedy(1)))
    _, never, _ = await everything(engine.stream(prompt, greedy(60, repetition_penalty=10.0)))
    assert len({token.id for token in never}) == 60
    assert not {token.id for token in never} & set(prompt.ids)
    _, always, _ = await everything(engine.stream(prompt, greedy(20, repetition_penalty=0.01)))
    assert {token.id for token in always} <= set(prompt.ids) | {token.id for token in plain} | {always[0].id}


async def test_stop_texts_end_the_answer_and_are_not_part_of_it(engine):
    await everything(engine.stream(PROMPT, greedy(1)))  # so that all that follow start from the same cache
    _, tokens, _ = await everything(engine.stream(PROMPT, greedy(40)))
    texts = [token.text for token in tokens]
    answer = "".join(texts)
    cases = 0
    for start in range(3, 25):
        for size in (1, 4, 9, 20):
            stop = answer[start : start + size]
            _, cut, finish = await everything(engine.stream(PROMPT, greedy(40, stop=("no such text", stop))))
            assert finish.reason == "stop_sequence"
            assert finish.stop == stop
            assert "".join(token.text for token in cut) == answer[: answer.index(stop)]
            assert [token.id for token in cut] == [token.id for token in tokens[: len(cut)]]
            assert len("".join(texts[: len(cut)])) >= answer.index(stop) + len(stop)
            cases += 1
    print(f"{cases} stop texts")


def event(number, text):
    entry = {"id": number, "bytes": list(text.encode()), "logprob": -1.0, "top_logprobs": []}
    said = {"stop": False, "tokens_predicted": number, "completion_probabilities": [entry]}
    return b"data: " + orjson.dumps(said) + b"\n\n"


def test_text_that_only_looks_like_a_stop_comes_late_but_whole(tiny):
    """Every way to cut the bytes of an answer gives the same tokens."""
    texts = ["a", "st", "o", "st", "op", "x", " sto"]
    timings = {"predicted_n": len(texts), "predicted_ms": 7.0}
    end = {"stop": True, "stop_type": "limit", "tokens_predicted": len(texts), "timings": timings}
    sent = b"".join(event(n + 1, text) for n, text in enumerate(texts)) + b"data: " + orjson.dumps(end) + b"\n\n"
    for size in (1, 7, 100, len(sent)):
        reader = Reader(Sampling(stop=("stopy", "nothing")), Vocabulary(tiny.path), leading_space=False)
        found = [one for at in range(0, len(sent), size) for one in reader.feed(sent[at : at + size])]
        assert [token.text for token in found[:-1]] == texts
        assert found[-1].reason == "length"
        reader = Reader(Sampling(stop=("stop",)), Vocabulary(tiny.path), leading_space=False)
        found = [one for at in range(0, len(sent), size) for one in reader.feed(sent[at : at + size])]
        assert [token.text for token in found[:-1]] == ["a", "st", "o", "", ""]
        assert found[-1].stop == "stop"


async def test_the_space_before_the_first_word(engine):
    await everything(engine.stream(PROMPT, greedy(1)))  # so that all that follow start from the same cache
    for seed in range(10):
        sampling = Sampling(temperature=1, max_new_tokens=6, seed=seed)
        _, plain, _ = await everything(engine.stream(PROMPT, sampling))
        _, cut, _ = await everything(engine.stream(prompt_of(*PROMPT.ids, leading_space=True), sampling))
        assert "".join(t.text for t in cut) == "".join(t.text for t in plain).removeprefix(" ")


async def test_the_end_token_is_no_token_and_control_tokens_have_no_text(folder, short_tmp):
    loud = synthetic.write(folder / "ends.gguf", loud=(range(2, 4), 40.0))
    engine = LlamaCpp(model_of(loud))
    reasons, special = set(), 0
    try:
        for seed in range(30):
            sampling = Sampling(temperature=5, top_p=1, max_new_tokens=40, seed=seed, alternatives=2)
            _, tokens, finish = await everything(engine.stream(PROMPT, sampling))
            reasons.add(finish.reason)
            assert all(token.id != 2 for token in tokens)
            assert all((token.text == "") == token.special for token in tokens if token.id < 10)
            special += sum(token.special for token in tokens)
            named = {a.id: a.text for token in tokens for a in token.alternatives}
            assert named.get(2, "</s>") == "</s>"
    finally:
        await engine.close()
    assert "eos_token" in reasons
    assert special


async def test_the_window_ends_the_answer(engine):
    prompt = prompt_of(1, 3, *words(2020), 4)
    _, tokens, finish = await everything(engine.stream(prompt, Sampling(max_new_tokens=500)))
    assert finish.reason == "length"
    assert len(prompt) + len(tokens) <= 2048
    assert len(tokens) >= 20
    with pytest.raises(PromptTooLong, match="2047"):
        await everything(engine.stream(prompt_of(1, *words(2046)), greedy(4)))


async def test_a_bad_request_is_refused_and_harms_nothing(engine):
    with pytest.raises(EngineRefused, match="invalid tokens"):
        await everything(engine.stream(prompt_of(1, 99_999), greedy(4)))
    with pytest.raises(BadText):
        await everything(engine.stream(prompt_of(), greedy(4)))
    await everything(engine.stream(PROMPT, greedy(4)))


async def talk(engine, chats, order, turn_tokens=20):
    """Let chats speak in turn; return, for each turn after a chat's first, tokens read beyond the new ones."""
    excess = []
    for number, name in enumerate(order):
        prompt = chats[name]
        _, tokens, finish = await everything(engine.stream(prompt_of(*prompt), greedy(12)))
        if order.index(name) < number:
            excess.append(finish.prompt_tokens - finish.cached_tokens - turn_tokens)
        new = (2, 3, *words(turn_tokens - 3, seed=number), 4)
        chats[name] = prompt + tuple(token.id for token in tokens) + new
    return excess


async def test_turn_ten_reads_the_new_turn_only(engine):
    excess = await talk(engine, {"a": (1, 3, *words(300), 4)}, ["a"] * 10)
    print("tokens read beyond the new turn:", excess)
    assert max(excess) <= 8


@pytest.mark.parametrize(("system", "own"), [(300, 40), (40, 300), (200, 6)])
async def test_chats_that_share_a_system_prompt_do_not_take_each_other_s_cache(engine, system, own):
    head = (1, 3, *words(system))
    chats = {name: (*head, *words(own, seed=ord(name)), 4) for name in "abcdefg"}
    order = list("ababababab" + "abcabc" + "abcdefgabcdefg")
    excess = await talk(engine, chats, order)
    print("tokens read beyond the new turn:", excess)
    assert max(excess) <= 8


async def test_a_new_chat_goes_on_from_the_system_prompt_of_another(engine):
    head = (1, 3, *words(300))
    await everything(engine.stream(prompt_of(*head, *words(50, seed=1), 4), greedy(30)))
    _, _, finish = await everything(engine.stream(prompt_of(*head, *words(50, seed=2), 4), greedy(4)))
    assert finish.cached_tokens >= len(head)
    _, _, first = await everything(engine.stream(prompt_of(*head, *words(50, seed=1), 4), greedy(4)))
    assert first.cached_tokens >= len(head) + 50


async def test_four_long_answers_share_the_pool_and_none_dies(tiny, short_tmp):
    """Each reserves 1,203 tokens, and the pool has 2,000."""
    engine = LlamaCpp(tiny)
    launch = engine._launch

    def small_pool():
        made = launch()
        engine._slots.pool = 2000
        return supervisor.Launch(made.model, made.slots, 2000, made.threads, made.batch)

    engine._supervisor._launch = small_pool
    try:
        prompts = [prompt_of(1, 3, *words(900, seed=n), 4) for n in range(4)]
        answers = await asyncio.gather(*[everything(engine.stream(p, greedy(300))) for p in prompts])
        assert [finish.answer_tokens for _, _, finish in answers] == [300] * 4
        assert any(phase.name == "queued" for phases, _, _ in answers for phase in phases)
    finally:
        await engine.close()


async def test_waiting_places_are_bounded_and_first_come_is_first_served(slow, short_tmp):
    engine = LlamaCpp(slow, slots=1, places=3)
    ended = []

    async def ask(name):
        result = await everything(engine.stream(prompt_of(1, 3, *words(200, seed=name), 4), greedy(150)))
        ended.append(name)
        return result

    try:
        await everything(engine.stream(PROMPT, greedy(1)))
        tasks = []
        for name in range(4):
            tasks.append(asyncio.create_task(ask(name)))
            await asyncio.sleep(0.05)
        with pytest.raises(Overloaded) as refused:
            await ask(9)
        assert refused.value.retry_after > 0
        answers = await asyncio.gather(*tasks)
        assert ended == [0, 1, 2, 3]
        queued = [phase for phase in answers[3][0] if phase.name == "queued"]
        assert queued[0].done == 3
    finally:
        await engine.close()


async def is_free(engine):
    return not await llamacpp.is_processing(engine._supervisor.current, 0)


@pytest.mark.parametrize("moment", ["reading", "writing", "stop text"])
@pytest.mark.parametrize("how", ["aclose", "cancel"])
async def test_leaving_frees_the_slot(slow, short_tmp, moment, how):
    """Within a second; on a busy machine at least in a quarter of the time that the work itself takes there."""
    engine = LlamaCpp(slow, slots=1)
    try:
        await everything(engine.stream(PROMPT, greedy(1)))
        began = time.monotonic()
        await everything(engine.stream(prompt_of(1, 3, *words(3000, seed=5), 4), greedy(1)))
        whole_answer = time.monotonic() - began
        prompt = prompt_of(1, 3, *words(6000), 4) if moment == "reading" else PROMPT
        stop = () if moment != "stop text" else ("never said",)
        stream = engine.stream(prompt, Sampling(max_new_tokens=2000, top_k=40, stop=stop))

        async def read():
            async for event in stream:
                if isinstance(event, Token) or (moment == "reading" and isinstance(event, Phase) and event.done > 300):
                    reached.set()

        reached = asyncio.Event()
        if how == "cancel":
            task = asyncio.create_task(read())
            await reached.wait()
            task.cancel()
            await asyncio.wait([task])
        else:
            async for event in stream:
                if isinstance(event, Token) or (moment == "reading" and isinstance(event, Phase) and event.done > 300):
                    break
            await stream.aclose()
        left = time.monotonic()
        while not await is_free(engine):  # noqa: ASYNC110 - it can only be asked
            await asyncio.sleep(0.01)
        took = time.monotonic() - left
        print(f"{moment}, {how}: slot free after {took:.2f} s; the whole answer before took {whole_answer:.2f} s")
        assert took < max(1.0, whole_answer / 4)
        await everything(engine.stream(PROMPT, greedy(2)))
    finally:
        await engine.close()


async def test_the_socket_is_private(engine):
    await everything(engine.stream(PROMPT, greedy(1)))
    running = engine._supervisor.current
    assert stat.S_IMODE(running.folder.stat().st_mode) == 0o700
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(running.address)) as stranger:
        for method, path in [("POST", "/completion"), ("GET", "/slots"), ("POST", "/slots/0?action=erase")]:
            async with stranger.request(method, f"http://engine{path}", data=b"{}") as answer:
                assert answer.status == 401
        async with stranger.get("http://engine/") as answer:
            assert answer.status in (401, 404)


async def test_a_long_tmpdir_is_no_hindrance(tiny, tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    engine = LlamaCpp(tiny)
    await everything(engine.stream(PROMPT, greedy(1)))
    folder = engine._supervisor.current.folder
    await engine.close()
    assert not folder.exists()


def test_one_event_loop_after_another(tiny, short_tmp):
    async def once():
        engine = LlamaCpp(tiny)
        engine.start()
        await everything(engine.stream(PROMPT, greedy(3)))
        await engine.close()
        await engine.close()
        with pytest.raises(EngineDied, match="closed"):
            await everything(engine.stream(PROMPT, greedy(3)))

    for _ in range(3):
        asyncio.run(once())
    assert not our_children()


async def test_closing_ends_what_runs(tiny, short_tmp):
    engine = LlamaCpp(tiny)
    tasks = [asyncio.create_task(everything(engine.stream(PROMPT, greedy(1900)))) for _ in range(3)]
    await until(lambda: engine._answers)
    await engine.close()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, EngineDied) for end in ends), ends


async def test_the_window_shrinks_to_the_memory_that_is_free(slow, short_tmp, monkeypatch):
    needs = slow.size + fitting.ENGINE_BYTES
    monkeypatch.setattr(llamacpp, "machine", lambda: Machine(needs, needs + 5000 * slow.kv_bytes, 1))
    engine = LlamaCpp(slow)
    await everything(engine.stream(PROMPT, greedy(1)))
    assert engine.describe().context == 4096
    await engine.close()
    said = LlamaCpp(slow, context=8000)
    with pytest.raises(NotEnoughMemory, match=r"needs \d+ MB of memory .* 8000 tokens and \d+ MB are free"):
        await everything(said.stream(PROMPT, greedy(1)))
    monkeypatch.setattr(llamacpp, "machine", lambda: Machine(needs, needs, 1))
    with pytest.raises(NotEnoughMemory, match="2048 tokens"):
        await everything(LlamaCpp(slow).stream(PROMPT, greedy(1)))
    await said.close()


@pytest.mark.parametrize(
    ("error", "match"),
    [
        ("libgomp.so.1: cannot open shared object file: No such file or directory", "apt install libgomp1"),
        ("libstdc++.so.6: version `GLIBCXX_3.4.32' not found", "libstdc"),
        ("No module named 'xllamacpp'", "pip install"),
    ],
)
async def test_a_library_that_is_missing(tiny, tmp_path, monkeypatch, error, match):
    (tmp_path / "xllamacpp.py").write_text(f"raise ImportError({error!r})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    engine = LlamaCpp(tiny)
    with pytest.raises(EngineMissing, match=match) as refused:
        await everything(engine.stream(PROMPT, greedy(1)))
    assert "\n" not in str(refused.value)
    await engine.close()


async def test_a_model_that_is_not_there(tiny, tmp_path):
    nowhere = LlamaCpp(replace(tiny, path=None))
    with pytest.raises(ModelUnreadable, match="models pull"):
        await everything(nowhere.stream(PROMPT, greedy(1)))
    gone = LlamaCpp(replace(tiny, path=tmp_path / "gone.gguf"))
    with pytest.raises(ModelUnreadable, match=r"gone\.gguf"):
        await everything(gone.stream(PROMPT, greedy(1)))
    for engine in (nowhere, gone):
        await engine.close()


def test_nothing_heavy_is_imported_here():
    code = "import sys, cierzo.engines.llamacpp; print('xllamacpp' in sys.modules, 'gradio' in sys.modules)"
    source = Path(llamacpp.__file__).parents[2]
    said = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(source)}, capture_output=True, check=True
    )
    assert said.stdout.split() == [b"False", b"False"]


async def test_start_loads_in_the_background(tiny, short_tmp):
    engine = LlamaCpp(tiny)
    engine.start()
    await until(lambda: engine._supervisor.current)
    phases, _, finish = await everything(engine.stream(PROMPT, greedy(1)))
    assert {phase.name for phase in phases} == {"reading"}
    assert finish.timings.load < 0.05
    await engine.close()


async def test_streams_that_are_dropped_give_their_place_back(engine):
    for _ in range(6):
        stream = engine.stream(PROMPT, greedy(1500))
        await first_token(stream)
        with contextlib.suppress(RuntimeError):
            await stream.aclose()
    await everything(engine.stream(PROMPT, greedy(2)))
