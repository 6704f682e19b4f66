"""The scripted engine: what it yields, what it honours, how it fails, and what its files may say."""

import asyncio
import json
import math
import sys
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cierzo.engines.script import Reply, Wait, cut, read, token_of
from cierzo.engines.scripted import SEED, Scripted, StopFilter
from cierzo.errors import BadSetting, CierzoError, EngineDied, EngineRefused, NotEnoughMemory, Overloaded
from cierzo.messages import Finish, Message, Phase, Piece, Prompt, Sampling, Token


def prompt(text="hola", length=4):
    piece = Piece(text, tuple(range(length)), control=False)
    return Prompt((piece,), "v3", kept=(Message("user", text),))


async def run(engine, text="hola", *, length=4, **sampling):
    async with aclosing(engine.stream(prompt(text, length), Sampling(**sampling))) as events:
        return [event async for event in events]


async def collect(engine, events, **sampling):
    async with aclosing(engine.stream(prompt(), Sampling(**sampling))) as stream:
        async for event in stream:
            events.append(event)


def said(events):
    return "".join(event.text for event in events if isinstance(event, Token))


async def test_says_what_it_is_told_and_finishes_once():
    events = await run(Scripted("Hola, ¿qué tal?"))
    assert said(events) == "Hola, ¿qué tal?"
    assert [type(event) for event in events] == [Token] * 3 + [Finish]
    assert events[-1].reason == "eos_token"
    assert (events[-1].prompt_tokens, events[-1].answer_tokens, events[-1].seed) == (4, 3, SEED)


async def test_without_a_script_it_repeats_the_question_with_probabilities():
    events = await run(Scripted.load(""), "¿y tú? 🌬", alternatives=2)
    assert said(events).endswith("You said: ¿y tú? 🌬")
    tokens = [event for event in events if isinstance(event, Token)]
    assert all(len(token.alternatives) == 2 for token in tokens)
    for token in tokens:
        logprobs = [entry.logprob for entry in token.alternatives]
        assert logprobs == sorted(logprobs, reverse=True)
        assert sum(math.exp(logprob) for logprob in logprobs) <= 1.0
    assert events == [*(await run(Scripted.load(""), "¿y tú? 🌬", alternatives=2))[:-1], events[-1]]


async def test_replies_come_in_turn_and_the_last_for_ever_and_when_goes_first():
    engine = Scripted("one", "two", Reply.of("lemon", when="condiment"))
    answers = [said(await run(engine, text)) for text in ("a", "your condiment?", "b", "c")]
    assert answers == ["one", "lemon", "two", "two"]
    assert [asked.prompt.kept[0].text for asked in engine.asked] == ["a", "your condiment?", "b", "c"]


async def test_alternatives_are_cut_to_what_was_asked():
    assert all(not event.alternatives for event in await run(Scripted.load("")) if isinstance(event, Token))


async def test_max_new_tokens_and_the_window_end_with_length():
    events = await run(Scripted("a b c d"), max_new_tokens=2)
    assert (said(events), events[-1].reason, events[-1].answer_tokens) == ("a b", "length", 2)
    script = Scripted(Reply.of("a b", repeat=True))
    events = await run(script, length=8190)
    assert (events[-1].answer_tokens, events[-1].reason) == (2, "length")


@pytest.mark.parametrize(
    ("tokens", "stops", "expected"),
    [
        (["Ho", "la", "!"], ("la",), "Ho"),
        (["Ho", "la", "!"], ("ol",), "H"),
        (["a", "b", "c"], ("bd",), None),
        (["a", "\n", "\n", "b"], ("\n\n",), "a"),
        (["x</", "s> y"], ("</s>", "x<"), ""),
        (["ab", "ab", "ac"], ("abac",), "ab"),
    ],
)
async def test_a_stop_text_ends_the_answer_before_it(tokens, stops, expected):
    events = await run(Scripted(tokens), stop=stops)
    assert said(events) == ("".join(tokens) if expected is None else expected)
    assert events[-1].reason == ("eos_token" if expected is None else "stop_sequence")
    assert events[-1].stop in ((None,) if expected is None else stops)


