"""The page itself: what stands where in Gradio, and what happens when somebody sends, stops or asks again.

It knows nothing of addresses, headers and sockets; `cierzo.page.server` serves it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from importlib import resources
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import gradio as gr

from cierzo.errors import CierzoError
from cierzo.messages import Message, Sampling, check_text
from cierzo.page.turn import Turn, View
from cierzo.page.words import EXAMPLES, LANGUAGES, Words, language, notice, status

if TYPE_CHECKING:
    from cierzo.chat import Chat
    from cierzo.engines.base import EngineInfo

Shown = list[dict[str, Any]]
"""The conversation as `gr.Chatbot` has it: ``role`` and ``content``, which is a text or a list of typed parts."""

MOST_AT_ONCE = 400
"""Answers that may be under way in one page server. Gradio's own limit is 40, and the rest would wait unseen."""


class Page:
    """Everything on the page, over one chat.

    Args:
        chat: What answers.

    Attributes:
        blocks: What Gradio serves.
        words: The words that the browser chooses from, by its language.
    """

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self._turns: dict[str, Turn] = {}
        self.words = _translations(chat.engine.describe())
        self.blocks = gr.Blocks(title="Cierzo", analytics_enabled=False, fill_width=True)
        with self.blocks:
            self._draw()
            self._connect()
        self.blocks.queue(default_concurrency_limit=None, api_open=False)
        self.blocks._queue.max_thread_count = MOST_AT_ONCE  # noqa: SLF001 (mounted apps have no other way to it)

    def stop_all(self) -> None:
        """Stop every answer that is under way."""
        for turn in self._turns.values():
            turn.stop()

    def _draw(self) -> None:
        say = self.words
        with gr.Row(elem_id="cierzo"):
            with gr.Column(scale=3, min_width=300, elem_id="talk"):
                with gr.Row(elem_id="head"):
                    gr.Markdown("# Cierzo", elem_id="name")
                    gr.Markdown(say("tagline"), elem_id="tagline")
                    gr.Markdown(say("notice"), elem_id="notice")
                self.shown = gr.Chatbot(
                    elem_id="conversation",
                    label=say("conversation"),
                    show_label=False,
                    container=False,
                    height="100%",
                    editable="user",
                    buttons=["copy"],
                    feedback_options=None,
                    layout="panel",
                    sanitize_html=True,
                    allow_tags=False,
                )
                self.status = gr.Markdown("", elem_id="status", sanitize_html=True)
                self.box = gr.Textbox(
                    elem_id="box",
                    label=say("message"),
                    show_label=False,
                    container=False,
                    placeholder=say("write"),
                    autofocus=True,
                    lines=1,
                    max_lines=8,
                    submit_btn=True,
                    stop_btn=False,
                )
            with gr.Column(scale=1, min_width=240, elem_id="settings"):
                gr.Markdown(say("settings"), elem_id="settings-title")
                self.knobs = [
                    gr.Textbox(label=say("system"), info=say("system_info"), lines=2, max_lines=6, elem_id="system"),
                    self._slider("temperature", 0.9, 0.0, 1.0, 0.05),
                    self._slider("max_new_tokens", 256, 0, 8192, 64),
                    self._slider("top_p", 0.90, 0.0, 1.0, 0.05),
                    self._slider("repetition_penalty", 1.2, 1.0, 2.0, 0.05),
                ]
        # A question that could not be asked, on its way back into the box.
        self.returned = gr.State("")

    def _slider(self, name: str, value: float, low: float, high: float, step: float) -> gr.Slider:
        return gr.Slider(
            label=self.words(name),
            info=self.words(f"{name}_info"),
            value=value,
            minimum=low,
            maximum=high,
            step=step,
            interactive=True,
            elem_id=name,
        )

    def _connect(self) -> None:
        outputs = [self.shown, self.box, self.status, self.returned]
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        asking: dict[str, Any] = {**quiet, "outputs": outputs, "concurrency_limit": None}
        self.blocks.load(_greet, None, self.shown, queue=False, **quiet)
        events = [
            self.box.submit(self._send, [self.box, self.shown, *self.knobs], **asking),
            self.shown.example_select(self._example, [self.shown, *self.knobs], **asking),
            self.shown.retry(self._again, [self.shown, *self.knobs], **asking),
            self.shown.edit(self._edited, [self.shown, *self.knobs], **asking),
        ]
        for event in events:
            # Only when the event is over: until then Gradio lets an Enter fall on the floor.
            event.then(_rest, [self.box, self.returned], [self.box, self.returned], queue=False, **quiet)
        self.box.stop(self._stop, None, None, queue=False, **quiet)
        self.shown.undo(_undo, self.shown, [self.shown, self.box], queue=False, **quiet)

    async def _send(self, request: gr.Request, text: str, shown: Shown, *knobs: Any) -> AsyncGenerator[Any, None]:
        async with aclosing(self._ask(text, shown, knobs, request)) as updates:
            async for update in updates:
                yield update

    async def _example(
        self, request: gr.Request, chosen: gr.SelectData, shown: Shown, *knobs: Any
    ) -> AsyncGenerator[Any, None]:
        async with aclosing(self._ask(chosen.value["text"], shown, knobs, request)) as updates:
            async for update in updates:
                yield update

    async def _again(
        self, request: gr.Request, which: gr.RetryData, shown: Shown, *knobs: Any
    ) -> AsyncGenerator[Any, None]:
        place = _place(which.index)
        async with aclosing(self._ask(_text(shown[place]), shown[:place], knobs, request)) as updates:
            async for update in updates:
                yield update

    async def _edited(
        self, request: gr.Request, which: gr.EditData, shown: Shown, *knobs: Any
    ) -> AsyncGenerator[Any, None]:
        async with aclosing(self._ask(str(which.value), shown[: _place(which.index)], knobs, request)) as updates:
            async for update in updates:
                yield update

    def _stop(self, request: gr.Request) -> None:
        if turn := self._turns.get(request.session_hash or ""):
            turn.stop()

    async def _ask(
        self, text: str, shown: Shown, knobs: tuple[Any, ...], request: gr.Request
    ) -> AsyncGenerator[Any, None]:
        """Yield the page's next values while ``text`` is answered after ``shown``."""
        words = LANGUAGES[language(request.headers.get("accept-language", ""))]
        try:
            sampling, messages = _request(text, shown, knobs)
        except CierzoError as refused:
            yield _final(View(error=refused), text, shown, shown, words)
            return
        session = request.session_hash or ""
        turn = self._turns[session] = Turn(self.chat, messages, sampling)
        asked = [*shown, {"role": "user", "content": text}]
        yield asked, gr.update(value="", submit_btn=False, stop_btn=True), "", ""
        try:
            async with aclosing(turn.views()) as views:
                async for view in views:
                    if view.over:
                        yield _final(view, text, shown, asked, words)
                    else:
                        yield _with(asked, view.text), gr.skip(), plain(status(view, words)), gr.skip()
        finally:
            if self._turns.get(session) is turn:
                del self._turns[session]


