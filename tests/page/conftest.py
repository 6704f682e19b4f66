"""A page that is served, for all tests that only look at what it gives."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from pages import page_served

from cierzo.engines.script import Reply
from cierzo.engines.scripted import Scripted
from cierzo.page.drawn import Drawn


@pytest.fixture(scope="session")
def address(page_drawn: Drawn) -> Iterator[str]:
    """Address of a page whose engine always says the same."""
    with page_served(page_drawn, Scripted(Reply.of("Hola."))) as place:
        yield place


@pytest.fixture(scope="session")
def web(address: str) -> Iterator[httpx.Client]:
    """Somebody who asks the page for things."""
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=address, timeout=30, limits=limits) as client:
        yield client
