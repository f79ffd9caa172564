"""A store that was cut off, as by a copy that broke off, with zeros in the place of what is missing."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

MARK = b"SQLite format 3\0"


def whole_length(path: Path) -> tempfile.TemporaryDirectory[str] | None:
    """A folder with a copy of the file, as long as its header says that it is; None where it is so long, or no store.

    SQLite refuses a file that is shorter than that as a whole. In a copy of full length it finds the pages that are
    there, and stumbles over zeros where it needs one that is gone.
    """
    folder = None
    try:
        with path.open("rb") as file:
            head = file.read(100)
        told = int.from_bytes(head[16:18], "big")
        length = (65536 if told == 1 else told) * int.from_bytes(head[28:32], "big")
        if not head.startswith(MARK) or os.path.getsize(path) >= length:
            return None
        folder = tempfile.TemporaryDirectory(prefix="steelyard-salvage-")
        os.truncate(shutil.copy(path, folder.name), length)
    except OSError:  # SQLite says what it cannot read; a length that no file can have is damage, too
        if folder is not None:
            folder.cleanup()
        return None
    return folder
