"""The leaderboard as a section of a Markdown file, which the same command renews in place."""

from __future__ import annotations

from pathlib import Path

from steelyard.io.lists_and_counts import counted, first_few, listed
from steelyard.report import numbers
from steelyard.reproductions.leaderboard.answer_methods import headline
from steelyard.reproductions.leaderboard.board import Board
from steelyard.reproductions.leaderboard.board_answer import BoardAnswer
from steelyard.reproductions.leaderboard.board_results import BoardProblem
from steelyard.reproductions.leaderboard.board_tables import TextTable, at_edges, not_ranked
from steelyard.reproductions.markdown import markdown_table, write_between

NAME = "leaderboard"


def board_section(board: Board, answers: list[BoardAnswer], tables: list[TextTable]) -> str:
    """How much there is, every answer, every table, and the commands that made it."""
    lines = [f"**{headline(board)}.** {scope(board)}", "", "## Answers", ""]
    for each in answers:
        lines += [f"**{each.question}** {each.answer}", ""]
        for said in each.lines:
            lines += [f"*{said}*", ""]
    for table in tables:
        lines += [f"## {table.title}", "", table.note, ""]
        lines += [*markdown_table(table.heads, [_named(row) for row in table.rows]), ""]
    lines += ["## Do it again", "", "```sh", *commands(board), "```", "", machines(board), ""]
    return "\n".join(lines).rstrip() + "\n"


def write_board(path: Path, text: str) -> None:
    """Put the section between its markers; a file without them gets it at the end."""
    write_between(path, NAME, text)


def scope(board: Board) -> str:
    """How many problems of how many kinds, how much was trained, and which rows have no rank."""
    kinds = dict.fromkeys(problem.kind for problem in board.problems)
    trained = sum(problem.trained_seconds for problem in board.problems)
    text = (
        f"{counted(len(board.problems), 'problem')} of {counted(len(kinds), 'kind')} ({', '.join(kinds)}), "
        f"{counted(len(board.names), 'row')}, {numbers.duration(trained)} of training."
    )
    if rest := not_ranked(board):
        text += f" Not run on every problem, and therefore without a rank: {first_few(rest, 12)}."
    if narrow := [problem.problem for problem in board.problems if _narrow(problem)]:
        text += (
            f" With caution: on {listed(narrow)} validation chose the smallest or the largest learning rate for more "
            "than half of the rows. Better ones may lie beyond, for the plain sum as for the others."
        )
    return text


def _narrow(problem: BoardProblem) -> bool:
    smallest, largest, rows = at_edges(problem)
    return 2 * (smallest + largest) > rows


def commands(board: Board) -> list[str]:
    return list(dict.fromkeys(problem.command for problem in board.problems))


def machines(board: Board) -> str:
    """Where it was trained, and with what versions, each once."""
    found = dict.fromkeys(
        f"{problem.machine.get('description') or ', '.join(map(str, problem.machine.values()))}; "
        f"{', '.join(f'{name} {value}' for name, value in problem.versions.items())}."
        for problem in board.problems
    )
    return " ".join(found)


def _named(row: tuple[str, ...]) -> tuple[str, ...]:
    return (f"`{row[0]}`", *row[1:])