@given(
    st.lists(st.text("ab\n", max_size=3), max_size=12), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3)
)
def test_the_filter_lets_through_exactly_what_stands_before_the_first_stop(texts, stops):
    filtered, out = StopFilter(tuple(stops)), []
    for text in texts:
        out += filtered.push(token_of(text))
        if filtered.met is not None:
            break
    else:
        out += filtered.flush()
    whole = "".join(texts)
    ends = [whole.index(stop) for stop in stops if stop in whole]
    assert (filtered.met is not None) == bool(ends)
    # Which stop comes first is decided as tokens come, so a longer stop may start earlier but be complete later.
    through = "".join(token.text for token in out)
    assert whole.startswith(through)
    assert not any(stop in through for stop in stops)
    if not ends:
        assert through == whole


@given(st.text())
def test_cut_loses_nothing(text):
    text = text.encode("utf-8", "ignore").decode()
    assert "".join(token.text for token in cut(text)) == text


def test_the_filter_holds_back_no_longer_than_it_must():
    filtered = StopFilter(("\n\n",))
    assert [[token.text for token in filtered.push(token_of(text))] for text in ("a", "b\n", "c", "\n")] == [
        ["a"],
        [],
        ["b\n", "c"],
        [],
    ]


def test_a_character_of_four_bytes_is_four_tokens_and_never_half_a_character():
    assert [token.text for token in cut("a🌬b")] == ["a", "", "", "", "🌬", "b"]


@pytest.mark.parametrize(
    "error", [EngineDied("died"), EngineRefused("no"), NotEnoughMemory("big"), Overloaded("busy", retry_after=2)]
)
async def test_an_error_comes_after_the_tokens_before_it(error):
    engine = Scripted(["a", "b", error, "c"])
    for _ in range(2):  # the same instance is raised again
        events = []
        with pytest.raises(type(error)) as raised:
            await collect(engine, events, stop=("bX",))
        assert raised.value is error
        assert said(events) == "ab"
    assert (engine.running, engine.stopped) == (0, 0)


async def test_closing_the_stream_stops_it_and_is_counted():
    engine = Scripted(["a", Wait(), "b"])
    stream = engine.stream(prompt(), Sampling())
    assert (await anext(stream)).text == "a"
    assert engine.running == 1
    await stream.aclose()
    assert (engine.running, engine.stopped) == (0, 1)


async def test_cancelling_the_reader_of_a_hanging_stream_ends_it():
    engine = Scripted([Wait()])
    task = asyncio.create_task(run(engine))
    await asyncio.sleep(0.01)
    assert engine.running == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.running == 0


async def test_closing_the_engine_ends_hanging_and_later_streams():
    engine = Scripted(["a", Wait()])
    task = asyncio.create_task(run(engine))
    await asyncio.sleep(0.01)
    await engine.close()
    await engine.close()
    with pytest.raises(EngineDied):
        await task
    with pytest.raises(EngineDied):
        await run(engine)


async def test_a_never_ending_reply_ends_at_the_bound():
    events = await run(Scripted(Reply.of("da ", repeat=True)), max_new_tokens=1000)
    assert (events[-1].reason, events[-1].answer_tokens) == ("length", 1000)


async def test_disorder_yields_what_no_engine_should():
    steps = [Finish("eos_token"), "late", Phase("loading"), Finish("length")]
    events = await run(Scripted(Reply.of(steps, disorder=True)), max_new_tokens=1)
    assert [type(event) for event in events] == [Finish, Token, Phase, Finish]


GOOD = """
model = "paper"
context = 512

[[reply]]
when = "weather"
first = 0.001
delay = 0.001
phases = [{ name = "loading", done = 40, total = 100, seconds = 0.5 }]
tokens = ["The", { text = " wind", id = 7, logprob = -0.5, alternatives = [{ text = " rain", logprob = -1.0 }] },
          { wait = 0.001 }, " blows"]

[[reply]]
text = "Never ending"
fail = { kind = "die", after = 1, message = "lost the model" }
"""


async def test_a_toml_file(tmp_path):
    (tmp_path / "a.toml").write_text(GOOD)
    engine = Scripted.load(str(tmp_path / "a.toml"))
    assert (engine.describe().model, engine.describe().context) == ("paper", 512)
    events = await run(engine, "the weather?", alternatives=1)
    assert (events[0], said(events)) == (Phase("loading", 40, 100, 0.5), "The wind blows")
    assert (events[2].id, events[2].alternatives[0].text) == (7, " rain")
    with pytest.raises(EngineDied, match="lost the model"):
        await run(engine)


