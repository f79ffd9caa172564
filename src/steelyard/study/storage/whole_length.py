"""A store that was cut off, as by a copy that broke off, with zeros in the place of what is missing."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from steelyard.errors import StoreError

MARK = b"SQLite format 3\0"
FULL = (errno.ENOSPC, errno.EDQUOT)


def whole_length(path: Path) -> tempfile.TemporaryDirectory[str] | None:
    """A folder with a copy of the file that is as long as its header says; None of one that is, or that is no store.

    What lies beside it, the log of a writer that is at work or was killed, is copied too: it may hold what is missing.
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
        copy = Path(folder.name, path.name)
        shutil.copyfile(path, copy)  # without its mode: it may be read-only
        for end in ("-wal", "-journal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(path.with_name(path.name + end), copy.with_name(copy.name + end))
        os.truncate(copy, length)
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
