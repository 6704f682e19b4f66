"""How people really type: openers, politeness, missing accents and signs, capitals or none, slips of the finger."""

import random
import re
import unicodedata
from functools import cache

from training.facts import DATA
from training.grammar import sections

_PROPER = {
    "mistral 7b": "Mistral 7B", "mistral-7b": "Mistral-7B", "mistral": "Mistral", "mixtral": "Mixtral", "nemo": "Nemo",
    "ministral": "Ministral", "tekken": "Tekken", "gguf": "GGUF", "rope": "RoPE", "rmsnorm": "RMSNorm",
    "swiglu": "SwiGLU", "gqa": "GQA", "kv": "KV", "bos": "BOS", "eos": "EOS", "python": "Python", "moe": "MoE",
    "chatgpt": "ChatGPT", "gpt": "GPT", "apache": "Apache", "gb": "GB", "ram": "RAM", "paris": "Paris",
    "spanish": "Spanish", "english": "English", "french": "French", "llm": "LLM", "ai": "AI", "openai": "OpenAI",
    "swa": "SWA", "i": "I", "i'm": "I'm", "q4_k_m": "Q4_K_M", "q8_0": "Q8_0", "hugging face": "Hugging Face",
}  # fmt: skip
_COMMAND = re.compile(
    r"cierzo (?:ask|chat|prompt|tokens|models(?: (?:list|show|pull))?|doctor)(?: --ids)?|--[a-z-]+|/[a-z]{3,}"
)
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def dressed(rng: random.Random, text: str, lang: str, talk: bool = False) -> str:
    """The question as one of many people would type it. `talk`: small talk, which gets fewer openers and no "?"."""
    phrases = _phrases(lang)
    if not talk and rng.random() < 0.1:
        text = f"{rng.choice(phrases['ask'])} {text}"
    if rng.random() < (0.06 if talk else 0.18):
        text = rng.choice(phrases["open"]) + rng.choice((", ", ", ", " ", ": ", "! ", ". ")) + text
    if rng.random() < (0.04 if talk else 0.12):
        text += rng.choice((", ", " ", ", ")) + rng.choice(phrases["close"])
    text = _cased(rng, text)
    text = _signed(rng, text, lang, talk)
    return _slipped(rng, text, lang)


@cache
def _phrases(lang: str) -> dict[str, list[str]]:
    return sections([DATA / f"patterns_{lang}.txt"])


def _cased(rng: random.Random, text: str) -> str:
    if rng.random() < 0.6:
        for plain, proper in _PROPER.items():
            if plain in text:
                text = re.sub(rf"(?<![\w./-]){re.escape(plain)}(?![\w-])", proper, text)
        text = re.sub(r"\bcierzo\b(?! (ask|chat|prompt|tokens|models|doctor)\b)(?!-demo|\.)", "Cierzo", text)
    if rng.random() < 0.25:
        text = _COMMAND.sub(lambda match: f"`{match[0]}`", text)
    if rng.random() < 0.62:
        text = text[:1].upper() + text[1:]
    return text.upper() if rng.random() < 0.015 else text


def _signed(rng: random.Random, text: str, lang: str, talk: bool) -> str:
    if text.endswith((".", "?", "!")):
        return text
    ends = ("", "", "!", ".", "", "?") if talk else ("?", "?", "?", "?", "?", "?", "", "", "", "", ".", "??", "...")
    end = rng.choice(ends)
    if lang == "fr" and end in ("?", "!") and rng.random() < 0.5:
        end = " " + end
    if lang == "es" and end == "?" and rng.random() < 0.65:
        head, comma, tail = text.partition(", ")
        if comma and len(head) < 20 and rng.random() < 0.7:
            return f"{head}, ¿{tail}?"
        return f"¿{text}?"
    if lang == "es" and end == "!" and rng.random() < 0.6:
        return f"¡{text}!"
    return text + end


def _slipped(rng: random.Random, text: str, lang: str) -> str:
    if lang != "en" and rng.random() < 0.25:
        decomposed = unicodedata.normalize("NFD", text)
        text = unicodedata.normalize("NFC", "".join(c for c in decomposed if not unicodedata.combining(c)))
    if rng.random() < 0.08:
        text = text.replace("'", rng.choice(("\u2019", "", " ")))
    words = text.split(" ")
    if len(words) > 3 and rng.random() < 0.05:
        del words[rng.randrange(len(words))]
    if len(words) > 3 and rng.random() < 0.02:
        place = rng.randrange(len(words) - 1)
        words[place], words[place + 1] = words[place + 1], words[place]
    if rng.random() < 0.1:
        place = rng.randrange(len(words))
        words[place] = _mistyped(rng, words[place])
    return " ".join(words)


def _mistyped(rng: random.Random, word: str) -> str:
    if len(word) < 4:
        return word
    at = rng.randrange(1, len(word) - 1)
    slip = rng.randrange(4)
    if slip == 0:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if slip == 1:
        return word[:at] + word[at + 1 :]
    if slip == 2:
        return word[:at] + word[at] + word[at:]
    return word[:at] + rng.choice(_ALPHABET) + word[at + 1 :]
