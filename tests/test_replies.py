"""Replies: one log for all who follow, stopped at any moment, ended exactly once whatever engine and store do."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from faults import FAULTS, ODD, Bad
from quick import quick_folder
from talking import Talk, talking, until

from cierzo import orphans, replies
from cierzo.engines.script import Reply
from cierzo.engines.scripted import Scripted
from cierzo.errors import Conflict, NotFound, Overloaded, StoreUnavailable
from cierzo.messages import Finish, Phase, Sampling, Token
from cierzo.orphans import Orphans
from cierzo.replies import End, Replies
from cierzo.store import AnswerStart, packing

WORDS = "uno dos tres cuatro cinco seis siete ocho nueve diez"
ENDLESS = Reply.of([" eco"], repeat=True, delay=0.005)


async def said_so_far(talk: Talk, answer: str, count: int) -> None:
    """Wait until an answer has said so many tokens."""
    async for number, _ in talk.follow(answer, owner=None):
        if number >= count:
            return


@pytest.fixture
def tmp_path() -> Generator[Path]:
    """Stands for pytest's own."""
    with tempfile.TemporaryDirectory(prefix="cierzo-", dir=quick_folder()) as folder:
        yield Path(folder)


@pytest.fixture
async def talk(tmp_path: Path) -> AsyncGenerator[Talk]:
    async with talking(tmp_path, Scripted(Reply.of(WORDS, delay=0.01))) as opened:
        yield opened


async def test_followed_from_every_number_while_it_is_written_and_after(talk: Talk) -> None:
    answer = (await talk.ask(talk.here, "cuenta", owner=None)).answer.id
    during = await asyncio.gather(*(talk.log(answer, after) for after in range(13)))
    whole = during[0]
    assert "".join(event.text for _, event in whole if isinstance(event, Token)) == WORDS
    assert [number for number, _ in whole] == list(range(1, 12))
    assert answer not in talk.replies
    for after in range(13):
        expected = whole[after:] or whole[-1:]
        assert during[after] == expected
        assert await talk.log(answer, after) == expected, "the store tells the same"
    assert await talk.log(answer, -5) == whole


async def test_a_follower_that_leaves_stops_nothing(talk: Talk) -> None:
    answer = (await talk.ask(talk.here, "cuenta", owner=None)).answer.id
    followers = [asyncio.create_task(talk.log(answer)) for _ in range(3)]
    await said_so_far(talk, answer, 3)
    followers[0].cancel()
    assert (await followers[1])[-1] == (await followers[2])[-1]
    assert await talk.text(answer) == WORDS


async def test_another_owner_sees_nothing(talk: Talk) -> None:
    answer = (await talk.ask(talk.here, "cuenta", owner=None)).answer.id
    for call in (talk.stop(answer, owner="ana"), anext(talk.follow(answer, owner="ana"))):
        with pytest.raises(NotFound):
            await call
    assert (await talk.end(answer)).reason == "eos_token"


async def test_a_phase_that_repeats_itself_is_logged_once(tmp_path: Path) -> None:
    said = [Phase("reading", 1, 9, 0.1), Phase("reading", 1, 9, 0.2), Phase("reading", 2, 9, 0.3), "a"]
    async with talking(tmp_path, Scripted(Reply.of(said))) as talk:
        log = await talk.log((await talk.ask(talk.here, "q", owner=None)).answer.id)
        assert [event.done for _, event in log if isinstance(event, Phase)] == [1, 2]


STOPS = ["waiting", "at once", "first", "middle", "last", "over", "twice"]


