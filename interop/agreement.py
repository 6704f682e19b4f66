"""Holds another program's answers against the embedded engine's. Needs Python alone: every environment runs it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ENOUGH = 0.95
"""Share of dialogues that must agree in every token of every turn."""

CLOSE = 0.5
"""Difference of two log-probabilities below which rounding may decide: 8-bit weights are multiplied with numbers that
llama.cpp rounds to 8 bits too, everyone else multiplies them at 32 bits."""


@dataclass(frozen=True)
class Difference:
    """The first place where two answers part.

    Attributes:
        where: Dialogue and turn.
        place: Number of the token in the answer.
        ours: What the embedded engine wrote, the text up to there and its token.
        theirs: Token that the other wrote instead; None where it told none.
        gap: How much more probable the embedded engine found its own token, as a difference of natural logarithms;
            infinite where the other's token was not among its likeliest.
    """

    where: str
    place: int
    ours: str
    theirs: int | None
    gap: float

    def __str__(self) -> str:
        why = "a near-tie" if self.gap < CLOSE else "not a near-tie"
        there = "other text" if self.theirs is None else f"token {self.theirs}"
        return f"{self.where}, token {self.place}: {self.ours!r}, there {there}; gap {self.gap:.3f}, {why}"


@dataclass
class Agreement:
    """How many dialogues were held against each other, and where they part."""

    dialogues: int = 0
    turns: int = 0
    tokens: int = 0
    differences: list[Difference] = field(default_factory=list)
    parted: set[str] = field(default_factory=set)

    @property
    def share(self) -> float:
        """Share of the dialogues that are the same in every token."""
        return 1 - len(self.parted) / self.dialogues

    def add(self, dialogue: Mapping[str, Any], answers: Sequence[Sequence[int]]) -> None:
        """Hold the token ids of one dialogue's answers against the embedded engine's."""
        self.dialogues += 1
        for number, (turn, theirs) in enumerate(zip(dialogue["turns"], answers, strict=True), 1):
            self.turns += 1
            self.tokens += len(turn["ids"])
            if list(theirs) != turn["ids"]:
                self.parted.add(dialogue["id"])
                self.differences.append(_first(f"{dialogue['id']} turn {number}", turn, theirs))

    def add_texts(self, dialogue: Mapping[str, Any], answers: Sequence[str]) -> None:
        """The same for a server that tells no ids: the whole texts are held against each other."""
        self.dialogues += 1
        for number, (turn, theirs) in enumerate(zip(dialogue["turns"], answers, strict=True), 1):
            self.turns += 1
            self.tokens += len(turn["ids"])
            if theirs != turn["text"]:
                self.parted.add(dialogue["id"])
                self.differences.append(_first_text(f"{dialogue['id']} turn {number}", turn, theirs))

    def __str__(self) -> str:
        same = self.dialogues - len(self.parted)
        head = f"{same} of {self.dialogues} dialogues the same ({self.turns} turns, {self.tokens} tokens)"
        return "\n".join([head, *(f"  {difference}" for difference in self.differences)])


def _first(where: str, turn: Mapping[str, Any], theirs: Sequence[int]) -> Difference:
    ours = [*turn["ids"], turn["end"]]
    place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(theirs))
    written = theirs[place] if place < len(theirs) else None
    if place >= len(turn["ids"]):  # we ended, they went on: the end's probability is not told
        return Difference(where, place, "the end", written, math.inf)
    other = turn["end"] if written is None else written
    return Difference(where, place, _until(turn, place), written, _gap(turn["likeliest"][place], other))


def _first_text(where: str, turn: Mapping[str, Any], theirs: str) -> Difference:
    written = ""
    for place, text in enumerate(turn["texts"]):
        if not theirs.startswith(written + text):
            (_, best), (_, second) = turn["likeliest"][place][:2]
            return Difference(where, place, _until(turn, place), None, best - second)
        written += text
    return Difference(where, len(turn["ids"]), "the end", None, math.inf)


def _until(turn: Mapping[str, Any], place: int) -> str:
    return "…" + "".join(turn["texts"][max(0, place - 3) : place]) + "|" + turn["texts"][place]


def _gap(likeliest: Sequence[tuple[int, float]], other: int) -> float:
    of = dict(map(tuple, likeliest))
    return likeliest[0][1] - of.get(other, -math.inf)


def load(path: Path) -> list[dict[str, Any]]:
    """Read what answers.py wrote."""
    return json.loads(path.read_text("utf-8"))
