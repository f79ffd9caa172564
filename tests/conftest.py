"""The command as tests run it; and reasons: `make slowest` lists the twenty slowest tests, each with its own."""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

import cells

Command = Callable[..., tuple[int, str, str]]
MARKS = ("slow", "takes")

if importlib.util.find_spec("hypothesis") is not None:
    from hypothesis import settings

    settings.register_profile("patient", deadline=None)  # a machine that is busy elsewhere is no counterexample
    settings.load_profile("patient")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the `steelyard` command in this process and an empty folder: (exit code, stdout, stderr)."""
    from steelyard import cli  # the balancing half is tested where typer is not installed

    monkeypatch.chdir(tmp_path)

    def command(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["steelyard", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return command


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slowest", type=int, default=0, help="list so many of the slowest tests, each with its reason")
    parser.addoption(
        "--cell", action="append", default=[], help="of tests with many cells, those with this in their name"
    )


def pytest_configure(config: pytest.Config) -> None:
    cells.ONLY[:] = config.getoption("--cell")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in which something takes long come first: no process is left with one while the others are idle."""
    long = {item.path for item in items if item.get_closest_marker("takes") and not item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What is there for good, a million objects of torch and of the tests themselves, is not looked through again."""
    gc.collect()
    gc.freeze()


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
