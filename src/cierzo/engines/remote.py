"""What all engines behind an address share: one HTTP session, timeouts, retries, server-sent events, and bounds.

A server elsewhere may be overloaded, half dead, or something else altogether. So every wait has an end, every size has
a bound, and whatever goes wrong is one of `cierzo.errors` with the next step in words. A request is repeated only
while nothing of its answer has come. No redirect is followed: the key is meant for this address alone.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import orjson

from cierzo.engines.refusals import BUSY, plain_words, refused, retry_after
from cierzo.engines.sse import LONGEST_LINE, Events
from cierzo.errors import BadSetting, CierzoError, EngineDied, EngineRefused, Overloaded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

T = TypeVar("T")

LARGEST_BODY = 4 * 2**20
"""Most bytes of an answer that is no stream, such as a list of models."""

TOKEN_BYTES, ALTERNATIVE_BYTES = 8192, 1024
"""Most bytes that one token of a stream may take on average, and each of its alternatives besides."""

TRIES = 3
LONGEST_WAIT = 30.0
"""Seconds that a server may ask to be left alone, by ``Retry-After``, before it is asked again."""

_OK = 200
_REDIRECTS = range(300, 400)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server may take, in seconds.

    Attributes:
        connect: To accept a connection.
        first: From the request to the first byte; it may read a long prompt, or have a queue.
        between: From one byte to the next.
        back_off: Before the second try, where the server does not say; doubled before the third.
    """

    connect: float = 10.0
    first: float = 180.0
    between: float = 60.0
    back_off: float = 0.5


