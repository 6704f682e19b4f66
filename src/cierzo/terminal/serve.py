"""`cierzo serve`: the API without the page."""

from __future__ import annotations

from typing import Any

import click

from cierzo.terminal.flags import Doors, model_flags


@click.command("serve")
@click.option("--host", metavar="ADDRESS", help="Where the API listens.  [127.0.0.1]")
@click.option("--port", type=int, help="On which port; 0 takes a free one.  [7860]")
@click.option("--insecure", is_flag=True, default=None, help="Allow an address that other machines can reach.")
@model_flags
@click.pass_obj
def serve(doors: Doors, /, **flags: Any) -> None:
    r"""Serve the API of OpenAI and of Text Generation Inference, without the page.

    \b
      cierzo serve --port 8000
      curl localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \
        -d '{"messages": [{"role": "user", "content": "Hola"}]}'
    """
    assert doors.serve_api is not None
    doors.serve_api(doors.settings(flags))
