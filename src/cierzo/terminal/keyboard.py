"""Where questions come from: a line editor with history at a terminal, plain lines otherwise."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.output.color_depth import ColorDepth
from prompt_toolkit.output.defaults import create_output

from cierzo.errors import BadText, CierzoError
from cierzo.messages import MAX_TEXT
from cierzo.terminal.language import say

if sys.platform != "win32":
    import termios

if TYPE_CHECKING:
    from pathlib import Path

    from prompt_toolkit.key_binding import KeyPressEvent

    from cierzo.settings import Settings
    from cierzo.terminal.render import Screen

LONGEST_KEPT = 20_000
"""Characters of an entry that the history keeps; longer ones were pasted and would make every start slow."""

LARGEST_HISTORY = 2_000_000
"""Bytes of the history file. When it is larger, its older half is dropped at the next start."""


class Keyboard(Protocol):
    """Gives one question after the other."""

    async def read(self) -> str:
        """Return the next text that was typed.

        Raises:
            EOFError: There will be no more.
        """
        ...


class Editor:
    """A line editor: arrows go through the history, Alt+Enter or a backslash before Enter makes a new line."""

    def __init__(self, history: History, *, colors: bool) -> None:
        self._session: PromptSession[str] = PromptSession(
            history=history,
            multiline=True,
            key_bindings=_keys(),
            prompt_continuation="  ",
            output=create_output(stdout=sys.stdout),
            color_depth=None if colors else ColorDepth.DEPTH_1_BIT,
        )

    async def read(self) -> str:
        """Return what was typed. Ctrl+C clears the line; at an empty one it leaves, as Ctrl+D does."""
        while True:
            try:
                return await self._session.prompt_async(FormattedText([("bold", "> ")]))
            except KeyboardInterrupt:
                if not self._session.default_buffer.text:
                    raise EOFError from None


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.current_line_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


class _Kept(FileHistory):
    """A history on disk that never stops a chat: what cannot be kept is left out, with one line about it."""

    def __init__(self, path: Path, screen: Screen) -> None:
        super().__init__(str(path))
        self._screen: Screen | None = screen

    def store_string(self, string: str) -> None:
        if len(string) > LONGEST_KEPT or not string.strip():
            return
        try:
            super().store_string(string.encode("utf-8", "replace").decode())
        except OSError as denied:
            if self._screen:
                self._screen.note(say("no_history", why=denied.strerror or str(denied)), "yellow")
            self._screen = None


def history(settings: Settings, screen: Screen) -> History:
    """Open the history in ``CIERZO_HOME``, readable by its owner only; in memory where nothing can be written."""
    try:
        path = settings.writable_home() / "history"
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            with suppress(AttributeError, OSError):  # not on Windows, not on every file system
                os.fchmod(file.fileno(), 0o600)
            _shorten(path, file.read(LARGEST_HISTORY + 1))
    except (CierzoError, OSError) as denied:
        why = str(denied) if isinstance(denied, CierzoError) else f"{settings.home}: {denied.strerror}"
        screen.note(say("no_history", why=why), "yellow")
        return InMemoryHistory()
    return _Kept(path, screen)


def _shorten(path: Path, content: bytes) -> None:
    """Drop the older half of a history that has become too large; an entry begins with a line ``# time``."""
    if len(content) <= LARGEST_HISTORY:
        return
    with path.open("rb") as file:
        file.seek(-LARGEST_HISTORY // 2, os.SEEK_END)
        newer = file.read()
    path.write_bytes(newer[newer.find(b"\n# ") + 1 :])


class Lines:
    """Plain lines of a standard input that is no terminal: each is one question."""

    async def read(self) -> str:
        """Return the next line.

        Raises:
            EOFError: The input has ended.
            BadText: The line is too long or not UTF-8.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Future[bytes] = loop.create_future()

        def wait() -> None:
            # A thread of its own: one of the loop's pool would be waited for at exit, until the input ends.
            line = sys.stdin.buffer.readline(4 * MAX_TEXT + 1)
            with suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(_settle, found, line)

        threading.Thread(target=wait, daemon=True).start()
        line = await found
        if not line:
            raise EOFError
        if len(line) > 4 * MAX_TEXT:
            raise BadText(f"a line of standard input has more than {4 * MAX_TEXT:,} bytes: shorten it")
        try:
            return line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as broken:
            raise BadText(f"a line of standard input is not UTF-8 text (byte {broken.start:,}): convert it") from None


def _settle(found: asyncio.Future[bytes], line: bytes) -> None:
    if not found.done():
        found.set_result(line)


@contextmanager
def hushed() -> Iterator[None]:
    """Keep what is typed while an answer is written from appearing in it; the next question still gets it."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    quiet = [*before]
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(number, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(number, termios.TCSANOW, before)
