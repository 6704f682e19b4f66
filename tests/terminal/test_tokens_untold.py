"""The table of tokens where an engine tells no ids: no number is made up, and alternatives are told apart by text."""

from __future__ import annotations

import io

from cierzo.messages import UNTOLD, Alternative, Token
from cierzo.terminal.render import Screen
from cierzo.terminal.tokens import table


def test_a_token_without_a_number() -> None:
    out = io.StringIO()
    others = (Alternative(UNTOLD, " the", -0.1), Alternative(UNTOLD, " a", -3.0))
    table(Screen(out, io.StringIO(), {}), [Token(UNTOLD, "the", -0.1, alternatives=others), Token(UNTOLD, "")], "v3")
    first, second = out.getvalue().splitlines()[2:4]
    assert first.split() == ["1", "“the”", "90.5", "%", "█████████", "“", "a”", "5.0", "%"]
    assert second.split() == ["2", "“”"]


def test_a_token_with_a_number_is_told_apart_by_it() -> None:
    out = io.StringIO()
    others = (Alternative(1032, " the", -0.1), Alternative(7, " the", -3.0))
    table(Screen(out, io.StringIO(), {}), [Token(1032, "the", -0.1, alternatives=others)], "v3")
    assert "1032" in out.getvalue().splitlines()[2]
    assert "“ the” 5.0 %" in out.getvalue().splitlines()[2]
