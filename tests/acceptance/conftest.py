"""The recorder of the acceptance checks, and real datasets with cases set aside."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.acceptance.recorder import Check

_REPORT = pytest.StashKey[pytest.TestReport]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember how the test body went, for the recorder."""
    report = yield
    if call.when == "call":
        item.stash[_REPORT] = report
    return report


@pytest.fixture
def check(request: pytest.FixtureRequest, tmp_path: Path, shared_data: Path) -> Iterator[Callable[[str, str], Check]]:
    """Open a row of the table: ``check("6 plan", "what is run")``; written when the test ends, passed or failed."""
    opened: list[Check] = []

    def open_check(name: str, what: str) -> Check:
        opened.append(Check(name, what, {str(tmp_path): "TMP", str(shared_data): "DATA"}))
        return opened[-1]

    yield open_check
    report = request.node.stash.get(_REPORT, None)
    for row in opened:
        if report is None or report.skipped:
            continue
        if report.failed:
            row.say(_last_line(report))
        row.write("passed" if report.passed else "**FAILED**")


def _last_line(report: pytest.TestReport) -> str:
    """The error of a failed test, in one line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    message = str(crash.message if crash is not None else report.longrepr)
    return message.splitlines()[0][:300]
