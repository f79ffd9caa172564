"""Exports lose nothing."""

from __future__ import annotations

import contextlib
import copy
import csv
import dataclasses
import io
import json
import math
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from damage import damaged
from report import judgements
from steelyard.errors import StateError
from steelyard.report import write_page
from steelyard.report.json_and_csv import from_json, to_csv, to_json
from steelyard.report.output_files import CSV, JSON, write_output


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


def test_json_of_the_first_version_has_no_checksum_and_is_read() -> None:
    judgement = judgements.digits()
    document = json.loads(to_json(judgement))
    del document["checksum"]
    assert repr(from_json(json.dumps(document))) == repr(judgement)


@pytest.mark.parametrize("checksum", [True, False])
def test_damaged_json_is_refused_or_means_the_same(checksum: bool) -> None:
    """What was written with a checksum is never read as other numbers; without one it is at least a judgement."""
    judgement, draw, refused = judgements.one_seed(), random.Random(0), 0
    document = json.loads(to_json(judgement))
    if not checksum:
        del document["checksum"]
    content, right = json.dumps(document, indent=1).encode(), repr(judgement)
    for _ in range(300):
        try:
            found = from_json(damaged(content, draw).decode(errors="surrogateescape"))
        except StateError:
            refused += 1
            continue
        assert repr(found) == right or not checksum
        to_csv(found)
    assert refused > 150


@pytest.mark.parametrize("value", [None, 3, 0.5, "text", [], {}, [1], {"a": 1}, True])
def test_json_of_other_types_is_refused(value: object) -> None:
    """Wherever in it a value is of another type than the one that belongs there."""
    document = json.loads(to_json(judgements.one_seed()))
    del document["checksum"]

    def places(node: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
        yield path
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, item in items:
            yield from places(item, (*path, key))

    for path in list(places(document))[1::7]:
        changed = copy.deepcopy(document)
        node: Any = changed
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
        with contextlib.suppress(StateError):
            found = from_json(json.dumps(changed))
            to_csv(found)
            assert to_json(found)


def test_what_is_no_text_is_written_all_the_same(tmp_path: Path) -> None:
    """A command line may hold bytes of any kind, which Python stands in for by halves of characters."""
    judgement = dataclasses.replace(judgements.one_seed(), command="steelyard compare \udcff.py", summary="\udc80")
    write_output(tmp_path / "s.json", JSON, to_json(judgement))
    assert repr(from_json((tmp_path / "s.json").read_text())) == repr(judgement)
    write_page(judgement, tmp_path / "s.html")
    write_output(tmp_path / "s.csv", CSV, to_csv(judgement))


def test_csv_has_one_row_per_method_setting_task_and_seed() -> None:
    judgement = judgements.digits()
    rows = list(csv.DictReader(io.StringIO(to_csv(judgement))))
    assert len(rows) == 6 * 2 * 2 * 5
    found = {(r["method"], int(r["setting"]), r["task"], int(r["seed"])): float(r["value"]) for r in rows}
    for cell in judgement.cells:
        for seed, value in cell.values.items():
            assert found[cell.method, cell.setting, cell.task, seed] == value
    assert {row["fraction"] for row in rows} == {"0.1", "1.0"}


def test_csv_has_the_further_metrics_too() -> None:
    judgement = judgements.one_task()
    rows = list(csv.DictReader(io.StringIO(to_csv(judgement))))
    found = {(r["method"], r["task"], r["metric"], int(r["seed"])): r for r in rows}
    assert len(rows) == len(found) == 3 * 4 + len(judgement.others) * 4
    for other in judgement.others:
        for seed, value in other.values.items():
            row = found[other.method, other.task or "", other.metric, seed]
            assert (float(row["value"]), row["status"], row["verdict"]) == (value, "finished", "")
            assert row["higher_is_better"] == str(other.higher_is_better)
            assert (row["setting"], row["fraction"]) == ("0", "1.0" if other.task else "")


def test_csv_says_the_steps_of_the_network_beside_every_metric() -> None:
    judgement = judgements.unequal()
    taken = {
        (cell.method, cell.setting, cell.task, seed): count
        for cell in judgement.cells
        for seed, count in cell.steps.items()
    }
    rows = list(csv.DictReader(io.StringIO(to_csv(judgement))))
    assert {row["metric"] for row in rows} == {"accuracy", "RMSE", "within <5>", "missed"}
    assert {row["steps"] for row in rows if row["metric"] == "missed"} == {""}  # of several networks, perhaps
    for row in [row for row in rows if row["task"]]:
        assert int(row["steps"]) == taken[row["method"], int(row["setting"]), row["task"], int(row["seed"])]


def test_csv_tells_failed_from_missing() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(judgements.twelve()))))
    absent = [row for row in rows if row["method"] == "uw" and row["task"] == "NR-AR"]
    assert [row["status"] for row in absent] == ["missing", "failed", "missing", "failed", "missing"]
    assert all(row["value"] == "" for row in absent)


