"""llama.cpp's own server, in a process of its own, behind both engines for it: the answers are the embedded engine's.

`make interop` asks the same of it with all 50 dialogues, and of servers that take long to install.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import cierzo

sys.path.insert(0, str(Path(__file__).parents[2] / "interop"))

import answers
import checks
import servers

DIALOGUES = ("es-01", "es-02", "es-10", "en-03", "en-15", "fr-02", "fr-10")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(servers, "PLACE", tmp_path_factory.mktemp("llama-server"))
        with servers.running("llama-server", patience=60) as running:
            yield running


@pytest.fixture(scope="module")
def embedded():
    """What the embedded engine answers; filled by the first test that asks."""
    return []


@pytest.mark.parametrize("engine", ["openai+{url}/v1", "llamacpp+{url}"])
async def test_a_llama_server_elsewhere_answers_as_the_embedded_engine(engine, server, embedded):
    rows = json.loads(answers.DIALOGUES.read_text("utf-8"))
    embedded += [] if embedded else await answers.play([row for row in rows if row["id"] in DIALOGUES])
    async with cierzo.AsyncClient(engine=engine.format(url=server.url)) as client:
        at = checks.Setting(client, embedded, server.url)
        info = await client.chat.meet()
        assert (info.template, info.context, info.takes) == ("v3", 2048, "ids")
        said = await checks.agreement(at)
        assert said.startswith(f"{len(DIALOGUES)} of {len(DIALOGUES)} dialogues the same"), (said, at.notes)
        for check in (checks.details, checks.stop, checks.length, checks.seed, checks.window):
            print(f"{check.__name__}: {await check(at)}")
