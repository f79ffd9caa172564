"""docs/refused.md says what is said today."""

from __future__ import annotations

import pytest

from cells import every

pytest.importorskip("typer")

import refusals
from refusals import COMMANDS, SECTIONS, Case

CASES = [case for cases in SECTIONS.values() for case in cases]


@every("case", CASES, ids=lambda case: case.wrote[:60])
def test_what_was_written_is_refused_and_what_stands_beside_it_is_not(case: Case) -> None:
    assert refusals.said(case.before, case.wrote), "runs in silence"
    assert refusals.said(case.before, case.instead) == ""


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_end_with_2(line: str) -> None:
    code, words = refusals.said_by_command(line)
    assert code == 2
    assert words


def test_the_page_is_up_to_date() -> None:
    assert refusals.PAGE.read_text(encoding="utf-8") == refusals.page(), "run `python tests/refusals.py`"
