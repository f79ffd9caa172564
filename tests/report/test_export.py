"""Exports lose nothing."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest

from report import judgements
from steelyard.errors import StateError
from steelyard.report.export import from_json, to_csv, to_json


@pytest.mark.parametrize("name", judgements.ALL)
def test_json_returns_every_field(name: str) -> None:
    judgement = judgements.ALL[name]()
    # repr, because NaN is not equal to itself
    assert repr(from_json(to_json(judgement))) == repr(judgement)


def test_json_is_standard_json_even_with_nan_and_infinity() -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text = to_json(judgements.one_seed())
    cell = json.loads(text, parse_constant=refuse)["cells"][-1]
    assert cell["sd"] == "NaN"
    assert cell["difference"]["high"] == "Infinity"
    assert math.isinf(from_json(text).cells[-1].difference.high)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": "steelyard-judgement/0"}',
        '{"format": "steelyard-judgement/1", "tasks": 3}',
    ],
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(StateError):
        from_json(text)


def test_csv_has_one_row_per_method_setting_task_and_seed() -> None:
    judgement = judgements.digits()
    rows = list(csv.DictReader(io.StringIO(to_csv(judgement))))
    assert len(rows) == 6 * 2 * 2 * 5
    found = {(r["method"], int(r["setting"]), r["task"], int(r["seed"])): float(r["value"]) for r in rows}
    for cell in judgement.cells:
        for seed, value in cell.values.items():
            assert found[cell.method, cell.setting, cell.task, seed] == value
    assert {row["fraction"] for row in rows} == {"0.1", "1.0"}


def test_csv_tells_failed_from_missing() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(judgements.twelve()))))
    absent = [row for row in rows if row["method"] == "uw" and row["task"] == "NR-AR"]
    assert [row["status"] for row in absent] == ["missing", "failed", "missing", "failed", "missing"]
    assert all(row["value"] == "" for row in absent)


def test_csv_keeps_odd_names() -> None:
    judgement = judgements.hostile()
    rows = list(csv.DictReader(io.StringIO(to_csv(judgement))))
    assert {row["task"] for row in rows} == {task.name for task in judgement.tasks}
