"""The tables of the leaderboard, cell by cell, in Markdown and on the page; and the command that writes both."""

from __future__ import annotations

import dataclasses
import html
import math

import numpy as np
import pytest

from report.reading import parse, says, says_interval
from reproductions.leaderboard.made_up_board import planted, ten
from steelyard.reproductions.leaderboard.answer_architectures import family_of_architectures
from steelyard.reproductions.leaderboard.answer_methods import family_of_methods, headline
from steelyard.reproductions.leaderboard.answers import answers
from steelyard.reproductions.leaderboard.board import Board
from steelyard.reproductions.leaderboard.board_markdown import board_section, commands, scope
from steelyard.reproductions.leaderboard.board_page import board_page
from steelyard.reproductions.leaderboard.board_results import write
from steelyard.reproductions.leaderboard.board_tables import (
    all_tables,
    at_edges,
    gain_table,
    in_order,
    problem_table,
    row_table,
    trouble_table,
)
from steelyard.reproductions.leaderboard.stability import stability
from steelyard.study.analysis.statistics import interval


@pytest.fixture(scope="module")
def board():
    return Board(planted())


@pytest.fixture(scope="module")
def found(board):
    return stability(board, draws=100, halves=5)


@pytest.fixture(scope="module")
def said(board, found):
    return answers(board, found)


def times_hundred(known):
    return 100 * known.mean, 100 * known.low, 100 * known.high


def test_every_cell_of_the_table_of_rows(board, found):
    table = row_table(board, found)
    families = family_of_methods(board)
    families["sum"] |= family_of_architectures(board)
    assert {row[0] for row in table.rows} == set(board.ranked)
    average = board.ranks.mean(0)
    assert [row[0] for row in table.rows] == [board.ranked[place] for place in np.argsort(average, kind="stable")]
    for name, kind, place, delta, *rest, time, memory, problems in table.rows:
        assert kind.split()[0] in ("method", "plain", "fixed", "single", "architecture")
        assert place == found.ranges[name].text
        single = board.table("single", [name])[:, 0]
        assert says_interval(delta, *times_hundred(interval(single[np.isfinite(single)])))
        for baseline, (gain, p_value, ahead) in zip(("sum", "fixed"), (rest[:3], rest[3:]), strict=True):
            known = families[baseline].get(name)
            if known is None:
                assert (gain, p_value, ahead) == ("–", "–", "–")
                continue
            assert says_interval(gain, *times_hundred(known.interval))
            assert p_value == "<0.001" if known.p_value < 0.001 else says(p_value, known.p_value)
            values = board.table(baseline, [name])[:, 0]
            assert ahead == f"{(values > 0).sum()} of {np.isfinite(values).sum()}"
        for text, value in zip((time, memory), board.costs(name), strict=True):
            assert says(text, value)
        assert problems == str(np.isfinite(single).sum())


def test_every_cell_of_the_gains(board):
    table = gain_table(board)
    assert table.heads[1:] == tuple(f"p{place}" for place in range(8))
    assert [row[0] for row in table.rows] == in_order(board)
    for name, *cells in table.rows:
        for samples, text in zip(board.samples("single"), cells, strict=True):
            if (name, text) == ("broken", "failed"):
                assert len(samples[name]) == 0
            else:
                assert says_interval(text, *times_hundred(interval(samples[name])))
    assert sum(cell == "failed" for row in table.rows for cell in row) == 1


def test_the_problems_are_told(board):
    table = problem_table(board)
    for problem, row in zip(board.problems, table.rows, strict=True):
        told = dict(zip(table.heads, row, strict=True))
        assert told["problem"] == problem.problem
        assert (told["kind"], told["tasks"], told["seeds"], told["epochs"]) == (problem.kind, "2", "4", "3")
        assert (told["rates"], told["tuning seeds"], told["main task"]) == ("0.001, 0.01", "1", "–")
        assert says(told["losses apart, ×"], problem.facts["loss_scales"])
        assert told["labels missing, %"] == "0.0"
        assert told["trained"] == "20 min 34 s"


