"""Names of models as servers give them, and the template of each."""

from __future__ import annotations

import pytest

from cierzo import offered
from cierzo.model_names import template_of
from cierzo.templates import TEMPLATES

NAMES: dict[str | None, tuple[str, ...]] = {
    "v1": (
        "mistralai/Mistral-7B-Instruct-v0.1",
        "mistral-7b-instruct-v0.2.Q4_K_M.gguf",
        "mistral:7b-instruct-v0.2-q4_0",
        "TheBloke/Mixtral-8x7B-Instruct-v0.1-GPTQ",
        "mixtral:8x7b",
        "open-mixtral-8x7b",
        "mixtral",
    ),
    "v3": (
        "mistralai/Mistral-7B-Instruct-v0.3",
        "/models/Mistral-7B-Instruct-v0.3-Q8_0.gguf",
        "mistral",
        "mistral:latest",
        "mistral:7b",
        "open-mistral-7b",
        "mistralai/Mixtral-8x22B-Instruct-v0.1",
        "mistralai/Codestral-22B-v0.1",
        "mistralai/Mathstral-7B-v0.1",
        "Mistral-Large-Instruct-2407",
        "mistralai/Mistral-Small-Instruct-2409",
        "cierzo-demo",
        "src/cierzo/models/cierzo-demo.gguf",
        "C:\\models\\mistral-7b-instruct-v0.3.f16.gguf",
    ),
    "v3-tekken": (
        "mistralai/Mistral-Nemo-Instruct-2407",
        "mistral-nemo:12b",
        "open-mistral-nemo",
        "ministral-8b-2410",
        "mistralai/Ministral-8B-Instruct-2410",
        "mistralai/Pixtral-12B-2409",
        "Mistral-Nemo-Instruct-2407-FP8",
    ),
    "v7": (
        "mistralai/Mistral-Large-Instruct-2411",
        "mistralai/Pixtral-Large-Instruct-2411",
    ),
    "v7-tekken": (
        "mistralai/Mistral-Small-24B-Instruct-2501",
        "mistralai/Mistral-Small-3.1-24B-Instruct-2503",
        "mistral-small:24b",
        "mistralai/Devstral-Small-2505",
        "mistral-small-24b-instruct-2501-awq",
    ),
    "v11": (
        "mistralai/Mistral-Small-3.2-24B-Instruct-2506",
        "mistral-small3.2",
        "mistralai/Magistral-Small-2506",
    ),
    "v13": (
        "mistralai/Magistral-Small-2507",
        "mistralai/Magistral-Small-2509",
        "mistralai/Devstral-Small-2507",
    ),
    None: (
        "gpt-4o",
        "Qwen/Qwen2.5-7B-Instruct",
        "llama3.1:8b",
        "mistral-large-latest",
        "mistral-medium-2508",
        "model.gguf",
        "tiny",
        "mistral-small-latest",
        "zephyr-7b-beta",
        "mistralai/Ministral-3-8B-Instruct-2512",
        "mistral-tiny",
        "codestral-2501",
    ),
}


@pytest.mark.parametrize("template", NAMES)
def test_names_that_servers_give(template: str | None) -> None:
    assert {name: template_of(name) for name in NAMES[template]} == dict.fromkeys(NAMES[template], template)


def test_every_model_of_the_catalogue_is_known_by_its_file_and_its_repository() -> None:
    for model in offered.OFFERED:
        for name in (model.name, model.file, model.repo):
            assert template_of(name) == model.template, name
            assert model.template in TEMPLATES
