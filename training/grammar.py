"""Sentences with choices: "(what is|what's) {place}( please|)" stands for many, and `sample` draws one of them.

Also reads the question files: sections opened by "@name", noun phrases after "=", one pattern a line.
"""

import random
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

# A sequence of parts; a part is literal text or a list of choices, each again a sequence.
Sequence = list["str | list[Sequence]"]


@cache
def parse(pattern: str) -> Sequence:
    """The pattern as nested choices. Raises ValueError where a parenthesis is not closed."""
    choices, end = _choices(pattern, 0)
    if end != len(pattern):
        raise ValueError(f"unbalanced parenthesis: {pattern}")
    return [choices]


def _choices(pattern: str, at: int) -> tuple[list[Sequence], int]:
    """Alternatives from `at` up to the closing parenthesis or the end, and where they end."""
    found: list[Sequence] = [[]]
    text = ""
    while at < len(pattern) and pattern[at] != ")":
        character = pattern[at]
        if character == "(":
            found[-1].append(text)
            inner, at = _choices(pattern, at + 1)
            if at >= len(pattern):
                raise ValueError(f"unbalanced parenthesis: {pattern}")
            found[-1].append(inner)
            text = ""
        elif character == "|":
            found[-1].append(text)
            found.append([])
            text = ""
        else:
            text += character
        at += 1
    found[-1].append(text)
    return found, at


def sample(rng: random.Random, pattern: str) -> str:
    """One sentence of the pattern, spaces tidied."""
    return re.sub(" +", " ", _draw(rng, parse(pattern))).strip()


def _draw(rng: random.Random, sequence: Sequence) -> str:
    return "".join(part if isinstance(part, str) else _draw(rng, rng.choice(part)) for part in sequence)


@cache
def count(pattern: str) -> int:
    """How many sentences the pattern stands for, repeats included."""
    return _count(parse(pattern))


def _count(sequence: Sequence) -> int:
    product = 1
    for part in sequence:
        if not isinstance(part, str):
            product *= sum(_count(choice) for choice in part)
    return product


def fill(rng: random.Random, text: str, slots: dict[str, list[str]]) -> str:
    """Replace every {slot} by one of its words."""
    return re.sub(r"\{(\w+)\}", lambda match: rng.choice(slots[match[1]]) if match[1] in slots else match[0], text)


def lines(path: Path) -> list[str]:
    """The lines of a data file that are neither empty nor comments."""
    kept = (line.strip() for line in path.read_text("utf-8").splitlines())
    return [line for line in kept if line and not line.startswith("#")]


def sections(paths: list[Path]) -> dict[str, list[str]]:
    """Lines by the "@name" they stand under."""
    found: dict[str, list[str]] = defaultdict(list)
    name = ""
    for path in paths:
        for line in lines(path):
            if line.startswith("@"):
                name = line[1:]
            else:
                found[name].append(line)
    return dict(found)
