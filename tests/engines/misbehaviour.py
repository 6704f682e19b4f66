"""What servers do wrong: each case says what is sent, and what an engine must make of it."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Literal

from fault_server import ANSWER, BEGUN, KEPT, KEY, WORDS, Act, Exchange, event

MANY = 40_000_000
ENOUGH = 14_000_000
"""Bytes that a server gets rid of at most: the 4 MiB of the largest body, and what the system holds of a connection."""

End = Literal["right", "fails", "either"]
BOMB = gzip.compress(bytes(MANY), 1)


@dataclass(frozen=True)
class Case:
    """A fault and its end.

    Attributes:
        name: What goes wrong.
        act: What is sent.
        end: ``right`` (the answer is ``said``), ``fails`` (a typed error after ``said``), or ``either`` of the two,
            with any beginning of ``said``.
        said: Text that the person gets to see.
        asked: Most requests that the server may see.
        sent: Most bytes that the server gets rid of before the engine has had enough; what the two systems' buffers
            hold is among them.
        open: Whether more may stand in the answer than ``said``: what is wrong may be left out or shown in some way.
    """

    name: str
    act: Act
    end: End
    said: str = ""
    asked: int = 1
    sent: int = ENOUGH
    open: bool = False


CASES: list[Case] = []


def case(end: End, said: str = "", **bounds: int) -> Callable[[Act], Act]:
    """Enter a fault into `CASES` under its function's name."""

    def enter(act: Act) -> Act:
        CASES.append(Case(act.__name__.replace("_", " "), act, end, said, **bounds))
        return act

    return enter


def cases(end: End, name: str, acts: dict[str, Act], said: str = "", **bounds: int) -> None:
    """Enter several faults of one kind."""
    CASES.extend(Case(f"{name}: {which}", act, end, said, **bounds) for which, act in acts.items())


# What is odd and harmless


@case("right", ANSWER)
async def nothing_at_all_goes_wrong(to: Exchange) -> None:
    await to.begin()
    await to.tokens(KEPT)
    await to.finish()
    await to.over()


@case("right", ANSWER)
async def all_in_one_packet(to: Exchange) -> None:
    body = to.whole()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n"
    await to.send(head.encode() + body)


@case("right", ANSWER)
async def drip_of_single_bytes(to: Exchange) -> None:
    await to.head(chunked=True)
    whole = to.whole()
    for byte in whole[:500]:
        await to.body(bytes([byte]))
        await asyncio.sleep(0)
    await to.body(whole[500:])
    await to.over()


@case("right", ANSWER)
async def http_1_0_and_no_length(to: Exchange) -> None:
    await to.head(version="1.0")
    await to.body(to.whole())


@case("right", ANSWER)
async def crlf_events(to: Exchange) -> None:
    await to.head(chunked=True)
    for byte in to.whole().replace(b"\n", b"\r\n").split(b"\r"):
        await to.body(byte + b"\r")  # each pair of them is cut in two
    await to.over()


@case("right", ANSWER)
async def data_on_several_lines(to: Exchange) -> None:
    await to.head(chunked=True)
    await to.body(to.whole().replace(b', "', b',\ndata: "'))
    await to.over()


@case("right", ANSWER)
async def no_space_after_the_colon(to: Exchange) -> None:
    await to.head(chunked=True)
    await to.body(to.whole().replace(b"data: ", b"data:"))
    await to.over()


@case("right", ANSWER)
async def comments_and_other_fields(to: Exchange) -> None:
    await to.head(chunked=True)
    noise = b": keep-alive\n\nretry: 5\nid: 7\nevent: message\nnonsense\n"
    await to.body(noise + to.whole().replace(b"data: {", noise + b"data: {"))
    await to.over()


@case("right", ANSWER)
async def a_byte_order_mark(to: Exchange) -> None:
    await to.head(chunked=True)
    await to.body(b"\xef\xbb\xbf" + to.whole())
    await to.over()


@case("right", ANSWER)
async def another_charset_is_said(to: Exchange) -> None:
    await to.head(kind="text/event-stream; charset=iso-8859-1", chunked=True)
    await to.body(to.whole())
    await to.over()


