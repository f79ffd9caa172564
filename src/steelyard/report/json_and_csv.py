"""A judgement as JSON, without loss, and as CSV, one tidy row per method, setting, task and seed."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import typing

from steelyard.errors import StateError
from steelyard.io.plain_json import plain
from steelyard.io.printable_text import printable
from steelyard.io.typed import typed
from steelyard.study.judgement import Judgement
from steelyard.study.storage.checksum import checksum

FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""What a spreadsheet's formulas begin with, in both widths."""
FORMAT = "steelyard-judgement/1"
COLUMNS = (
    "problem", "method", "setting", "setting_label", "task", "fraction", "seed", "metric", "higher_is_better",
    "status", "value", "verdict", "device", "precision", "steps",
)  # fmt: skip


def to_json(judgement: Judgement) -> str:
    """Write a judgement as JSON that `from_json` reads back as an equal judgement.

    JSON has no NaN and no infinity; they are written as the strings "NaN", "Infinity" and "-Infinity". A checksum is
    over all of it, so that no damage is read as another number.
    """
    content = typing.cast(dict[str, object], plain(dataclasses.asdict(judgement)))
    document = {"format": FORMAT, "checksum": _checksum(content), **content}
    return json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> Judgement:
    """Read what `to_json` wrote. Raises StateError where the text is something else, or is damaged."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StateError(f"this is not JSON: {error}. Give a file written by `steelyard report --json`") from error
    found = document.pop("format", None) if isinstance(document, dict) else None
    if found != FORMAT:
        raise StateError(f"the format is {found!r}, this version reads {FORMAT!r}: export the study again")
    told = document.pop("checksum", None)  # 0.1 wrote none
    if told is not None and told != _checksum(document):
        raise StateError("the judgement is not as it was written (its checksum differs): export the study again")
    try:
        return typing.cast(Judgement, typed(Judgement, document))
    except (TypeError, ValueError) as error:
        raise StateError(f"the judgement is damaged ({error!r}): export the study again") from error


def _checksum(content: dict[str, object]) -> str:
    return checksum([json.dumps(content, sort_keys=True)])


def to_csv(judgement: Judgement) -> str:
    """Write the test values as CSV.

    One row per method, setting, task and seed; `status` says whether the trial is finished, failed or
    missing; only a finished one has a `value`. A name that a spreadsheet would take for a formula gets an apostrophe in
    front. `verdict` belongs to method, setting and task over all seeds. The values of a task's further metrics follow,
    and those of metrics of all tasks together, whose `task` is empty: of finished trials, without a verdict. The last
    columns say where all of them were trained, in which precision, and how many steps the network took.
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
                        judgement.device, judgement.precision, cell.steps.get(seed, "") if cell else "",
                    ])  # fmt: skip
    labels = {setting.index: setting for setting in judgement.settings}
    for other in judgement.others:
        setting = labels[other.setting]
        of = other.task or ""  # that of a metric of all tasks together is left empty
        cell = cells.get((other.method, other.setting, of))
        steps = cell.steps if cell else {}
        for seed, value in other.values.items():
            writer.writerow([
                _cell(judgement.problem), _cell(other.method), setting.index, _cell(setting.label), _cell(of),
                setting.fractions.get(of, ""), seed, _cell(other.metric), other.higher_is_better, "finished",
                repr(value), "", judgement.device, judgement.precision, steps.get(seed, ""),
            ])  # fmt: skip
    return text.getvalue()


def _cell(text: str) -> str:
    """A text that a spreadsheet takes for one, and not for a formula that it would work out."""
    text = printable(text)
    return f"'{text}" if text.lstrip().startswith(FORMULA) else text