@pytest.mark.parametrize("moment", STOPS)
async def test_stopped_at_any_moment(tmp_path: Path, moment: str) -> None:
    engine = Scripted(
        Reply.of([" eco"], repeat=True, delay=0.02, when="sin fin"), Reply.of(WORDS, delay=0.02, first=0.05)
    )
    async with talking(tmp_path, engine, running=1) as talk:
        before = (await talk.ask(talk.here, "sin fin", owner=None)).answer.id if moment == "waiting" else ""
        answer = (await talk.ask(talk.here, "dos", owner=None, parent=None)).answer.id
        count = {"middle": 4, "twice": 4, "last": 10, "over": 11}.get(moment, 0)
        if moment == "first":
            await asyncio.sleep(0.02)
        elif count:
            await said_so_far(talk, answer, count)
        began = time.monotonic()
        stopped = await talk.stop(answer, owner=None)
        if moment == "twice":
            assert await talk.stop(answer, owner=None) == stopped
        assert engine.running == (moment == "waiting"), "the engine is free when stop returns"
        assert time.monotonic() - began < 5
        assert stopped.answer is not None
        assert stopped.answer.finish is not None
        ends = {"over": ["eos_token"], "last": ["eos_token", "stopped"]}
        assert stopped.answer.reason in ends.get(moment, ["stopped"])
        end = await talk.end(answer)
        assert (end.reason, end.finish) == (stopped.answer.reason, stopped.answer.finish)
        tokens = await talk.store.replies.tokens(answer, owner=None)
        assert stopped.text == "".join(token.text for token in tokens) == WORDS[: len(stopped.text)]
        assert end.finish.answer_tokens == len(tokens) >= max(0, count - 1)
        if before:
            assert (await talk.stop(before, owner=None)).text
        assert (talk.admission.running, talk.admission.waiting) == (0, 0)


async def test_stopping_frees_the_place_for_the_next(tmp_path: Path) -> None:
    async with talking(tmp_path, Scripted(ENDLESS), running=1) as talk:
        first, second = [(await talk.ask(talk.here, "q", owner=None, parent=None)).answer.id for _ in "12"]
        number, place = await anext(talk.follow(second, owner=None))
        assert (number, isinstance(place, Phase) and (place.name, place.done)) == (1, ("queued", 1))
        await talk.stop(first, owner=None)
        await said_so_far(talk, second, 3)
        finish = (await talk.stop(second, owner=None)).answer.finish  # type: ignore[union-attr] # it is one
        assert finish.timings.queue > 0


@pytest.mark.parametrize("fault", [*FAULTS, *ODD])
async def test_every_answer_ends_once_whatever_the_engine_does(tmp_path: Path, fault: str) -> None:
    engine: Any = {**FAULTS, **ODD}[fault]()
    async with talking(tmp_path, engine, running=1, silence=0.3 if "hangs" in fault else 60) as talk:
        answer = (await talk.ask(talk.here, "q", owner=None)).answer.id
        end = await talk.end(answer)
        message = await talk.store.conversations.message(answer, owner=None)
        assert message.answer is not None
        assert (message.answer.state, message.answer.reason) == ("done", end.reason)
        expected = {"says stopped": "stopped"}.get(fault, "failed" if fault in FAULTS else "eos_token")
        assert end.reason == expected
        assert bool(end.failure) == (expected == "failed")
        assert "secret" not in end.failure
        assert "\n" not in end.failure
        assert set(message.text) <= {"a", "b"}
        assert engine.running == 0
        assert (talk.admission.running, len(talk.replies)) == (0, 0)
        assert (await talk.log(answer))[-1][1] == end


def test_there_are_twenty() -> None:
    print(f"\n{len(FAULTS)} faults and {len(ODD)} oddities of engines, {len(STOPS)} moments to stop")
    assert len(FAULTS) == 27


async def swallows() -> AsyncGenerator[Any, None]:
    for _ in range(500):
        try:
            yield Token(5, "a")
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            pass


async def renames() -> AsyncGenerator[Any, None]:
    yield Token(5, "a")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        raise ValueError("not now") from None


async def hangs_while_it_closes() -> AsyncGenerator[Any, None]:
    try:
        yield Token(5, "a")
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(3)


@pytest.mark.parametrize("said", [swallows, renames, hangs_while_it_closes])
async def test_an_engine_that_does_not_want_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Any) -> None:
    monkeypatch.setattr(replies, "WIND_UP", 0.2)
    async with talking(tmp_path, Bad(said), running=1) as talk:
        answer = (await talk.ask(talk.here, "q", owner=None)).answer.id
        await said_so_far(talk, answer, 1)
        async with asyncio.timeout(3):
            stopped = await talk.stop(answer, owner=None)
        assert stopped.answer is not None
        assert stopped.answer.reason == "stopped"
        assert set(stopped.text) == {"a"}
        assert talk.admission.running == 0
        await until(lambda: not talk.replies._stuck)  # what is left of the engine bothers nobody
        assert await talk.text(answer) == stopped.text


