"""The leaderboard of the site: its files are of the problems that we train, and its page says what they say."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import leaderboard_files
import pytest

from reproductions.leaderboard.made_up_board import planted
from steelyard.method_registry import method_names
from steelyard.problems.other_optimizer import FASTER
from steelyard.reproductions.leaderboard.answer_methods import headline
from steelyard.reproductions.leaderboard.board import Board
from steelyard.reproductions.leaderboard.board_entries import ENTRIES
from steelyard.reproductions.leaderboard.board_results import read, read_folder, write
from steelyard.reproductions.leaderboard.board_tables import row_table
from steelyard.reproductions.leaderboard.export_board import file_of
from steelyard.reproductions.leaderboard.over_problems import least_problems
from steelyard.reproductions.leaderboard.report_board import report_board
from steelyard.reproductions.leaderboard.stability import stability
from steelyard.study.planning.tuning import learning_rates, outermost

DOCS = Path(__file__).parents[3] / "docs"
FOLDER, PAGE = DOCS / "leaderboard", DOCS / "leaderboard.md"
SIZES = {file_of(FOLDER, entry.problem): entry for entry in ENTRIES}
FILES = sorted(FOLDER.glob("*.json"))
POINTING = [DOCS.parent / "README.md", DOCS / "balance" / "which-method.md"]
SEEDS, BASELINES = 5, {"single-task", "equal", "best-fixed"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_is_of_a_problem_at_its_size(file: Path) -> None:
    found, entry = read(file), SIZES[file]
    assert (found.problem, found.kind, found.epochs) == (entry.problem, entry.kind, entry.epochs)
    assert (len(found.seeds), len(found.rates), len(found.tuning_seeds)) == (SEEDS, entry.rates, entry.tuning_seeds)
    assert found.beyond == entry.beyond
    assert entry.learning_rate in (None, sorted(found.rates)[entry.rates // 2])
    assert entry.batch_size in (None, found.facts["batch_size"])
    assert {row.name for row in found.rows} > BASELINES
    assert not set(found.seeds) & set(found.tuning_seeds)
    for row in found.rows:
        assert row.failed or set(row.per_seed) == set(found.seeds)
    assert "/" not in found.command.replace("docs/leaderboard", ""), "whose machine it was is nobody's business"


def test_the_middle_rate_is_what_the_plain_sum_chose() -> None:
    """But for those problems that the page names."""
    others = [
        found.problem
        for found in map(read, FILES)
        for row in found.rows
        if row.name == "equal" and row.chosen["learning_rate"] != sorted(found.rates)[len(found.rates) // 2]
    ]
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    named = re.search(r"The middle rate is the one that the plain sum chose, but on (.*?)\. ", text)
    assert named
    assert re.findall(r"`([^`]+)`", named[1]) == others


def test_how_often_sgd_chose_a_rate_at_an_edge_is_said() -> None:
    edges, choices = 0, 0
    for file in FILES:
        entry = SIZES[file]
        middle = FASTER * entry.learning_rate if entry.sgd_rate is None else entry.sgd_rate
        rates = learning_rates(middle, entry.rates)
        ends = [outermost(rates, entry.beyond, side) for side in (False, True)]
        chosen = [row.chosen["learning_rate"] for row in read(file).rows if row.chosen.get("optimizer") == "sgd"]
        assert all(ends[0] <= rate <= ends[1] for rate in chosen)
        edges += sum(rate in ends for rate in chosen)
        choices += len(chosen)
    assert f"{edges} of its {choices} choices were such" in " ".join(PAGE.read_text(encoding="utf-8").split())


@pytest.mark.takes("every question is answered once more, from all files")
def test_the_page_says_what_the_files_say(tmp_path: Path) -> None:
    again = tmp_path / "leaderboard.md"
    again.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    report_board(FOLDER, markdown=again)
    assert again.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8"), (
        "write it anew: steelyard leaderboard --from docs/leaderboard --markdown docs/leaderboard.md"
    )
    assert re.search(rf"\*\*.*{len(FILES)} problems", PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", POINTING, ids=lambda page: page.stem)
def test_what_the_table_of_methods_points_to_is_what_it_says(page: Path) -> None:
    text = " ".join(page.read_text(encoding="utf-8").split())
    assert f"*{headline(Board(read_folder(FOLDER)))}*" in text
    assert "leaderboard.md)" in text
    said = " ".join(PAGE.read_text(encoding="utf-8").split())
    for quoted in re.findall(r"\*(on [^*]+ above and [^*]+)\*", text):  # so many, of methods or architectures
        assert f"{quoted};" in said or f"{quoted}." in said, "not what the leaderboard says"


def test_what_architectures_cost_is_said() -> None:
    board = Board(read_folder(FOLDER))
    rows = [row for row in row_table(board, stability(board, draws=20, halves=2)).rows if row[1] == "architecture"]
    times = [float(row[-3]) for row in rows]
    said = " ".join((PAGE.parent / "balance" / "which-method.md").read_text(encoding="utf-8").split())
    assert f"at {min(times):.1f} to {max(times):.1f} times the time per step" in said


def test_what_the_widest_problem_does_to_means_is_said() -> None:
    """Half of the rows' intervals there, and what would be said without it."""
    problem = "multi-target(table=enb)"
    page = PAGE.read_text(encoding="utf-8")
    text = " ".join(page.split())
    table = page.partition("## Δm by problem")[2].partition("## Problems")[0].splitlines()
    cells = [[cell.strip() for cell in line.split("|")] for line in table if line.startswith("| ")]
    place = cells[0].index(problem)
    rows = cells[1:]
    widths = sorted(float(row[place].partition("±")[2]) for row in rows if "±" in row[place])
    assert f"half of all rows are known to {widths[len(widths) // 2]:.0f} points or worse" in text
    others = Board([found for found in read_folder(FOLDER) if found.problem != problem])
    gained = {row[0]: row for row in row_table(others, stability(others, draws=20, halves=2)).rows}
    methods = {
        name: float(row[4].split(" ")[0].replace("−", "-")) for name, row in gained.items() if row[1] == "method"
    }
    best = max(methods, key=lambda name: methods[name])
    assert f"the largest mean gain would be {best}'s, +{methods[best]} points" in text
    assert f"by +{gained['mtan'][4].split(' ')[0].lstrip('+')} points" in text


