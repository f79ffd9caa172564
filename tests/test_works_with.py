"""docs/works-with.md claims nothing without a test: each row's tests stand in the file that the row names."""

from __future__ import annotations

import re
from pathlib import Path

from cells import every

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "works-with.md").read_text()


def rows() -> list[list[str]]:
    """The cells of every row of every table, headings and rules left out."""
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    return [row for row in cells if row[-1] != "file" and not set(row[-1]) <= set("-")]


@every("row", rows(), ids=lambda row: row[0])
def test_each_row_names_tests_that_exist(row: list[str]) -> None:
    assert len(row) == 5, "a row has its name, three cells and a file"
    files = re.findall(r"`([\w/]+\.py)`", row[-1])
    assert files, "the last cell names the file"
    found = "".join((TESTS / file).read_text() for file in files)
    named = [name for cell in row[1:4] for name in re.findall(r"`(test_\w+)`", cell)]
    assert named, "a row without a test"
    for name in named:
        assert f"def {name}(" in found, f"{name} is not in {', '.join(files)}"
    for cell in row[1:4]:
        assert not cell or "`test_" in cell or "same test" in cell, f"the cell {cell!r} names no test"
