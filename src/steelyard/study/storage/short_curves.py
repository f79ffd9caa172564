"""Rows of a store with no more of their curves than tables and verdicts rest on, to be sent or kept in a repository."""

from __future__ import annotations

import json
from dataclasses import replace

from steelyard.study.storage.sqlite_file import COLUMNS
from steelyard.study.storage.trials_file import StoreRow

DIGITS = 4
"""Significant ones of a value on validation data: a difference of that size is no difference between two epochs."""

_CURVES = COLUMNS["trial"].index("curves")


def with_short_curves(row: StoreRow) -> StoreRow:
    """The row with the curves of validation data alone, to a few digits; any other row as it is."""
    if row.table != "trial" or row.values[_CURVES] is None:
        return row
    values = list(row.values)
    values[_CURVES] = shortened(str(values[_CURVES]))
    return replace(row, values=tuple(values))


def shortened(curves: str) -> str:
    """The text of a trial's curves, shortened; of what is short already, the same."""
    found = json.loads(curves)
    validation = {
        task: [float(f"{value:.{DIGITS}g}") for value in values] for task, values in found["validation"].items()
    }
    return json.dumps({**{kind: {} for kind in found}, "validation": validation})
