"""Plain requests and answers in conversations take turns in one queue, and everybody who leaves it leaves room."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing

import httpx
import pytest
from following import Follower, begin
from serving import asking, slotted, until
from talking import talking
from test_leaving import ROUTES, request

from cierzo.api.work import Work, whole
from cierzo.engines.script import Reply, Wait
from cierzo.engines.scripted import Scripted
from cierzo.errors import Overloaded
from cierzo.messages import Finish, Sampling
from cierzo.telemetry import Telemetry

HANGING = Reply.of([Wait()])
ALL = [*ROUTES, ("/api/tokens", {"messages": [{"role": "user", "text": "Hola"}]})]


@pytest.fixture
def crowd():
    """Connections of clients who wait; closed at the end."""
    with ExitStack() as stack:
        yield stack


def wait_beside(server, crowd, path, body):
    """Send a request that gets a place in the queue, and return its connection."""
    queue = server.work.service.admission
    before = queue.waiting + queue.running
    connection = crowd.enter_context(request(server, path, body))
    until(lambda: queue.waiting + queue.running == before + 1)
    return connection


def asked(server, count):
    """The last question that the engine was asked, once it was asked so many."""
    until(lambda: len(server.engine.asked) == count)
    return server.engine.asked[-1].prompt.text


def test_a_flood_of_plain_requests_does_not_starve_a_conversation(live, crowd):
    server = live(slotted(1, HANGING))
    flood = [wait_beside(server, crowd, "/generate", {"inputs": f"plain {number}"}) for number in range(10)]
    _, reply = begin(server, "kept")
    assert Follower().follow(server.url, reply, until=1).events[0][2]["done"] == 2
    assert "plain 0" in asked(server, 1)
    for number, expected in enumerate(("plain 1", "kept")):
        flood[number].close()
        assert expected in asked(server, number + 2)
    server.post(f"/api/replies/{reply}/stop", None)
    assert "plain 2" in asked(server, 4)


def test_a_flood_of_conversations_does_not_starve_a_plain_request(live, crowd):
    server = live(slotted(1, HANGING))
    flood = [begin(server, f"kept {number}")[1] for number in range(6)]
    plain = wait_beside(server, crowd, "/v1/chat/completions", asking("plain"))
    for number, expected in enumerate(("kept 1", "plain")):
        server.post(f"/api/replies/{flood[number]}/stop", None)
        assert expected in asked(server, number + 2)
    plain.close()
    assert "kept 2" in asked(server, 4)


def test_whoever_leaves_while_waiting_leaves_room(live, crowd):
    server = live(slotted(1, HANGING), waiting=1)
    wait_beside(server, crowd, "/generate", {"inputs": "first"})
    for path, body in ALL:
        waiting = wait_beside(server, crowd, path, body)
        assert server.post(path, body).status_code == 429
        waiting.close()
        until(lambda: server.work.queued == 0)
    assert (server.work.running, len(server.engine.asked)) == (1, 1)
    assert f'cierzo_replies_total{{reason="cancelled"}} {len(ALL)}.0' in server.get("/metrics").text


def test_a_full_queue_says_on_every_plain_route_when_to_come_again(live, crowd):
    server = live(slotted(2, HANGING), waiting=3)
    begin(server, "kept")
    for _ in range(3):
        wait_beside(server, crowd, "/generate", {"inputs": "plain"})
    for path, body in ALL:
        refused = server.post(path, body)
        assert refused.status_code == 429, path
        assert int(refused.headers["Retry-After"]) >= 1
    metrics = server.get("/metrics").text
    for line in ("cierzo_slots 2.0", "cierzo_replies_running 2.0", "cierzo_queue_depth 2.0"):
        assert line in metrics
    assert server.get("/info").json()["max_concurrent_requests"] == 2 + 2
    assert server.get("/health").status_code == 200
    conversation = server.post("/api/conversations", {}).json()["id"]
    path = f"/api/conversations/{conversation}/messages"
    assert server.post(path, {"text": "the half of the places"}).status_code == 201
    assert server.post(path, {"text": "and no more", "parent": None}).status_code == 429
    crowd.close()
    until(lambda: server.work.queued == 0)
    assert server.post(path, {"text": "ahora sí", "parent": None}).status_code == 201


def test_the_wait_is_part_of_the_times_that_are_told(live, crowd):
    server = live(slotted(1, Reply.of([Wait()], when="hang"), Reply.of(["a"] * 3, delay=0.1)))

    def after_a_wait(path, body):
        first = wait_beside(server, crowd, "/generate", {"inputs": "hang"})
        with ThreadPoolExecutor(1) as other:
            answer = other.submit(server.post, path, body)
            until(lambda: server.work.queued == 1)
            time.sleep(0.5)
            first.close()
            return answer.result()

    headers = after_a_wait("/generate", {"inputs": "Hi"}).headers
    assert int(headers["x-queue-time"]) >= 450
    assert int(headers["x-inference-time"]) <= int(headers["x-total-time"]) - 450
    timings = after_a_wait(*ALL[-1]).json()["finish"]["timings"]
    assert timings["first_token"] >= timings["queue"] >= 0.45


async def opened(talk):
    async def opening(_chat, _telemetry):
        return talk

    work = Work(talk.chat, Telemetry())
    await work.open(opening)
    return work


async def test_who_reads_the_end_slowly_keeps_nobody_waiting(tmp_path):
    async with talking(tmp_path, Scripted("uno dos"), running=1) as talk:
        work = await opened(talk)
        async with aclosing(work.answer(talk.chat.hold(), await talk.chat.raw("Hi"), Sampling())) as answer:
            async for said in answer:
                assert work.running == (not isinstance(said, Finish))


async def test_a_client_that_leaves_while_the_server_cuts_is_not_told(tmp_path):
    async with talking(tmp_path, Scripted(Reply.of([Wait()])), running=1) as talk:
        work = await opened(talk)
        prompt = await talk.chat.raw("Hi")
        answers = [asyncio.create_task(whole(work.answer(talk.chat.hold(), prompt, Sampling()))) for _ in range(4)]
        while work.queued < 3 or not talk.chat.engine.running:  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.01)
        for answer in answers[::2]:
            answer.cancel()
        work.cut()
        work.cut()
        ends = await asyncio.gather(*answers, return_exceptions=True)
        assert [type(end).__name__ for end in ends] == ["CancelledError", "EngineDied"] * 2
        assert (work.running, work.queued, talk.chat.engine.running) == (0, 0, 0)


async def test_a_request_that_comes_while_the_program_ends_takes_no_place(tmp_path):
    async with talking(tmp_path) as talk:
        work = await opened(talk)
        await talk.replies.close()
        with pytest.raises(Overloaded, match="is ending"):
            await whole(work.answer(talk.chat.hold(), await talk.chat.raw("Hi"), Sampling()))
        assert (work.running, talk.chat.engine.asked) == (0, deque())


def test_plain_answers_that_wait_get_their_turn_within_the_grace(live):
    server = live(slotted(1, Reply.of([Wait(5), "aaa"]), Reply.of(["aaa"])), grace=60)
    with ThreadPoolExecutor(4) as people:
        answers = people.map(lambda _: server.post("/generate", {"inputs": "Hi"}), range(4))
        until(lambda: server.work.queued == 3)
        server.server.should_exit = True
        assert [answer.json() for answer in answers] == [{"generated_text": "aaa"}] * 4


@pytest.mark.parametrize("forced", [False, True])
def test_plain_answers_that_wait_are_cut_when_the_server_ends(live, forced):
    server = live(slotted(1, HANGING), grace=60 if forced else 0.3)
    with ThreadPoolExecutor(len(ALL)) as people:
        answers = people.map(lambda route: httpx.post(server.url + route[0], json=route[1], timeout=60), ALL)
        until(lambda: server.work.queued == len(ALL) - 1)
        server.server.should_exit = True
        if forced:
            until(lambda: server.work.draining)
            server.server.force_exit = True
        for answer in answers:
            assert answer.status_code in (424, 502)
            assert "the server is ending" in json.dumps(answer.json()["error"])
    server.thread.join(30)
    assert (server.work.running, server.work.queued, server.engine.running) == (0, 0, 0)
    assert len(server.engine.asked) == 1, "nobody who waited got a turn from those who were cut"
