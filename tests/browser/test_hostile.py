"""What a hostile model, or a hostile text, can do to the page: nothing. Each case prints how many it tried."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from person import GRADIO_USES_OLD_PANDAS, Person, Serve, Visit
from playwright.sync_api import expect

from cierzo.engines.script import Reply, token_of
from cierzo.engines.scripted import Scripted
from cierzo.errors import EngineRefused

pytestmark = GRADIO_USES_OLD_PANDAS

SCRIPTS = (
    "<script>window.ran = 1</script>",
    "<ScRiPt>window.ran = 1</sCrIpT>",
    "<script src='{u}/s.js'></script>",
    "<img src=x onerror='window.ran = 1'>",
    "<img/src/onerror=window.ran=1>",
    "<svg onload='window.ran = 1'></svg>",
    "<svg><script>window.ran = 1</script></svg>",
    "<svg><animate onbegin='window.ran = 1' attributeName=x dur=1s></svg>",
    "<svg><use href='data:image/svg+xml,<svg id=x xmlns=http://www.w3.org/2000/svg onload=window.ran=1>#x'/></svg>",
    "<details open ontoggle='window.ran = 1'>x</details>",
    "<iframe srcdoc='<script>parent.ran = 1</script>'></iframe>",
    "<iframe src='javascript:parent.ran = 1'></iframe>",
    "<object data='javascript:window.ran = 1'></object>",
    "<embed src='javascript:window.ran = 1'>",
    "<video><source onerror='window.ran = 1'></video>",
    "<audio src=x onerror='window.ran = 1'></audio>",
    "<input autofocus onfocus='window.ran = 1'>",
    "<body onload='window.ran = 1'>",
    "<marquee onstart='window.ran = 1'>x</marquee>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=window.ran=1>",
    "<noscript><p title='</noscript><img src=x onerror=window.ran=1>'>",
    "<form action='javascript:window.ran = 1'><button id=go>go</button></form>",
    "<a href='javascript:window.ran = 1' class=hit>x</a>",
    "[x](javascript:window.ran=1)",
    "[x](  java\nscript:window.ran=1)",
    "[x](data:text/html,<script>opener.ran=1</script>)",
    "![x](x' onerror='window.ran=1)",
    '![x"onerror="window.ran=1](x)',
    "<img src='x`onerror=window.ran=1'>",
    "```html\n<script>window.ran = 1</script>\n```",
    "```mermaid\ngraph TD; A[\"<img src=x onerror='window.ran=1'>\"]\n```",
    '```mermaid\n%%{{init: {{"securityLevel": "loose"}}}}%%\ngraph TD; A-->B; click A href "javascript:ran=1"\n```',
    "$$\\href{{javascript:window.ran=1}}{{x}}$$",
    "$$\\htmlData{{x='onerror=window.ran=1'}}{{y}}$$",
    "<base href='{u}/'>",
    "<meta http-equiv=refresh content='0;url={u}/m'>",
    "<style>@keyframes x{{}}</style><b style='animation:x' onanimationstart='window.ran=1'>x</b>",
    "<think><img src=x onerror=window.ran=1></think>",
)

FETCHES = (
    "![x]({u}/a.png)",
    "![x][r]\n\n[r]: {u}/b.png",
    "<img src='{u}/c.png'>",
    "<img srcset='{u}/d.png 2x'>",
    "<picture><source srcset='{u}/e.png'><img></picture>",
    "<video poster='{u}/f.png'></video>",
    "<video src='{u}/g.mp4' autoplay></video>",
    "<audio src='{u}/h.mp3' autoplay></audio>",
    "<input type=image src='{u}/i.png'>",
    "<b style='background:url({u}/j.png)'>x</b>",
    "<table background='{u}/k.png'><tr><td>x</td></tr></table>",
    "<svg><image href='{u}/l.png' width=9 height=9 /></svg>",
    "<svg><image xlink:href='{u}/m.png' width=9 height=9 /></svg>",
    "<svg><filter id=f><feImage href='{u}/n.png'/></filter><rect filter='url(#f)' width=9 height=9 /></svg>",
    "```mermaid\ngraph TD; A[\"<img src='{u}/o.png'>\"]\n```",
    '```mermaid\n%%{{init: {{"themeCSS": ".node{{background:url({u}/p.png)}}"}}}}%%\ngraph TD; A-->B\n```',
    "<link rel=stylesheet href='{u}/q.css'>",
    "<link rel=preload as=image href='{u}/r.png'>",
    "<link rel=dns-prefetch href='{u}'>",
    "<style>@import '{u}/s.css';</style>",
    "<style>body{{background:url({u}/t.png)}}</style>",
    "<iframe src='{u}/u'></iframe>",
    "<object data='{u}/v'></object>",
    "<embed src='{u}/w'>",
    "<track src='{u}/x'>",
    "<b style=\"list-style-image:url('{u}/y.png');display:list-item\">x</b>",
    "<b style=\"content:url('{u}/z.png')\">x</b>",
    "<b style=\"cursor:url('{u}/0.png'),auto\">x</b>",
    "$$\\includegraphics{{{u}/1.png}}$$",
    "<img loading=lazy src='{u}/2.png'>",
)

COVERS = (
    "<div style='position:fixed;top:0;left:0;width:100vw;height:100vh;z-index:99999;background:red'>x</div>",
    "<div style='position:absolute;top:-900px;left:-900px;width:5000px;height:5000px;z-index:99999'>x</div>",
    "<h1 style='margin-top:-3000px;font-size:4000px;line-height:1'>x</h1>",
    "<b style='display:block;transform:scale(90);width:300px;height:300px'>x</b>",
)


@contextmanager
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """Another site: its address, and what was asked of it."""
    asked: list[str] = []

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


BATCH = 12
"""Texts in one conversation; with all of them in one, the page would mostly redraw the others."""


def harm(person: Person) -> list[str]:
    """What the texts that are on the page have done to it."""
    page = person.page
    page.wait_for_timeout(300)
    hrefs = [link.get_attribute("href") or "" for link in page.locator("#conversation a").all()]
    found = [href for href in hrefs if href.lower().lstrip().startswith(("javascript:", "data:"))]
    alien = page.locator("#conversation :is(script, iframe, object, embed, form[action], base, meta, link)")
    found += [element.evaluate("element => element.outerHTML") for element in alien.all()]
    under = page.evaluate(
        "() => { const r = document.querySelector('#box textarea').getBoundingClientRect();"
        " return document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2).tagName }"
    )
    found += [] if under == "TEXTAREA" else [f"a {under} lies over the box"]
    found += ["a script ran"] if page.evaluate("window.ran") is not None else []
    return found


def test_hostile_text_runs_nothing_fetches_nothing_and_covers_nothing(serve: Serve, visit: Visit) -> None:
    with elsewhere() as (there, asked):
        corpus = [text.format(u=there) for text in (*SCRIPTS, *FETCHES)] + list(COVERS)
        scripted = Scripted(*[Reply((token_of(text),)) for text in corpus])
        person = visit(serve(scripted))
        dialogs: list[str] = []
        person.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        done: list[str] = []
        for start in range(0, len(corpus), BATCH):
            for place, text in enumerate(corpus[start : start + BATCH], 1):
                person.say(text)  # the question is as hostile as the answer
                expect(person.answers).to_have_count(place, timeout=20_000)
                expect(person.questions).to_have_count(place)
                person.rest()
            done += harm(person)
            person.page.get_by_role("button", name="Clear").click()
            expect(person.questions).to_have_count(0)
        print(f"\n{len(corpus)} hostile texts, each as question and as answer: {len(asked)} requests, harm: {done}")
        assert len(corpus) >= 70
        assert asked == []
        assert done == []
        assert dialogs == []


def test_hostile_errors_are_shown_as_they_are(serve: Serve, visit: Visit) -> None:
    with elsewhere() as (there, asked):
        corpus = [
            "<img src=x onerror=window.ran=1>",
            f"![x]({there}/a.png)",
            f"<b style='background:url({there}/b)'>",
            "*a* `b`",
        ]
        scripted = Scripted(*[Reply((EngineRefused(text),)) for text in corpus])
        person = visit(serve(scripted))
        for text in corpus:
            person.say("hola")
            expect(person.status).to_have_text(f"No answer: {text}.")
            person.rest()
        person.page.wait_for_timeout(300)
        print(f"\n{len(corpus)} hostile errors: {len(asked)} requests")
        assert asked == []
        assert person.page.evaluate("window.ran") is None
