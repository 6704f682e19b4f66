"""Which prompt template a model was trained with, told by its name alone.

A server elsewhere gives a name and no file. Names are compared without their owner, their file's ending and how they
were quantised. The table follows Mistral's list of models and tokenizers
(https://docs.mistral.ai/cookbook/concept-deep-dive-tokenization-templates) and the files in their repositories.
"""

from __future__ import annotations

import re

_LARGER = "(?:-instruct)?"

_KNOWN: tuple[tuple[str, str], ...] = (
    (r"cierzo-demo", "v3"),
    (r"(?:open-)?mixtral-8x22b-v0\.1|mixtral-8x22b-v0\.1", "v1"),
    (r"(?:open-)?mixtral-8x22b", "v3"),
    (r"(?:open-)?mixtral(?:-8x7b|$|-dpo|-instruct)", "v1"),
    (rf"mistral-7b{_LARGER}-v0\.[12](?!\d)", "v1"),
    (rf"(?:open-)?mistral(?:-7b)?{_LARGER}(?:-v0\.3)?$", "v3"),
    (r"(?:open-)?mistral-7b", "v3"),
    (r"mathstral|codestral-(?:22b|2405|v0\.1)|codestral$", "v3"),
    (r"mistral-large(?:-instruct)?-2407", "v3"),
    (r"mistral-large(?:-instruct)?-2411|pixtral-large", "v7"),
    (r"(?:open-)?mistral-nemo|ministral-8b(?:-instruct)?-2410|ministral-8b(?:-instruct)?$|pixtral-12b", "v3-tekken"),
    (r"mistral-small(?:-22b|-instruct-2409|-2409)", "v3"),
    (r"mistral-small(?:-?3\.2|.*-2506)|magistral-small(?:-2506|-1\.0)", "v11"),
    (r"mistral-small(?:$|-24b|-?3(?:\.[01])?(?!\.)|-instruct-2501|.*-250[13])|devstral-small-2505", "v7-tekken"),
    (r"magistral-small(?:-250[79]|-1\.[12])|devstral-small-2507|voxtral", "v13"),
)

_ENDING = re.compile(r"\.(?:gguf|safetensors|bin)$")
_QUANTISED = re.compile(
    r"[-.](?:i?q\d(?:[-_.][0-9a-z]+)*|[bf]?f?p?(?:16|32)|bf16|fp8|int[48]|w\d+a\d+|awq|gptq|gguf|exl2|bnb-4bit|4bit|8bit|hf)$"
)


def template_of(name: str) -> str | None:
    """Return the name of the template of a model of that name, or None where the name does not tell.

    Args:
        name: What a server calls it: ``mistralai/Mistral-7B-Instruct-v0.3``, ``mistral:7b``, a file's path.

    Example:
        >>> template_of("mistralai/Mistral-7B-Instruct-v0.2"), template_of("models/mistral-nemo-instruct.Q4_K_M.gguf")
        ('v1', 'v3-tekken')
        >>> template_of("qwen2.5-7b") is None
        True
    """
    plain = re.split(r"[/\\]", name.strip().lower())[-1]
    plain = _ENDING.sub("", plain).removesuffix(":latest").replace("_", "-").replace(":", "-")
    while (shorter := _QUANTISED.sub("", plain)) != plain:
        plain = shorter
    plain = re.sub(r"-?\bv(\d)$", r"-v\1", plain)
    return next((template for pattern, template in _KNOWN if re.match(pattern, plain)), None)
