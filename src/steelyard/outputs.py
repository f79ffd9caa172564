"""Write the files that a user asks for: whole or not at all, and with an error that names the file."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from steelyard.errors import SteelyardError


class OutputError(SteelyardError, OSError):
    """A page or an export cannot be written."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file in what the system says of it."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def check_store(path: Path) -> None:
    """Refuse a folder in the store's place now, rather than after a plan was made."""
    if path.is_dir():
        raise OutputError(f"the store {path} is a folder: name a file, e.g. {path / 'study.sqlite'}")


def check_writable(path: Path, store: Path) -> None:
    """Make the folder and try to write there now, rather than to fail after hours of training."""
    with writing(path):
        if path.resolve() == store.resolve():
            raise FileExistsError(0, "that is the store")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        with tempfile.TemporaryFile(dir=path.parent):
            pass


def write_text(path: Path, text: str) -> None:
    """Write a whole file or none."""
    with writing(path):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(temporary, 0o644)  # a private file by default; an export is there to be read
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
