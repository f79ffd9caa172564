"""A store that was cut off, as by a copy that broke off, with zeros in the place of what is missing."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from steelyard.errors import StoreError

MARK = b"SQLite format 3\0"
FULL = (errno.ENOSPC, errno.EDQUOT)


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
    except OSError as error:
        if folder is not None:
            folder.cleanup()
        if error.errno in FULL:
            raise StoreError(
                f"{path} was cut off, and what is there can only be read from a copy: there is no room for it in "
                f"{tempfile.gettempdir()}. Free some, or set TMPDIR to another folder"
            ) from error
        return None  # SQLite says what it cannot read; and a length that no file can have is damage, too
    return folder
