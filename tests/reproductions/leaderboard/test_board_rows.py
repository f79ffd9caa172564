"""The rows of the leaderboard: all methods, each of its kind, and why a problem does not admit one."""

import dataclasses
import statistics

import pytest

from steelyard.method_registry import method_names
from steelyard.problems import load_problem
from steelyard.reproductions.leaderboard.board_entries import ENTRIES, entries
from steelyard.reproductions.leaderboard.board_rows import LEFT_OUT, SHORTER, every_row, fitted, row_of
from steelyard.reproductions.leaderboard.export_board import file_of
from steelyard.reproductions.leaderboard.plan_board import plan_problem, stepped_by


def test_every_method_has_a_row_of_its_name_or_a_reason_not_to():
    rows = {row.name: row for row in every_row()}
    assert len(rows) == len(every_row())
    for name in method_names():
        assert SHORTER.get(name, name) in rows or name in LEFT_OUT
        assert name not in rows or rows[name].group in ("method", "sum")
    assert [row.name for row in rows.values() if row.group in ("single", "sum", "fixed")] == [
        *("single-task", "equal", "best-fixed"),
    ]
    for row in rows.values():
        assert (row.group in ("place", "optimizer")) == bool(row.of)
        assert not row.of or rows[row.of].group in ("method", "sum")
        assert row.reads


@pytest.mark.parametrize(
    ("text", "name", "group", "of", "reads"),
    [
        ("uw", "uw", "method", "", "losses"),
        ("equal@mmoe(experts=2)", "mmoe(experts=2)", "architecture", "", "losses"),
        ("uw@mmoe", "uw@mmoe", "architecture", "", "losses"),
        ("mgda(look=trunk)", "mgda(look=trunk)", "place", "mgda", "gramian, trunk"),
        ("log+mgda(shared=trunk,normalise=l2)", "log+mgda(normalise=l2,shared=trunk)", "place",
         "log+mgda(normalise=l2)", "gramian, trunk"),
        ("ema(beta=0.9)", "ema(beta=0.9)", "method", "", "losses"),
    ],
)  # fmt: skip
def test_a_row_says_what_kind_it_is(text, name, group, of, reads):
    row = row_of(text)
    assert (row.name, row.group, row.of, row.reads) == (name, group, of, reads)


def test_methods_are_read_where_they_can_be_and_a_main_task_is_needed_only_where_there_is_one():
    rows, why = fitted(every_row(), load_problem("digits"))
    names = {row.name: row for row in rows}
    assert {"pcd", "gcs", "ol-aux", "metabalance", "hydalearn"} <= set(why)
    assert "serves one main task" in why["pcd"]
    assert str(names["moco"].arm) == "moco(shared=trunk)"
    assert names["mgda"].arm.shared is None
    with_main = dataclasses.replace(load_problem("digits"), main="left")
    assert not fitted(every_row(), with_main)[1]
    trunk = dataclasses.replace(load_problem("digits"), shared="trunk")
    placed = {row.name: row for row in fitted(every_row(), trunk)[0]}
    assert str(placed["graddrop"].arm) == "graddrop(shared=features)"
    assert placed["moco"].arm.shared is None


def test_a_row_differs_only_from_one_that_is_there():
    rows, _ = fitted([row_of("mgda(look=last)")], load_problem("digits"))
    assert rows[0].of == ""


def test_problems_are_of_many_kinds_and_each_is_there():
    assert len({entry.kind for entry in ENTRIES}) >= 5
    assert len(ENTRIES) >= 13
    for entry in ENTRIES:
        assert load_problem(entry.problem).name == entry.problem
        assert load_problem(stepped_by(entry.problem, "sgd")).task_names == load_problem(entry.problem).task_names


@pytest.mark.parametrize(("sgd_rate", "middle"), [(None, 0.253), (4e-4, 4e-4)])
def test_where_sgd_steps_rates_are_its_own_or_ten_times_the_others(sgd_rate, middle):
    entry = dataclasses.replace(entries(["digits"], quick=True)[0], sgd_rate=sgd_rate)
    rows = [row for row in every_row() if row.name in ("equal", "equal, SGD")]
    own, stepped = plan_problem(entry, rows, seeds=1).studies
    assert statistics.median(own.plan.tuning.rates) == pytest.approx(0.0253)
    assert statistics.median(stepped.plan.tuning.rates) == pytest.approx(middle)


def test_quick_is_a_fifth_of_the_epochs_of_few_problems():
    quick = entries(None, quick=True)
    assert [entry.problem for entry in quick] == ["digits", "sarcos"]
    assert [entry.epochs for entry in quick] == [4, 3]
    assert entries(["census"], quick=True)[0].epochs == 1
    assert entries(["qm8(x=1)"], quick=False)[0].kind == "other"


def test_files_are_named_after_problems(tmp_path):
    assert file_of(tmp_path, "gdsc(drugs=20)") == tmp_path / "gdsc-drugs-20.json"
    assert file_of(tmp_path, "../a/b.py").parent == tmp_path
