"""The leaderboard's files beside its page: all of them in one archive, the page of charts, a line for each method."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steelyard.report.numbers import MISSING
from steelyard.reproductions.leaderboard.board import Board
from steelyard.reproductions.leaderboard.board_results import read_folder
from steelyard.reproductions.leaderboard.board_rows import SHORTER
from steelyard.reproductions.leaderboard.board_tables import row_table
from steelyard.reproductions.leaderboard.over_problems import least_problems
from steelyard.reproductions.leaderboard.report_board import report_board
from steelyard.reproductions.leaderboard.stability import stability

if TYPE_CHECKING:
    from sphinx.application import Sphinx

FOLDER = "leaderboard"
PAGE, ARCHIVE = "board.html", "steelyard-leaderboard.zip"
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same files make the same archive


def archive(folder: Path, path: Path) -> None:
    """Every problem's file, in one to download."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for file in sorted(folder.glob("*.json")):
            made.writestr(zipfile.ZipInfo(file.name, LONG_AGO), file.read_bytes(), zipfile.ZIP_DEFLATED)


def standings(folder: Path) -> dict[str, str]:
    """Of each method what it gained there; nothing where the problems are too few to say anything."""
    board = Board(read_folder(folder))
    if len(board.problems) < least_problems():
        return {}
    table = row_table(board, stability(board))
    found = {row[0]: _standing(dict(zip(table.heads, row, strict=True))) for row in table.rows if row[1] == "method"}
    renamed = {name: f"as {row}, {found.pop(row)}" for name, row in SHORTER.items() if row in found}
    return found | renamed


def _standing(cells: dict[str, str]) -> str:
    place = "" if cells["place"] == MISSING else f"; place {cells['place']}"
    return (
        f"{cells['against the plain sum']} points of Δm over the plain sum, {cells['against fixed weights']} over the "
        f"best fixed weights, in the mean of {cells['problems']} problems{place}"
    )


def write(app: Sphinx, failed: Exception | None) -> None:
    if failed is not None or app.builder.name != "html":
        return
    source, there = Path(app.srcdir) / FOLDER, Path(app.outdir) / FOLDER
    there.mkdir(exist_ok=True)
    archive(source, there / ARCHIVE)
    report_board(source, page=there / PAGE)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
