"""Conversations over HTTP, from the first question to the bin and back."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from following import Follower, begin
from pace import Pace
from serving import asking, slotted, until

from cierzo.engines.script import Reply, Wait
from cierzo.engines.scripted import Scripted
from cierzo.errors import StoreUnavailable

ENDLESS = Reply.of(["uno ", "dos "], repeat=True, delay=0.005)


def followed(server, reply):
    return Follower().follow(server.url, reply)


HERE = "/api/conversations/mine"
SAMPLING = {"temperature": 0, "max_new_tokens": 40, "alternatives": 3}


def test_the_whole_life_of_a_conversation(demo):
    made = demo.post("/api/conversations", {"id": "mine"})
    assert made.status_code == 201
    assert demo.post("/api/conversations", {"id": "mine"}).json() == made.json()
    question, first = _asks(demo)
    longer = _goes_on(demo, question, first)
    pair = _compares(demo)
    _tidies(demo, first, longer, pair["question"]["id"])
    roles = [message["role"] for message in demo.get(HERE).json()["messages"]]
    assert (roles.count("user"), roles.count("assistant")) == (3, 7)


def _asks(demo):
    _, reply = begin(demo, "¿Quién eres?", "mine", client_id="q1", sampling=SAMPLING)
    client = followed(demo, reply)
    assert client.whole()
    assert client.end["finish"]["answer_tokens"] == len([1 for _, name, _ in client.events if name == "token"])
    tree = demo.get(HERE).json()
    assert tree["conversation"]["title"] == "¿Quién eres?"
    question, answer = tree["messages"]
    assert answer["text"] == client.text
    assert answer["answer"]["model_hash"]
    assert answer["answer"]["sampling"]["alternatives"] == 3
    assert answer["answer"]["finish"]["timings"]["first_token"] > 0

    inside = demo.get(f"/api/replies/{reply}").json()
    assert inside["message"] == answer
    assert "".join(token["text"] for token in inside["tokens"]) == client.text
    assert all(len(token["alternatives"]) == 3 for token in inside["tokens"])
    assert inside["prompt"]["text"] == "<s>[INST] ¿Quién eres?[/INST]"
    assert [i for piece in inside["prompt"]["pieces"] for i in piece["ids"]] == inside["prompt"]["ids"]
    streamed = [data for _, name, data in client.events if name == "token"]
    for one, other in zip(streamed, inside["tokens"], strict=True):
        assert one["id"] == other["id"]
        assert one["logprob"] == pytest.approx(other["logprob"], abs=6e-4)

    unstored = demo.post("/api/tokens", {"messages": [{"role": "user", "text": "¿Quién eres?"}], "sampling": SAMPLING})
    assert unstored.json()["text"] == client.text
    assert unstored.json()["prompt"]["ids"] == inside["prompt"]["ids"]
    return question["id"], reply


def _goes_on(demo, question, first):
    preview = demo.post("/api/prompt", {"conversation": "mine", "text": "¿Y qué sabes hacer?"}).json()
    _, second = begin(demo, "¿Y qué sabes hacer?", "mine", sampling={"max_new_tokens": 5, "seed": 7})
    assert demo.get(f"/api/replies/{second}").json()["prompt"]["ids"] == preview["ids"]
    assert (preview["kept"], preview["dropped"]) == (3, 0)
    cut = followed(demo, second)
    assert (cut.end["reason"], cut.end["finish"]["seed"]) == ("length", 7)
    longer = demo.post(f"/api/replies/{second}/continue", {"sampling": {"max_new_tokens": 4, "seed": 7}})
    assert longer.status_code == 201
    assert longer.json()["answer"]["continues"] == second
    assert followed(demo, longer.json()["id"]).text.startswith(cut.text)

    other = demo.get(f"/api/replies/{first}").json()["tokens"][0]["alternatives"][1]
    turn = {"at": 0, "token": other["id"], "client_id": "turn", "sampling": {"max_new_tokens": 3}}
    turned = demo.post(f"/api/replies/{first}/continue", turn).json()
    assert followed(demo, turned["id"]).events[0][2]["id"] == other["id"]
    repeated = demo.post(f"/api/replies/{first}/continue", turn)
    assert (repeated.status_code, repeated.json()["id"]) == (200, turned["id"])
    again = demo.post(f"/api/messages/{question}/again", {"sampling": {"max_new_tokens": 3}}).json()
    assert (again["parent"], again["position"]) == (question, 2)
    followed(demo, again["id"])
    return longer.json()["id"]


def _compares(demo):
    edited = {"text": "¿Quién eres tú?", "parent": None, "against": {"temperature": 0}, "sampling": SAMPLING}
    pair = demo.post(f"{HERE}/messages", edited).json()
    assert (pair["question"]["parent"], pair["question"]["position"]) == (None, 1)
    assert len(pair["answers"]) == 2
    assert all(followed(demo, each["id"]).whole() for each in pair["answers"])
    return pair


def _tidies(demo, first, longer, edited):
    changed = demo.patch(HERE, {"title": "Quién", "pinned": True, "archived": True, "head": first}).json()
    assert (changed["title"], changed["pinned"], changed["archived"]) == ("Quién", True, True)
    assert changed["head"] == longer
    assert changed == demo.get(HERE).json()["conversation"]
    assert [each["id"] for each in demo.get("/api/conversations?archived=true").json()["conversations"]] == ["mine"]
    hits = demo.get("/api/search", params={"q": "quien tu"}).json()["hits"]
    assert edited in {hit["message"] for hit in hits}
    assert any(part["match"] for hit in hits for part in hit["snippet"])

    assert demo.delete(HERE).json()["deleted"]
    assert demo.get("/api/search", params={"q": "quien tu"}).json() == {"hits": [], "before": None}
    assert demo.post(f"{HERE}/messages", {"text": "Hola"}).status_code == 404
    assert [each["id"] for each in demo.get("/api/conversations?deleted=true").json()["conversations"]] == ["mine"]
    assert demo.post(f"{HERE}/restore", None).json()["deleted"] is None


def test_sent_twenty_times_at_once_it_is_there_once_and_answered_once(live):
    server = live(Scripted(Reply.of("uno dos tres", delay=0.02)))
    conversation = server.post("/api/conversations", {}).json()["id"]
    path = f"/api/conversations/{conversation}/messages"
    body = {"text": "Hola", "client_id": "once", "system": "Sé breve."}
    with ThreadPoolExecutor(20) as people:
        answers = list(people.map(lambda _: server.post(path, body), range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.json()["question"]["id"] for answer in answers}) == 1
    reply = {answer.json()["answers"][0]["id"] for answer in answers}
    assert len(reply) == 1
    assert followed(server, reply.pop()).text == "uno dos tres"
    there = server.get(f"/api/conversations/{conversation}").json()["messages"]
    assert [message["role"] for message in there] == ["system", "user", "assistant"]
    assert len(server.engine.asked) == 1
    other = server.post(path, {**body, "text": "Adiós"})
    assert (other.status_code, other.json()["error"]["type"]) == (409, "Conflict")


def test_another_answer_and_a_longer_one_asked_for_twice_are_there_once(live):
    server = live(Scripted(Reply.of("uno dos tres", delay=0.02)))
    conversation, reply = begin(server, sampling={"max_new_tokens": 2})
    assert followed(server, reply).end["reason"] == "length"
    for path in (f"/api/messages/{reply}/again", f"/api/replies/{reply}/continue"):
        body = {"client_id": path[-8:].strip("/"), "sampling": {"max_new_tokens": 5}}
        with ThreadPoolExecutor(5) as people:
            answers = list(people.map(lambda _, path=path, body=body: server.post(path, body), range(5)))
        assert sorted(answer.status_code for answer in answers) == [200] * 4 + [201]
        assert len({answer.json()["id"] for answer in answers}) == 1
        followed(server, answers[0].json()["id"])
        assert server.post(path, body).status_code == 200
        assert server.post(path, {**body, "client_id": None}).status_code == 201
    there = server.get(f"/api/conversations/{conversation}").json()["messages"]
    assert [message["role"] for message in there].count("assistant") == 1 + 2 * 2
    described = server.get("/openapi.json").json()["paths"]
    for path in ("/api/messages/{message}/again", "/api/replies/{reply}/continue"):
        given = described[path]["post"]["responses"]
        assert given["200"]["content"] == given["201"]["content"]


def test_stopping_frees_the_slot_and_keeps_the_text(live):
    server = live(Scripted(ENDLESS))
    _, reply = begin(server, sampling={"max_new_tokens": 100_000})
    client = Follower().follow(server.url, reply, until=20)
    assert server.engine.running == 1  # the one who followed has left, and the answer goes on
    with Pace() as pace:
        stopping = httpx.post(f"{server.url}/api/replies/{reply}/stop", timeout=60)
        assert server.engine.running == 0
    assert stopping.elapsed.total_seconds() < 1.0 * pace.factor
    message = stopping.json()
    client.follow(server.url, reply)
    assert client.whole()
    assert (client.text, client.end["reason"]) == (message["text"], "stopped")
    assert len(message["text"]) > 20 * 4 - 8
    assert server.post(f"/api/replies/{reply}/stop", None).json() == message
    assert not server.work.service.admission.running


def test_a_full_queue_says_when_to_come_again_and_stores_nothing(live):
    server = live(slotted(1, Reply.of([Wait()])), waiting=12)
    conversation, reply = begin(server)
    path = f"/api/conversations/{conversation}/messages"
    sent = 1
    while (answer := server.post(path, {"text": f"{sent}", "parent": None})).status_code == 201:
        sent += 1
    assert (sent, answer.status_code, answer.json()["error"]["type"]) == (1 + 6, 429, "Overloaded")
    assert int(answer.headers["Retry-After"]) >= 1
    assert server.get(f"/api/conversations/{conversation}").json()["conversation"]["messages"] == 2 * sent
    metrics = server.get("/metrics").text
    assert f"cierzo_queue_depth {sent - 1}.0" in metrics
    assert "cierzo_replies_running 1.0" in metrics
    waiting = server.get(f"/api/conversations/{conversation}").json()["messages"][-1]["id"]
    assert Follower().follow(server.url, waiting, until=1).events[0][2]["done"] == sent - 1
    server.post(f"/api/replies/{reply}/stop", None)
    assert server.post(path, {"text": "ahora sí", "parent": None}).status_code == 201


def test_an_answer_that_is_not_stored_stops_when_its_client_leaves(live):
    server = live(Scripted(ENDLESS))
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/api/tokens", json=asking_tokens(max_new_tokens=100_000), timeout=0.5)
    until(lambda: server.engine.running == 0)
    assert server.get("/api/conversations").json() == {"conversations": [], "after": None}


def asking_tokens(**sampling):
    return {"messages": [{"role": "user", "text": "Hola"}], "sampling": sampling}


def test_what_does_not_exist_is_404_in_our_own_words(echo):
    paths = [("GET", "/api/conversations/x"), ("DELETE", "/api/conversations/x"), ("GET", "/api/replies/x")]
    paths += [
        ("GET", "/api/conversations/x/state"),
        ("POST", "/api/conversations/x/restore"),
        ("GET", "/api/replies/x/events"),
        ("POST", "/api/replies/x/stop"),
    ]
    paths += [("GET", "/api/replies/%00%0a"), ("GET", "/api/"), ("GET", "/api/conversations/%F0%9F%99%82")]
    for method, path in paths:
        answer = httpx.request(method, echo.url + path, timeout=60)
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "NotFound"), path
        assert answer.json()["error"]["message"].count("\n") == 0


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("conversations", {"title": "x" * 301}, "title"),
        ("conversations", {"owner": "me"}, "owner"),
        ("conversations", {"id": "a b"}, "id"),
        ("conversations", [], "JSON object"),
        ("prompt", {}, "messages"),
        ("prompt", {"messages": [], "text": "x"}, "messages"),
        ("prompt", {"messages": [{"role": "tool", "text": "x"}]}, "messages.0.role"),
        ("prompt", {"messages": [{"role": "user", "text": "a\0b"}]}, "NUL"),
        ("tokens", asking_tokens(temperature=9), "sampling.temperature"),
        ("tokens", asking_tokens(stop=["\0"]), "NUL"),
        ("tokens", asking_tokens(alternatives=21), "sampling.alternatives"),
    ],
)
def test_what_is_wrong_is_named(echo, path, body, word):
    answer = echo.post(f"/api/{path}", body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert word in error["message"]
    assert error["type"] in ("BadInput", "BadText", "BadSampling")


def test_refused_questions_leave_nothing(live):
    server = live(Scripted("Hola."))
    conversation, reply = begin(server)
    followed(server, reply)
    path = f"/api/conversations/{conversation}"
    before = server.get(path).json()
    refused = [
        ({"text": ""}, 400),
        ({"text": "a\0b"}, 400),
        ({"text": "Hola", "parent": "x"}, 404),
        ({"text": "Hola", "parent": ""}, 400),
        ({"text": "Hola", "system": "a\0b"}, 400),
        ({"text": "palabra " * 20_000}, 413),
    ]
    for body, status in refused:
        assert server.post(f"{path}/messages", body).status_code == status, body
    assert server.post(f"/api/replies/{before['messages'][0]['id']}/stop", None).status_code == 404
    assert server.patch(path, {"title": "x", "head": "x"}).status_code == 404
    assert server.patch(path, {"title": "a\0b", "head": reply}).status_code == 400
    assert server.get(path).json() == before


def test_a_branch_becomes_a_conversation_of_its_own(live):
    server = live(Scripted(Reply.of("uno dos tres")))
    conversation, first = begin(server, system="Sé breve.", sampling={"alternatives": 2})
    followed(server, first)
    second = server.post(f"/api/messages/{first}/again", {}).json()["id"]
    followed(server, second)
    _, third = begin(server, "¿Y después?", conversation)
    followed(server, third)
    path = f"/api/messages/{first}/fork"
    made = server.post(path, {"id": "copy"})
    assert (made.status_code, made.json()["title"], made.json()["messages"]) == (201, "Hola", 3)
    again = server.post(path, {"id": "copy"})
    assert (again.status_code, again.json()) == (200, made.json())
    assert server.get("/api/conversations/copy/state").json() == made.json()
    copied = server.get("/api/conversations/copy").json()["messages"]
    original = server.get(f"/api/conversations/{conversation}").json()["messages"]
    assert [message["text"] for message in copied] == ["Sé breve.", "Hola", "uno dos tres"]
    assert copied[-1]["answer"] == original[2]["answer"]
    inside, there = (server.get(f"/api/replies/{each}").json() for each in (copied[-1]["id"], first))
    assert (inside["tokens"], inside["prompt"]) == (there["tokens"], there["prompt"])
    assert not {message["id"] for message in copied} & {message["id"] for message in original}
    assert original == server.get(f"/api/conversations/{conversation}").json()["messages"]
    begin(server, "¿Y aquí?", "copy")
    newest = server.get("/api/conversations").json()["conversations"]
    assert [each["id"] for each in newest] == ["copy", conversation]
    assert server.post(path, {}).json()["id"] not in ("copy", conversation)
    for taken in (conversation, "other"):
        server.post("/api/conversations", {"id": "other"})
        assert server.post(path, {"id": taken}).status_code == 409
    assert server.post("/api/messages/x/fork", {}).status_code == 404
    server.delete(f"/api/conversations/{conversation}")
    assert server.post(path, {}).status_code == 404


def test_an_answer_that_is_being_written_cannot_be_copied(live):
    server = live(Scripted(ENDLESS))
    conversation, reply = begin(server, sampling={"max_new_tokens": 100_000})
    refused = server.post(f"/api/messages/{reply}/fork", {})
    assert (refused.status_code, refused.json()["error"]["type"]) == (409, "Conflict")
    assert "still being written" in refused.json()["error"]["message"]
    question = server.get(f"/api/conversations/{conversation}").json()["messages"][0]["id"]
    assert server.post(f"/api/messages/{question}/fork", {}).json()["messages"] == 1
    server.post(f"/api/replies/{reply}/stop", {})
    assert server.post(f"/api/messages/{reply}/fork", {}).status_code == 201
    assert len(server.get("/api/conversations").json()["conversations"]) == 3


def test_looking_for_news_is_cheap(live):
    server = live(Scripted(Reply.of("uno dos tres")))
    conversation, reply = begin(server)
    path = f"/api/conversations/{conversation}/state"
    followed(server, reply)
    before = server.get(path).json()
    assert before == server.get(f"/api/conversations/{conversation}").json()["conversation"]
    assert before == server.get(path).json()
    _, newer = begin(server, "¿Y?", conversation)
    after = server.get(path).json()
    assert (after["head"], after["messages"]) == (newer, 4)
    assert after["updated"] > before["updated"]


def test_a_speed_is_told_only_where_it_was_measured(live):
    server = live(Scripted(Reply.of(["a "] * 30), Reply.of(["a "] * 30, delay=0.01)))
    told = []
    for _ in range(2):
        conversation, reply = begin(server)
        finish = followed(server, reply).end["finish"]
        answer = server.get(f"/api/conversations/{conversation}").json()["messages"][-1]["answer"]
        assert (answer["finish"], finish["kept"]) == (finish, 0)
        decode = finish["timings"]["decode"]
        assert finish["rate"] == (pytest.approx(29 / decode) if decode >= 0.1 else None)
        told.append(finish["rate"])
    assert told[1] is not None
    assert told[1] < 120


def test_what_the_window_left_out_is_counted(live):
    server = live(Scripted(Reply.of("bien")))
    long = "palabra " * 2500
    conversation, first = begin(server, long, system="Sé breve.")
    followed(server, first)
    _, second = begin(server, long, conversation)
    followed(server, second)
    again = server.post(f"/api/messages/{second}/again", {}).json()
    followed(server, again["id"])
    longer = server.post(f"/api/replies/{second}/continue", {"at": 1}).json()
    followed(server, longer["id"])
    shown = server.get(f"/api/conversations/{conversation}").json()["messages"]
    told = {message["id"]: message["answer"]["dropped"] for message in shown if message["answer"]}
    assert told == {first: 0, second: 2, again["id"]: 2, longer["id"]: 2}


def test_pages_of_a_list(live):
    server = live(Scripted("Hola."))
    made = [server.post("/api/conversations", {"title": f"{number}"}).json()["id"] for number in range(5)]
    got, after = [], None
    for _ in range(math.ceil(5 / 2)):
        page = server.get("/api/conversations", params={"limit": 2, **({"after": after} if after else {})}).json()
        got += [each["id"] for each in page["conversations"]]
        after = page["after"]
    assert (got, after) == (made[::-1], None)
    assert server.get("/api/conversations?after=x").status_code == 400
    assert server.get("/api/conversations?limit=0").status_code == 400


def test_the_door_holds_for_our_own_routes_too(echo):
    large = httpx.post(f"{echo.url}/api/conversations", content=b"x" * 2_000_001, timeout=60)
    assert (large.status_code, large.json()["error"]["type"]) == (413, "Refused")
    foreign = echo.get("/api/conversations", headers={"Origin": "http://example.org"})
    assert (foreign.status_code, foreign.json()["error"]["type"]) == (403, "Refused")
    named = echo.get("/api/conversations", headers={"Host": "example.org"})
    assert (named.status_code, named.json()["error"]["type"]) == (400, "Refused")
    form = httpx.post(f"{echo.url}/api/conversations", data={"title": "x"}, timeout=60)
    assert (form.status_code, form.json()["error"]["type"]) == (400, "BadInput")
    wrong = httpx.put(f"{echo.url}/api/conversations", timeout=60)
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (405, "Refused")


def test_ready_asks_the_database(live, monkeypatch):
    server = live(Scripted("Hola."))
    assert server.get("/ready").json()["status"] == "ready"
    assert server.post("/v1/chat/completions", asking()).status_code == 200

    async def gone():
        raise StoreUnavailable("the database does not answer: try again in a moment", retry_after=2)

    monkeypatch.setattr(server.work.service.store, "ready", gone)
    ready = server.get("/ready")
    assert (ready.status_code, ready.json()["status"]) == (503, "failed")
    assert "database" in ready.json()["detail"]


def test_requests_are_counted_by_route_and_never_by_id(live):
    server = live(Scripted("Hola."))
    conversation, reply = begin(server, "s3cret")
    followed(server, reply)
    server.get(f"/api/conversations/{conversation}")
    server.get("/api/s3cret")
    metrics = server.get("/metrics").text
    for route in ("/api/conversations/{conversation}", "/api/replies/{reply}/events"):
        assert f'cierzo_requests_total{{route="{route}",status="200"}} 1.0' in metrics
    assert 'cierzo_replies_total{reason="eos_token"} 1.0' in metrics
    assert conversation not in metrics
    assert reply not in metrics
    assert "s3cret" not in metrics
