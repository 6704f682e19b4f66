"""The look: Gradio's base theme in our colours, with the fonts that the machine has."""

from __future__ import annotations

import gradio as gr
from gradio.themes.utils import colors, sizes

WIND = colors.Color(
    c50="#f0f7f8",
    c100="#dcebee",
    c200="#bdd8dd",
    c300="#90bcc5",
    c400="#5b99a5",
    c500="#3f7e8b",
    c600="#356775",
    c700="#305561",
    c800="#2d4852",
    c900="#293d46",
    c950="#17272e",
    name="wind",
)

STONE = colors.Color(
    c50="#faf9f7",
    c100="#f3f1ed",
    c200="#e6e2db",
    c300="#d2ccc2",
    c400="#a8a196",
    c500="#7a746a",
    c600="#5b564e",
    c700="#45413b",
    c800="#2b2926",
    c900="#1e1d1b",
    c950="#151413",
    name="stone",
)

FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "sans-serif")
MONO = ("ui-monospace", "Cascadia Mono", "SF Mono", "DejaVu Sans Mono", "monospace")


def theme() -> gr.themes.Base:
    """Make it. Only fonts that are on the machine are named: nothing is fetched."""
    return gr.themes.Base(
        primary_hue=WIND,
        secondary_hue=WIND,
        neutral_hue=STONE,
        radius_size=sizes.radius_md,
        font=FONT,
        font_mono=MONO,
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        background_fill_primary="white",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="*neutral_950",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_title_text_color="*neutral_900",
        block_title_text_color_dark="*neutral_100",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        input_background_fill="white",
        input_background_fill_dark="*neutral_900",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_700",
        input_border_width="1px",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_800",
        link_text_color="*primary_600",
        link_text_color_dark="*primary_300",
        slider_color="*primary_500",
        slider_color_dark="*primary_400",
    )