def test_facts_of_a_problem_read_as_what_they_count(board):
    facts = {"batch_size": 64.0, "missing_labels": 0.0311, "train_rows": 8728.0, "loss_scales": 3.85, "sort_of": 0.25}
    table = problem_table(Board([dataclasses.replace(board.problems[0], facts=facts)]))
    told = dict(zip(table.heads, table.rows[0], strict=True))
    assert told["batch size"] == "64"
    assert told["training rows"] == "8\u202f728"
    assert told["labels missing, %"] == "3.1"
    assert told["losses apart, ×"] == "3.85"
    assert told["sort of"] == "0.250"


def test_rows_whose_rate_lies_at_an_edge_are_counted(board):
    """Where most do, what was tried was too narrow, and a reader is to know."""
    problem = board.problems[0]
    rates = {"single-task": {"a": 0.1, "b": 0.1}, "equal": 0.01, "fixed": 0.1, "good": 0.1, "like": 0.001}
    rows = [
        dataclasses.replace(row, chosen={"learning_rate": rates.get(row.name, 0.01)})
        for row in problem.rows
        if row.group != "optimizer"
    ]
    stepped = dataclasses.replace(rows[1], name="equal, SGD", group="optimizer", chosen={"learning_rate": 0.1})
    made = dataclasses.replace(problem, rates=(0.01, 0.001, 0.1), rows=(*rows, stepped))
    told = dict(zip(problem_table(Board([made])).heads, problem_table(Board([made])).rows[0], strict=True))
    assert told["at an edge"] == f"1 smallest, 2 largest of {len(rows) - 1}"
    assert told["rates"] == "0.001, 0.01, 0.1"
    assert "With caution" not in scope(Board([made]))
    high = dataclasses.replace(
        made, rows=tuple(dataclasses.replace(row, chosen={"learning_rate": 0.1}) for row in made.rows)
    )
    assert "With caution: on p0 and p1 validation chose the smallest or the largest" in scope(
        Board([high, dataclasses.replace(high, problem="p1")])
    )
    # Two more lie past each edge: none of these rows wanted the outermost, until some do.
    further = dataclasses.replace(made, beyond=2)
    told = dict(zip(problem_table(Board([further])).heads, problem_table(Board([further])).rows[0], strict=True))
    assert (told["at an edge"], told["rates"]) == (
        f"0 smallest, 0 largest of {len(rows) - 1}",
        "0.001, 0.01, 0.1 and 2 beyond",
    )
    out = [dataclasses.replace(row, chosen={"learning_rate": 1.0}) if row.name == "good" else row for row in rows]
    assert at_edges(dataclasses.replace(further, rows=tuple(out))) == (0, 1, len(rows) - 1)
    two = dataclasses.replace(made, rates=(0.01, 0.1))
    assert "–" in problem_table(Board([two])).rows[0]


def test_a_failure_is_shown_with_its_reason(board):
    assert trouble_table(board).rows == (
        ("broken", "p1", "failed: loss | is nan at step 3", "last in rank, not in means"),
        ("lost", "p2", "worse than one prediction for all rows in a, b", "as it is"),
    )


def test_with_few_problems_no_place_and_no_p_is_printed():
    few = Board(planted()[:4])
    table = row_table(few, stability(few, draws=20, halves=2))
    assert {row[2] for row in table.rows} == {"–"}
    assert {row[5] for row in table.rows} | {row[8] for row in table.rows} == {"–"}


def test_markdown_has_all_of_it(board, found, said):
    tables = all_tables(board, found)
    text = board_section(board, said, tables)
    lines = text.splitlines()
    assert lines[0] == f"**{headline(board)}.** {scope(board)}"
    for each in said:
        assert f"**{each.question}** {each.answer}" in lines
        assert all(f"*{line}*" in lines for line in each.lines)
    for table in tables:
        assert f"## {table.title}" in lines
        start = lines.index("| " + " | ".join(table.heads) + " |")
        for place, row in enumerate(table.rows):
            cells = [cell.replace("|", "\\|") for cell in row]
            assert lines[start + 2 + place] == "| " + " | ".join([f"`{cells[0]}`", *cells[1:]]) + " |"
    assert all(command in lines for command in commands(board))


