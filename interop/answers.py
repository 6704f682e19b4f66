"""What Cierzo's embedded engine answers greedily to the dialogues: the prompts' ids, the answers' ids, probabilities.

Every check holds another program's answers against these. A dialogue goes on with the answers that are written here,
so that each turn puts the same prompt before everyone.

    python interop/answers.py .interop/answers.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import cierzo

DIALOGUES = Path(__file__).parent / "dialogues.json"
GREEDY = {"temperature": 0.0, "max_new_tokens": 256}
ALTERNATIVES = 20
EOS = 2


async def answered(client: cierzo.AsyncClient, row: dict[str, Any]) -> dict[str, Any]:
    """Play one dialogue and keep everything that a check needs."""
    messages = [cierzo.Message("system", row["system"])] if "system" in row else []
    turns = []
    for question in row["turns"]:
        messages.append(cierzo.Message("user", question))
        said = await client.ask(messages, **GREEDY, alternatives=ALTERNATIVES)
        turns.append(
            {
                "messages": [{"role": message.role, "content": message.text} for message in messages],
                "prompt": list(said.prompt.ids),
                "text": said.text,
                "ids": [token.id for token in said.tokens],
                "end": EOS if said.finish.reason == "eos_token" else None,
                "texts": [token.text for token in said.tokens],
                "logprobs": [token.logprob for token in said.tokens],
                "likeliest": [[(one.id, one.logprob) for one in token.alternatives] for token in said.tokens],
            }
        )
        messages.append(said.message)
    return {"id": row["id"], "turns": turns}


async def play(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answer all dialogues, one after another."""
    async with cierzo.AsyncClient("cierzo-demo", engine="llamacpp:") as client:
        return [await answered(client, row) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer the dialogues with the embedded engine.")
    parser.add_argument("target", type=Path)
    target: Path = parser.parse_args().target
    played = asyncio.run(play(json.loads(DIALOGUES.read_text("utf-8"))))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(played, ensure_ascii=False), "utf-8")
    tokens = sum(len(turn["ids"]) for row in played for turn in row["turns"])
    ended = all(turn["end"] == EOS for row in played for turn in row["turns"])
    print(f"{len(played)} dialogues, {tokens} tokens; {'every answer ended' if ended else 'not all ended'} by itself")


if __name__ == "__main__":
    main()
