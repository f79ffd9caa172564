"""What takes long says why: `make slowest` lists the twenty slowest tests with these reasons."""

from __future__ import annotations

from collections import defaultdict

import pytest

MARKS = ("slow", "takes")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slowest", type=int, default=0, help="list so many of the slowest tests, each with its reason")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    reasons = [mark.args[0] for name in MARKS for mark in item.iter_markers(name)]
    # Properties travel with a report from the process that ran the test.
    report.user_properties.append(("reason", reasons[0] if reasons else ""))
    return report


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    count = config.getoption("--slowest")
    if not count:
        return
    seconds: dict[str, float] = defaultdict(float)
    reasons: dict[str, str] = {}
    for outcome in ("passed", "failed", ""):  # "": setup and teardown
        for report in terminalreporter.stats.get(outcome, []):
            seconds[report.nodeid] += report.duration
            reasons[report.nodeid] = dict(report.user_properties).get("reason", "")
    terminalreporter.section(f"the {count} slowest tests, and why")
    for name in sorted(seconds, key=seconds.__getitem__, reverse=True)[:count]:
        terminalreporter.write_line(
            f"{seconds[name]:6.1f} s  {name}\n          {reasons[name] or 'no reason is given'}"
        )
