"""What Gradio draws: the two side bars, the sliders and the pickers around an empty middle.

Everything on it happens in the browser: an event names a function of ``web/settings.js`` (see ``web/early.js``), none
has one in Python, so nothing ever passes through Gradio's queue. It is run once, as a program: `cierzo.page.drawn`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.testclient import TestClient

from cierzo.page.theme import theme
from cierzo.page.words import LANGUAGES

SLIDERS = {
    "temperature": (0.9, 0.0, 1.0, 0.05),
    "max_new_tokens": (256, 0, 8192, 64),
    "top_p": (0.90, 0.0, 1.0, 0.05),
    "repetition_penalty": (1.2, 1.0, 2.0, 0.05),
    "top_k": (0, 0, 200, 1),
    "min_p": (0.0, 0.0, 1.0, 0.01),
}
"""Value, minimum, maximum and step: the first four are those of the notebook that Cierzo began as."""

NOTEBOOK = 4
_CONFIG = "window.gradio_config = "
_ENTRY = re.compile(r'"\./(assets/index-[\w-]+\.(?:js|css))"')


def blocks(say: gr.I18n) -> gr.Blocks:
    """Lay the page out. The ids of its parts are what the modules in ``web/`` look for."""
    page = gr.Blocks(title="Cierzo", analytics_enabled=False, fill_width=True, fill_height=True)
    controls: list[gr.Slider | gr.Textbox] = []
    with page:
        with gr.Sidebar(elem_id="side", width=290, open=True):
            gr.Column(elem_id="conversations")
        gr.Column(elem_id="talk")
        with gr.Sidebar(elem_id="settings", position="right", width=300, open=True):
            gr.Column(elem_id="model-now")
            gr.Column(elem_id="presets")
            controls += [_slider(say, name) for name in list(SLIDERS)[:NOTEBOOK]]
            controls += [_box(say, "system", lines=2, max_lines=10)]
            # A column that is opened by a button of ours: what is in a closed gr.Accordion is not on the page at all.
            gr.Column(elem_id="more-head")
            with gr.Column(elem_id="more"):
                controls += [_slider(say, name) for name in list(SLIDERS)[NOTEBOOK:]]
                controls += [_box(say, "seed", lines=1, max_lines=1), _box(say, "stop_strings", lines=2, max_lines=10)]
            spoken = [(say("as_browser"), ""), ("Español", "es"), ("English", "en"), ("Français", "fr")]
            language = _choice(say, "language", spoken)
            look = _choice(say, "look", [(say("as_system"), ""), (say("light"), "light"), (say("dark"), "dark")])
        for control in controls:
            control.change(None, None, None, js="cierzo:changed", show_progress="hidden")
        language.input(None, [language], None, js="cierzo:speak", show_progress="hidden")
        look.input(None, [look], None, js="cierzo:dress", show_progress="hidden")
        page.load(None, None, None, js="cierzo:drawn", show_progress="hidden")
    return page


def _slider(say: gr.I18n, name: str) -> gr.Slider:
    value, low, high, step = SLIDERS[name]
    return gr.Slider(
        label=say(name),
        info=say(f"{name}_info"),
        value=value,
        minimum=low,
        maximum=high,
        step=step,
        interactive=True,
        elem_id=name,
    )


def _box(say: gr.I18n, name: str, lines: int, max_lines: int) -> gr.Textbox:
    return gr.Textbox(
        label=say(name),
        info=say(f"{name}_info"),
        value="",
        lines=lines,
        max_lines=max_lines,
        interactive=True,
        elem_id=name,
    )


def _choice(say: gr.I18n, name: str, choices: Sequence[tuple[Any, str]]) -> gr.Dropdown:
    return gr.Dropdown(choices, value="", label=say(name), filterable=False, elem_id=name)


def draw() -> dict[str, object]:
    """Return what Gradio's front end is told: its configuration, its style sheet, and the files that it begins with."""
    say = gr.I18n(**LANGUAGES)
    app = gr.mount_gradio_app(
        FastAPI(),
        blocks(say),
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        i18n=say,
        theme=theme(),
    )
    client = TestClient(app)
    html = client.get("/").text
    config, _ = json.JSONDecoder().raw_decode(html, html.index(_CONFIG) + len(_CONFIG))
    return {
        "config": config,
        "theme": client.get("/theme.css").text,
        "entries": sorted(set(_ENTRY.findall(html))),
    }


def main() -> None:
    """Write it to standard output, for `cierzo.page.drawn`."""
    json.dump(draw(), sys.stdout)


if __name__ == "__main__":
    main()
