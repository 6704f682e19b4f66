"""A process that writes until it is killed, and says on standard output what was acknowledged.

    python writer.py HOME URL ROUND [--early]

``--early`` is the broken build: it says so before the write, and the ledger must notice.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from cierzo.messages import Alternative, Finish, Phase, Sampling, Token
from cierzo.settings import Settings
from cierzo.store import AnswerStart, Store, Unfinished


def acknowledged(**entry: Any) -> None:
    print(json.dumps(entry), flush=True)


async def talk(store: Store, name: str, serial: str, *, early: bool) -> None:
    conversation = (await store.conversations.create(owner=None, conversation_id=f"talk-{serial}-{name}")).id
    parent = None
    for number in range(10_000):
        sent = {
            "conversation": conversation,
            "client_id": f"q{number}",
            "parent": parent,
            "text": f"{name} asks {number}",
        }
        if early:
            acknowledged(**sent)
        question = (await store.conversations.append(owner=None, role="user", **sent)).message
        if not early:
            acknowledged(**sent)
        begun = await store.replies.begin(
            conversation,
            owner=None,
            parent=question.id,
            start=AnswerStart("scripted", "test", Sampling(), prompt_ids=(1, 2, 3), writer=serial),
            client_id=f"a{number}",
        )
        parent = begun.message.id
        answer: dict[str, Any] = {"conversation": conversation, "client_id": f"a{number}", "parent": question.id}
        said, after = "", 0
        for batch in range(4):
            tokens = [
                Token(i, f" {batch}.{i}", -0.1 * i, alternatives=(Alternative(i, f" {batch}.{i}", -0.1 * i),))
                for i in range(5)
            ]
            await store.replies.log(parent, [Phase("reading", batch), *tokens], after=after)
            said, after = said + "".join(token.text for token in tokens), after + 6
            acknowledged(**answer, logged=after, said=said)
        await store.replies.finish(parent, Finish("eos_token"), after=after, batch=[Token(9, ".", -1.0)])
        acknowledged(**answer, logged=after + 1, said=said + ".", text=said + ".", finished=True)


async def main(home: str, url: str, serial: str, *flags: str) -> None:
    store = await Store.open(Settings.load({"home": home, "database_url": url}))
    left: tuple[Unfinished, ...] = await store.replies.unfinished()
    for each in left:
        await store.replies.interrupt(each.message)
    early = "--early" in flags
    await asyncio.gather(*(talk(store, name, serial, early=early) for name in ("ana", "bob", "cleo")))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
