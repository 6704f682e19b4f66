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

HOME, URL, ROUND = sys.argv[1:4]
EARLY = "--early" in sys.argv


def acknowledged(**entry: Any) -> None:
    print(json.dumps(entry), flush=True)


async def talk(store: Store, name: str) -> None:
    conversation = (await store.conversations.create(owner=None, conversation_id=f"talk-{ROUND}-{name}")).id
    parent = None
    for number in range(10_000):
        sent = {
            "conversation": conversation,
            "client_id": f"q{number}",
            "parent": parent,
            "text": f"{name} asks {number}",
        }
        if EARLY:
            acknowledged(**sent)
        question = (await store.conversations.append(owner=None, role="user", **sent)).message
        if not EARLY:
            acknowledged(**sent)
        begun = await store.replies.begin(
            conversation,
            owner=None,
            parent=question.id,
            start=AnswerStart("scripted", "test", Sampling(), prompt_ids=(1, 2, 3), writer=ROUND),
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


async def main() -> None:
    store = await Store.open(Settings.load({"home": HOME, "database_url": URL}))
    left: tuple[Unfinished, ...] = await store.replies.unfinished()
    for each in left:
        await store.replies.interrupt(each.message)
    await asyncio.gather(*(talk(store, name) for name in ("ana", "bob", "cleo")))


asyncio.run(main())