@case("right", "one\u2028two\u0085three")
async def line_separators_inside_a_text(to: Exchange) -> None:
    await to.head(chunked=True)
    for index, text in enumerate(("one\u2028", "two\u0085", "three")):
        await to.event(to.dialect.token(index, text))
    await to.finish(3)
    await to.over()


@case("right", ANSWER)
async def unknown_fields(to: Exchange) -> None:
    await to.head(chunked=True)
    for index, word in enumerate(WORDS):
        await to.event(to.dialect.token(index, word) | {"nvext": {"deep": [1]}, "provider": "x", "usage": None})
    await to.finish()
    await to.over()


@case("right", ANSWER)
async def token_after_stop(to: Exchange) -> None:
    await to.head(chunked=True)
    await to.tokens()
    await to.event(to.dialect.end(len(WORDS)))
    await to.event(to.dialect.token(len(WORDS), " and more"))
    await to.body(b"data: [DONE]\n\n")
    await to.over()


@case("right", ANSWER)
async def event_after_done(to: Exchange) -> None:
    await to.head(chunked=True)
    await to.body(to.whole())
    await to.event(to.dialect.token(len(WORDS), " and more"))
    await to.body(b"data: {never mind\n\n")
    await to.over()


@case("right", ANSWER)
async def the_end_and_then_a_reset(to: Exchange) -> None:
    await to.head(chunked=True)
    await to.body(to.whole())
    to.reset()


@case("right", ANSWER)
async def an_end_and_then_silence(to: Exchange) -> None:
    await to.head(chunked=True)
    await to.body(to.whole())
    await to.silence()


@case("right", ANSWER)
async def early_hints_first(to: Exchange) -> None:
    await to.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
    await to.head(chunked=True)
    await to.body(to.whole())
    await to.over()


def busy(status: int, *headers: str, times: int = 9) -> Act:
    async def act(to: Exchange) -> None:
        if to.turn <= times:
            await to.answer(status, json.dumps(to.dialect.error("busy", status)).encode(), headers=headers)
            return
        await to.head(chunked=True)
        await to.body(to.whole())
        await to.over()

    return act


cases(
    "right",
    "once",
    {
        "429": busy(429, times=1),
        "429, Retry-After": busy(429, "Retry-After: 0", times=1),
        "503": busy(503, times=1),
        "503, Retry-After": busy(503, "Retry-After: 0", times=1),
        "429, Retry-After of the past": busy(429, "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT", times=1),
    },
    ANSWER,
    asked=2,
)


# What may be taken or refused, but must not be believed


@case("either", ANSWER)
async def no_done(to: Exchange) -> None:
    await to.head(chunked=True)
    await to.tokens()
    await to.event(to.dialect.end(len(WORDS)))
    await to.over()


def typed(kind: str) -> Act:
    async def act(to: Exchange) -> None:
        await to.head(kind=kind, chunked=True)
        await to.body(to.whole())
        await to.over()

    return act


cases(
    "either",
    "content type",
    {name: typed(name) for name in ("text/plain", "application/octet-stream", "", "application/json", "a;;;=/é")},
    ANSWER,
)


@case("either", ANSWER)
async def an_unknown_reason(to: Exchange) -> None:
    await to.begin()
    await to.tokens(KEPT)
    await to.event(to.dialect.end(len(WORDS), "banana"))
    await to.over()


@case("either", ANSWER)
async def done_without_a_reason(to: Exchange) -> None:
    await to.begin()
    await to.tokens(KEPT)
    await to.body(b"data: [DONE]\n\n")
    await to.over()


@case("either", ANSWER)
async def a_compressed_body(to: Exchange) -> None:
    body = gzip.compress(to.whole())
    await to.head(length=len(body), headers=["Content-Encoding: gzip"])
    await to.send(body)


@case("either", "a" * 900_000)
async def a_token_of_a_novel(to: Exchange) -> None:
    await to.head(chunked=True)
    await to.event(to.dialect.token(0, "a" * 900_000))
    await to.finish(1)
    await to.over()


@case("either", "ab\0c")
async def nul_in_a_text(to: Exchange) -> None:
    await to.head(chunked=True)
    for index, text in enumerate(("a", "b\0", "c")):
        await to.event(to.dialect.token(index, text))
    await to.finish(3)
    await to.over()


