"""The files of the leaderboard: read back as written, and refused by name where they are damaged or something else."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest

from damage import damaged
from reproductions.leaderboard.made_up_board import made_up
from steelyard.errors import LeaderboardError
from steelyard.reproductions.leaderboard.board_results import check, read, read_folder, write

WRITTEN = """{"format": 1, "problem": "digits", "kind": "images",
 "tasks": [{"name": "a", "metric": "accuracy", "higher_is_better": true}], "main": null, "command": "x", "seeds": [0],
 "epochs": 3, "rates": [0.001], "tuning_seeds": [], "machine": {"cores": 2}, "versions": {"torch": "2"},
 "trained_seconds": 12,
 "rows": [{"name": "uw", "group": "method", "reads": "losses", "chosen": {"learning_rate": 0.001}, "failed": null,
  "seconds_per_step": 0.5, "peak_memory": null,
  "per_seed": {"0": {"test": {"a": 0.5}, "validation": {"a": "NaN"}, "seconds": 4, "steps": 9}}}]}"""


def test_a_file_is_read_as_it_was_written(tmp_path):
    problem = made_up("digits", {"single-task": 0.2, "equal": 0.1, "uw": 0.15}, scatter=0.1, facts={"train_rows": 99.0})
    write(problem, tmp_path / "digits.json")
    assert read(tmp_path / "digits.json") == problem
    assert [file.name for file in tmp_path.iterdir()] == ["digits.json"]


def test_the_format_is_the_one_that_is_described(tmp_path):
    (tmp_path / "digits.json").write_text(WRITTEN)
    (found,) = read_folder(tmp_path)
    assert (found.problem, found.tasks[0].ideal, found.facts, found.seeds) == ("digits", None, {}, (0,))
    row = found.rows[0]
    assert (row.name, row.peak_memory, row.per_seed[0].test, row.per_seed[0].steps) == ("uw", None, {"a": 0.5}, 9)
    assert row.per_seed[0].validation["a"] != row.per_seed[0].validation["a"]
    write(found, tmp_path / "digits.json")
    again = json.loads((tmp_path / "digits.json").read_text())
    assert again["rows"][0]["per_seed"]["0"]["validation"] == {"a": "NaN"}
    assert {*json.loads(WRITTEN)} | {"facts", "beyond"} == {*again}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"format": 1', '"format": 2', "format is 2"),
        ('"format": 1', '"format": true', "format is True"),
        ('"epochs": 3', '"epochs": 3.5', "3.5 in the place of int"),
        ('"epochs": 3', '"epochs": -1', "epochs is -1"),
        ('"epochs": 3', '"epochs": 3, "beyond": -1', "beyond is -1"),
        ('"main": null', '"main": "b"', "main task 'b'"),
        ('"main": null', '"mian": null', "mian"),
        ('"group": "method"', '"group": "methods"', "methods"),
        ('{"0": {', '{"1": {', "seed 1"),
        ('"test": {"a"', '"test": {"b"', "test values of ['b']"),
        ('"seconds": 4', '"seconds": NaN', "NaN is no JSON"),
        ('"seconds": 4', '"seconds": "NaN"', "seconds of row 'uw', seed 0 is nan"),
        ('"steps": 9', '"steps": 9, "steps": 8', "'steps' is there twice"),
        ('"seeds": [0]', '"seeds": [0, 0]', "the seed 0 is there twice"),
        ('"failed": null', '"failed": null, "of": "mgda"', "'mgda', which is no row"),
        ('"trained_seconds": 12', '"trained_seconds": true', "True in the place of float"),
        ('"peak_memory": null', '"peak_memory": -5', "peak_memory of row 'uw' is -5"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path, old, new, said):
    assert old in WRITTEN
    file = tmp_path / "digits.json"
    file.write_text(WRITTEN.replace(old, new))
    with pytest.raises(LeaderboardError) as raised:
        read(file)
    assert said in str(raised.value)
    assert str(file) in str(raised.value)


def test_a_foreign_file_is_named(tmp_path):
    file = tmp_path / "x.json"
    for content in (b"", b"[]", b"3", b"\xff\xfe{}", b"[" * 100_000, b'{"format": {"problem": 1}}', b"<html>"):
        file.write_bytes(content)
        with pytest.raises(LeaderboardError, match=r"x\.json"):
            read_folder(tmp_path)
    with pytest.raises(LeaderboardError, match="nowhere holds no results"):
        read_folder(tmp_path / "nowhere")


def test_two_files_of_one_problem_are_refused(tmp_path):
    for name in ("one.json", "two.json"):
        write(made_up(), tmp_path / name)
    with pytest.raises(LeaderboardError, match=r"one\.json and .*two\.json are both of 'digits'"):
        read_folder(tmp_path)


def test_what_does_not_fit_is_not_written(tmp_path):
    problem = made_up()
    twice = dataclasses.replace(problem, rows=(*problem.rows, problem.rows[0]))
    with pytest.raises(LeaderboardError, match="row 'single-task' is there twice"):
        write(twice, tmp_path / "x.json")
    two_sums = tuple(dataclasses.replace(row, group="sum") for row in problem.rows)
    with pytest.raises(LeaderboardError, match="several rows of the group 'sum'"):
        write(dataclasses.replace(problem, rows=two_sums), tmp_path / "x.json")
    empty = dataclasses.replace(problem.rows[0], per_seed={})
    with pytest.raises(LeaderboardError, match="neither a seed nor a reason"):
        write(dataclasses.replace(problem, rows=(empty,)), tmp_path / "x.json")
    write(dataclasses.replace(problem, rows=(dataclasses.replace(empty, failed="loss is nan"),)), tmp_path / "x.json")


def test_a_damaged_file_is_named_or_still_fits(tmp_path):
    draw, file = random.Random(1), tmp_path / "digits.json"
    write(made_up(seeds=(0, 1)), file)
    content, said = file.read_bytes(), []
    for _ in range(150):
        file.write_bytes(damaged(content, draw))
        try:
            check(read(file))
        except LeaderboardError as error:
            said.append(str(error))
    assert len(said) > 75
    assert all(str(file) in text for text in said)


def test_a_row_is_a_line(tmp_path):
    """So that the history of a file tells which rows were added, and which trained anew."""
    problem, file = made_up(), tmp_path / "digits.json"
    write(problem, file)
    before = file.read_text().splitlines()
    assert len(before) > len(problem.rows) + 10
    first, *rest = problem.rows
    write(dataclasses.replace(problem, rows=(dataclasses.replace(first, seconds_per_step=9.0), *rest)), file)
    after = file.read_text().splitlines()
    changed = [now for then, now in zip(before, after, strict=True) if now != then]
    assert len(changed) == 1
    assert '"seconds_per_step": 9.0' in changed[0]
