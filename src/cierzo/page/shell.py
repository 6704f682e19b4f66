"""What Gradio draws: the two side bars, the sliders and the pickers around an empty middle.

Everything on it happens in the browser: an event names a function of ``web/settings.js`` (see ``web/early.js``), none
has one in Python, so nothing ever passes through Gradio's queue. It is run once, as a program: `cierzo.page.drawn`.
"""

from __future__ import annotations

import json
import re
import sys

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
    with gr.Blocks(title="Cierzo", analytics_enabled=False, fill_width=True, fill_height=True) as page:
        with gr.Sidebar(elem_id="side", width=290, open=True):
            gr.Column(elem_id="conversations")
        gr.Column(elem_id="talk")
        with gr.Sidebar(elem_id="settings", position="right", width=300, open=True):
            preset = gr.Dropdown(
                [(say(name), name) for name in ("precise", "balanced", "creative")],
                value=None,
                label=say("preset"),
                elem_id="preset",
            )
            system = gr.Textbox(label=say("system"), info=say("system_info"), lines=2, max_lines=8, elem_id="system")
            sliders = [_slider(say, name) for name in list(SLIDERS)[:NOTEBOOK]]
            with gr.Accordion(say("more"), open=False, elem_id="more"):
                sliders += [_slider(say, name) for name in list(SLIDERS)[NOTEBOOK:]]
                seed = gr.Textbox(label=say("seed"), info=say("seed_info"), max_lines=1, elem_id="seed")
                stop = gr.Textbox(label=say("stop_strings"), info=say("stop_info"), lines=2, elem_id="stop")
            gr.Column(elem_id="own-presets")
            language = gr.Dropdown(
                [(say("as_browser"), ""), ("Español", "es"), ("English", "en"), ("Français", "fr")],
                value="",
                label=say("language"),
                elem_id="language",
            )
            look = gr.Dropdown(
                [(say(name), value) for name, value in (("as_system", ""), ("light", "light"), ("dark", "dark"))],
                value="",
                label=say("look"),
                elem_id="look",
            )
        controls = [system, *sliders, seed, stop]
        for control in controls:
            control.change(None, controls, None, js="cierzo:changed", show_progress="hidden")
        preset.input(None, [preset], controls, js="cierzo:chosen", show_progress="hidden")
        language.input(None, [language], None, js="cierzo:speak", show_progress="hidden")
        look.input(None, [look], None, js="cierzo:dress", show_progress="hidden")
        page.load(None, None, [*controls, preset, language, look], js="cierzo:remembered", show_progress="hidden")
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
