"""The address that a server listens on: who may reach it, taking it, naming it, and ending in peace.

It knows of sockets and signals only; the page and the API both begin here.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cierzo.errors import BadSetting
from cierzo.settings import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cierzo.settings import Settings


def refuse_strangers(settings: Settings) -> None:
    """See that only this machine can reach the address, unless ``insecure`` was said.

    Raises:
        BadSetting: Other machines could reach it.
    """
    if not settings.is_loopback() and not settings.insecure:
        raise BadSetting(
            f"{settings.host} can be reached from other machines and no password is asked for: "
            "use 127.0.0.1, or say --insecure if everybody there may use it"
        )


def listen(host: str, port: int) -> socket.socket:
    """Take the address.

    Raises:
        BadSetting: It is taken, not this machine's, or not allowed.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError):
        raise BadSetting(f"there is no address {host!r:.100}: use 127.0.0.1") from None
    try:
        if os.name == "posix":  # on Windows this would let two programs share the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen(2048)
    except OSError as refused:
        listening.close()
        raise BadSetting(_why_not(refused, host, port)) from None
    return listening


def address_of(host: str, port: int) -> str:
    """Give the address that a person opens."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - compared
    return f"http://{name}:{port}"


class Names:
    """Knows by which names this server may be called.

    A web site whose name is made to lead to this machine (DNS rebinding) calls it by a name that is not its own.

    Args:
        host: The address that is listened on.
    """

    def __init__(self, host: str) -> None:
        self._own = {*LOOPBACK, host.lower()}
        self._anyhow = host not in LOOPBACK and not host.startswith("127.")
        if self._anyhow:
            name = socket.gethostname().lower()
            self._own |= {name, name.partition(".")[0], f"{name}.local"}

    def known(self, header: str) -> bool:
        """Say whether a Host header names this server."""
        try:
            parts = urlsplit(f"//{header}")
            name = parts.hostname or ""
        except ValueError:
            return False
        if parts.path or parts.query or parts.fragment or "@" in header:
            return False
        return name in self._own or name.endswith(".localhost") or (self._anyhow and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _why_not(refused: OSError, host: str, port: int) -> str:
    if refused.errno == errno.EADDRINUSE:
        return f"port {port} is taken, perhaps by another Cierzo: choose one with --port, or any free one with --port 0"
    if refused.errno == errno.EACCES:
        return f"port {port} is kept for the system: choose one above 1023 with --port"
    return f"cannot listen on {host} ({refused.strerror}): use 127.0.0.1"


@contextlib.contextmanager
def ending_quietly() -> Iterator[None]:
    """Let SIGTERM end the program with status 0. uvicorn sends itself the signal again once everything is closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
