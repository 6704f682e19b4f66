"""Server-sent events as they come from a server that nobody here has written."""

from __future__ import annotations

LONGEST_LINE = 2**20
"""Most bytes of one event; a token with twenty alternatives takes 3 KB."""


class Events:
    """Server-sent events (WHATWG HTML §9.2) out of bytes that are cut anywhere: of each its data, lines joined."""

    def __init__(self) -> None:
        self._rest = b""
        self._begun = False
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes, return the data of the events that they complete.

        Raises:
            ValueError: An event is longer than `LONGEST_LINE`.
        """
        self._rest += chunk
        *lines, self._rest = self._rest.split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            raise ValueError("too long")
        found: list[bytes] = []
        for each in lines:
            line = each[:-1] if each.endswith(b"\r") else each
            if not self._begun:
                self._begun, line = True, line.removeprefix(b"\xef\xbb\xbf")  # a stream may begin with this mark
            if line.startswith(b"data:"):
                data = line[6:] if line.startswith(b"data: ") else line[5:]
                self._data.append(data)
                self._size += len(data)
                if self._size > LONGEST_LINE:
                    raise ValueError("too long")
            elif not line:
                found += self.end()
        return found

    def end(self) -> list[bytes]:
        """Return the data of the event that no blank line has ended, if there is one."""
        data, self._data, self._size = self._data, [], 0
        return [b"\n".join(data)] if data else []
