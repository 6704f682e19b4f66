"""What is asked of a server, through Cierzo's engine for it. Each check returns what it saw, or says what is wrong."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from agreement import ENOUGH, Agreement

import cierzo
from cierzo.errors import EngineRefused, Overloaded, PromptTooLong
from cierzo.messages import Finish, Message, Prompt, Sampling, Token

GREEDY: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": 256}
LOOP: dict[str, Any] = {"temperature": 0.0, "repetition_penalty": 0.2}
"""What was said already is made more probable, so it is said again, and the end does not come. For vLLM, which takes no
temperature above 2."""

NOISE: dict[str, Any] = {"temperature": 5.0, "top_p": 1.0, "seed": 7}
"""With all words about as probable, the end comes late; and llama-server is slow enough to be watched."""

QUESTION = "¿Qué es un token?"
CLOSE = 0.05
"""Difference of log-probabilities of the same token after the same text, in 8 bits here and in 32 bits there."""

MARKS = ("[INST]", "[/INST]", "<s>", "</s>")

SOON = 2.0
"""Seconds after which a server must have noticed that nobody listens any more."""


class Wrong(Exception):
    """A check found what must not be."""


@dataclass
class Setting:
    """What the checks of one server work with.

    Attributes:
        client: On the engine for that server.
        answers: What the embedded engine said: see answers.py.
        url: The server's own, without a path.
        busy: Reads from the server how many answers it writes just now; None where it tells nobody.
    endless: How an answer is sampled that goes on for long.
    notes: What is worth a line in the table.
    """

    client: cierzo.AsyncClient
    answers: list[dict[str, Any]]
    url: str
    busy: Callable[[str], int] | None = None
    endless: dict[str, Any] = field(default_factory=lambda: NOISE)
    notes: list[str] = field(default_factory=list)


def sure(condition: object, what: str) -> None:
    """Go on only if ``condition`` holds."""
    if not condition:
        raise Wrong(what)


def asked(turn: dict[str, Any], history: Sequence[tuple[int, ...]]) -> list[Message]:
    """Return a turn's messages; answers before it with the ids that the embedded engine wrote."""
    ids = iter(history)
    return [
        Message(one["role"], one["content"], next(ids) if one["role"] == "assistant" else ())
        for one in turn["messages"]
    ]


async def agreement(at: Setting, most: int | None = None) -> str:
    """Greedy answers are the embedded engine's, token for token, on nearly all dialogues."""
    held, by_ids, largest, typed = Agreement(), True, 0.0, 0
    for dialogue in at.answers[:most]:
        history: list[tuple[int, ...]] = []
        said = []
        for turn in dialogue["turns"]:
            said.append(await at.client.ask(asked(turn, history), **GREEDY))
            history.append(tuple(turn["ids"]))
            sure(said[-1].finish.reason == "eos_token", f"{dialogue['id']}: it ended with {said[-1].finish.reason}")
        by_ids = all(answer.finish.sent == "ids" for answer in said)
        if by_ids:
            for answer, turn in zip(said, dialogue["turns"], strict=True):
                sure(answer.prompt.ids == tuple(turn["prompt"]), f"{dialogue['id']}: another prompt was sent")
                largest = max(largest, apart(answer.tokens, turn))
            held.add(dialogue, [[token.id for token in answer.tokens] for answer in said])
        elif any(mark in one["content"] for one in dialogue["turns"][-1]["messages"] for mark in MARKS):
            typed += 1
        else:
            held.add_texts(dialogue, [answer.text for answer in said])
    if typed:
        at.notes.append(f"{typed} dialogues set aside: they hold names of control tokens, which are sent parted")
    for difference in held.differences:
        at.notes.append(str(difference))
    sure(held.share >= ENOUGH, str(held))
    same = held.dialogues - len(held.parted)
    what = f"token ids, log-probabilities at most {largest:.3f} apart" if by_ids else "texts"
    return f"{same} of {held.dialogues} dialogues the same ({held.turns} answers, {held.tokens} tokens; {what})"