def test_how_much_there_is_is_said(board):
    assert scope(board) == "8 problems of 2 kinds (images, tables), 11 rows, 2 h 44 min of training."
    one = ten({"single-task": 0.2, "equal": 0.2}, 1) + ten({"equal": 0.2, "single-task": 0.2, "uw": 0.1}, 2)[1:]
    assert scope(Board(one)).endswith("Not run on every problem, and therefore without a rank: uw.")


def test_the_page_has_all_of_it(board, found, said):
    page = parse(board_page(board, found, said).replace("<!doctype html>", ""))
    assert page.one("h1").text == headline(board)
    questions = page.one("dl", class_="asked")
    assert [each.text for each in questions.all("dt")] == [each.question for each in said]
    for each, shown in zip(said, questions.all("dd"), strict=True):
        assert shown.text.startswith(each.answer)
        assert [line.text for line in shown.all("p")] == list(each.lines)
    by_title = {table.title: table for table in all_tables(board, found)}
    shown = {}
    for section in page.all("section"):
        if section.all("table"):
            shown[section.one("h2").text] = section.one("table")
    assert shown.keys() == by_title.keys()
    for title, table in by_title.items():
        heads = [cell.text for cell in shown[title].one("thead").all("th")]
        rows = [[cell.text for cell in row.elements] for row in shown[title].one("tbody").all("tr")]
        assert heads == list(table.heads)
        assert rows == [list(row) for row in table.rows]


def test_colours_are_those_of_the_numbers(board, found, said):
    page = parse(board_page(board, found, said).replace("<!doctype html>", ""))
    rows = page.one("section", id="heat").one("tbody").all("tr")
    table = board.table("single", in_order(board))
    strongest = np.quantile(np.abs(table[np.isfinite(table)]), 0.9)
    for column, row in enumerate(rows):
        for place, cell in enumerate(row.all("td")):
            value = table[place, column]
            if math.isnan(value):
                assert cell.classes == ["missing"]
                continue
            assert cell.classes == ["heat", "gain" if value >= 0 else "hurt"]
            share = float(cell["style"].removeprefix("--share:"))
            assert share == pytest.approx(min(1.0, abs(value) / strongest), abs=0.006)


def test_the_command_writes_both_and_renews_its_section(run, tmp_path, board):
    for problem in board.problems[:6]:
        write(problem, tmp_path / "files" / f"{problem.problem}.json") if (tmp_path / "files").is_dir() else (
            (tmp_path / "files").mkdir(), write(problem, tmp_path / "files" / f"{problem.problem}.json")
        )  # fmt: skip
    notes = tmp_path / "board.md"
    notes.write_text("# Ours\n\nWords.\n")
    words = ("leaderboard", "--from", "files", "--page", "board.html", "--markdown", "board.md")
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert "Does any method beat the tuned plain sum?\n  " in out
    assert "Written: board.html\nWritten: board.md\n" in out
    first = notes.read_text()
    assert first.startswith("# Ours\n\nWords.\n\n<!-- reproduce leaderboard: written by the command -->\n**")
    assert html.escape("6 problems of 2 kinds") in (tmp_path / "board.html").read_text()
    assert run(*words)[0] == 0
    assert notes.read_text() == first


def test_the_command_says_what_it_cannot_read(run, tmp_path):
    code, _, err = run("leaderboard", "--from", "nowhere")
    assert code == 2
    assert "nowhere holds no results of the leaderboard" in err
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.json").write_text("[1, 2")
    code, _, err = run("leaderboard", "--from", "files")
    assert code == 2
    assert "cannot read files/a.json" in err
