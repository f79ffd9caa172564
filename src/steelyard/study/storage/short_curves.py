"""Rows of a store with no more of their curves than tables and verdicts rest on, to be sent or kept in a repository."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from steelyard.errors import StoreError
from steelyard.study.storage.sqlite_file import COLUMNS
from steelyard.study.storage.trials_file import StoreRow, canonical
from steelyard.study.trial import Result

DIGITS = 4
"""Significant ones of a value on validation data, but for the epoch that is judged, whose value stays as it is."""

MEASURED = ("seconds", "steps_per_second", "peak_memory", "processor_seconds", "other_data")
"""What differs from one training to the next of the same trial."""

_RESULT, _CURVES = (COLUMNS["trial"].index(name) for name in ("result", "curves"))


def with_short_curves(row: StoreRow) -> StoreRow:
    """The row with the curves of validation data alone, to a few digits; any other row as it is."""
    if row.table != "trial" or row.values[_CURVES] is None:
        return row
    values = list(row.values)
    values[_CURVES] = shortened(str(values[_CURVES]), str(values[_RESULT]))
    return replace(row, values=tuple(values))


def shortened(curves: str, result: str) -> str:
    """The text of a trial's curves, shortened; of what is short already, the same.

    Args:
        curves: JSON, as a store holds it.
        result: of the same trial; it knows the epoch that is judged.
    """
    found, chosen = json.loads(curves), json.loads(result)["chosen_epoch"] - 1
    validation = {
        task: [value if epoch == chosen else float(f"{value:.{DIGITS}g}") for epoch, value in enumerate(values)]
        for task, values in found["validation"].items()
    }
    return json.dumps({**{kind: {} for kind in found}, "validation": validation})


def is_short_of(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Whether the curves of one row are those of the other, shortened."""
    curves = str(other["curves"])
    return one["curves"] != curves and one["curves"] == shortened(curves, str(other["result"]))


def same_training(there: Mapping[str, object], other: Mapping[str, object], whole: bool = False) -> bool:
    """Whether two finished rows of one trial found the same; one of them may have lost most of its curves on the way.

    Args:
        there: a row.
        other: another one.
        whole: the first one must not have lost what the other has.
    """
    if _values(there) != _values(other):
        return False
    if there["curves"] == other["curves"] or is_short_of(other, there):
        return True
    return not whole and is_short_of(there, other)


def _values(row: Mapping[str, object]) -> str:
    """What a trial found, without what differs from one training to the next."""
    result = json.loads(str(row["result"]))
    return canonical({name: each for name, each in result.items() if name not in MEASURED})


def check_whole(result: Result, why: str) -> None:
    """Refuse a result whose curves were shortened.

    Args:
        result: of a trial.
        why: whole curves are needed, "what it reads".

    Raises:
        StoreError: its losses and weights are gone.
    """
    if is_short(result):
        raise StoreError(
            f"these trials were written with --short-curves, and {why}: take the store that they come from, or have "
            "`steelyard report STORE --trials FILE` write them whole"
        )


def is_short(result: Result) -> bool:
    """Whether its losses and weights are gone."""
    curves = result.curves
    return bool(curves.validation) and not (curves.losses or curves.weights or curves.halves)
