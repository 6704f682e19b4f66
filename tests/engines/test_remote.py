"""What every engine that is a server shares: retries, timeouts, keys, bounds, and how a stream may end."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from aiohttp import web
from driving import first_token, greedy, until
from served_by import FORMS, HASTY, Fake, engine_at, said

from cierzo.chat import Chat
from cierzo.engines.base import meet
from cierzo.engines.refusals import retry_after
from cierzo.engines.remote import Address, Patience
from cierzo.engines.sse import LONGEST_LINE, Events
from cierzo.errors import BadSetting, CierzoError, EngineDied, EngineError, EngineRefused, Overloaded, PromptTooLong
from cierzo.messages import Finish, Message, Token
from cierzo.prompt import build

PROMPT = build([Message("user", "Hola")], "v3", context=512)
QUICK = Patience(connect=1.0, first=0.15, between=0.15, back_off=0.01)


async def run(engine, count=2, **options):
    """Read an answer to its end or its error: the text, the finish or None, the error or None."""
    text, finish, error = "", None, None
    try:
        async with contextlib.aclosing(engine.stream(PROMPT, greedy(count, **options))) as events:
            async for event in events:
                text += event.text if isinstance(event, Token) else ""
                finish = event if isinstance(event, Finish) else finish
    except CierzoError as raised:
        error = raised
    return text, finish, error


async def ask(form, answer, *, key="", patience=HASTY, **options):
    """Ask a server of one form that answers so; return what came and the server."""
    async with Fake(form, answer, **options) as server:
        engine = engine_at(form, server.url, key, patience=patience)
        try:
            return *await run(engine), server
        finally:
            await engine.close()


def answering(*texts, reason="length"):
    return lambda fake, request: fake.stream(request, *said(fake.form, *texts, reason=reason))


def busy_then(count, status, headers, *texts):
    """Refuse so many times, then answer."""

    async def answer(fake, request):
        if len(fake.asked) <= count:
            return web.json_response({"error": {"message": "queue is full"}}, status=status, headers=headers)
        return await fake.stream(request, *said(fake.form, *texts))

    return answer


@pytest.mark.parametrize("form", FORMS)
class TestEachForm:
    async def test_an_answer(self, form):
        text, finish, error, server = await ask(form, answering(" the", " été", reason="eos_token"))
        assert error is None
        assert (text, finish.reason, finish.answer_tokens) == ("the été", "eos_token", 2)
        assert len(server.asked) == 1

    @pytest.mark.parametrize("status", [429, 503])
    async def test_a_busy_server_is_asked_again_and_at_most_three_times(self, form, status):
        text, _, error, server = await ask(form, busy_then(2, status, {}, " a", " b"))
        assert (text, error, len(server.asked)) == ("a b", None, 3)
        text, finish, error, server = await ask(form, busy_then(9, status, {"Retry-After": "0"}, " a"))
        assert (text, finish, len(server.asked)) == ("", None, 3)
        assert isinstance(error, Overloaded)
        assert "queue is full" in str(error)

    async def test_it_is_left_alone_for_as_long_as_it_says(self, form):
        began = time.monotonic()
        text, _, error, server = await ask(form, busy_then(1, 429, {"Retry-After": "0.2"}, " a", " b"))
        assert (text, error, len(server.asked)) == ("a b", None, 2)
        assert time.monotonic() - began >= 0.2
        _, _, error, server = await ask(form, busy_then(1, 503, {"Retry-After": "31"}, " a"))
        assert isinstance(error, Overloaded)
        assert (error.retry_after, len(server.asked)) == (31, 1)

    async def test_nothing_is_asked_again_after_the_first_token_nor_where_the_server_hung_up(self, form):
        async def hang_up(fake, request):
            request.transport.abort()

        _, _, error, server = await ask(form, hang_up)
        assert isinstance(error, EngineDied)
        assert "hung up" in str(error)
        assert len(server.asked) == 1, "what kills one server is not sent to the next"

        async def cut(fake, request):
            response = await fake.stream(request, *said(fake.form, " a", reason=None))
            request.transport.abort()
            return response

        text, finish, error, server = await ask(form, cut)
        assert (text, finish, len(server.asked)) == ("a", None, 1)
        assert isinstance(error, EngineDied)

    async def test_an_answer_without_an_end_is_no_answer(self, form):
        text, finish, error, _ = await ask(form, answering(" a", " b", reason=None))
        assert (text, finish) == ("a b", None)
        assert isinstance(error, EngineDied)
        assert "broke off" in str(error)

    async def test_silence_before_the_first_byte_and_between_two_has_an_end(self, form):
        never = asyncio.Event()

        async def silent(fake, request):
            await never.wait()

        _, finish, error, _ = await ask(form, silent, patience=QUICK)
        assert isinstance(error, EngineDied)
        assert "0.15 seconds" in str(error)

        async def halting(fake, request):
            return await fake.stream(request, *said(fake.form, " a", reason=None), hold=never)

        text, finish, error, _ = await ask(form, halting, patience=QUICK)
        assert (text, finish) == ("a", None)
        assert isinstance(error, EngineDied)
        assert "0.15 seconds" in str(error)

    async def test_who_leaves_is_noticed_by_the_server(self, form):
        never = asyncio.Event()
        async with Fake(form, lambda f, r: f.stream(r, *said(f.form, " a", reason=None), hold=never)) as server:
            engine = engine_at(form, server.url)
            stream = engine.stream(PROMPT, greedy(9))
            await first_token(stream)
            await stream.aclose()
            async with asyncio.timeout(1):
                await server.left.wait()

            task = asyncio.create_task(run(engine, 9))
            await until(lambda: len(server.asked) == 2)
            server.left.clear()
            task.cancel()
            async with asyncio.timeout(1):
                await server.left.wait()
            with pytest.raises(asyncio.CancelledError):
                await task
            await engine.close()

    async def test_a_stop_text_ends_the_answer_and_the_servers_work(self, form):
        never = asyncio.Event()
        answer = lambda f, r: f.stream(r, *said(f.form, " a", " b", " c", " d", reason=None), hold=never)  # noqa: E731
        async with Fake(form, answer) as server:
            engine = engine_at(form, server.url)
            text, finish, error = await run(engine, 9, stop=("b c",))
            assert (text, error, finish.reason, finish.stop) == ("a ", None, "stop_sequence", "b c")
            assert "stop" not in server.asked[0] or not server.asked[0]["stop"]
            async with asyncio.timeout(1):
                await server.left.wait()
            await engine.close()

    async def test_closing_ends_what_runs(self, form):
        never = asyncio.Event()
        async with Fake(form, lambda f, r: f.stream(r, *said(f.form, " a", reason=None), hold=never)) as server:
            engine = engine_at(form, server.url)
            task = asyncio.create_task(run(engine))
            await until(lambda: server.asked)
            await engine.close()
            await engine.close()
            async with asyncio.timeout(1):
                _, _, error = await task
            assert isinstance(error, EngineDied)
            _, _, error = await run(engine)
            assert isinstance(error, EngineDied)

    async def test_a_server_that_is_not_there(self, form):
        engine = engine_at(form, "http://127.0.0.1:9")
        with pytest.raises(EngineDied, match=r"no server answers at 127\.0\.0\.1:9 .*start it, or correct"):
            await Chat(engine).prompt([Message("user", "Hola")])
        await engine.close()

    async def test_a_failed_meeting_is_tried_again(self, form):
        engine = engine_at(form, "http://127.0.0.1:9")
        with pytest.raises(EngineDied):
            await meet(engine)
        async with Fake(form, answering(" a", " b")) as server:
            engine._remote.url = server.url
            assert (await meet(engine)).context in (501, 512)
            count = len(server.headers)
            await meet(engine)
            assert len(server.headers) == count, "who is met is not asked again"
            assert (await run(engine))[0] == "a b"
        _, _, error = await run(engine)
        assert isinstance(error, EngineDied)
        await engine.close()

    async def test_a_key_goes_to_its_server_alone_and_into_no_sentence(self, form):
        async def deny(fake, request):
            key = request.headers["Authorization"].removeprefix("Bearer ")
            return web.json_response({"error": {"message": f"Incorrect API key provided: {key}."}}, status=401)

        _, _, error, server = await ask(form, deny, key="sk-secret")
        assert isinstance(error, EngineRefused)
        assert "CIERZO_ENGINE_KEY" in str(error)
        assert "sk-secret" not in str(error)
        assert all(headers["Authorization"] == "Bearer sk-secret" for headers in server.headers)

        async with Fake(form, answering(" a", " b")) as other:

            async def away(fake, request):
                return web.Response(status=307, headers={"Location": other.url + request.path})

            _, _, error, server = await ask(form, away, key="sk-secret")
            assert isinstance(error, EngineRefused)
            assert other.url in str(error)
            assert (other.asked, other.headers, len(server.asked)) == ([], [], 1)

    async def test_without_a_key_none_is_sent(self, form):
        *_, server = await ask(form, answering(" a", " b"))
        assert not any("Authorization" in headers for headers in server.headers)

    @pytest.mark.parametrize(
        ("body", "kind", "says"),
        [
            ("<html><body>Welcome to nginx!</body></html>", "text/html", "text/html where a stream"),
            ('{"text": "whole"}', "application/json", "application/json where a stream"),
            ("data: {nonsense\n\n", "text/event-stream", "says what no"),
            ("data: [1, 2]\n\n", "text/event-stream", "says what no"),
            ("data: " + "x" * (LONGEST_LINE + 2), "text/event-stream", "a line of more than"),
            ('data: {"error": {"message": "out of\\nmemory"}}\n\n', "text/event-stream", "(out of memory)"),
            ('data: {"error": "boom", "error_type": "generation"}\n\n', "text/event-stream", "(boom)"),
        ],
    )
    async def test_what_is_no_stream_is_refused_with_the_next_step(self, form, body, kind, says):
        async def answer(fake, request):
            return web.Response(text=body, content_type=kind)

        text, finish, error, server = await ask(form, answer)
        assert (text, finish, len(server.asked)) == ("", None, 1)
        assert isinstance(error, EngineRefused)
        assert says in str(error)
        assert str(error).count("\n") == 0
        assert ": " in str(error)

    async def test_an_answer_that_never_ends_is_cut_off(self, form):
        async def endless(fake, request):
            response = await fake.stream(request)
            (event,) = said(fake.form, " a", reason=None)
            while True:
                await response.write(f"data: {event}\n\n".encode())

        text, finish, error, _ = await ask(form, endless)
        assert finish is None
        assert 2 <= len(text.split("a")) <= 30
        assert isinstance(error, EngineError)

    async def test_what_follows_the_end_is_left_out(self, form):
        async def more(fake, request):
            late = said(fake.form, " b", reason=None)
            return await fake.stream(request, *said(fake.form, " a", reason="length"), *late)

        text, finish, error, _ = await ask(form, more)
        assert (text, finish.reason, error) == ("a", "length", None)

    async def test_bytes_cut_anywhere_and_comments_change_nothing(self, form):
        async def dripping(fake, request):
            response = await fake.stream(request)
            raw = "".join(
                f": ping\r\n\r\nid: 7\r\nevent: x\r\ndata:{event}\r\n\r\n" for event in said(form, " a", " été")
            )
            for at in range(0, len(raw.encode()), 7):
                await response.write(raw.encode()[at : at + 7])
                await asyncio.sleep(0)
            return response

        text, _, error, _ = await ask(form, dripping)
        assert (text, error) == ("a été", None)


class TestAddress:
    @pytest.mark.parametrize(
        ("said", "url"),
        [
            ("openai+http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1"),
            ("tgi+https://example.org/deep/er", "https://example.org/deep/er"),
            ("llamacpp+http://[::1]:8080", "http://[::1]:8080"),
        ],
    )
    def test_good_ones(self, said, url):
        assert Address.of(said) == Address(url, {})

    @pytest.mark.parametrize(
        "said",
        [
            "openai+http://",
            "openai+ftp://host",
            "openai+http://host:99999",
            "openai+http://user:secret@host",
            "openai+http://host?key=secret",
            "openai+http://host#part",
            "openai+http://ho st",
            "openai+http://[::1",
        ],
    )
    def test_bad_ones_are_explained_without_their_secrets(self, said):
        with pytest.raises(BadSetting) as refused:
            Address.of(said)
        assert "secret" not in str(refused.value)


class TestEvents:
    def test_lines_of_one_event_are_joined_and_the_last_needs_no_blank_line(self):
        reader = Events()
        assert reader.feed(b"data: a\ndata:b\n\n:x\n\ndata: c\n") == [b"a\nb"]
        assert reader.end() == [b"c"]

    def test_an_event_of_many_lines_is_bounded_too(self):
        reader = Events()
        lines = b"".join(b"data: " + b"x" * 1000 + b"\n" for _ in range(LONGEST_LINE // 1000 + 1))
        with pytest.raises(ValueError, match="too long"):
            reader.feed(lines)


def test_retry_after_is_a_number_or_a_date():
    assert (retry_after("2"), retry_after("-1"), retry_after(None), retry_after("soon")) == (2.0, 0.0, None, None)
    assert (retry_after("nan"), retry_after("inf")) == (None, None)
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


async def test_a_prompt_that_is_too_long_for_a_llama_server_says_by_how_much():
    async def refuse(fake, request):
        error = {"code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 900, "n_ctx": 512}
        return web.json_response({"error": error}, status=400)

    _, _, error, _ = await ask("llamacpp", refuse)
    assert isinstance(error, PromptTooLong)
    assert (error.needed, error.available) == (900, 511)


async def test_a_llama_server_that_loads_is_waited_for():
    health = iter([503, 503, 200, 200])

    async def loading(request):
        return web.json_response({"error": {"message": "Loading model"}}, status=next(health))

    async with Fake("llamacpp", answering(" a", " b"), **{"/health": loading}) as server:
        engine = engine_at("llamacpp", server.url)
        events = [event async for event in engine.stream(PROMPT, greedy(2))]
        assert [event.name for event in events[:3]] == ["loading", "loading", "reading"]
        assert "".join(event.text for event in events if isinstance(event, Token)) == "a b"
        assert events[-1].timings.load >= 0.5
        await engine.close()


@pytest.mark.parametrize("form", FORMS)
async def test_readiness_costs_no_token(form):
    async with Fake(form, answering(" a", " b")) as server:
        engine = engine_at(form, server.url)
        await engine.ready()
        await engine.ready()
        assert server.asked == []
        where, engine._remote.url = server.url, "http://127.0.0.1:9"
        with pytest.raises(EngineDied):
            await engine.ready()
        engine._remote.url = where
        await engine.ready()
        await engine.close()


async def test_a_prompt_for_another_model_is_not_sent():
    async with Fake("openai", answering(" a", " b")) as server:
        engine = engine_at("openai", server.url)
        with pytest.raises(EngineRefused, match="another model now"):
            async for _ in engine.stream(build([Message("user", "Hola")], "v1", context=99), greedy(2)):
                pass
        assert server.asked == []
        await engine.close()