PATIENCE = Patience()


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is: ``http(s)://HOST[:PORT][/PATH]``, and what was said behind a question mark."""

    url: str
    options: dict[str, str]

    @property
    def host(self) -> str:
        """Host and port, as a person says them."""
        return urlsplit(self.url).netloc

    @classmethod
    def of(cls, engine: str, *, options: tuple[str, ...] = ()) -> Address:
        """Take the setting ``KIND+http://HOST[:PORT][/PATH][?NAME=VALUE]`` apart.

        Args:
            engine: The setting.
            options: Names that may stand behind the question mark.

        Raises:
            BadSetting: It is no such address, or has a user name or a key in it.
        """
        kind, _, rest = engine.partition("+")
        try:
            parts = urlsplit(rest)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or parts.scheme not in ("http", "https"):
            raise BadSetting(f"the engine {kind}+… needs an address such as {kind}+http://127.0.0.1:8000")
        if "@" in parts.netloc:
            raise BadSetting("the engine's address has a user name or a key in it: set CIERZO_ENGINE_KEY instead")
        if parts.fragment or any(letter <= " " or letter > "~" for letter in rest):
            raise BadSetting(
                "the engine's address has a blank, a '#' or a letter in it that no address has: correct it"
            )
        said = dict(pair.partition("=")[::2] for pair in parts.query.split("&") if pair)
        for name in said:
            if name not in options:
                known = f"use {', '.join(options)}" if options else "leave out what follows the question mark"
                raise BadSetting(f"the engine's address has an unknown part {name!r:.60}: {known}")
        return cls(f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}", said)


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that is no stream: its status, its body, and what that says as JSON (None where it is none)."""

    status: int
    raw: bytes
    value: Any


class Remote:
    """One server, as one engine speaks to it. Nothing is opened before the first request.

    Args:
        url: Where it is, without a slash at the end.
        key: Sent as a bearer token, to this address alone; empty sends none.
        patience: How long it may take.
    """

    def __init__(self, url: str, key: str = "", patience: Patience = PATIENCE) -> None:
        self.url, self._key, self.patience = url, key, patience
        self.host = urlsplit(url).netloc
        self.closed = False
        self._session: aiohttp.ClientSession | None = None
        self._waits: set[asyncio.Timeout] = set()

    async def ask(self, path: str, body: Any = None, *, tries: int = TRIES) -> Answered:
        """Ask for something small: GET, or POST where there is a ``body``, and read the whole answer.

        Any status is an answer; what it means is the asker's to say. A busy server is asked ``tries`` times.

        Raises:
            EngineDied: Nobody answers there, or not in time.
            EngineRefused: The answer is too large or a redirect.
        """
        async with self._opened(path, None if body is None else orjson.dumps(body), tries=tries) as response:
            raw = await self._whole(response)
            try:
                return Answered(response.status, raw, orjson.loads(raw))
            except ValueError:
                return Answered(response.status, raw, None)

    async def events(self, path: str, body: Any, *, tokens: int, alternatives: int = 0) -> AsyncGenerator[bytes, None]:
        """Send a request and yield the data of each server-sent event of its answer.

        Closing the generator closes the connection, which tells the server to stop.

        Args:
            path: Below the address.
            body: The request: bytes, or what becomes JSON.
            tokens: Most tokens that the answer may have, which bounds its bytes.
            alternatives: What each may carry besides.

        Raises:
            EngineDied: The connection broke or fell silent, before or within the answer.
            EngineRefused: The server refused the request, or what it says is no such answer.
            Overloaded: The server is busy, also after several tries.
        """
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        left = LONGEST_LINE + tokens * (TOKEN_BYTES + alternatives * ALTERNATIVE_BYTES)
        reader = Events()
        async with self._opened(path, raw, stream=True) as response:
            await self._expect_stream(response)
            seconds = self.patience.first
            while chunk := await self._within(seconds, response.content.readany, self._silent):
                seconds = self.patience.between
                left -= len(chunk)
                if left < 0:
                    raise EngineRefused(
                        f"the server at {self.host} sent far more than {tokens} tokens can take and was cut off: "
                        "look into its log, or use another"
                    )
                try:
                    found = reader.feed(chunk)
                except ValueError:
                    raise self._strange(f"a line of more than {LONGEST_LINE:,} bytes") from None
                for data in found:
                    yield data
            for data in reader.end():
                yield data

    async def close(self) -> None:
        """End every wait with `EngineDied` and every connection. May be called twice."""
        self.closed = True
        now = asyncio.get_running_loop().time()
        for wait in list(self._waits):
            if not wait.expired():
                wait.reschedule(now)
        session, self._session = self._session, None
        if session is not None:
            await asyncio.sleep(0)  # every reader learns that it was closed, before its connection breaks
            await session.close()

    @asynccontextmanager
    async def _opened(
        self, path: str, body: bytes | None, *, stream: bool = False, tries: int = TRIES
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request, again where that may help, and give the answer whose body has not been read."""
        response = await self._tried(path, body, stream=stream, tries=tries)
        try:
            if response.status in _REDIRECTS:
                raise self._redirected(response)
            yield response
        except aiohttp.ClientError as broken:
            raise EngineDied(f"the connection to {self.host} broke ({type(broken).__name__}): ask again") from None
        except OSError as broken:
            raise EngineDied(f"the connection to {self.host} broke ({broken.strerror or broken}): ask again") from None
        finally:
            response.close()  # an answer that is not read to its end is cancelled by this and by nothing else

    async def _tried(self, path: str, body: bytes | None, *, stream: bool, tries: int) -> aiohttp.ClientResponse:
        for count in range(1, tries + 1):
            wait = self.patience.back_off * 2 ** (count - 1) * random.uniform(0.8, 1.2)  # noqa: S311 - spreads the askers
            try:
                response = await self._within(
                    self.patience.first, lambda: self._send(path, body, stream=stream), self._no_answer
                )
            except aiohttp.ClientConnectorCertificateError:
                raise EngineRefused(
                    f"the certificate of {self.host} cannot be trusted: check the address and the clock of this machine"
                ) from None
            except aiohttp.ConnectionTimeoutError:
                raise EngineDied(
                    f"{self.host} accepts no connection within {self.patience.connect:g} seconds: check the address"
                ) from None
            except (aiohttp.ClientConnectorDNSError, aiohttp.InvalidURL):
                raise EngineDied(f"there is no host {self.host}: check the engine's address") from None
            except (aiohttp.ClientConnectionError, OSError) as broken:
                if count == tries or not self._never_arrived(broken, count):
                    raise self._unreachable(broken) from None
            except aiohttp.ClientError as broken:
                raise self._strange(f"something that is no HTTP ({type(broken).__name__})") from None
            else:
                asked = retry_after(response.headers.get("Retry-After"))
                if response.status not in BUSY or (asked or 0) > LONGEST_WAIT or count == tries:
                    return response
                response.close()
                wait = wait if asked is None else asked
            await self._within(wait + 1, lambda wait=wait: asyncio.sleep(wait), self._no_answer)  # type: ignore[misc]
        raise AssertionError("the last try returns or raises")

    def _never_arrived(self, broken: Exception, count: int) -> bool:
        """Whether a request was certainly not begun: what killed a server must not be sent to the next one."""
        if isinstance(broken, aiohttp.ClientConnectorError):
            return True
        # a connection that was kept open may have been closed by the other side at the very moment
        return isinstance(broken, aiohttp.ServerDisconnectedError) and self.url.startswith("https:") and count == 1

    async def _send(self, path: str, body: bytes | None, *, stream: bool) -> aiohttp.ClientResponse:
        headers = {"Accept": "text/event-stream" if stream else "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        return await self._opened_session().request(
            "GET" if body is None else "POST", self.url + path, data=body, headers=headers, allow_redirects=False
        )

    def _opened_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            key = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=not self.url.startswith("https:")),
                headers={"Accept-Encoding": "identity", "User-Agent": "cierzo", **key},
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.patience.connect),
                auto_decompress=False,
                read_bufsize=2**18,
            )
        return self._session

    async def _within(
        self, seconds: float, work: Callable[[], Awaitable[T]], late: Callable[[float], CierzoError]
    ) -> T:
        """Wait for ``work``, at most so long, and no longer than until this is closed."""
        if self.closed:
            raise self._was_closed()
        try:
            async with asyncio.timeout(seconds) as limit:
                self._waits.add(limit)
                try:
                    return await work()
                finally:
                    self._waits.discard(limit)
        except aiohttp.ServerTimeoutError:
            raise
        except TimeoutError:
            if self.closed:
                raise self._was_closed() from None
            raise late(seconds) from None

    async def _whole(self, response: aiohttp.ClientResponse) -> bytes:
        parts: list[bytes] = []
        size = 0
        while chunk := await self._within(self.patience.between, response.content.readany, self._silent):
            parts.append(chunk)
            size += len(chunk)
            if size > LARGEST_BODY:
                raise self._strange(f"more than {LARGEST_BODY:,} bytes")
        return b"".join(parts)

    async def _expect_stream(self, response: aiohttp.ClientResponse) -> None:
        """Let only an answer through that is a stream.

        Raises:
            CierzoError: It is none; the sentence says what it is.
        """
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if response.status == _OK and response.headers.get("Content-Encoding", "identity") != "identity":
            raise self._strange("a compressed stream, which nobody asked for")
        if response.status == _OK and kind in ("text/event-stream", ""):
            return
        body = await self._whole(response)
        if response.status in BUSY:
            after = retry_after(response.headers.get("Retry-After"))
            words = self.clean(plain_words(body)) or f"status {response.status}"
            raise Overloaded(
                f"the server at {self.host} is busy ({words}): ask again in a moment", retry_after=after or 1.0
            )
        if response.status == _OK:
            words = self.clean(plain_words(body))
            raise self._strange(f"{kind or 'something'} where a stream was asked for{words and f' ({words})'}")
        raise refused(self.host, response.status, body, self.clean)

    def clean(self, words: str) -> str:
        """Take the key out of what a server says: some repeat it."""
        return words.replace(self._key, "…") if self._key else words

    def _redirected(self, response: aiohttp.ClientResponse) -> EngineRefused:
        where = urlsplit(response.headers.get("Location", ""))
        place = f" to {where.scheme}://{where.netloc}" if where.scheme and where.netloc else ""
        return EngineRefused(
            f"the server at {self.host} sends requests on{self.clean(place[:200])}, and a key is given to no other "
            "address: set CIERZO_ENGINE to where it really is"
        )

    def _unreachable(self, broken: Exception) -> EngineDied:
        if isinstance(broken, (aiohttp.ClientConnectorError, ConnectionRefusedError)):
            reason = getattr(broken, "os_error", broken)
            words = type(broken).__name__
            if isinstance(reason, ssl.SSLError):
                words = reason.reason or words
            elif isinstance(reason, OSError) and reason.errno:
                words = os.strerror(reason.errno).lower()
            return EngineDied(f"no server answers at {self.host} ({words}): start it, or correct the engine's address")
        return EngineDied(f"the server at {self.host} hung up before it answered: look into its log, and ask again")

    def _strange(self, what: str) -> EngineRefused:
        return EngineRefused(f"the server at {self.host} answered with {what}: check that the address is its API's")

    def _no_answer(self, seconds: float) -> EngineDied:
        return EngineDied(f"the server at {self.host} did not answer within {seconds:g} seconds: ask again")

    def _silent(self, seconds: float) -> EngineDied:
        return EngineDied(f"the server at {self.host} said nothing for {seconds:g} seconds: ask again")

    def _was_closed(self) -> EngineDied:
        return EngineDied(f"the engine at {self.host} was closed: start it again")
