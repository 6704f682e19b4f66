"""What answers, told and changed by the API on the real engine: nothing that runs is cut, no process stays behind."""

from __future__ import annotations

import asyncio
import shutil
import threading
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
from gguf_files import write
from serving import Live, data_of, slotted, until

from cierzo import catalog, switching
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.engines.script import Reply
from cierzo.engines.scripted import Scripted
from cierzo.machine import Machine, machine
from cierzo.messages import Sampling
from cierzo.settings import Settings

GREEDY = {"temperature": 0, "max_new_tokens": 48}
QUESTION = "¿Cuál es tu ingrediente favorito?"


def demo_file() -> Path:
    path = catalog.find("cierzo-demo", Settings.load().home).path
    if path is None:
        pytest.skip("the demo model is not in this checkout")
    return path


@pytest.fixture(scope="module")
def server():
    """The demo model, with a second copy of it under another name and a damaged one beside it."""
    file = demo_file()
    made = Live(LlamaCpp(catalog.find("cierzo-demo", file), slots=1, threads=1), settings={"slots": 1, "threads": 1})
    folder = Path(made.home.name) / "models"
    folder.mkdir()
    shutil.copy(file, folder / "segunda.gguf")
    (folder / "rota.gguf").write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    write(folder / "hueca.gguf", tensors=False)  # its head is sound: only llama.cpp finds that there is nothing below
    until(lambda: made.get("/ready").json()["status"] == "ready", 60)
    yield made
    made.close()


OTHERS: set[psutil.Process] = set()
"""Processes of engines that other files' tests share."""


@pytest.fixture(scope="module", autouse=True)
def _others():
    OTHERS.update(psutil.Process().children(recursive=True))


def children() -> dict[int, str]:
    """The engines' processes below this one that are of this file, with the model that each has open."""
    found = {}
    for child in psutil.Process().children(recursive=True):
        if child in OTHERS:
            continue
        try:
            files = [Path(each.path) for each in child.memory_maps() if each.path.endswith(".gguf")]
        except psutil.Error:
            continue
        if files:
            found[child.pid] = files[0].stem
    return found


def the_one() -> int:
    """The process of the one engine that is left, once those before it have ended."""
    until(lambda: len(children()) == 1, 20)
    return next(iter(children()))


def change(server, **asked):
    return server.put("/api/engine", asked)


def begin(server, text=QUESTION, **more):
    here = server.post("/api/conversations", {}).json()["id"]
    body = {"text": text, "sampling": {**GREEDY, **more}}
    return server.post(f"/api/conversations/{here}/messages", body).json()["answers"][0]["id"]


def ended(server, reply):
    until(lambda: server.get(f"/api/replies/{reply}").json()["message"]["answer"]["state"] == "done", 60)
    message = server.get(f"/api/replies/{reply}").json()["message"]
    return message["text"], message["answer"]


def test_eight_answers_end_where_they_began(server, monkeypatch):
    whole, answer = ended(server, begin(server))
    assert (answer["reason"], answer["model"]) == ("eos_token", "cierzo-demo")
    old = the_one()
    service, begun, under_way = server.work.service, [], []
    tried, turn_to = service.switch._try, service.switch._turn_to

    async def tried_then_asked(speaker):
        """The new engine is ready: the very moment before the change, eight questions come."""
        rooms = [(await service.store.conversations.create(owner=None)).id for _ in range(8)]
        await tried(speaker)
        asking = [service.ask(here, QUESTION, owner=None, sampling=Sampling(**GREEDY)) for here in rooms]
        begun.extend(asked.answer.id for asked in await asyncio.gather(*asking))

    def turn(engine):
        under_way.append(len(service.replies))
        return turn_to(engine)

    monkeypatch.setattr(service.switch, "_try", tried_then_asked)
    monkeypatch.setattr(service.switch, "_turn_to", turn)
    told = change(server, model="segunda")
    begun += [begin(server) for _ in range(3)]
    assert told.status_code == 200, told.text
    assert (told.json()["chosen"], told.json()["changing"]) == ("segunda", None)
    answers = [ended(server, each) for each in begun]
    assert {text for text, _ in answers} == {whole}
    assert {answer["reason"] for _, answer in answers} == {"eos_token"}
    assert [Path(answer["model"]).stem for _, answer in answers] == ["cierzo-demo"] * 8 + ["segunda"] * 3
    assert under_way[0] >= 2
    print(f"\n{under_way[0]} answers under way at the change")
    until(lambda: not psutil.pid_exists(old), 20)
    assert list(children().values()) == ["segunda"]
    model = server.get("/api/engine").json()["model"]
    assert Path(model).stem == "segunda"
    assert server.get("/v1/models").json()["data"][0]["id"] == model
    assert server.get("/info").json()["model_id"] == server.get("/ready").json()["model"] == model
    assert f'cierzo_engine_info{{engine="llamacpp",model="{model}"}} 1.0' in server.get("/metrics").text
    until(lambda: server.work.chat.model_hash, 20)
    (hashed, answer) = ended(server, begin(server))
    assert (hashed, answer["model_hash"]) == (whole, server.work.chat.model_hash)
    assert change(server, model="cierzo-demo").json()["chosen"] == "cierzo-demo"