def test_a_method_is_told_where_it_stands_by_the_table(tmp_path: Path) -> None:
    problems = planted()
    for problem in problems:
        write(problem, tmp_path / f"{problem.problem}.json")
    board = Board(problems)
    table = row_table(board, stability(board))
    told = leaderboard_files.standings(tmp_path)
    assert set(told) == {row[0] for row in table.rows if row[1] == "method"}
    for row in (row for row in table.rows if row[0] in told):
        for cell in (row[2], row[4], row[7], row[-1]):
            assert cell in told[row[0]]
    assert leaderboard_files.standings(FOLDER)["stch"].startswith("as stch(warm_up=0), ")  # a row of another name
    assert set(leaderboard_files.standings(FOLDER)) <= set(method_names())
    for problem in problems[least_problems() - 1 :]:
        (tmp_path / f"{problem.problem}.json").unlink()
    assert leaderboard_files.standings(tmp_path) == {}


def test_what_is_downloaded_is_what_is_there(tmp_path: Path) -> None:
    leaderboard_files.archive(FOLDER, tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as opened:
        opened.extractall(tmp_path / "all")
    assert [each.problem for each in read_folder(tmp_path / "all")] == [each.problem for each in read_folder(FOLDER)]
    page = PAGE.read_text(encoding="utf-8")
    for name in (leaderboard_files.PAGE, leaderboard_files.ARCHIVE):
        assert f'href="{leaderboard_files.FOLDER}/{name}"' in page
