"""Find a data file: STEELYARD_DATA first, then the cache, then the public original, always with its hash."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from steelyard.errors import DataFileError, MissingDataError

VARIABLE = "STEELYARD_DATA"


@dataclass(frozen=True)
class DataFile:
    """One file of a data set.

    Args:
        folder: the data set's folder below STEELYARD_DATA and below the cache.
        name: the file's name.
        sha256: accepted hashes, the first that of the file at `url`; empty if the content is checked instead.
        url: the public original, where a stable address is known.
        how: how to get or make the file by hand.
    """

    folder: str
    name: str
    sha256: tuple[str, ...] = ()
    url: str = ""
    how: str = ""

    def __str__(self) -> str:
        return f"{self.folder}/{self.name}"


def find(file: DataFile) -> Path:
    """The path of a file, its hash checked; downloaded if need be.

    Raises:
        MissingDataError: not found and not to be had; says where it was looked for and what to do.
        DataFileError: found, but its hash is wrong, or it cannot be read.
    """
    places = search_path()
    for place in places:
        path = place / file.folder / file.name
        if os.path.isfile(path):  # False also in a folder that may not be looked into
            _verify(path, file)
            return path
    if file.url:
        return _download(file)
    raise MissingDataError(_missing(file, "there is no public address to download it from"))


def search_path() -> list[Path]:
    """The folders of STEELYARD_DATA, then the cache."""
    named = [Path(os.path.expanduser(entry)) for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry]
    return [*named, cache()]


def present(folder: str) -> bool:
    """Does a data set's folder hold any file, in any of the places? A download that failed leaves an empty one."""
    return any(_has_file(place / folder) for place in search_path())


def _has_file(folder: Path) -> bool:
    with contextlib.suppress(OSError):  # there is none, or it may not be looked into
        return any(not name.startswith(".") and os.path.isfile(folder / name) for name in os.listdir(folder))
    return False


def cache() -> Path:
    """Where downloads are kept, the operating system's own place for caches."""
    import pooch

    return Path(pooch.os_cache("steelyard"))


def _verify(path: Path, file: DataFile) -> None:
    try:
        with path.open("rb") as stream:
            digest = hashlib.sha256()
            while file.sha256 and (block := stream.read(1 << 20)):
                digest.update(block)
    except OSError as error:
        raise DataFileError(f"{path} cannot be read: {error.strerror}") from error
    if file.sha256 and digest.hexdigest() not in file.sha256:
        raise DataFileError(
            f"{path} is damaged or another version: its sha256 is {digest.hexdigest()[:16]}…, "
            f"expected {' or '.join(f'{known[:16]}…' for known in file.sha256)}. Replace or delete it."
        )


def _download(file: DataFile) -> Path:
    import pooch

    try:
        path = pooch.retrieve(
            file.url, known_hash=f"sha256:{file.sha256[0]}", fname=file.name, path=cache() / file.folder
        )
    except ValueError as error:  # pooch's word for a wrong hash; it keeps no such file
        raise DataFileError(f"{file.url} no longer gives the file with the known hash: {error}") from error
    except OSError as error:  # no network, server refuses, disk full
        why = f"{file.url} cannot be reached ({type(error).__name__})"
        raise MissingDataError(_missing(file, why)) from error
    return Path(path)


def _missing(file: DataFile, why: str) -> str:
    looked = ", ".join(str(place / file.folder) for place in search_path())
    hint = f" {file.how}" if file.how else ""
    return (
        f"the data file {file} is missing: it is not in {looked}, and {why}.{hint} "
        f"Put it in a folder {file.folder}/ and let {VARIABLE} name the folder above, "
        f"e.g. {VARIABLE}=/path/to/data."
    )