class Broken:
    """Makes calls of the store fail: before they are made, or after, as a connection that breaks does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, talk: Talk, *names: str, late: bool = False) -> None:
        self.down, self.refused = True, 0
        for name in names:
            monkeypatch.setattr(talk.store.replies, name, self._wrapped(getattr(talk.store.replies, name), late=late))

    def _wrapped(self, call: Any, *, late: bool) -> Any:
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            if self.down:
                self.refused += 1
                if late:
                    await call(*args, **kwargs)
                raise StoreUnavailable("the database does not answer: try again", retry_after=1.0)
            return await call(*args, **kwargs)

        return wrapped


@pytest.mark.parametrize("late", [False, True])
async def test_a_store_that_is_away_for_a_while_loses_nothing(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, *, late: bool
) -> None:
    store = Broken(monkeypatch, talk, "log", "finish", late=late)
    answer = (await talk.ask(talk.here, "cuenta", owner=None)).answer.id
    following = asyncio.create_task(talk.end(answer))
    await said_so_far(talk, answer, 10)
    await until(lambda: store.refused >= 3)
    assert talk.admission.running == 0, "the engine is free for others meanwhile"
    assert not following.done()
    monkeypatch.setattr(replies, "PATIENCE", 0.1)
    with pytest.raises(StoreUnavailable, match="was stopped"):
        await talk.stop(answer, owner=None)
    store.down = False
    assert (await following).reason == "eos_token"
    assert await talk.text(answer) == WORDS


@pytest.mark.parametrize("late", [False, True])
async def test_a_question_whose_answer_could_not_begin_is_answered_when_it_is_sent_again(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, *, late: bool
) -> None:
    store = Broken(monkeypatch, talk, "begin", late=late)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await talk.ask(talk.here, "cuenta", owner=None, client_id="q")
    store.down = False
    asked = await asyncio.gather(*(talk.ask(talk.here, "cuenta", owner=None, client_id="q") for _ in range(5)))
    assert len({each.answer.id for each in asked}) == 1
    assert (await talk.end(asked[0].answer.id)).reason == "eos_token"
    tree = await talk.store.conversations.open(talk.here, owner=None)
    assert [message.text for message in tree.messages] == ["cuenta", WORDS]
    assert talk.admission.running == 0


async def test_an_answer_that_is_too_much_to_be_kept_ends_with_what_can_be(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MAX_INFLATED", 60)
    answer = (await talk.ask(talk.here, "cuenta", owner=None)).answer.id
    end = await talk.end(answer)
    assert (end.reason, end.finish) == ("interrupted", None)
    assert "at most 60 can be kept" in end.failure
    kept = await talk.text(answer)
    assert kept
    assert WORDS.startswith(kept)
    assert kept == "".join(token.text for token in await talk.store.replies.tokens(answer, owner=None))
    assert await talk.store.replies.unfinished() == ()


async def test_a_sender_that_is_cancelled_leaves_an_answer_that_is_written(talk: Talk) -> None:
    for number in range(8):
        asking = asyncio.create_task(talk.ask(talk.here, "cuenta", owner=None, parent=None, client_id=f"q{number}"))
        await asyncio.sleep(0.003 * number)
        asking.cancel()
        await asyncio.wait([asking])
        asked = await talk.ask(talk.here, "cuenta", owner=None, parent=None, client_id=f"q{number}")
        assert (await talk.end(asked.answer.id)).reason == "eos_token"
    tree = await talk.store.conversations.open(talk.here, owner=None)
    assert [message.text for message in tree.messages].count(WORDS) == 8
    assert len(tree.messages) == 16
    assert (talk.admission.running, talk.admission.waiting) == (0, 0)


async def test_what_is_said_is_stored_while_it_is_said(tmp_path: Path) -> None:
    async with talking(tmp_path, Scripted(Reply.of([" eco"], repeat=True, delay=0.02))) as talk:
        answer = (await talk.ask(talk.here, "q", owner=None)).answer.id
        stored = set()
        async for number, _ in talk.follow(answer, owner=None):
            if number % 10 == 0:
                page = await talk.store.replies.events(answer, owner=None)
                assert "".join(event.text for event in page.events if isinstance(event, Token)) == " eco" * page.logged
                stored.add(page.logged)
            if number == 100:
                break
        assert len(stored) >= 3, "two seconds of text, at most half a second in memory only"
        await talk.stop(answer, owner=None)


async def test_closing_with_grace_lets_answers_finish(tmp_path: Path) -> None:
    async with talking(tmp_path, Scripted(Reply.of(WORDS, delay=0.02))) as talk:
        answer = (await talk.ask(talk.here, "cuenta", owner=None)).answer.id
        following = asyncio.create_task(talk.end(answer))
        await said_so_far(talk, answer, 2)
        closing = asyncio.create_task(talk.replies.close(grace=20))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="is ending"):
            await talk.ask(talk.here, "y yo?", owner=None, parent=None)
        await closing
        assert (await following).reason == "eos_token"
        assert len((await talk.store.conversations.open(talk.here, owner=None)).messages) == 2


async def test_closing_without_grace_marks_answers_with_all_that_they_said(tmp_path: Path) -> None:
    async with talking(tmp_path, Scripted(ENDLESS), running=2) as talk:
        answers = [(await talk.ask(talk.here, "q", owner=None, parent=None)).answer.id for _ in range(3)]
        following = [asyncio.create_task(talk.log(answer)) for answer in answers]
        await asyncio.gather(*(said_so_far(talk, answer, 5) for answer in answers[:2]))
        await talk.replies.close(grace=0.05)
        for answer, log in zip(answers, await asyncio.gather(*following), strict=True):
            assert log[-1][1] == End("interrupted")
            assert await talk.text(answer) == " eco" * sum(isinstance(event, Token) for _, event in log)
            assert await talk.log(answer) == log


async def test_closing_does_not_wait_for_a_store_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "LAST", 0.3)
    async with talking(tmp_path, Scripted(ENDLESS)) as talk:
        answer = (await talk.ask(talk.here, "q", owner=None)).answer.id
        following = asyncio.create_task(talk.log(answer))
        await said_so_far(talk, answer, 5)
        store = Broken(monkeypatch, talk, "log", "finish", "interrupt")
        async with asyncio.timeout(5):
            await talk.replies.close()
            assert (await following)[-1][1] == End("interrupted")
        store.down = False


async def begun_by_another(talk: Talk, writer: str = "another") -> str:
    question = await talk.store.conversations.append(talk.here, owner=None, parent=None, role="user", text="q")
    start = AnswerStart("scripted", "m", Sampling(), template="v3", writer=writer)
    return (await talk.store.replies.begin(talk.here, owner=None, parent=question.message.id, start=start)).message.id


async def test_a_reply_of_another_process_is_followed_through_the_store(talk: Talk) -> None:
    answer = await begun_by_another(talk)
    following = asyncio.create_task(talk.log(answer))
    for number in range(4):
        await talk.store.replies.log(answer, [Token(number, f" {number}", -0.5)], after=number)
        await asyncio.sleep(0.1)
    await talk.store.replies.finish(answer, Finish("eos_token"), after=4, batch=[Token(9, ".", -0.5)])
    log = await following
    assert [number for number, _ in log] == [1, 2, 3, 4, 5, 6]
    assert "".join(event.text for _, event in log if isinstance(event, Token)) == " 0 1 2 3."
    assert isinstance(log[-1][1], End)


@asynccontextmanager
async def two(where: Path, *said: Any, **options: Any) -> AsyncGenerator[tuple[Talk, Talk]]:
    """Two services on one database; the first has an engine that says ``said``."""
    async with talking(where, Scripted(*said), **options) as one, talking(where) as other:
        yield one, other


@pytest.mark.parametrize("moment", ["queued", "silent", "speaking"])
async def test_a_reply_is_stopped_from_another_process(tmp_path: Path, moment: str) -> None:
    said = Reply.of("tarde", first=60) if moment == "silent" else ENDLESS
    async with two(tmp_path, said, running=1) as (one, other):
        before = (await one.ask(one.here, "q", owner=None)).answer.id
        answer = (await one.ask(one.here, "q", owner=None, parent=None)).answer.id if moment == "queued" else before
        if moment == "speaking":
            await said_so_far(other, answer, 5)
        began = time.monotonic()
        stopped = await other.stop(answer, owner=None)
        print(f"stopped after {time.monotonic() - began:.2f} s")
        assert time.monotonic() - began < 5
        assert stopped.answer is not None
        assert (stopped.answer.reason, stopped.answer.state) == ("stopped", "done")
        assert bool(stopped.text) == (moment == "speaking")
        assert one.chat.engine.running == (moment == "queued"), "the engine is free when stop returns"  # type: ignore[attr-defined] # the scripted one has it
        assert await other.log(answer) == await one.log(answer)
        assert await other.stop(answer, owner=None) == await one.stop(answer, owner=None) == stopped
        if moment == "queued":
            assert (await one.stop(before, owner=None)).text


async def test_whoever_stops_it_at_the_last_moment_gets_the_end_that_it_had(tmp_path: Path) -> None:
    async with two(tmp_path, Reply.of(WORDS, delay=0.001)) as (one, other):
        answers = [(await one.ask(one.here, "q", owner=None, parent=None)).answer.id for _ in range(4)]
        for answer in answers:
            stopped = await other.stop(answer, owner=None)
            assert stopped.answer is not None
            assert stopped.answer.reason in ("eos_token", "stopped")
            end = await one.end(answer)
            assert (end.reason, end.finish) == (stopped.answer.reason, stopped.answer.finish)


async def test_a_writer_that_does_not_stop_is_a_conflict(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "PATIENCE", 0.3)
    answer = await begun_by_another(talk)
    with pytest.raises(Conflict, match="stop it there"):
        await talk.stop(answer, owner=None)
    with pytest.raises(NotFound):
        await talk.stop(answer, owner="ana")
    assert await talk.store.replies.log(answer, [], after=0), "what was asked stays asked"


async def test_a_process_that_ends_lets_go_of_replies_of_others(tmp_path: Path) -> None:
    """Whoever followed one through it is told to come back, and goes on elsewhere without a gap."""
    async with two(tmp_path, ENDLESS) as (one, other):
        answer = (await one.ask(one.here, "q", owner=None)).answer.id
        seen: list[int] = []

        async def follow() -> None:
            async for number, event in other.follow(answer, owner=None):
                assert isinstance(event, Token)
                seen.append(number)

        following = asyncio.create_task(follow())
        await until(lambda: len(seen) >= 5)
        await other.replies.close()
        with pytest.raises(Overloaded, match="the answer goes on"):
            await following
        assert answer in one.replies
        await one.stop(answer, owner=None)
        rest = await one.log(answer, seen[-1])
        assert [*seen, *(number for number, _ in rest)] == list(range(1, rest[-1][0] + 1))
        assert (await other.log(answer))[-1] == rest[-1], "what is over is told all the same"


class Clock:
    """Stands for the module `time` in one file."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return time.time()


