"""Where `steelyard report STORE --trials FILE` may write: trials that the store does not hold are not written over."""

from __future__ import annotations

import json
import lzma
import shlex
from pathlib import Path

from steelyard.errors import DamagedStoreError, StoreError
from steelyard.io.lists_and_counts import counted
from steelyard.io.writing import is_file
from steelyard.study.storage.short_curves import same_training
from steelyard.study.storage.sqlite_file import TRIALS_ENDINGS
from steelyard.study.storage.store import Store
from steelyard.study.storage.trials_file import MARK, CutOffError, canonical, is_trials_file, read_rows


def check_target(path: Path, store: Path, salvage: bool = False) -> None:
    """Refuse a name that is none of such a file's, a file that no run of Steelyard wrote, and what would be lost.

    Raises:
        StoreError: as said.
    """
    if path.exists() and not is_file(path):
        return  # a pipe or a device is written through
    if not is_trials_file(path):
        raise StoreError(f"--trials {path}: a file of trials ends in {' or '.join(TRIALS_ENDINGS)}")
    try:
        there = is_file(path) and path.stat().st_size > 0
        ours = not there or _begins_like_one(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}. Choose another place") from error
    if not ours:
        raise StoreError(
            f"cannot write {path}: there is a file already, and it is no file of trials that Steelyard wrote. Choose "
            "another name, or move it away"
        )
    if there and (lost := _would_be_lost(path, store, salvage)):
        words = shlex.join(["steelyard", "merge", str(store), str(path)])
        raise StoreError(
            f"cannot write {path}: the file that is there holds {lost} that {store} does not hold with these values "
            f"and curves. Choose another name, or bring them into the store first: `{words}`"
        )


def _begins_like_one(path: Path) -> bool:
    """Whole or not: one that was cut off is written again."""
    with path.open("rb") as file:
        head = file.read(4096)
    if path.suffix == ".xz":
        try:
            head = lzma.LZMADecompressor().decompress(head, max_length=len(MARK))
        except lzma.LZMAError:
            return False
    return head.startswith(MARK)


def _would_be_lost(path: Path, store: Path, salvage: bool) -> str:
    """What of a file the store has not: ``3 trials``; empty where it has all of it.

    Of a file that was cut off what stands before its end; one that cannot be read for another reason holds who knows
    what.
    """
    trials = plans = 0
    with Store(store, salvage=salvage) as opened:
        contents = {canonical(content) for content in opened.plans()}
        try:
            for row in read_rows(path):
                if row.table == "plan":
                    plans += canonical(json.loads(str(row.named["content"]))) not in contents
                elif row.named["status"] == "finished":
                    trials += not _holds(opened, row.named)
        except CutOffError:
            pass
        except (StoreError, ValueError, TypeError) as error:  # of the file, or of text in it
            return f"what cannot be read ({error})"
    found = [counted(number, noun) for number, noun in ((trials, "trial"), (plans, "plan")) if number]
    return " and ".join(found)


def _holds(store: Store, named: dict[str, object]) -> bool:
    """Whether a finished trial is in the store with the same values, and with all of its curves."""
    try:
        there = store.row(str(named["key"]))
    except DamagedStoreError:
        return False
    return there is not None and there["status"] == "finished" and same_training(there, named, whole=True)
