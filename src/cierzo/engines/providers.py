"""Hugging Face's own client behind bounds: what is asked of the hub and of the router, and what may come back.

`huggingface_hub` (2.4) makes the request and reads the chunks. By itself it follows redirects with the question in
them, waits without end, reads lines of any length, splits events at characters that a text may hold (U+2028, U+0085),
wants a space after ``data:``, and raises whatever a wrong answer makes Python raise. So every response is looked at
here first: it must be a 200 and not compressed, and its events are read here and handed on, one to a line.
Importing this file imports `huggingface_hub`, which takes a fifth of a second: engines/hub.py does it late.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx2
import orjson
from huggingface_hub import AsyncInferenceClient, constants, get_token
from huggingface_hub.errors import InferenceTimeoutError, TextGenerationError
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from cierzo.engines.hub_refusals import Refused, refusal
from cierzo.engines.refusals import in_stream, plain_words
from cierzo.engines.remote import (
    ALTERNATIVE_BYTES,
    LARGEST_BODY,
    LONGEST_WAIT,
    TOKEN_BYTES,
    TRIES,
    Patience,
    Remote,
)
from cierzo.engines.sse import LONGEST_LINE, Events
from cierzo.errors import CierzoError, EngineDied, EngineRefused, Overloaded, UnknownModel

ROUTER = "https://router.huggingface.co"
_RETIRED = "https://api-inference.huggingface.co"
_LONGEST_ERROR = 2**16
_OK = 200
_BUSY = (429, 503)
_WRONG = (400, 422)
_SEPARATORS = ((b"\n", b" "), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))
"""Characters at which httpx2 ends a line, and how JSON writes them too; all but the first stand in texts alone."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A provider that has a model: ``task`` and ``status`` as the hub says them."""

    provider: str
    task: str
    status: str

    @property
    def chats(self) -> bool:
        """Whether it answers messages."""
        return self.task == "conversational" and self.status != "error"


def stored_token() -> str:
    """Return the token with which this person is logged in to Hugging Face, or nothing.

    Raises:
        EngineRefused: It was to be renewed, and could not be.
    """
    try:
        return get_token() or ""
    except Exception as refused:  # noqa: BLE001 - whatever renewing a token may raise
        raise EngineRefused(
            f"the Hugging Face token cannot be had ({type(refused).__name__}): log in anew with `hf auth login`"
        ) from None


