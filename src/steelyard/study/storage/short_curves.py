"""Rows of a store with no more of their curves than tables and verdicts rest on, to be sent or kept in a repository."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from steelyard.errors import StoreError
from steelyard.study.storage.sqlite_file import COLUMNS
from steelyard.study.storage.trials_file import StoreRow
from steelyard.study.trial import Result

DIGITS = 4
"""Significant ones of a value on validation data, but for the epoch that is judged, whose value stays as it is."""

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
