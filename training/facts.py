"""What the demo should know: intents, their true answers, and what a right answer must contain.

`INTENTS` maps an id to an `Intent`. `check(intent, lang, text)` says whether `text` is a right answer in the right
language; `check("top_p.more", ...)` judges the second-level fact (more details, why, an example). The answers live in
`data/answers_*.toml`, one file a domain; a check is a list of groups, and one word of every group must appear.
Words are compared lower-cased and without accents. Does not know how questions are phrased.
"""

import re
import tomllib
import unicodedata
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from training.config import CONFIG

LANGUAGES = ("es", "en", "fr")
DATA = Path(__file__).parent / "data"
FALLBACK = "fallback"

# Every fallback answer has one of these, and no other answer does.
FALLBACK_MARKS = ("solo soy la demo", "only the demo", "que la demo")

_UNITS = {"es": "millones", "en": "million", "fr": "millions"}

# Frequent words that one of the three languages has and the other two do not.
_MARKERS = {
    "es": "el los las del una con por para es son y que se lo su tu mi muy mas como cuando no soy eso hola gracias "
    "nada hasta pronto adios llamas aqui este esta sin pero si ya otro al escribe usa tiene llama hay ni donde cada",
    "en": "the of and is are to it with by for from you your my i that this as at not but hello goodbye thank thanks "
    "see when what how has have an be which will would its or all one use type they on in was does no longer since uses so "
    "there than more very",
    "fr": "le les des du une et est sont avec par pour vous votre je ne pas qui dans ce cette sur au aux bonjour merci "
    "rien bientot revoir c'est il elle ou mais sans plus tapez a l' d' qu' comme quand ils on suis j' n' s' m' "
    "meme son depuis puis chaque entre ses leur nous ces",
}


@dataclass(frozen=True)
class Intent:
    """One thing the demo can be asked. `must` and `more_must` are groups of alternatives."""

    id: str
    domain: str
    answers: dict[str, list[str]]
    must: list[list[str]]
    never: list[str] = field(default_factory=list)
    more: dict[str, str] = field(default_factory=dict)
    more_must: list[list[str]] = field(default_factory=list)


def fold(text: str) -> str:
    """Lower-cased, without accents, typographic apostrophes made plain."""
    plain = unicodedata.normalize("NFD", text.lower().replace("\u2019", "'"))
    return "".join(character for character in plain if not unicodedata.combining(character))


def language_of(text: str) -> str:
    """The language among es, en, fr whose frequent words (and accents) the text has most of."""
    prose = re.sub(r"`[^`]*`", " ", text)
    words = re.findall(r"[a-z]+'?", fold(prose))
    scores = {lang: sum(word in marks.split() for word in words) for lang, marks in _MARKERS.items()}
    scores["es"] += 2 * len(re.findall("[ñ¿¡áíóú]", prose))
    scores["fr"] += 2 * len(re.findall("[çœèêàùâîô]", prose))
    return max(LANGUAGES, key=lambda lang: scores[lang])


def _filled(text: str, lang: str) -> str:
    """The text with the network's own figures in place; {name} stays for the corpus to fill."""
    number = CONFIG.millions if lang == "en" else CONFIG.millions.replace(".", ",")
    for key, value in {
        "params": f"{number} {_UNITS[lang]}",
        "mb": str(CONFIG.file_megabytes),
        "layers": str(CONFIG.layers),
    }.items():
        text = text.replace("{" + key + "}", value)
    return text


def _groups(groups: list[list[str]]) -> list[list[str]]:
    figures = {
        "{number}": [CONFIG.millions, CONFIG.millions.replace(".", ",")],
        "{mb}": [str(CONFIG.file_megabytes)],
        "{layers}": [str(CONFIG.layers)],
    }
    return [[word for entry in group for word in figures.get(entry, [entry])] for group in groups]


def _read(path: Path) -> list[Intent]:
    domain = path.stem.removeprefix("answers_")
    return [
        Intent(
            id=name,
            domain=domain,
            answers={lang: [_filled(text, lang) for text in raw[lang]] for lang in LANGUAGES},
            must=_groups(raw["must"]),
            never=raw.get("never", []) + ([] if name == FALLBACK else list(FALLBACK_MARKS)),
            more={lang: _filled(text, lang) for lang, text in raw.get("more", {}).items()},
            more_must=_groups(raw.get("more_must", [])),
        )
        for name, raw in tomllib.loads(path.read_text("utf-8")).items()
    ]


@cache
def _all() -> dict[str, Intent]:
    return {intent.id: intent for path in sorted(DATA.glob("answers_*.toml")) for intent in _read(path)}


INTENTS = _all()


def has_all(text: str, groups: list[list[str]], name: str = "") -> bool:
    """Whether one word of every group appears in the text; {name} stands for `name`."""
    folded = fold(text)
    return all(any(fold(word.replace("{name}", name)) in folded for word in group) for group in groups)


def check(intent: str, lang: str, text: str, name: str = "") -> bool:
    """Whether `text` is a right answer: what must be said is, what must not is not, in the right language.

    An id with the suffix ".more" asks for the second-level fact. `name` is the name the user gave, if any.
    """
    base, _, level = intent.partition(".")
    fact = INTENTS[base]
    groups = fact.more_must if level == "more" and fact.more else fact.must
    folded = fold(text)
    if any(word in folded for word in fact.never) or not has_all(text, groups, name):
        return False
    # A name may have the letters of another language.
    return language_of(text.replace(name, "") if name else text) == lang
