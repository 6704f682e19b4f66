"""What the page costs: until somebody can write, in requests and bytes, in memory, and while answers are written.

    python benchmarks/page.py [--only NAME]

Chromium opens the page of a real `cierzo` process, on the scripted engine where timing has to be exact. Prints each
figure beside its bar and exits with 1 where one is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from cierzo.settings import Settings
from cierzo.store import Store

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
STARTED, LEAST_REQUESTS, BYTES, MEMORY = 3.0, 60, 1.5, 300.0
OPENING, BLOCKED, GROWTH, IDEAL = 3.0, 100, 1.5, 1.2
FOLLOWERS, RATE, SECONDS = 100, 20, 15

EMPTY = """
import gradio as gr
with gr.Blocks(analytics_enabled=False) as page:
    pass
page.launch(server_port={port}, quiet=True)
"""

T = TypeVar("T")

missed: list[str] = []


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run it in a thread of its own: in this one Playwright's loop runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def show(what: str, value: float, bar: float, unit: str = "") -> None:
    """Print a figure beside the most that it may be."""
    good = value <= bar
    print(f"{what:66} {value:9.2f}{unit}  bar {bar:g}{unit}{'' if good else '  MISSED'}", flush=True)
    if not good:
        missed.append(what)


def free_port() -> int:
    import socket  # noqa: PLC0415

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(*command: str, port: int, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until its port answers; end it at the end."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
                break
            except OSError:
                assert process.poll() is None, "the server ended"
                time.sleep(0.01)
        yield process
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def cierzo(home: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port = free_port()
    command = [sys.executable, "-m", "cierzo", "--no-open", "--port", str(port), *arguments]
    with running(*command, port=port, CIERZO_HOME=str(home)) as process:
        yield process, f"http://127.0.0.1:{port}"


def script(home: Path, **reply: Any) -> str:
    path = home / "script.json"
    path.write_text(json.dumps({"slots": 512, "reply": [reply]}), "utf-8")
    return f"scripted:{path}"


def starting(browser: Browser, home: Path) -> None:
    """From the start of the process until the box takes text. The browser runs, and the page was drawn before."""
    with cierzo(home):
        pass
    taken = []
    for _ in range(5):
        port = free_port()
        page = browser.new_context().new_page()
        began = time.perf_counter()
        command = [sys.executable, "-m", "cierzo", "--no-open", "--port", str(port)]
        with running(*command, port=port, CIERZO_HOME=str(home)):
            page.goto(f"http://127.0.0.1:{port}/", wait_until="commit")
            page.locator("#box").fill("Hello", timeout=30_000)
            taken.append(time.perf_counter() - began)
        page.context.close()
    show("from the start of `cierzo` until the box takes text, median of 5", statistics.median(taken), STARTED, " s")


def traffic(browser: Browser, address: str, ready: str) -> tuple[int, int]:
    """Requests and bytes over the wire, heads and bodies, of a first visit."""
    page = browser.new_context().new_page()
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    requests: list[str] = []
    sizes: list[float] = []
    session.on("Network.requestWillBeSent", lambda event: requests.append(event["request"]["url"]))
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    page.goto(address)
    page.locator(ready).first.wait_for(state="attached", timeout=60_000)
    page.wait_for_timeout(2_000)
    page.context.close()
    return len([url for url in requests if not url.startswith("data:")]), int(sum(sizes))


def weighing(browser: Browser, home: Path) -> None:
    with cierzo(home) as (process, address):
        requests, size = traffic(browser, address, "html[data-ready]")
        page = browser.new_context().new_page()
        page.goto(address)
        page.locator(".example").first.click()
        page.locator("article.assistant[aria-busy=false]").wait_for(timeout=60_000)
        show(
            "memory of the process, the engine's apart",
            psutil.Process(process.pid).memory_info().rss / 1e6,
            MEMORY,
            " MB",
        )
        page.context.close()
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        file = Path(folder, "empty.py")
        file.write_text(EMPTY.format(port=port), "utf-8")
        with running(sys.executable, str(file), port=port, GRADIO_ANALYTICS_ENABLED="False"):
            plain_requests, plain_size = traffic(browser, f"http://127.0.0.1:{port}/", "gradio-app .main")
    print(f"an empty Gradio page: {plain_requests} requests, {plain_size:,} bytes; ours: {size:,} bytes")
    show("requests of a first visit", requests, LEAST_REQUESTS)
    show("its bytes, over those of an empty Gradio page", size / plain_size, BYTES)


async def fill(home: Path, messages: int) -> str:
    store = await Store.open(Settings.load({"home": str(home)}))
    conversation = (await store.conversations.create(owner=None, title=f"{messages} messages")).id
    parent = None
    for number in range(messages):
        text = (
            f"Message {number}, of **some** length:\n\n- with a list\n- and `code`\n\n```python\nprint({number})\n```"
        )
        role = ("user", "assistant")[number % 2]
        parent = (
            await store.conversations.append(conversation, owner=None, parent=parent, role=role, text=text)
        ).message.id
    await store.close()
    return conversation


def opened(page: Page, address: str, conversation: str) -> float:
    """Seconds from the click on a conversation until its last message is painted."""
    page.goto(f"{address}/")
    page.locator("html[data-ready]").wait_for(state="attached", timeout=60_000)
    row = page.locator(f"#conversations a[href='/?c={conversation}']")
    row.wait_for()
    return float(
        row.evaluate(
            """row => new Promise((done) => {
                const began = performance.now();
                const painted = () => done((performance.now() - began) / 1000);
                const look = () =>
                    requestAnimationFrame(document.querySelector("#transcript article") ? painted : look);
                row.click();
                look();
            })"""
        )
    )


def conversations(browser: Browser, home: Path) -> None:
    short, long = (run(fill(home, messages)) for messages in (10, 1_000))
    text = "".join(f"word{n} " if n % 40 else f"**bold{n}**\n\n" for n in range(20_000))
    with cierzo(home, "--engine", script(home, text=text, delay=0.01)) as (_, address):
        page = browser.new_context().new_page()
        taken: dict[str, list[float]] = {short: [], long: []}
        for _ in range(9):
            for conversation, times in taken.items():
                times.append(opened(page, address, conversation))
        fast, slow = (statistics.median(times) for times in taken.values())
        print(f"opening: {fast * 1000:.0f} ms with 10 messages, {slow * 1000:.0f} ms with 1,000")
        show("opening a conversation of 1,000 messages over one of 10", slow / fast, OPENING)
        for what, back in (("as they open", False), ("with all of it scrolled back to", True)):
            few, many = (updating(page, address, each, seconds=6, back=back) * 1000 for each in (short, long))
            print(f"an update costs {few:.2f} ms of the browser with 10 messages, {many:.2f} ms with 1,000 {what}")
            show(f"an update, 1,000 messages over 10, {what}", many / few, GROWTH)
        page.context.close()


def updating(page: Page, address: str, conversation: str, *, seconds: float, back: bool) -> float:
    """The browser's work on one update, in seconds, while an answer is written at the end of a conversation.

    Sending lets go of what is far back, so whoever wants all of it on the page has to go back while it is written.
    """
    page.goto(f"{address}/?c={conversation}")
    page.locator("html[data-ready]").wait_for(state="attached", timeout=60_000)
    page.locator("#max_new_tokens input[type=number]").fill("8192")
    page.locator("#max_new_tokens input[type=number]").press("Tab")
    page.locator("#box").fill("Write")
    page.locator("#box").press("Enter")
    page.locator("article[aria-busy=true] .block").first.wait_for()
    while back and page.locator(".earlier").count():
        page.locator("#transcript").evaluate("e => { e.scrollTop = 0; }")
        page.wait_for_timeout(100)
    page.locator("#transcript").evaluate("e => { e.scrollTop = e.scrollHeight; }")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})  # the processor's time: others may want it too

    def spent() -> float:
        metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
        return float(metrics["TaskDuration"])

    before = spent()
    page.wait_for_timeout(seconds * 1000)
    cost = spent() - before
    assert page.locator("article[aria-busy=true]").count(), "the answer ended while it was measured"
    print(f"  {page.locator('article').count()} messages on the page")
    page.keyboard.press("Escape")
    page.locator("article[aria-busy=true]").wait_for(state="detached")
    return cost / (seconds * RATE)


def typing(browser: Browser, home: Path) -> None:
    """Type while 4,000 tokens come at 100 a second, which makes 20 updates a second."""
    text = "".join(f"word{n} " if n % 60 else f"**bold{n}**.\n\n" for n in range(4_000))
    with cierzo(home, "--engine", script(home, text=text, delay=0.01)) as (_, address):
        page = browser.new_context().new_page()
        page.goto(address)
        page.locator("html[data-ready]").wait_for(state="attached", timeout=60_000)
        page.evaluate(
            """() => {
                window.long = [];
                new PerformanceObserver((list) => long.push(...list.getEntries().map(({duration}) => duration)))
                    .observe({type: "longtask"});
            }"""
        )
        page.locator("#max_new_tokens input[type=number]").fill("8192")
        page.locator("#max_new_tokens input[type=number]").press("Tab")
        page.locator("#box").fill("Write")
        page.locator("#box").press("Enter")
        page.locator("article[aria-busy=true] .block").first.wait_for()
        began, keys = time.perf_counter(), 0
        while page.locator("article[aria-busy=true]").count() and time.perf_counter() - began < 90:
            page.locator("#box").press_sequentially("typing ", delay=60)
            keys += 7
        tokens = page.locator("article.assistant .line").inner_text()
        blocked = page.evaluate("long")
        page.context.close()
    print(f"{keys} keys pressed in {time.perf_counter() - began:.0f} s; {tokens}; tasks over 50 ms: {len(blocked)}")
    show(
        "tasks over 100 ms while one types and 4,000 tokens come", len([each for each in blocked if each > BLOCKED]), 0
    )


async def following(address: str) -> tuple[float, int]:
    """Follow so many answers as HTML; give the seconds that the slowest took, and how many saw their end."""

    async def one(session: aiohttp.ClientSession) -> tuple[float, float, bool]:
        async with session.post(f"{address}/api/conversations", json={}) as made:
            conversation = (await made.json())["id"]
        asked = {"text": "Write", "sampling": {"max_new_tokens": RATE * SECONDS}}
        async with session.post(f"{address}/api/conversations/{conversation}/messages", json=asked) as sent:
            reply = (await sent.json())["answers"][0]["id"]
        first, last, ended = 0.0, 0.0, False
        async with session.get(f"{address}/api/replies/{reply}/html") as events:
            async for line in events.content:
                if line.startswith(b"event: html"):
                    last = time.perf_counter()
                    first = first or last
                ended = ended or line.startswith(b"event: end")
        return first, last, ended

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, read_bufsize=2**20) as session:
        done = await asyncio.gather(*(one(session) for _ in range(FOLLOWERS)))
    slowest = max(last - first for first, last, _ in done)
    return slowest, sum(ended for _, _, ended in done)


def followers(_: Browser, home: Path) -> None:
    text = "".join(f"word{n} " if n % 40 else f"**bold{n}**\n\n" for n in range(RATE * SECONDS + 10))
    with cierzo(home, "--engine", script(home, text=text, delay=1 / RATE)) as (_, address):
        taken, ended = run(following(address))
    print(f"{ended} of {FOLLOWERS} followers saw the end")
    if ended < FOLLOWERS:
        missed.append("followers that saw the end")
    show(f"{FOLLOWERS} answers of {RATE} tokens/s, each followed, over the ideal", taken / (SECONDS - 1 / RATE), IDEAL)


PARTS: dict[str, Callable[[Browser, Path], None]] = {
    "start": starting,
    "weight": weighing,
    "conversations": conversations,
    "typing": typing,
    "followers": followers,
}


def main() -> None:
    """Measure all of it, or one part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=list(PARTS))
    only = parser.parse_args().only
    chromium = os.environ.get("CIERZO_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        sys.exit("no Chromium on this machine: install it (make system), or set CIERZO_CHROMIUM to its path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for name, part in PARTS.items():
            if only in (None, name):
                with tempfile.TemporaryDirectory() as home:
                    part(browser, Path(home))
        browser.close()
    if missed:
        sys.exit(f"missed: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