def stylesheet() -> str:
    """Return the page's own CSS."""
    return resources.files("cierzo.page").joinpath("page.css").read_text(encoding="utf-8")


def plain(text: str) -> str:
    """Write a text so that Markdown shows just it: no mark-up, and no address made a link.

    Example:
        >>> plain("top_p <b>")
        'top&#95;p &#60;b&#62;'
    """
    return re.sub(r"[^\w\s]|_", lambda mark: f"&#{ord(mark[0])};", text).replace("\n", "  \n")


def _translations(info: EngineInfo) -> gr.I18n:
    notices = notice(info)
    return gr.I18n(**{name: {**words, "notice": notices[name]} for name, words in LANGUAGES.items()})


def _greet(request: gr.Request) -> Any:
    tag = language(request.headers.get("accept-language", ""))
    return gr.Chatbot(placeholder=LANGUAGES[tag]["greeting"], examples=[{"text": text} for text in EXAMPLES[tag]])


def _request(text: str, shown: Shown, knobs: tuple[Any, ...]) -> tuple[Sampling, list[Message]]:
    """Make what the chat wants of what the page has.

    Raises:
        BadInput: The text or a slider's value cannot be used.
    """
    system, temperature, max_new_tokens, top_p, repetition_penalty = knobs
    sampling = Sampling.of(
        {
            "temperature": temperature,
            "max_new_tokens": max_new_tokens,
            "top_p": top_p,
            "repetition_penalty": repetition_penalty,
        }
    )
    before = [Message("system", check_text(system, what="the system prompt"))] if system and system.strip() else []
    return sampling, [*before, *_spoken(shown), Message("user", text)]


def _spoken(shown: Shown) -> list[Message]:
    """Give the questions that were answered, and their answers. A question that never was would mix with the next."""
    return [
        Message(message["role"], _text(message))
        for pair in pairwise(shown)
        if [message["role"] for message in pair] == ["user", "assistant"]
        for message in pair
    ]


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part if isinstance(part, str) else str(part.get("text", "")) for part in content)


def _place(index: int | tuple[int, int]) -> int:
    return index if isinstance(index, int) else index[0]


def _with(shown: Shown, answer: str) -> Shown:
    return [*shown, {"role": "assistant", "content": answer}] if answer else shown


def _final(view: View, text: str, shown: Shown, asked: Shown, words: Words) -> Any:
    """Give the page's last values: what was written stays; a question that got no answer goes back into the box."""
    line = plain(status(view, words))
    if view.error:
        line = f'<span class="failed">{line}</span>'
    return (_with(asked, view.text) if view.text else shown), gr.skip(), line, ("" if view.text else text)


def _rest(box: str, returned: str) -> tuple[Any, str]:
    """Let the button send again. A question that got no answer returns to the box, before what was typed since."""
    if not returned:
        return gr.update(submit_btn=True, stop_btn=False), ""
    text = f"{returned}\n{box}" if box and box != returned else returned
    return gr.update(value=text, submit_btn=True, stop_btn=False), ""


def _undo(which: gr.UndoData, shown: Shown) -> tuple[Shown, str]:
    place = _place(which.index)
    return shown[:place], _text(shown[place])
