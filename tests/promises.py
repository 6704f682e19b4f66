"""What must hold of every tree, and of every acknowledgement, whatever happened."""

from __future__ import annotations

from typing import Any

from cierzo.messages import Token
from cierzo.store import Store, Tree


def check_tree(tree: Tree) -> None:
    """A tree: parents before children in the same conversation, siblings numbered from 0, nothing numbered twice."""
    seen: set[str] = set()
    places: dict[str | None, list[int]] = {}
    for number, message in enumerate(tree.messages, 1):
        assert message.order == number
        assert message.conversation == tree.conversation.id
        assert message.parent is None or message.parent in seen
        assert message.id not in seen
        seen.add(message.id)
        places.setdefault(message.parent, []).append(message.position)
    assert all(sorted(each) == list(range(len(each))) for each in places.values()), places
    assert tree.conversation.messages == len(tree.messages)
    assert tree.conversation.head is None if not seen else tree.conversation.head in seen
    if seen:
        assert tree.path()[-1].id == tree.conversation.head
        assert tree.path()[0].parent is None


async def lost(store: Store, ledger: list[dict[str, Any]]) -> list[str]:
    """Compare acknowledgements with the store; return what is missing, doubled or different."""
    wrong = []
    trees: dict[str, Tree] = {}
    for entry in ledger:
        conversation = entry["conversation"]
        if conversation not in trees:
            trees[conversation] = await store.conversations.open(conversation, owner=None)
            check_tree(trees[conversation])
        there = [m for m in trees[conversation].messages if m.client_id == entry["client_id"]]
        if len(there) != 1:
            wrong.append(f"{entry['client_id']} is there {len(there)} times")
            continue
        [message] = there
        if "text" in entry and message.text != entry["text"]:
            wrong.append(f"{entry['client_id']} reads {message.text!r}, not {entry['text']!r}")
        if "parent" in entry and message.parent != entry["parent"]:
            wrong.append(f"{entry['client_id']} has another parent")
        if "logged" in entry:
            page = await store.replies.events(message.id, owner=None)
            got = "".join(event.text for event in page.events if isinstance(event, Token))
            if page.logged < entry["logged"] or not got.startswith(entry["said"]):
                wrong.append(f"{entry['client_id']} lost tokens: {page.logged} of {entry['logged']}")
        if entry.get("finished") and (message.answer is None or message.answer.reason != "eos_token"):
            wrong.append(f"{entry['client_id']} was finished and is not")
    return wrong
