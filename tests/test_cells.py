"""Tests with many cells: all are gone through, and what fails is named."""

from __future__ import annotations

import inspect

import pytest

import cells
from cells import CellError, every

SEEN: list[tuple[int, str]] = []


@every("number", [1, 2, 3])
@every("word", ["a", "b"])
def table(number: int, word: str, fixture: str = "") -> None:
    SEEN.append((number, word))
    assert number != 2, f"{fixture}two"
    if (number, word) == (3, "b"):
        pytest.fail("three")


@pytest.fixture(autouse=True)
def _afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    SEEN.clear()
    monkeypatch.setattr(cells, "ONLY", [])


def test_all_cells_are_gone_through_and_those_that_fail_are_named() -> None:
    with pytest.raises(CellError, match=r"^\[a-2\] and 2 more of 6 cells failed") as raised:
        table(fixture="not ")
    assert sorted(SEEN) == [(number, word) for number in (1, 2, 3) for word in "ab"]
    assert [name for name, _ in raised.value.failed] == ["a-2", "b-2", "b-3"]
    assert "[b-2] AssertionError: not two" in str(raised.value)
    assert "[b-3] Failed: three" in str(raised.value)
    assert isinstance(raised.value.__cause__, AssertionError)


def test_pytest_sees_the_fixtures_alone() -> None:
    assert list(inspect.signature(table).parameters) == ["fixture"]
    with pytest.raises(TypeError, match="table takes no other"):
        every("other", [1])(table)


def test_one_cell_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "ONLY", ["b", "1"])
    table()
    assert SEEN == [(1, "b")]
    monkeypatch.setattr(cells, "ONLY", ["c"])
    with pytest.raises(pytest.skip.Exception, match="no cell has c in its name"):
        table()


def test_a_test_without_cells_is_an_error() -> None:
    with pytest.raises(ValueError, match="has no values: the test would prove nothing"):
        every("number", [])


def test_only_a_test_that_skips_all_of_its_cells_is_skipped() -> None:
    @every(("number", "limit"), [(1, 2), (2, 2)])
    def some(number: int, limit: int) -> None:
        if number < limit:
            pytest.skip(f"{number} is small")

    some()
    with pytest.raises(pytest.skip.Exception, match="1 is small"):
        every(("number", "limit"), [(1, 2)])(inspect.unwrap(some))()
