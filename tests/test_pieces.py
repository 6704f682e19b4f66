"""What is remembered of messages: never more than allowed, and no prompt is another for it."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from conversations import NAMES, WIDE, says, spelled
from reference import LOOKALIKES, OWN, some_dialogue

from cierzo import prompt as prompts
from cierzo.errors import CierzoError
from cierzo.messages import Message, Prompt
from cierzo.pieces import MOST, SHORT, Memory, Segment
from cierzo.prompt import build
from cierzo.templates import Codec, codec, template

V3 = codec(template("v3"))


def asked(monkeypatch: pytest.MonkeyPatch, memory: Memory) -> Memory:
    monkeypatch.setattr(prompts, "REMEMBERED", memory)
    return memory


def some_messages(rng: random.Random, name: str) -> list[Message]:
    """A conversation of several dialogues; some answers with the ids of a model that spells, some with wrong ones."""
    turns = [turn for _ in range(rng.choice((1, 2, 6))) for turn in some_dialogue(rng, LOOKALIKES + OWN)]
    messages = says(*(turn for turn in turns[:-1] if turn[0] != "prefix"), turns[-1])
    wrong = tuple(codec(template(name)).encode("something else"))
    return [
        Message(m.role, m.text, rng.choice(((), wrong, tuple(codec(template(name)).encode(m.text)))))
        if m.role == "assistant" and m.text
        else m
        for m in messages
    ]


def everything(prompt: Prompt) -> tuple[object, ...]:
    return prompt, prompt.ids, prompt.pieces, [message.ids for message in prompt.kept]


def built(messages: list[Message], name: str, context: int) -> object:
    try:
        return everything(build(messages, name, context=context))
    except CierzoError as error:
        return type(error), str(error)


def test_prompts_are_the_same_with_and_without_a_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with one so small that it forgets in the middle of a prompt; every template in the same memory."""
    rng = random.Random("remembered")
    memories = (Memory(), Memory(most=500))
    cases = cut = 0
    for _ in range(60):
        messages = some_messages(rng, rng.choice(NAMES))
        for name in rng.sample(NAMES, 4):
            asked(monkeypatch, Memory(most=0))
            whole = len(build(messages, name, context=WIDE))
            context = rng.randrange(8, whole + 20)
            cut += context < whole
            fresh = built(messages, name, context)
            for memory in memories:
                asked(monkeypatch, memory)
                assert built(messages, name, context) == fresh
                assert built(messages, name, context) == fresh
                cases += 2
    print(f"{cases} prompts from memory, {cut} conversations cut, all as without")


def test_threads_share_a_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random("threads")
    asked(monkeypatch, Memory(most=0))
    jobs = [(some_messages(rng, name), name, rng.randrange(60, 400)) for name in NAMES for _ in range(12)]
    fresh = [built(*job) for job in jobs]
    memory = asked(monkeypatch, Memory(most=4_000))
    with ThreadPoolExecutor(8) as threads:
        for _ in range(4):
            assert list(threads.map(lambda job: built(*job), jobs)) == fresh
    assert sum(map(size, memory._known.items())) == memory._size <= 4_000


def test_two_threads_that_encode_the_same_at_once_count_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    both, original, memory = Barrier(2, timeout=10), Codec.user, Memory()

    def together(self: Codec, text: str) -> list[int]:
        both.wait()
        return original(self, text)

    monkeypatch.setattr(Codec, "user", together)
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(lambda text: memory.segment(V3, "user", text, (), True), ["Hi", "Hi"])
    assert one.ids == other.ids
    assert sum(map(size, memory._known.items())) == memory._size


def size(item: tuple[tuple[Codec, str, str, tuple[int, ...], bool], Segment]) -> int:
    (_, _, text, ids, _), segment = item
    return 64 + len(text) + len(ids) + len(segment.ids)


def test_everything_that_a_message_depends_on_tells_it_apart() -> None:
    memory = Memory()
    text = "Sí, claro"
    written = tuple(spelled(V3, text))
    seen = {
        memory.segment(known, role, text, ids, ends).ids
        for known, role, ids, ends in (
            (V3, "user", (), True),
            (V3, "assistant", (), True),
            (V3, "assistant", (), False),
            (V3, "assistant", written, True),
            (V3, "assistant", written, False),
            (codec(template("v1")), "user", (), True),
            (codec(template("v7")), "system", (), True),
        )
    }
    assert len(seen) == 7


def test_a_message_is_encoded_once_for_many_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [m for turn in range(300) for m in says(("user", f"Question {turn}"), ("assistant", f"Answer {turn}"))]
    memory = asked(monkeypatch, Memory())
    before = build([*messages, Message("user", "and now?")], "v3", context=2_048)
    seen: list[str] = []
    for method in ("user", "assistant"):
        original = getattr(Codec, method)

        def counted(self: Codec, text: str, original=original, **options: bool) -> list[int]:
            seen.append(text)
            return original(self, text, **options)

        monkeypatch.setattr(Codec, method, counted)
    now = build([*messages, *says(("user", "and now?"), ("assistant", "now"), ("user", "last"))], "v3", context=2_048)
    assert sorted(seen) == ["last", "now"]
    assert now.pieces[5] in before.pieces
    assert any(now.pieces[5] is piece for piece in before.pieces), "made again"
    assert len(memory._known) < len(messages), "what has no room was encoded"


def test_long_messages_are_not_remembered() -> None:
    memory = Memory()
    for text, ids in (("a" * (SHORT + 1), ()), ("a", (1,) * (SHORT + 1))):
        memory.segment(V3, "assistant", text, ids, True)
    assert not memory._known
    memory.segment(V3, "assistant", "a" * SHORT, (1,) * SHORT, True)
    assert len(memory._known) == 1


def test_the_longest_unused_are_forgotten_first() -> None:
    memory = Memory(most=1_000)
    for number in range(2_000):
        memory.segment(V3, "user", f"text {number}", (), True)
        memory.segment(V3, "user", "always asked", (), True)
    texts = [text for _, _, text, _, _ in memory._known]
    assert "always asked" in texts
    assert texts[-2:] == ["text 1999", "always asked"]
    assert len(texts) == 1_000 // (64 + 9 + 7)
    assert sum(map(size, memory._known.items())) == memory._size <= 1_000


def test_the_bound_is_what_the_docstring_says() -> None:
    """Of a text as costly as any, a token for each byte; as people write, it is less."""
    import tracemalloc  # noqa: PLC0415 - slows down what runs after its import in no other test

    memory = Memory(MOST // 8)
    tracemalloc.start()
    for number in range(400):
        memory.segment(V3, "user", f"{number}" + "🫠" * 400, (), True).pieces  # noqa: B018 - as a prompt asks for them
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert memory._size > MOST // 8 - 5_000
    print(f"{8 * used / 2**20:.0f} MB where every character takes four tokens")
    assert 8 * used < 60 * 2**20
