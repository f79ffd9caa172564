"""The leaderboard's files beside its page: all of them in one archive, and the page of charts made from them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steelyard.reproductions.leaderboard.report_board import report_board

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
