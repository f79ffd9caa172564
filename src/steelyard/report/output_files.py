"""The files that a user asks for: nothing of the user's is overwritten, and errors name the file."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from steelyard.errors import SteelyardError
from steelyard.io.writing import check_replaceable, is_file, replacing, standard_stream, what_it_is
from steelyard.study.storage.trials_file import is_trials_file

HEAD = 4096
"""Bytes within which, from its start or its end, a file says what it is."""
FULL = (errno.ENOSPC, errno.EDQUOT)
BESIDE_STORES = ("-wal", "-shm", "-journal", ".lock")


class OutputError(SteelyardError, OSError):
    """A page or an export cannot be written."""


@dataclass(frozen=True)
class FileKind:
    """A kind of file that Steelyard writes.

    Args:
        name: in messages.
        mark: what stands near the beginning of each, and of no other file.
    """

    name: str
    mark: bytes


PAGE = FileKind("page", b'<meta name="generator" content="Steelyard">')
JSON = FileKind("JSON export", b'"format": "steelyard-judgement/')
NETWORK = FileKind("network", b"steelyard-network/")
PROGRAM = FileKind("exported network", b"steelyard-network")
CSV = FileKind("CSV export", b"problem,method,setting,setting_label,task,")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file in what the system says of it."""
    try:
        yield
    except SteelyardError:  # of what is read meanwhile, too
        raise
    except OSError as error:
        instead = ". Free some space, or choose another place" if error.errno in FULL else ". Choose another place"
        raise OutputError(f"cannot write {path}: {error.strerror or error}{instead}") from error


def check_store(path: Path) -> None:
    """Refuse what can be no store now, rather than after a plan was made."""
    try:
        there = what_it_is(path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return  # opening it says the rest
    except OSError as error:
        raise OutputError(f"cannot use the store {path}: {error.strerror or error}. Choose another place") from error
    if there != "a file":
        instead = path / "study.sqlite" if there == "a folder" else "study.sqlite"
        raise OutputError(f"the store {path} is {there}: name a file, e.g. {instead}")


def check_outputs(outputs: Sequence[tuple[Path | None, FileKind | None]], store: Path) -> None:
    """Refuse what could not be written at the end now, rather than after hours of training; makes folders.

    Raises:
        OutputError: a file that no run of Steelyard wrote is in the way, or the store; one file for two outputs;
            or the system does not let it be written.
    """
    taken: set[str] = set()
    for path, kind in outputs:
        if path is None:
            continue
        with writing(path):
            place = os.path.realpath(path)
            if place in [os.path.realpath(store) + end for end in ("", *BESIDE_STORES)] or _one_file(path, store):
                raise FileExistsError(0, f"that is the {'file of trials' if is_trials_file(store) else 'store'}")
            check_replaceable(path)
            if place in taken and (is_file(path) or not path.exists()):
                raise FileExistsError(0, "another output goes there, give each a file of its own")
        taken.add(place)
        if kind is not None:
            _check_ours(path, kind)


def _one_file(path: Path, other: Path) -> bool:
    """Two names of one file: a second name (a hard link) has another path."""
    return is_file(path) and is_file(other) and os.path.samefile(path, other)


def write_output(path: Path, kind: FileKind, text: str) -> None:
    """Write a whole file or none, in the place of an earlier one of its kind and of nothing else.

    Raises:
        OutputError: it cannot be written, or a file of another kind is there.
    """
    with writing(path):
        check_replaceable(path)
    _check_ours(path, kind)
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write a whole file or none, whatever is there."""
    with writing(path), replacing(path) as file:
        file.write(text.encode(errors="backslashreplace"))  # what is no text at all: a file name of any bytes


def prints(path: Path | None) -> bool:
    """Is this the standard output, by whatever name? What else is printed there would be mixed up with it."""
    return path is not None and path.exists() and standard_stream(path.stat()) == 1


def _check_ours(path: Path, kind: FileKind) -> None:
    if not is_file(path):
        return
    with writing(path), path.open("rb") as file:
        said = file.read(HEAD)
        file.seek(max(HEAD, path.stat().st_size - HEAD))  # archives say at their end what is in them
        said += file.read()
    if said.strip() and kind.mark not in said:
        raise OutputError(
            f"cannot write {path}: there is a file already, and it is no {kind.name} that Steelyard wrote. "
            "Choose another name, or move it away"
        )