async def test_a_json_file(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"reply": [{"tokens": ["a", "b"], "finish": "length"}]}))
    events = await run(Scripted.load(str(tmp_path / "a.json")))
    assert (said(events), events[-1].reason) == ("ab", "length")


@pytest.mark.parametrize("kind", ["error", "die", "unreadable", "memory", "overloaded"])
async def test_every_fault_by_name(tmp_path, kind):
    (tmp_path / "a.toml").write_text(f'[[reply]]\nfail = "{kind}"')
    with pytest.raises(CierzoError, match=kind):
        await run(Scripted.load(str(tmp_path / "a.toml")))


async def test_hang_by_name(tmp_path):
    (tmp_path / "a.toml").write_text('[[reply]]\ntext = "a b"\nfail = { kind = "hang", after = 1 }')
    stream = Scripted.load(str(tmp_path / "a.toml")).stream(prompt(), Sampling())
    await anext(stream)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 0.05)


BAD = [
    (".toml", 'context = 512\n[[reply]\ntext = "x"', "line 2"),
    (".toml", 'x = "\udcff"'.encode("utf-8", "surrogateescape"), "line 1"),
    (".toml", 'colour = "red"', "line 1: colour"),
    (".toml", '\ncontext = "many"', "line 2: context"),
    (".toml", "context = 3", "line 1: context"),
    (".toml", "slots = 0", "line 1: slots"),
    (".toml", '[[reply]]\ntext = "a"\n\n[[reply]]\ndelay = -1\n', "line 5: delay"),
    (".toml", '[[reply]]\ndelay = 1\n[[reply]]\ntext = "a"\ndelay = nan', "line 5: delay"),
    (".toml", "[[reply]]\ndelay = inf", "line 2: delay"),
    (".toml", "[[reply]]\ntokens = [3]", "line 2: tokens"),
    (".toml", "[[reply]]\ntokens = 'abc'", "line 2: tokens must be a list"),
    (".toml", "[[reply]]\ntokens = [{ text = 'a', logprob = 0.5 }]", "line 2: logprob"),
    (".toml", "[[reply]]\ntokens = [{ text = 'a', id = -1 }]", "line 2: id"),
    (".toml", "[[reply]]\ntokens = [{ text = 'a', alternatives = ['b'] }]", "line 2: alternatives"),
    (".toml", "[[reply]]\ntext = 'a'\ntokens = ['b']", "line 3: tokens"),
    (".toml", "[[reply]]\nrepeat = true", "line 2: repeat"),
    (".toml", "[[reply]]\ntext = 'a'\nrepeat = 1", "line 3: repeat"),
    (".toml", "[[reply]]\nfail = 'explode'", "line 2: fail"),
    (".toml", "[[reply]]\nfinish = 'soon'", "line 2: finish"),
    (".toml", "[[reply]]\nphases = [{ name = 'thinking' }]", "line 2: phases"),
    (".toml", '[[reply]]\ntext = "a\\u0000b"', "NUL"),
    (".toml", "reply = 3", "line 1: reply"),
    (".json", '{"reply": [\n {"text": "a"},\n {"text": 4}]}', "line 3: text"),
    (".json", '{"reply": [\n {"text": "a"},\n {"text": "a" "b"}]}', "line 3"),
    (".json", '{"reply": [{"text": "half \\ud800"}]}', "lone surrogate"),
    (".json", "[1]", "line 1"),
    (".json", "[" * 100_000, "nested too deeply"),
]


@pytest.mark.parametrize(("suffix", "source", "expected"), BAD)
def test_a_bad_file_is_a_bad_setting_that_names_the_line(tmp_path, suffix, source, expected):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(source if isinstance(source, bytes) else source.encode())
    with pytest.raises(BadSetting) as refused:
        read(path)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


def test_a_file_that_is_not_there_or_too_large(tmp_path):
    with pytest.raises(BadSetting, match="cannot be read"):
        Scripted.load(str(tmp_path / "none.toml"))
    with pytest.raises(BadSetting, match="NUL"):
        Scripted.load("a\x00b")
    (tmp_path / "big.toml").write_bytes(b"#" * 4_000_001)
    with pytest.raises(BadSetting, match="larger"):
        read(tmp_path / "big.toml")
    sys.stdout.write(f"bad script files refused: {len(BAD) + 3}\n")
