"""Read what was exported, and write what it says: on the terminal, as a page, as Markdown."""

from __future__ import annotations

from pathlib import Path

from steelyard.report.output_files import PAGE, write_output
from steelyard.reproductions.leaderboard.answers import answers
from steelyard.reproductions.leaderboard.board import Board
from steelyard.reproductions.leaderboard.board_markdown import board_section, write_board
from steelyard.reproductions.leaderboard.board_page import board_page
from steelyard.reproductions.leaderboard.board_results import read_folder
from steelyard.reproductions.leaderboard.board_tables import all_tables
from steelyard.reproductions.leaderboard.stability import stability


def report_board(folder: Path, page: Path | None = None, markdown: Path | None = None) -> list[str]:
    """Answers to all questions as lines of text; the page and the section of a Markdown file are written where asked.

    Args:
        folder: with ``PROBLEM.json`` in it.
        page: an HTML file.
        markdown: a file with other text, too: the section between its markers is renewed.

    Raises:
        LeaderboardError: there are no results, they are damaged, or they do not fit together.
        OutputError: a file cannot be written.
    """
    board = Board(read_folder(folder))
    found = stability(board)
    said = answers(board, found)
    if markdown is not None:
        write_board(markdown, board_section(board, said, all_tables(board, found)))
    if page is not None:
        write_output(page, PAGE, board_page(board, found, said))
    return [
        line for each in said for line in (each.question, f"  {each.answer}", *(f"  {more}" for more in each.lines))
    ]
