"""What a row of another store must be, so that whoever reads the store that takes it can read it too."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from steelyard.errors import DamagedStoreError, StoreError
from steelyard.io.typed import typed
from steelyard.study.planning.plan import Plan
from steelyard.study.storage.trials_file import StoreRow
from steelyard.study.trial import Failed, Result

STATUSES = ("finished", "failed")
NEWER = "unknown fields"
"""How `typed` names what another version of Steelyard wrote."""


def check_readable(row: StoreRow, source: Path) -> None:
    """Refuse a row that its checksum fits, and nobody could read.

    Raises:
        StoreError: a newer Steelyard wrote it.
        DamagedStoreError: it is of no trial or plan.
    """
    try:
        _read(row)
    except (DamagedStoreError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        what = f"{row.table} {str(next(iter(row.values)))[:12]}"
        if NEWER in str(error):
            raise StoreError(
                f"{source} holds what this Steelyard does not know ({what}: {error}), so that a newer one wrote it: "
                "merge with that one, or bring this one up to date"
            ) from error
        raise DamagedStoreError(
            f"{source} is damaged ({what}: {error}): write it again, or use another copy"
        ) from error


def _read(row: StoreRow) -> None:
    named = row.named
    if row.table == "plan":
        Plan.from_dict(_names_and_values(named["content"]))
        return
    config = str(named["config"])
    if hashlib.sha256(config.encode()).hexdigest() != named["key"]:
        raise ValueError("its key is another trial's")
    tasks: list[str] = typed(list[str], _names_and_values(config)["tasks"])
    if named["status"] not in STATUSES:
        raise ValueError(f"a status of {named['status']!r}")
    if named["status"] == "failed":
        typed(Failed, {name: named[name] for name in ("error", "traceback")})
        return
    result: Result = typed(Result, {**_names_and_values(named["result"]), "curves": _names_and_values(named["curves"])})
    for told in (result.test, result.last):
        if set(told) != set(tasks) or not all(told.values()):
            raise ValueError(f"test values of {', '.join(told) or 'no task'} in place of {', '.join(tasks)}")


def _names_and_values(text: object) -> dict[str, object]:
    found = json.loads(str(text))
    if not isinstance(found, dict):
        raise ValueError(f"{type(found).__name__} in place of names and values")
    return found
