"""The examination: held-out questions, answered through Cierzo's own engine and prompt, judged by facts.check.

    python -m training.evaluate src/cierzo/models/cierzo-demo.gguf
    python -m training.evaluate MODEL --questions training/dev.json --wrong

Prints the share of right answers: in-domain, outside (the fallback is right), follow-ups; greedy, and once more with
the page's default sampling. `lang` is the question's language, `answer_lang` the answer's where it differs, `intent`
one or several of which any will do, `name` the name a person says.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cierzo
from training.facts import check

GREEDY = {"temperature": 0.0}
PAGE = {"temperature": 0.9, "top_p": 0.9, "repetition_penalty": 1.2, "seed": 1}
MOST_TOKENS = 256


@dataclass(frozen=True)
class Result:
    """One question's last answer, how many tokens it took, whether it ended by itself, and the verdict."""

    row: dict[str, Any]
    text: str
    tokens: int
    ended: bool
    right: bool


def answer(
    client: cierzo.Client, messages: Sequence[cierzo.Message], sampling: dict[str, float]
) -> tuple[cierzo.Message, int, bool]:
    """One answer: the message, its tokens, and whether the model ended it."""
    said = client.ask(messages, max_new_tokens=MOST_TOKENS, **sampling)
    return said.message, len(said.tokens), said.finish.reason == "eos_token"


def examine(client: cierzo.Client, row: dict[str, Any], sampling: dict[str, float]) -> Result:
    """Ask the turns of a row one after another and judge the last answer."""
    messages: list[cierzo.Message] = []
    tokens, ended = 0, False
    for question in row["turns"]:
        messages.append(cierzo.Message("user", question))
        said, tokens, ended = answer(client, messages, sampling)
        messages.append(said)
    text = messages[-1].text
    intents = [row["intent"]] if isinstance(row["intent"], str) else row["intent"]
    lang = row.get("answer_lang", row["lang"])
    right = any(check(intent, lang, text, row.get("name", "")) for intent in intents)
    return Result(row, text, tokens, ended, right)


def report(title: str, results: Sequence[Result]) -> None:
    """Print the shares by kind, and by language within a kind."""
    print(title)
    by_kind: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_kind[result.row["kind"]].append(result)
    for kind, found in by_kind.items():
        langs = Counter(result.row["lang"] for result in found)
        right = Counter(result.row["lang"] for result in found if result.right)
        detail = ", ".join(f"{lang} {right[lang]}/{langs[lang]}" for lang in sorted(langs))
        print(f"  {kind:9} {_share(sum(right.values()), len(found))}   ({detail})")
    print(f"  {'ended':9} {_share(sum(result.ended for result in results), len(results))}")


def _share(part: int, whole: int) -> str:
    return f"{part:4d} of {whole:4d} = {part / whole:6.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Examine the demo model.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--questions", type=Path, default=Path(__file__).parent / "heldout.json")
    parser.add_argument("--wrong", action="store_true", help="print the answers judged wrong")
    parser.add_argument("--greedy", action="store_true", help="leave out the page's default sampling")
    arguments = parser.parse_args()
    rows = json.loads(arguments.questions.read_text("utf-8"))
    settings = {"greedy": GREEDY} if arguments.greedy else {"greedy": GREEDY, "the page's default sampling": PAGE}
    with cierzo.Client(model=str(arguments.model)) as client:
        for title, sampling in settings.items():
            results = [examine(client, row, sampling) for row in rows]
            report(title, results)
            for result in results:
                if arguments.wrong and not result.right:
                    print(
                        f"    [{result.row['lang']} {result.row['intent']}] {result.row['turns']}\n      {result.text}"
                    )


if __name__ == "__main__":
    main()