def addresses() -> tuple[str, str]:
    """Return where the hub and the router are, by ``HF_ENDPOINT`` and ``HF_INFERENCE_ENDPOINT`` or by themselves."""
    router = constants.INFERENCE_ENDPOINT.rstrip("/")
    return constants.ENDPOINT, ROUTER if router == _RETIRED else router


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` forbids to ask Hugging Face anything."""
    return constants.is_offline_mode()


class Session(Remote):
    """Hugging Face, as far as one model is concerned.

    Args:
        hub: Address of the hub, which knows the models.
        router: Address of the router, which passes requests on to providers.
        model: ``OWNER/NAME``.
        patience: How long they may take.
    """

    def __init__(self, hub: str, router: str, model: str, patience: Patience) -> None:
        super().__init__(router, "", patience)
        self._hub, self._model = hub, model
        self._trusted = _trusted()
        build_hf_headers(token=False)  # the first time this asks the hub something, and blocks whoever waits for it
        self._http: httpx2.AsyncClient | None = None
        self.logprobs = True
        """Whether probabilities are asked for; no longer, once a provider has refused to tell them."""

    def log_in(self, token: str) -> None:
        """Take the token that goes with every request from now on."""
        self._key = token

    async def offers(self) -> list[Offer]:
        """Ask the hub which providers have the model.

        Raises:
            UnknownModel: There is no such model.
            EngineError: The hub cannot be asked.
            Overloaded: It is busy.
        """
        said = await self._asked(f"{self._hub}/api/models/{self._model}?expand=inferenceProviderMapping")
        try:
            mapping = ModelInfo(**said).inference_provider_mapping  # type: ignore[no-untyped-call]
            return [Offer(_word(each.provider), _word(each.task), _word(each.status)) for each in mapping or ()]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise EngineRefused(
                f"{self._hub} does not say which providers have {self._model}: check HF_ENDPOINT"
            ) from None

    async def windows(self) -> dict[str, int]:
        """Ask the router for the model's window, in tokens, by provider. Those that it does not tell are missing."""
        try:
            said = await self._asked(f"{self.url}/v1/models")
        except (EngineRefused, UnknownModel, Overloaded):
            return {}
        cards = said.get("data") if isinstance(said, dict) else None
        card = next((one for one in _objects(cards) if one.get("id") == self._model), {})
        found = {str(one.get("provider")): one.get("context_length") for one in _objects(card.get("providers"))}
        return {name: size for name, size in found.items() if isinstance(size, int) and 0 < size < LARGEST_BODY}

    async def events(self, path: str, body: Any, *, tokens: int, alternatives: int = 0) -> AsyncGenerator[bytes, None]:
        """Have a chat completion written and yield its chunks, each as JSON; see `Remote.events`."""
        client = _Client(self, path, LONGEST_LINE + tokens * (TOKEN_BYTES + alternatives * ALTERNATIVE_BYTES))
        try:
            reading = await self._tried_with(client, body)
            async with aclosing(reading) as chunks:
                async for chunk in chunks:
                    yield orjson.dumps(_plain(chunk))
        except TextGenerationError as error:  # what an event of the stream says is raised as one of these
            raise in_stream(self.host, error.args[0] if error.args else "", self.clean) from None
        except httpx2.HTTPError as error:
            raise self._translated(error) from None
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            raise self._strange("what is no chat completion") from None
        finally:
            await client.close()  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        """End every wait with `EngineDied` and every connection. May be called twice."""
        await super().close()
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def _tried_with(self, client: _Client, body: dict[str, Any]) -> AsyncGenerator[Any, None]:
        """Send the request, again where that may help: while nothing of an answer has come."""
        named = {name: value for name, value in body.items() if name not in ("model", "messages", "stream")}
        model, messages = body["model"], body["messages"]
        for count in range(1, TRIES + 1):
            if not self.logprobs:
                named = {name: value for name, value in named.items() if "logprobs" not in name}
            wait = self.patience.back_off * 2 ** (count - 1) * random.uniform(0.8, 1.2)  # noqa: S311 - spreads the askers
            try:
                return await client.chat_completion(messages, model=model, stream=True, extra_body=named)  # type: ignore[return-value]
            except Refused as refused:
                if refused.status in _WRONG and self.logprobs and "logprobs" in refused.words:
                    self.logprobs = False  # not every provider tells them, and some refuse to be asked
                    continue
                if refused.status not in _BUSY or (refused.after or 0) > LONGEST_WAIT or count == TRIES:
                    raise self._refusal(refused, model.partition(":")[2]) from None
                wait = wait if refused.after is None else refused.after
            except httpx2.ConnectError as error:
                if count == TRIES:
                    raise self._translated(error) from None
            await self._within(wait + 1, lambda wait=wait: asyncio.sleep(wait), self._no_answer)  # type: ignore[misc]
        raise self._strange("refusals of different kinds")

    async def _asked(self, url: str) -> Any:
        """Return the JSON of a small answer."""
        try:
            async with self.opened("GET", url, headers=self._named()) as response:
                return orjson.loads(b"".join([part async for part in self._parts(response, LARGEST_BODY)]))
        except Refused as refused:
            raise self._refusal(refused, "") from None
        except httpx2.HTTPError as error:
            raise self._translated(error) from None
        except ValueError:
            raise self._strange("what is no JSON") from None

    @asynccontextmanager
    async def opened(self, method: str, url: str, **how: Any) -> AsyncIterator[httpx2.Response]:
        """Send a request and give the response, whose body has not been read.

        Raises:
            Refused: It is no 200.
            EngineRefused: It is a redirect, which is not followed, or compressed.
        """
        how["timeout"] = httpx2.Timeout(None, connect=self.patience.connect)
        context = self._session_of_http().stream(method, url, **how)
        response = await self._within(self.patience.first, context.__aenter__, self._no_answer)
        try:
            if response.has_redirect_location:
                raise self._sent_on(response)
            if response.status_code != _OK:
                raise Refused(response.status_code, response.headers, await self._beginning(response))
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise self._strange("a compressed answer, which nobody asked for")
            yield response
        finally:
            await response.aclose()

    def _named(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}", "Accept": "application/json"}

    def _session_of_http(self) -> httpx2.AsyncClient:
        if self.closed:
            raise self._was_closed()
        if self._http is None:
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=8)
            self._http = httpx2.AsyncClient(
                verify=self._trusted,
                follow_redirects=False,
                trust_env=self.url.startswith("https:"),  # a proxy reads what is not encrypted, the token too
                limits=limits,
                headers={"Accept-Encoding": "identity", "User-Agent": "cierzo"},
            )
        return self._http

    async def _beginning(self, response: httpx2.Response) -> bytes:
        """Return the first bytes of an error, and nothing if the server does not get it said."""
        parts: list[bytes] = []
        try:
            async for part in self._parts(response, 2**62):
                parts.append(part)
                if sum(map(len, parts)) >= _LONGEST_ERROR:
                    break
        except (EngineDied, httpx2.HTTPError):
            if self.closed:
                raise
        return b"".join(parts)[:_LONGEST_ERROR]

    async def _parts(self, response: httpx2.Response, bound: int) -> AsyncGenerator[bytes, None]:
        """Yield a body as it comes, of so many bytes at most."""
        raw = response.stream.__aiter__()  # type: ignore[union-attr]
        seconds = self.patience.first
        while True:
            try:
                part = await self._within(seconds, raw.__anext__, self._silent)
            except StopAsyncIteration:
                return
            seconds = self.patience.between
            bound -= len(part)
            if bound < 0:
                raise EngineRefused(
                    f"{self.host} sent far more than such an answer can take and was cut off: try another provider"
                )
            yield part

    async def lines(self, response: httpx2.Response, bound: int) -> AsyncGenerator[bytes, None]:
        """Yield the events of a stream as `huggingface_hub` can read them: one a line, after ``data: ``."""
        events = Events()
        try:
            async for part in self._parts(response, bound):
                for data in events.feed(part):
                    yield _line(data)
            for data in events.end():
                yield _line(data)
        except UnicodeDecodeError:
            raise self._strange("bytes that are no text") from None
        except ValueError:
            raise self._strange(f"a line of more than {LONGEST_LINE:,} bytes") from None

    def kind_of(self, response: httpx2.Response) -> str:
        """Return what a response says it is, in lower case and without parameters."""
        return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    async def no_stream(self, response: httpx2.Response) -> CierzoError:
        """Say what came where a stream was asked for."""
        words = self.clean(plain_words(await self._beginning(response)))
        kind = self.kind_of(response)[:60]
        return self._strange(f"{kind} where a stream was asked for{words and f' ({words})'}")

    def _sent_on(self, response: httpx2.Response) -> EngineRefused:
        place = self.clean(response.headers.get("Location", ""))[:200]
        return EngineRefused(
            f"{response.url.host} sends the request on to {place!r}, and the token is given to Hugging Face alone: "
            "check the model's present name on the hub, or HF_ENDPOINT"
        )

    def _refusal(self, refused: Refused, provider: str) -> CierzoError:
        return refusal(refused, self.clean(refused.words), self._model, provider)

    def _translated(self, error: httpx2.HTTPError) -> CierzoError:
        """Translate what went wrong on the way."""
        if self.closed:
            return self._was_closed()
        if isinstance(error, httpx2.ConnectTimeout | InferenceTimeoutError):
            return EngineDied(
                f"{self.host} accepts no connection within {self.patience.connect:g} seconds: "
                "check this machine's network"
            )
        if isinstance(error, httpx2.ConnectError) and "CERTIFICATE" in str(error).upper():
            return EngineRefused(
                f"the certificate of {self.host} cannot be trusted: check the address and the clock of this machine"
            )
        if isinstance(error, httpx2.ConnectError | httpx2.ProxyError):
            return EngineDied(f"{self.host} cannot be reached: check this machine's network and proxy, and ask again")
        if isinstance(error, httpx2.RemoteProtocolError | httpx2.DecodingError):
            return EngineDied(f"{self.host} broke off, or answered with what is no HTTP: ask again")
        return EngineDied(f"the connection to {self.host} broke ({type(error).__name__}): ask again")


class _Client(AsyncInferenceClient):
    """Hugging Face's client for one request, whose responses pass the session that it is made for."""

    def __init__(self, session: Session, path: str, bound: int) -> None:
        super().__init__(base_url=session.url + path, api_key=session._key)  # noqa: SLF001 - of this file
        self._session, self._bound = session, bound

    async def _get_async_client(self) -> Any:
        return self

    @asynccontextmanager
    async def stream(self, method: str, url: str, **how: Any) -> AsyncIterator[httpx2.Response]:
        """Do for `AsyncInferenceClient` what it believes httpx2 does."""
        async with self._session.opened(method, url, **how) as response:
            if self._session.kind_of(response) in ("text/html", "application/json", "application/problem+json"):
                raise await self._session.no_stream(response)
            raw = httpx2.Response(
                200, stream=_Lines(self._session.lines(response, self._bound)), request=response.request
            )
            raw.encoding = "utf-8"
            yield raw


class _Lines(httpx2.AsyncByteStream):
    def __init__(self, lines: AsyncGenerator[bytes, None]) -> None:
        self._lines = lines

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._lines

    async def aclose(self) -> None:
        await self._lines.aclose()


def _plain(value: Any) -> Any:
    """Return a chunk as plain values, with the fields that its class does not know of."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return {name: _plain(one) for name, one in vars(value).items()} if hasattr(value, "__dict__") else value


@cache
def _trusted() -> ssl.SSLContext:
    """Return the authorities whose certificates count. Reading them takes 20 ms, so it is done once."""
    return httpx2.create_ssl_context()


def _line(data: bytes) -> bytes:
    """Write one event on one line. Raises UnicodeDecodeError where it is no text."""
    data.decode()
    for character, written in _SEPARATORS:
        data = data.replace(character, written)
    return b"data: " + data.strip() + b"\n\n"


def _word(said: Any) -> str:
    """Return a name as it can be shown."""
    return "".join(letter for letter in str(said) if letter.isprintable())[:60]


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