# What is no answer


def page(status: int) -> Act:
    async def act(to: Exchange) -> None:
        text = "<!doctype html><html><head><title>Bad gateway</title></head><body><h1>nginx</h1></body></html>"
        await to.answer(status, text.encode(), "text/html; charset=utf-8")

    return act


cases("fails", "an HTML page", {str(status): page(status) for status in (200, 404, 500, 502)})


def refusing(status: int) -> Act:
    async def act(to: Exchange) -> None:
        await to.answer(status, json.dumps(to.dialect.error("it is not to be", status)).encode())

    return act


cases(
    "fails",
    "status",
    {
        str(status): refusing(status)
        for status in (204, 206, 304, 400, 401, 402, 403, 404, 410, 413, 422, 500, 504, 999)
    },
)


def without_words(status: int) -> Act:
    async def act(to: Exchange) -> None:
        await to.answer(status, b"", "")

    return act


cases("fails", "an empty answer", {str(status): without_words(status) for status in (200, 401, 500)})


def answering(status: int, data: bytes, kind: str = "application/json", *headers: str) -> Act:
    async def act(to: Exchange) -> None:
        await to.answer(status, data, kind, headers)

    return act


cases(
    "fails",
    "an error",
    {
        "that is no JSON": answering(500, b'{"error": '),
        "that is a number": answering(422, b"7"),
        "of null": answering(400, b'{"error": null}'),
        "of lists": answering(400, b'{"error": [["a"], {"message": {}}], "message": []}'),
        "of many lines and escapes": answering(
            400, b'{"error": {"message": "one\\n\\u001b[31mtwo\\u0000\\r\\nthree"}}'
        ),
        "that repeats the key": answering(400, b'{"error": {"message": "Bearer %s is wrong"}}' % KEY.encode()),
        "with the key as text": answering(500, f"Authorization: Bearer {KEY}".encode(), "text/plain"),
        "deep in brackets": answering(400, b"[" * 100_000),
        "that is no UTF-8": answering(500, b'{"error": "\xff\xfe"}'),
        "very long": answering(500, b'{"error": "%s"}' % (b"x" * 500_000)),
        "in a header with the key": answering(401, b"{}", "application/json", f"X-Error-Message: token {KEY} is bad"),
    },
)


