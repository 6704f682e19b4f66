"""The notebook's app runs as it stands, and is the notebook's app."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import gradio as gr
import pytest

import cierzo
from cierzo.chat import Chat
from cierzo.engines.script import Reply
from cierzo.engines.scripted import Scripted

NOTEBOOK = [
    ("Temperature", 0.0, 1.0, 0.05, 0.9),
    ("Max new tokens", 0, 8192, 64, 256),
    ("Top-p (nucleus sampling)", 0.0, 1.0, 0.05, 0.90),
    ("Repetition penalty", 1.0, 2.0, 0.05, 1.2),
]
"""The notebook's sliders: label, from, to, step, value."""

Load = Callable[..., ModuleType]


@pytest.fixture
def load(root: Path) -> Iterator[Load]:
    """Run the file as an import would; give it another engine if one is said."""
    loaded: list[ModuleType] = []

    def loading(engine: Scripted | None = None) -> ModuleType:
        spec = importlib.util.spec_from_file_location("notebook_app", root / "examples" / "notebook_app.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)

        async def inside_a_loop() -> None:
            # Outside of one, Gradio makes an event loop for each app and never closes it.
            spec.loader.exec_module(module)

        asyncio.run(inside_a_loop())
        loaded.append(module)
        if engine:
            module.client._client.chat = Chat(engine)
        return module

    yield loading
    for module in loaded:
        module.client.close()


@pytest.fixture
def scripted_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIERZO_ENGINE", "scripted:")


def test_it_answers_with_the_demo_model(load: Load) -> None:
    app = load()
    grown = list(app.generate("¿Cuál es tu ingrediente favorito?", [], temperature=0))
    assert len(grown) > 1
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(grown))
    again = list(app.generate("¿Cuál es tu ingrediente favorito?", [], temperature=0.9))
    assert list(app.generate("¿Cuál es tu ingrediente favorito?", [], temperature=0.9))[-1] == again[-1], (
        "seed is fixed"
    )


@pytest.mark.usefixtures("scripted_setting")
def test_the_history_is_the_conversation(load: Load) -> None:
    scripted = Scripted("El ketchup.")
    app = load(scripted)
    history = [
        {"role": "user", "content": "¿Cuál es tu ingrediente favorito?", "metadata": None},
        {"role": "assistant", "content": [{"type": "text", "text": "El aceite."}]},
    ]
    assert list(app.generate("¿Y qué piensa al respecto?", history, 0.5, 64, 0.8, 1.1))[-1] == "El ketchup."
    (asked,) = scripted.asked
    assert asked.prompt.text == (
        "<s>[INST] ¿Cuál es tu ingrediente favorito?[/INST] El aceite.</s>[INST] ¿Y qué piensa al respecto?[/INST]"
    )
    assert asked.sampling == cierzo.Sampling(0.5, 64, 0.8, 1.1, seed=42)


@pytest.mark.usefixtures("scripted_setting")
def test_leaving_the_generator_stops_the_model(load: Load) -> None:
    scripted = Scripted(Reply.of("y sigue", delay=0.02, repeat=True))
    answer = load(scripted).generate("no pares", [])
    next(answer)
    assert scripted.running == 1
    answer.close()
    started = time.monotonic()
    while scripted.running:
        assert time.monotonic() - started < 1
        time.sleep(0.01)


@pytest.mark.usefixtures("scripted_setting")
def test_an_error_is_a_sentence_on_the_page(load: Load) -> None:
    with pytest.raises(gr.Error, match=r"max_new_tokens must be between 1 and 131072, not 0"):
        list(load(Scripted("x")).generate("hola", [], max_new_tokens=0))


@pytest.mark.usefixtures("scripted_setting")
def test_the_sliders_are_the_notebooks(load: Load) -> None:
    sliders = load().additional_inputs
    assert [(s.label, s.minimum, s.maximum, s.step, s.value) for s in sliders] == NOTEBOOK