def apart(tokens: Sequence[Token], turn: dict[str, Any]) -> float:
    """Return the largest difference of the log-probabilities, up to where the answers part."""
    largest = 0.0
    for token, ours, logprob in zip(tokens, turn["ids"], turn["logprobs"], strict=False):
        if token.id != ours:
            break
        if token.logprob is not None and logprob is not None and logprob > -1:
            largest = max(largest, abs(token.logprob - logprob))
    return largest


async def streaming(at: Setting) -> str:
    """Tokens come while the answer is written, not after it; and the prompt's tokens are counted as they are."""
    began, times, finish = time.monotonic(), [], None
    async with aclosing(long_answer(at, 400)) as events:
        async for event in events:
            if isinstance(event, Token):
                times.append(time.monotonic() - began)
            if isinstance(event, Finish):
                finish = event
    assert finish is not None
    sure(len(times) > 30, f"{len(times)} tokens say nothing")
    sure(times[-1] - times[0] > times[-1] / 5, "the whole answer came at once")
    counted, reference = finish.prompt_tokens, len(at.answers[1]["turns"][0]["prompt"])
    sure(counted == reference, f"{counted} tokens of prompt were counted, not {reference}")
    return f"{len(times)} pieces over {times[-1] - times[0]:.1f} s, the first after {1000 * times[0]:.0f} ms"


async def details(at: Setting) -> str:
    """Where ids, probabilities and alternatives are promised, every token has them, and they are the right ones."""
    promised = at.client.chat.engine.describe().details
    if not promised:
        return "promises none"
    answer = await at.client.ask(QUESTION, **GREEDY, alternatives=5 if "alternatives" in promised else 0)
    turn = at.answers[1]["turns"][0]
    if "ids" in promised:
        sure([token.id for token in answer.tokens] == turn["ids"], "other ids than the embedded engine's")
    for token, likeliest in zip(answer.tokens, turn["likeliest"], strict=True):
        if "logprobs" in promised:
            sure(token.logprob is not None, f"{token.text!r} has no probability")
        if "alternatives" in promised:
            sure(len(token.alternatives) == 5, f"{token.text!r} has {len(token.alternatives)} alternatives")
            sure(token.alternatives[0].id == likeliest[0][0], f"another is likeliest than {token.text!r}")
    if "logprobs" in promised:
        sure(apart(answer.tokens, turn) < CLOSE, f"probabilities are {apart(answer.tokens, turn):.3f} apart")
    return ", ".join(sorted(promised))


