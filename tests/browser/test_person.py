"""What every visit is checked for is really seen: a page that does such things fails."""

from __future__ import annotations

from person import Serve, Visit

from cierzo.engines.scripted import Scripted

HARM = {
    "throw new Error('no one catches this')": "no one catches this",
    "Promise.reject(new Error('nor this'))": "nor this",
    "console.error('complaint')": "complaint",
    "fetch('/gradio_api/queue/join', {method: 'POST', body: '{}'})": "asked Gradio's queue",
    "fetch('/gradio_api/queue/data?session_hash=1')": "asked Gradio's queue",
    "location.href = 'http://127.0.0.2:9/'": "asked another host",
    "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.2:9/x.png'}))": "violates",
    "fetch('http://127.0.0.2:9/').catch(() => 0)": "violates",
    "fetch('/nowhere')": "404",
}


def test_each_harm_is_seen(serve: Serve, visit: Visit) -> None:
    address = serve(Scripted("bien"))
    for code, sign in HARM.items():
        person = visit(address)
        assert person.harm() == []
        person.page.evaluate(f"() => {{ setTimeout(() => {{ {code} }}) }}")
        person.page.wait_for_timeout(500)
        assert any(sign in harm for harm in person.harm()), (code, person.harm())
        person.context.close()
        person.errors.clear()
        person.foreign.clear()
        person.queue_calls.clear()
    print(f"\n{len(HARM)} harms, all seen")


def test_what_a_test_provokes_is_pardoned_and_nothing_else(serve: Serve, visit: Visit) -> None:
    person = visit(serve(Scripted("bien")))
    person.pardon("expected")
    person.page.evaluate("console.error('this was expected'); console.error('this was not')")
    person.page.wait_for_timeout(100)
    assert [harm.split(" (")[0] for harm in person.harm()] == ["this was not"]
    person.errors.clear()