def streaming(status: int, part: bytes, kind: str) -> Act:
    async def act(to: Exchange) -> None:
        await to.head(status, kind, chunked=True)
        for _ in range(MANY // len(part)):
            await to.body(part)
        await to.over()

    return act


cases(
    "fails",
    "40 MB of",
    {
        "error page": streaming(500, b"<p>sorry</p>" * 5000, "text/html"),
        "error JSON": streaming(503, b'"' + b"x" * 60_000, "application/json"),
        "HTML": streaming(200, b"<p>welcome</p>" * 5000, "text/html"),
    },
    asked=3,
    sent=ENOUGH,
)


@case("fails", sent=ENOUGH)
async def a_line_of_40_mb(to: Exchange) -> None:
    await to.head(chunked=True)
    await to.body(b'data: {"choices": "')
    for _ in range(MANY // 50_000):
        await to.body(b"x" * 50_000)
    await to.body(b'"}\n\n')
    await to.finish()
    await to.over()


@case("fails", sent=ENOUGH)
async def an_event_of_many_lines(to: Exchange) -> None:
    await to.head(chunked=True)
    for _ in range(MANY // 50_000):
        await to.body(b"data: 12345678\n" * 3333)
    await to.body(b"\n")
    await to.finish()
    await to.over()


@case("fails", BEGUN, sent=ENOUGH)
async def a_line_of_40_mb_in_the_middle(to: Exchange) -> None:
    await to.begin()
    for _ in range(MANY // 50_000):
        await to.body(b"x" * 50_000)
    await to.over()


@case("fails", sent=ENOUGH)
async def a_gzip_bomb(to: Exchange) -> None:
    await to.head(length=len(BOMB), headers=["Content-Encoding: gzip"])
    await to.send(BOMB)


def redirecting(status: int, *, loop: bool = False) -> Act:
    async def act(to: Exchange) -> None:
        place = to.request.path if loop else to.elsewhere + to.request.path
        await to.answer(status, b"", "text/plain", [f"Location: {place}"])

    return act


cases("fails", "a redirect to another host", {str(status): redirecting(status) for status in (301, 302, 303, 307, 308)})
cases("fails", "a redirect loop", {str(status): redirecting(status, loop=True) for status in (302, 307)})
cases(
    "fails",
    "busy for ever",
    {
        "429": busy(429),
        "503": busy(503),
        "429, soon": busy(429, "Retry-After: 0"),
        "429, in a thousand years": busy(429, "Retry-After: 31536000000"),
        "429, in more than a float holds": busy(429, "Retry-After: " + "9" * 400),
        "429, before now": busy(429, "Retry-After: -5"),
        "429, in no number": busy(429, "Retry-After: nan"),
        "503, in words": busy(503, "Retry-After: when it is ready"),
        "503, at a date": busy(503, "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT"),
        "503, twice": busy(503, "Retry-After: 0", "Retry-After: 0"),
    },
    asked=3,
)


@case("fails")
async def closed_before_the_headers(to: Exchange) -> None:
    pass


@case("fails")
async def reset_before_the_headers(to: Exchange) -> None:
    to.reset()


@case("fails")
async def cut_inside_the_headers(to: Exchange) -> None:
    await to.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/ev")


@case("fails", sent=ENOUGH)
async def a_header_of_1_mb(to: Exchange) -> None:
    await to.head(headers=["X-Long: " + "x" * 2**20], chunked=True)
    await to.body(to.whole())
    await to.over()


@case("fails", sent=ENOUGH)
async def headers_without_end(to: Exchange) -> None:
    await to.send(b"HTTP/1.1 200 OK\r\n")
    for start in range(0, 4_000_000, 2000):
        await to.send(b"".join(b"X-%d: 1\r\n" % number for number in range(start, start + 2000)))


@case("fails")
async def no_http(to: Exchange) -> None:
    await to.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n" * 20)


@case("fails")
async def silence_before_the_first_byte(to: Exchange) -> None:
    await to.silence()


@case("fails")
async def silence_after_the_headers(to: Exchange) -> None:
    await to.head(chunked=True)
    await to.silence()


@case("fails")
async def comments_only(to: Exchange) -> None:
    await to.head(chunked=True)
    for _ in range(100):
        await to.body(b": keep-alive\n\n")
    await to.over()


@case("fails")
async def done_and_nothing_else(to: Exchange) -> None:
    await to.head(chunked=True)
    await to.body(b"data: [DONE]\n\n")
    await to.over()


def saying(*parts: bytes) -> Act:
    async def act(to: Exchange) -> None:
        await to.head(chunked=True)
        for part in parts:
            await to.body(part)
        await to.over()

    return act


cases(
    "fails",
    "the first event",
    {
        "is wrong JSON": saying(b'data: {"choices": [{"te\n\n'),
        "is a list": saying(b"data: [1, 2]\n\n"),
        "is a text": saying(b'data: "hello"\n\n'),
        "is a number": saying(b"data: 7\n\n"),
        "is null": saying(b"data: null\n\n"),
        "is empty": saying(b"data: {}\n\n"),
        "is no UTF-8": saying(b'data: {"choices": [{"text": "\xff\xc3"}]}\n\n'),
        "is deep": saying(b"data: " + b'{"a":' * 100_000 + b"\n\n"),
        "is HTML": saying(b"data: <html>\n\n"),
    },
)


@case("fails")
async def one_json_and_no_stream(to: Exchange) -> None:
    await to.answer(200, json.dumps({"object": "list", "data": []}).encode())


# What breaks in the middle


@case("fails", BEGUN)
async def cut_between_events(to: Exchange) -> None:
    await to.begin()


@case("fails", BEGUN)
async def a_clean_end_too_early(to: Exchange) -> None:
    await to.begin()
    await to.over()


@case("fails", BEGUN)
async def an_end_of_the_connection_too_early(to: Exchange) -> None:
    await to.begin(chunked=False)


@case("fails", BEGUN)
async def cut_inside_an_event(to: Exchange) -> None:
    await to.begin(chunked=False)
    await to.body(event(to.dialect.token(KEPT, WORDS[KEPT]))[:-20])


@case("fails", BEGUN)
async def a_length_too_long(to: Exchange) -> None:
    await to.begin(chunked=False, length=99_999)


@case("fails", BEGUN)
async def a_reset_in_the_middle(to: Exchange) -> None:
    await to.begin()
    await asyncio.sleep(0.1)  # a reset throws away what was not read yet
    to.reset()


@case("fails", BEGUN)
async def silence_in_the_middle(to: Exchange) -> None:
    await to.begin()
    await to.silence()


@case("fails", BEGUN)
async def a_chunk_of_no_size(to: Exchange) -> None:
    await to.begin()
    await asyncio.sleep(0.1)
    await to.send(b"zz\r\nwhat\r\n")


@case("fails", BEGUN)
async def an_error_in_the_stream(to: Exchange) -> None:
    await to.begin()
    await to.event(to.dialect.error("the model ran out of memory"))
    await to.over()


@case("fails", BEGUN)
async def an_error_in_other_words(to: Exchange) -> None:
    await to.begin()
    await to.body(b'event: error\ndata: {"error": "it broke", "error_type": "generation", "code": 500}\n\n')
    await to.over()


@case("fails", BEGUN)
async def an_error_that_repeats_the_key(to: Exchange) -> None:
    await to.begin()
    await to.event(to.dialect.error(f"the provider does not know Bearer {KEY}\n\x1b[2J"))
    await to.over()


def middle(what: bytes) -> Act:
    async def act(to: Exchange) -> None:
        await to.begin()
        await to.body(what)
        await to.over()

    return act


cases(
    "fails",
    "then an event",
    {
        "is wrong JSON": middle(b"data: {what\n\n"),
        "is a list": middle(b"data: []\n\n"),
        "is no UTF-8": middle(b'data: {"a": "\xff"}\n\n'),
        "is deep": middle(b"data: " + b"[" * 100_000 + b"\n\n"),
    },
    BEGUN,
)


def busy_in_the_middle(status: int) -> Act:
    async def act(to: Exchange) -> None:
        await to.begin()
        await to.event(to.dialect.error("overloaded", status))
        await to.over()

    return act


cases("fails", "an error in the stream", {str(status): busy_in_the_middle(status) for status in (429, 503)}, BEGUN)


# What is said in place of a token


def token(**changes: object) -> Act:
    """Say three tokens, then one of which something is wrong, then the rest."""

    async def act(to: Exchange) -> None:
        await to.begin()
        await to.event(to.dialect.token(KEPT, WORDS[KEPT], **changes))
        await to.tokens(KEPT + 1)
        await to.finish()
        await to.over()

    return act


cases(
    "either",
    "a token's text",
    {
        "is null": token(text=None),
        "is a number": token(text=7),
        "is a list": token(text=["a"]),
        "is half a character": token(text="\ud83d"),
        "is an object": token(text={"a": 1}),
    },
    BEGUN,
    open=True,
)
cases(
    "either",
    "a token's id",
    {
        name: token(id=value)
        for name, value in {
            "is negative": -1,
            "is huge": 2**70,
            "is a text": "7",
            "is null": None,
            "is a fraction": 1.5,
            "is true": True,
        }.items()
    },
    ANSWER,
)
cases(
    "either",
    "a token's logprob",
    {name: token(logprob=value) for name, value in {
        "is not a number": float("nan"), "is infinite": float("inf"), "is minus infinity": float("-inf"),
        "is a text": "often", "is above zero": 3.5, "is null": None, "is a list": [], "is true": True,
        "is huge": 10**400,
    }.items()},
    ANSWER,
)  # fmt: skip


@case("either", f"{BEGUN}\N{GRINNING FACE}")
async def half_a_character_in_each_of_two_events(to: Exchange) -> None:
    await to.begin()
    for text in ("\ud83d", "\ude00"):  # the two halves of one, as UTF-16 has it
        value = json.dumps(to.dialect.token(KEPT, "here").copy())
        await to.body(b"data: " + value.replace('"here"', json.dumps(text)).encode() + b"\n\n")
    await to.finish()
    await to.over()


@case("either", BEGUN)
async def choices_of_nothing(to: Exchange) -> None:
    await to.begin()
    for wrong in ({"choices": None}, {"choices": "abc"}, {"choices": [None]}, {"choices": [{}]}, {"choices": {"0": 1}}):
        await to.event(to.dialect.token(KEPT, "") | wrong)
    await to.over()


@case("either", ANSWER)
async def logprobs_of_another_shape(to: Exchange) -> None:
    await to.begin()
    for index in range(KEPT, len(WORDS)):
        said = to.dialect.token(index, WORDS[index])
        for choice in said.get("choices", []):
            choice["logprobs"] = [{"content": 7}, {"content": [7]}, "x", {"tokens": 3, "token_logprobs": {}}, []][
                index % 5
            ]
        if "completion_probabilities" in said:
            said["completion_probabilities"][0]["top_logprobs"] = [[{}], "x", None, 7, [None]][index % 5]
        if "token" in said:
            said["top_tokens"] = [[{}], "x", None, 7, [None]][index % 5]
        await to.event(said)
    await to.finish()
    await to.over()


# What never ends: the case's answer is asked for with 64 tokens


async def _for_ever(to: Exchange, said: object) -> None:
    await to.head(chunked=True)
    for index in count():
        await to.event(said(index))  # type: ignore[operator]
        if index % 64 == 0:
            await asyncio.sleep(0)


@case("either", "a" * 10**6)
async def tokens_without_end(to: Exchange) -> None:
    await _for_ever(to, lambda index: to.dialect.token(index, "a"))


@case("either", "")
async def empty_tokens_without_end(to: Exchange) -> None:
    await _for_ever(to, lambda index: to.dialect.token(index, "", id=5))


@case("either", "a" * MANY)
async def long_tokens_without_end(to: Exchange) -> None:
    await _for_ever(to, lambda index: to.dialect.token(index, "a" * 100_000))


@case("fails", "", sent=5 * ENOUGH)
async def comments_without_end(to: Exchange) -> None:
    await to.head(chunked=True)
    while True:
        await to.body(b": keep-alive\n\n" * 2000)


# What is said by those routes on which a server says what it is; here any end will do but a wrong one

MEETINGS: list[Case] = [
    Case(name, act, "either", ANSWER, asked=3)
    for name, act in {
        "a web page": page(200),
        "a web page of an error": page(502),
        **{f"status {status}": refusing(status) for status in (401, 403, 404, 422, 429, 500, 503)},
        "an empty object": answering(200, b"{}"),
        "a list": answering(200, b"[]"),
        "null": answering(200, b"null"),
        "a text": answering(200, b'"hello"'),
        "wrong JSON": answering(200, b"{what"),
        "nothing": answering(200, b""),
        "no UTF-8": answering(200, b'{"data": "\xff"}'),
        "deep brackets": answering(200, b"[" * 100_000),
        "data that is none": answering(
            200, b'{"data": 7, "model_id": [], "default_generation_settings": "x", "id": 1}'
        ),
        "data of nulls": answering(
            200, b'{"data": [null, {"id": null}, {"id": 7}], "model_id": null, "total_slots": "x"}'
        ),
        "numbers beyond all": answering(
            200, b'{"data": [{"id": "m", "max_model_len": 1e400}], "max_total_tokens": -5, "total_slots": 99999999999}'
        ),
        "a mapping of nonsense": answering(200, b'{"id": "a/b", "inferenceProviderMapping": [7, {"provider": 1}]}'),
        "40 MB": streaming(200, b'"' + b"x" * 60_000, "application/json"),
        "silence": silence_before_the_first_byte,
        "silence after the headers": silence_after_the_headers,
        "a reset": reset_before_the_headers,
        "an end": closed_before_the_headers,
        "no HTTP": no_http,
        "headers without end": headers_without_end,
        "a redirect to another host": redirecting(307),
        "a redirect loop": redirecting(302, loop=True),
        "a gzip bomb": a_gzip_bomb,
    }.items()
]
