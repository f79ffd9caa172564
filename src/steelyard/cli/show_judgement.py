"""What is shown of a judgement: the table, and the page where one is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from steelyard.cli.messages import open_in_browser, say

if TYPE_CHECKING:
    from steelyard.study import Judgement


def show_judgement(
    judgement: Judgement,
    shown_by: str,
    page: Path | None,
    open_page: bool,
    aside: bool = False,
    first: str = "",
    every: bool = False,
) -> None:
    """Print the table, on the error stream where an export is printed; and write the page.

    Args:
        shown_by: the command that shows the judgement again.
    """
    from steelyard.io.console import make_console
    from steelyard.report import render, write_page

    render(judgement, make_console(stderr=aside), every, shown_by)
    if page is None:
        return
    write_page(judgement, page, first)
    say(f"\nPage: {page}", err=aside)
    if open_page:
        open_in_browser(page)
