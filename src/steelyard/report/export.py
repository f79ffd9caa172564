"""A judgement as JSON, without loss, and as CSV, one tidy row per method, setting, task and seed."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import types
import typing

from steelyard.errors import StateError
from steelyard.io.printing import printable
from steelyard.study.judgement import Judgement

FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""What a spreadsheet's formulas begin with, in both widths."""
FORMAT = "steelyard-judgement/1"
COLUMNS = (
    "problem", "method", "setting", "setting_label", "task", "fraction", "seed", "metric", "higher_is_better",
    "status", "value", "verdict",
)  # fmt: skip


def to_json(judgement: Judgement) -> str:
    """Write a judgement as JSON that `from_json` reads back as an equal judgement.

    JSON has no NaN and no infinity; they are written as the strings "NaN", "Infinity" and "-Infinity".
    """
    document = {"format": FORMAT, **typing.cast(dict[str, object], _plain(dataclasses.asdict(judgement)))}
    return json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> Judgement:
    """Read what `to_json` wrote. Raises StateError where the text is something else."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise StateError(f"this is not JSON: {error}. Give a file written by `steelyard report --json`") from error
    found = document.pop("format", None) if isinstance(document, dict) else None
    if found != FORMAT:
        raise StateError(f"the format is {found!r}, this version reads {FORMAT!r}: export the study again")
    try:
        return typing.cast(Judgement, _typed(Judgement, document))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateError(f"the judgement is damaged ({error!r}): export the study again") from error


def to_csv(judgement: Judgement) -> str:
    """Write the test values as CSV.

    One row per method, setting, task and seed; `status` says whether the trial is finished, failed or
    missing; only a finished one has a `value`. A name that a spreadsheet would take for a formula gets an apostrophe in
    front. `verdict` belongs to method, setting and task over all seeds.
    """
    cells = {(cell.method, cell.setting, cell.task): cell for cell in judgement.cells}
    failed = {(failure.method, failure.setting, failure.task, failure.seed) for failure in judgement.failures}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for setting in judgement.settings:
        for method in judgement.methods:
            for task in judgement.tasks:
                cell = cells.get((method, setting.index, task.name))
                for seed in judgement.seeds:
                    value = cell.values.get(seed) if cell else None
                    # A joint trial fails for all its tasks at once, a single-task trial for its own.
                    broken = failed & {(method, setting.index, name, seed) for name in (None, task.name)}
                    writer.writerow([
                        _cell(judgement.problem), _cell(method), setting.index, _cell(setting.label), _cell(task.name),
                        setting.fractions.get(task.name, ""), seed, _cell(task.metric), task.higher_is_better,
                        "finished" if value is not None else "failed" if broken else "missing",
                        "" if value is None else repr(value), (cell and cell.verdict) or "",
                    ])  # fmt: skip
    return text.getvalue()


def _cell(text: str) -> str:
    """A text that a spreadsheet takes for one, and not for a formula that it would work out."""
    text = printable(text)
    return f"'{text}" if text.lstrip().startswith(FORMULA) else text


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _typed(kind: typing.Any, value: typing.Any) -> object:
    """Rebuild a value of the annotated type: JSON turned keys into text and dataclasses into dictionaries."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        unknown = set(value) - set(hints)
        if unknown:
            raise ValueError(f"unknown fields {sorted(unknown)}")
        return typing.cast(type, kind)(**{name: _typed(hints[name], item) for name, item in value.items()})
    if origin is list:
        return [_typed(arguments[0], item) for item in value]
    if origin is dict:
        return {arguments[0](key): _typed(arguments[1], item) for key, item in value.items()}
    if origin in (typing.Union, types.UnionType) and value is not None:
        return _typed(next(argument for argument in arguments if argument is not type(None)), value)
    return float(value) if kind is float else value