async def stop(at: Setting) -> str:
    """A stop text ends the answer, is not part of it, and is named; also one that begins within a token."""
    whole = at.answers[1]["turns"][0]["text"]
    for place in (12, len(whole) // 2):
        text = whole[place : place + 6]
        answer = await at.client.ask(QUESTION, **GREEDY, stop=[text])
        sure(answer.text == whole[: whole.index(text)], f"{answer.text!r} with the stop text {text!r}")
        sure(answer.finish.reason == "stop_sequence", f"it ended with {answer.finish.reason}")
        sure(answer.finish.stop == text, f"it names {answer.finish.stop!r}, not {text!r}")
    return "cut in front of it, named"


async def length(at: Setting) -> str:
    """An answer has at most so many tokens, and says that it was cut."""
    answer = await at.client.ask(QUESTION, temperature=0.0, max_new_tokens=5)
    reference = at.answers[1]["turns"][0]
    sure(answer.finish.reason == "length", f"it ended with {answer.finish.reason}")
    sure(answer.text == "".join(reference["texts"][:5]), f"{answer.text!r}")
    sure(answer.finish.answer_tokens == 5, f"{answer.finish.answer_tokens} tokens were counted")
    return "5 tokens, then length"


async def seed(at: Setting) -> str:
    """The same seed gives the same answer, others give others; or the engine says that it honours none."""
    if "seed" not in at.client.chat.engine.describe().honours:
        return "not honoured, and the engine says so"
    said = []
    for number in (1, 1, 2, 3, 4):
        answer = await at.client.ask(QUESTION, temperature=2.0, max_new_tokens=40, seed=number)
        sure(answer.finish.seed == number, f"seed {answer.finish.seed} was reported for {number}")
        said.append(answer.text)
    sure(said[0] == said[1], "the same seed gave two answers")
    sure(len(set(said)) > 1, "different seeds gave the same answer")
    return f"the same answer twice, {len(set(said))} different ones of 4 seeds"


async def window(at: Setting) -> str:
    """A prompt that does not fit is refused by us or by the server, in words."""
    prompt = await at.client.chat.raw([1] * 1500)
    longer = Prompt(prompt.pieces * 2, prompt.template)
    try:
        async for _ in at.client.chat.stream_prompt(longer, Sampling(temperature=0, max_new_tokens=5)):
            pass
    except (PromptTooLong, EngineRefused) as refused:
        return str(refused)
    raise Wrong("3000 tokens went into a window of 2048")


def long_answer(at: Setting, most: int = 1800) -> Any:
    """A stream that goes on for long."""
    return at.client.stream(QUESTION, **at.endless, max_new_tokens=most)


async def some(stream: Any, count: int = 5) -> int:
    """Read a few tokens of a stream and leave it."""
    seen = 0
    async with aclosing(stream) as events:
        async for event in events:
            seen += isinstance(event, Token)
            if seen == count:
                break
    return seen


async def cancellation(at: Setting) -> str:
    """Who leaves in the middle of an answer stops the server's work on it."""
    if at.busy is None:
        return await _cancelled_by_time(at)
    async with aclosing(long_answer(at)) as events:
        seen = 0
        async for event in events:
            seen += isinstance(event, Token)
            if seen == 5:
                sure(await asyncio.to_thread(at.busy, at.url) == 1, "the server counts no running answer")
                break
    left = time.monotonic()
    while await asyncio.to_thread(at.busy, at.url):
        sure(time.monotonic() - left < SOON, f"the server still writes {SOON} seconds after everyone left")
        await asyncio.sleep(0.05)
    return f"the server's count of running answers fell to 0 after {1000 * (time.monotonic() - left):.0f} ms"


async def _cancelled_by_time(at: Setting) -> str:
    """A server that writes one answer after another: the next one comes at once only if the last one has ended."""
    began = time.monotonic()
    whole = await some(long_answer(at), 1800)
    seconds = time.monotonic() - began
    sure(seconds > 1, f"the long answer took {seconds:.1f} s: nothing can be told from it")
    await some(long_answer(at))
    left = time.monotonic()
    sure(await some(at.client.stream(QUESTION, **GREEDY), 1) == 1, "no answer came")
    waited, rest = time.monotonic() - left, seconds * (whole - 5) / whole
    sure(waited < rest / 2, f"the next answer waited {waited:.1f} s: the last was written to its end ({rest:.1f} s)")
    return f"the next answer began after {1000 * waited:.0f} ms; the rest of the one left would have taken {rest:.1f} s"


async def overload(at: Setting) -> str:
    """More people than there is room for: each gets the whole answer, or is told that the server is full."""
    reference = at.answers[1]["turns"][0]["text"]
    blocking = [asyncio.create_task(some(long_answer(at), 300)) for _ in range(2)]
    await asyncio.sleep(0.5)
    results = await asyncio.gather(*(at.client.ask(QUESTION, **GREEDY) for _ in range(16)), return_exceptions=True)
    sure(await asyncio.gather(*blocking) == [300, 300], "the answers that came first were not left alone")
    full = [result for result in results if isinstance(result, Overloaded)]
    for result in results:
        if not isinstance(result, Overloaded):
            sure(not isinstance(result, BaseException), f"{type(result).__name__}: {result}")
            sure(str(result) == reference, f"{str(result)!r}")
    turned_away = metric(at.url, "vllm:admission_rejections_total") if full else 0
    at.notes.append(f"overload: the server turned {turned_away:.0f} requests away; {full[0] if full else 'nobody'}")
    sure(full, "the server turned nobody away: the check proves nothing")
    return f"16 at once: {16 - len(full)} whole answers, {len(full)} told that the server is full"


def metric(url: str, name: str) -> float:
    """Return the sum of a metric in Prometheus' text format."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return sum(float(value) for value in re.findall(rf"^{re.escape(name)}(?:{{[^\n]*}})? (\S+)$", text, re.MULTILINE))