@pytest.mark.parametrize("name", ["rota", "hueca"])
def test_a_damaged_file_leaves_what_answers(server, name):
    old = the_one()
    running = begin(server)
    refused = change(server, model=name)
    assert refused.status_code == 422, refused.text
    assert refused.json()["error"]["type"] == "ModelUnreadable"
    assert f"{name}.gguf" in refused.json()["error"]["message"]
    assert ended(server, running)[1]["reason"] == "eos_token"
    assert children() == {old: "cierzo-demo"}
    said = server.get("/api/engine").json()
    assert (said["chosen"], said["model"], said["changing"]) == ("cierzo-demo", "cierzo-demo", None)


def test_where_two_do_not_fit_the_old_one_goes_first(server, monkeypatch):
    has = machine()
    monkeypatch.setattr(switching, "machine", lambda: Machine(**{**asdict(has), "free_memory": 1}))
    old = the_one()
    slow = begin(server, text="hola " * 300, max_new_tokens=400)
    refused = change(server, model="segunda")
    assert (refused.status_code, refused.json()["error"]["type"]) == (507, "NotEnoughMemory")
    assert "1 answer is under way" in refused.json()["error"]["message"]
    server.post(f"/api/replies/{slow}/stop", {})
    until(lambda: not server.work.chat.held)
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(begin(server)))
    asking.start()
    told = change(server, model="segunda")
    if told.status_code == 507:  # the question was faster
        asking.join()
        ended(server, answers[0])
        told = change(server, model="segunda")
    assert told.status_code == 200, told.text
    assert not psutil.pid_exists(old)
    asking.join()
    assert ended(server, answers[0])[1]["reason"] == "eos_token"
    second = the_one()
    assert change(server, model="hueca").status_code == 422
    assert not psutil.pid_exists(second)
    assert server.get("/api/engine").json()["chosen"] == "segunda", "it was opened again"
    assert Path(ended(server, begin(server))[1]["model"]).stem == "segunda"
    assert list(children().values()) == ["segunda"]
    assert change(server, model="cierzo-demo").status_code == 200


def test_what_may_not_be_chosen_from_afar(server):
    cases = [
        ({}, 400),
        ({"model": ""}, 400),
        ({"model": "/etc/passwd"}, 400),
        ({"model": str(demo_file())}, 400),
        ({"model": "mistral-7b"}, 422),  # not downloaded
        ({"model": "hf:o/r/f.gguf"}, 400),
        ({"engine": "openai+http://127.0.0.1:1"}, 400),
        ({"engine": "openai+http://169.254.169.254/latest"}, 400),
        ({"engine": "scripted:"}, 400),
        ({"engine": "scripted:/etc/passwd"}, 400),
        ({"engine": 1}, 400),
        ({"engine": "llamacpp:", "model": ["a"]}, 400),
        ({"model": "cierzo-demo", "engine_key": "k"}, 400),
        ({"model": "x" * 1001}, 400),
    ]
    for body, status in cases:
        refused = server.put("/api/engine", body)
        assert (refused.status_code, body) == (status, body)
        assert refused.json()["error"]["message"]
    assert server.get("/api/engine").json()["chosen"] == "cierzo-demo"
    print(f"\n{len(cases)} refused")


def test_the_plain_routes_end_where_they_began(lent):
    """A stream of either API that is under way when the engine changes is whole, by the old engine."""
    first = Scripted(Reply.of("uno dos tres", delay=0.15))
    server = lent(first)
    answers: dict[str, list[str]] = {}

    def read(path, body):
        answers[path] = data_of(server.post(path, body).text)

    chat = {"model": "x", "messages": [{"role": "user", "content": "Hola"}], "stream": True}
    asked = {"/v1/chat/completions": chat, "/generate_stream": {"inputs": "Hola"}}
    threads = [threading.Thread(target=read, args=each) for each in asked.items()]
    for each in threads:
        each.start()
    until(lambda: first.running == 2)
    lent(slotted(3, Reply.of("otro")))
    assert first.running == 2
    for each in threads:
        each.join()
    said = {path: "".join(events) for path, events in answers.items()}
    assert all(word in each for word in ("uno", "dos", "tres") for each in said.values())
    assert not any("otro" in each for each in said.values())
    until(lambda: first.running == 0 and first._closed)
    assert "cierzo_slots 3.0" in server.get("/metrics").text


def test_nothing_is_changed_where_the_engine_is_fixed(lent, monkeypatch):
    server = lent(Scripted("x"))
    monkeypatch.setattr(server.work.service, "switch", None)
    assert server.put("/api/engine", {"model": "cierzo-demo"}).status_code == 409
    assert server.get("/api/engine").json()["addresses"] == []
