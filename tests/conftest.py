"""What every test has: a home of its own, no settings from outside, and no skip that goes unseen."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in list(os.environ):
        if name.startswith("CIERZO_") and name not in ("CIERZO_REQUIRE_ALL", "CIERZO_CHROMIUM"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CIERZO_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under CIERZO_REQUIRE_ALL a skipped test is a failed one."""
    report = yield
    if report.skipped and os.environ.get("CIERZO_REQUIRE_ALL"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and CIERZO_REQUIRE_ALL is set: {reason}"
    return report


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the repository."""
    return Path(__file__).parent.parent


@pytest.fixture(scope="session")
def page_kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the page as Gradio draws it; drawn once for all tests."""
    from cierzo.page import drawn  # noqa: PLC0415 - most tests need no page

    home = tmp_path_factory.mktemp("drawn")
    drawn(home)
    (kept,) = (home / "cache").iterdir()
    return kept


@pytest.fixture(scope="session")
def page_drawn(page_kept: Path) -> Any:
    """The page as Gradio draws it."""
    from cierzo.page import drawn  # noqa: PLC0415 - the same

    return drawn(page_kept.parent.parent)


@pytest.fixture(scope="session")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """mistral-common's own tokenizer for every template."""
    from reference import NAMES, reference  # noqa: PLC0415 - mistral-common takes 0.3 s, and most tests need none

    folder = tmp_path_factory.mktemp("tokenizers")
    return {name: reference(name, folder) for name in NAMES}
