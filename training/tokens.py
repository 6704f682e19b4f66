"""Mistral's v3 tokenizer, as mistral-common ships it, and dialogues written in its instruction format.

A dialogue is encoded from the same pieces that mistral-common joins (a test compares the ids): `[INST]`, the question,
`[/INST]`, the answer, `</s>`. Text is always encoded as text, so it can never become a control token.
"""

from collections.abc import Sequence
from functools import cache

from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from sentencepiece import SentencePieceProcessor

BOS, EOS, INST, END_INST = 1, 2, 3, 4


@cache
def spm() -> SentencePieceProcessor:
    """The SentencePiece model itself: 32768 pieces."""
    return MistralTokenizer.v3().instruct_tokenizer.tokenizer._model  # noqa: SLF001  # there is no public way


@cache
def encode(text: str) -> tuple[int, ...]:
    """The ids of plain text, without BOS or EOS."""
    return tuple(spm().encode(text))


def dialogue_ids(turns: Sequence[tuple[str, str]], system: str = "") -> tuple[list[int], list[bool]]:
    """The ids of question and answer pairs, and which of them the model must write (answers with their EOS).

    The system text goes in front of the first question, with a blank line, where Cierzo puts it.
    """
    ids, written = [BOS], [False]
    for number, (question, answer) in enumerate(turns):
        text = f"{system}\n\n{question}" if number == 0 and system else question
        asked = [INST, *encode(text), END_INST]
        said = [*encode(answer), EOS]
        ids += asked + said
        written += [False] * len(asked) + [True] * len(said)
    return ids, written
