"""Where `steelyard report STORE --trials FILE` may write: trials that the store does not hold are not written over."""

from __future__ import annotations

import lzma
from pathlib import Path

from steelyard.errors import StoreError
from steelyard.io.lists_and_counts import counted
from steelyard.io.writing import is_file
from steelyard.study.storage.short_curves import is_short_of
from steelyard.study.storage.sqlite_file import TRIALS_ENDINGS
from steelyard.study.storage.store import Store
from steelyard.study.storage.trials_file import MARK, is_trials_file, read_rows


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
        raise StoreError(
            f"cannot write {path}: the file that is there holds {counted(lost, 'trial')} that {store} does not hold, "
            f"or not with all of their curves. Choose another name, or bring them into a store: `steelyard merge`"
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


def _would_be_lost(path: Path, store: Path, salvage: bool) -> int:
    """How many finished trials of the file the store has not; of one that was cut off, those before its end."""
    lost = 0
    with Store(store, salvage=salvage) as opened:
        try:
            for row in read_rows(path):
                named = row.named
                if row.table != "trial" or named["status"] != "finished":
                    continue
                there = opened.row(str(named["key"]))
                lost += there is None or there["status"] != "finished" or is_short_of(there, named)
        except StoreError:
            return lost
    return lost