def test_csv_keeps_odd_names() -> None:
    judgement = judgements.hostile()
    rows = list(csv.DictReader(io.StringIO(to_csv(judgement))))
    assert {row["task"] for row in rows} == {task.name for task in judgement.tasks}


def shown(value: object) -> object:
    """A value as JSON has it: no tuples, no keys but text, no NaN and no infinity."""
    if dataclasses.is_dataclass(value):
        return {field.name: shown(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): shown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shown(item) for item in value]
    odd = {math.inf: "Infinity", -math.inf: "-Infinity"}
    return "NaN" if value != value else odd.get(value, value) if isinstance(value, float) else value


@pytest.mark.parametrize("name", judgements.ALL)
def test_json_says_every_field_under_its_own_name(name: str) -> None:
    judgement = judgements.ALL[name]()
    text = to_json(judgement)
    assert text.startswith('{\n "format"'), "a line per field, so that two can be compared"
    assert text.endswith("}\n")
    assert "\\u" not in text.replace("\\u001b", ""), "letters of all languages as they are"
    document = json.loads(text)
    assert document.pop("format") == "steelyard-judgement/1"
    assert len(document.pop("checksum")) == 32
    assert document == shown(judgement)


@pytest.mark.parametrize("name", judgements.ALL)
def test_every_field_of_the_csv(name: str) -> None:
    judgement = judgements.ALL[name]()
    cells = {(cell.method, cell.setting, cell.task): cell for cell in judgement.cells}
    wanted = []
    for setting in judgement.settings:
        for method in judgement.methods:
            for task in judgement.tasks:
                cell = cells.get((method, setting.index, task.name))
                for seed in judgement.seeds:
                    value = cell.values.get(seed) if cell else None
                    failed = any(
                        (failure.method, failure.setting, failure.seed) == (method, setting.index, seed)
                        and failure.task in (None, task.name)
                        for failure in judgement.failures
                    )
                    wanted.append({
                        "problem": judgement.problem, "method": method, "setting": str(setting.index),
                        "setting_label": setting.label, "task": task.name,
                        "fraction": str(setting.fractions[task.name]), "seed": str(seed), "metric": task.metric,
                        "higher_is_better": str(task.higher_is_better),
                        "status": "finished" if value is not None else "failed" if failed else "missing",
                        "value": "" if value is None else repr(value),
                        "verdict": (cell.verdict if cell else None) or "",
                        "device": judgement.device, "precision": judgement.precision,
                        "steps": str(cell.steps.get(seed, "")) if cell else "",
                    })  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(to_csv(judgement))))
    further = sum(len(other.values) for other in judgement.others)
    assert rows[: len(rows) - further] == wanted
    assert list(rows[0]) == list(wanted[0])


def unsealed(text: str) -> str:
    return re.sub(r'\n "checksum": "\w+",', "", text)


def test_json_of_another_kind_says_what_is_wrong() -> None:
    text = to_json(judgements.one_seed())
    for broken, said in (
        ("{", "this is not JSON.*Give a file written by `steelyard report --json`"),
        (text.replace("judgement/1", "judgement/2"), "the format is '.*/2', this version reads '.*/1'"),
        (text.replace('"machine"', '"machines"'), "is not as it was written .its checksum differs."),
        (unsealed(text).replace('"machine"', '"machines"'), "the judgement is damaged .*unknown fields .*machines"),
    ):  # fmt: skip
        with pytest.raises(StateError, match=said):
            from_json(broken)