async def test_only_the_dead_are_interrupted(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A live writer is never taken for dead, even while this process, or the machine, stood still for an hour."""
    clock = Clock()
    monkeypatch.setattr(orphans, "time", clock)
    live, dead, mine = [await begun_by_another(talk, name) for name in ("live", "dead", "mine")]
    watch = Orphans(talk.store, {mine})
    await watch.look()
    clock.now += 3600
    await watch.look()
    assert len(await talk.store.replies.unfinished()) == 3, "one look after an hour is no hour of looking"
    for look in range(10):
        clock.now += 1
        await asyncio.sleep(0.11)
        await talk.store.replies.log(live, [], after=0)
        await watch.look()
        left = {each.message for each in await talk.store.replies.unfinished()}
        assert left == ({live, dead, mine} if look < 2 else {live, mine}), look
    assert await talk.end(dead) == End("interrupted")


async def test_one_damaged_log_does_not_keep_others_from_their_end(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(orphans, "time", clock)
    broken, whole = await begun_by_another(talk), await begun_by_another(talk)
    interrupt = talk.store.replies.interrupt

    async def fails(answer: str) -> bool:
        if answer == broken:
            raise ValueError("damaged")
        return await interrupt(answer)

    monkeypatch.setattr(talk.store.replies, "interrupt", fails)
    watch = Orphans(talk.store, ())
    for _ in range(10):
        clock.now += 1
        await watch.look()
    assert [each.message for each in await talk.store.replies.unfinished()] == [broken]
    assert (await talk.end(whole)).reason == "interrupted"


async def test_a_dead_writers_reply_is_interrupted_within_ten_seconds_and_can_be_continued(tmp_path: Path) -> None:
    async with talking(tmp_path, Scripted(" y sigo.")) as talk:
        answer = await begun_by_another(talk)
        await talk.store.replies.log(answer, [Token(5, "Dije", -0.5)], after=0)
        began = time.monotonic()
        talk.replies.start()
        assert await talk.end(answer) == End("interrupted")
        taken = time.monotonic() - began
        print(f"interrupted after {taken:.1f} s")
        assert taken < 10
        more = (await talk.go_on(answer, owner=None)).message
        assert (await talk.end(more.id)).reason == "eos_token"
        assert await talk.text(more.id) == "Dije y sigo."


async def test_a_live_reply_that_says_nothing_gives_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replies, "BEAT", 0.1)
    monkeypatch.setattr(replies, "FLUSH", 0.05)
    monkeypatch.setattr(orphans, "LOOK", 0.05)
    monkeypatch.setattr(orphans, "DEAD", 0.6)
    async with talking(tmp_path, Scripted(Reply.of("tarde", first=1.3))) as one, talking(tmp_path) as other:
        other.replies.start()
        answer = (await one.ask(one.here, "q", owner=None)).answer.id
        assert (await other.end(answer)).reason == "eos_token"


async def test_taken_for_dead_and_ended_by_another_it_says_the_same_end(talk: Talk) -> None:
    answer = (await talk.ask(talk.here, "cuenta", owner=None)).answer.id
    await said_so_far(talk, answer, 3)
    assert await talk.store.replies.interrupt(answer)
    assert (await talk.log(answer))[-1][1] == End("interrupted")
    assert (await talk.store.conversations.message(answer, owner=None)).answer.reason == "interrupted"  # type: ignore[union-attr] # it is one
    assert talk.chat.engine.running == 0  # type: ignore[attr-defined] # the scripted one has it


@pytest.mark.parametrize("purged", [False, True])
async def test_a_conversation_that_is_removed_while_it_is_answered(talk: Talk, *, purged: bool) -> None:
    answer = (await talk.ask(talk.here, "cuenta", owner=None)).answer.id
    await said_so_far(talk, answer, 3)
    await talk.store.conversations.delete(talk.here, owner=None)
    if purged:
        await talk.store.conversations.purge(older_than=0)
    await until(lambda: answer not in talk.replies)
    assert talk.chat.engine.running == 0  # type: ignore[attr-defined] # the scripted one has it
    if purged:
        with pytest.raises(NotFound):
            await talk.log(answer)
    else:
        await talk.store.conversations.restore(talk.here, owner=None)
        assert await talk.text(answer) == WORDS


async def test_what_is_counted(tmp_path: Path) -> None:
    counted: list[tuple[Any, ...]] = []

    class Counts:
        def began(self, seconds: float) -> None:
            counted.append(("began",))

        def ended(self, reason: str, tokens: int, decode: float, finish: Finish | None) -> None:
            counted.append((reason, tokens))

    async with talking(tmp_path, Scripted("uno dos"), telemetry=Counts()) as talk:
        await talk.end((await talk.ask(talk.here, "q", owner=None)).answer.id)
    assert counted == [("began",), ("eos_token", 2)]


def test_replies_say_how_many_there_are() -> None:
    assert len(Replies(None)) == 0  # type: ignore[arg-type] # nothing is asked of it
