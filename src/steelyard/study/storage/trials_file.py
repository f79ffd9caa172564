"""All plans and trials of a store as text, one JSON a line, so that results can be sent, kept in a repository and read
by other programs; ``.xz`` at the end of its name packs it, to a quarter."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from steelyard.errors import DamagedStoreError, StoreError
from steelyard.io.writing import replacing, what_it_is
from steelyard.study.storage.checksum import checksum
from steelyard.study.storage.sqlite_file import COLUMNS, TRIALS_ENDINGS

HEAD = "steelyard-trials/1"
MARK = b'{"format": "steelyard-trials/'
_TYPES = {"id": (int,), "written": (int, float)}


class CutOffError(DamagedStoreError):
    """A file of trials ends before its end."""


@dataclass(frozen=True)
class StoreRow:
    """A row of a store's table, its values in the order of `COLUMNS`."""

    table: str
    values: tuple[object, ...]

    @property
    def named(self) -> dict[str, object]:
        return dict(zip(COLUMNS[self.table], self.values, strict=True))


def is_trials_file(path: Path) -> bool:
    return path.name.endswith(TRIALS_ENDINGS)


def canonical(content: object) -> str:
    """Of JSON, whatever order its names were written in."""
    return json.dumps(content, sort_keys=True)


def write_rows(path: Path, rows: Iterable[StoreRow]) -> None:
    """Write a whole file or none.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as file:
        packed = lzma.LZMACompressor() if path.suffix == ".xz" else None
        for told in _lines(rows):
            text = (json.dumps(told) + "\n").encode()
            file.write(packed.compress(text) if packed else text)
        if packed:
            file.write(packed.flush())


def _lines(rows: Iterable[StoreRow]) -> Iterator[dict[str, object]]:
    """A head, the rows, and how many they were: a file that was cut off between two lines is known by that."""
    yield {"format": HEAD}
    number = 0
    for row in rows:
        yield {"table": row.table, **row.named, "checksum": checksum(row.values)}
        number += 1
    yield {"rows": number}


def read_rows(path: Path) -> Iterator[StoreRow]:
    """The rows, in order; that all are there is known at the end.

    Raises:
        StoreError: it is missing, no such file, or of another version.
        DamagedStoreError: a line is not as it was written.
    """
    _check_kind(path)
    try:
        with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as file:
            head = file.readline()
            if not head.startswith(MARK.decode()):
                raise StoreError(
                    f"{path} is no file of trials: `steelyard report STORE --trials {path.name}` writes one"
                )
            if json.loads(head).get("format") != HEAD:
                raise StoreError(f"{path} is of another version, {head.strip()[:80]}: this Steelyard reads {HEAD}")
            for number, line in enumerate(file):
                if line == json.dumps({"rows": number}) + "\n" and not file.read(1):
                    return
                if not line.endswith("\n"):
                    break  # cut off within it
                yield _row(path, number + 2, line)
            raise CutOffError(f"{path} is damaged (it ends too early): write it again, or use another copy")
    except StoreError:
        raise
    except EOFError as error:
        raise CutOffError(f"{path} is damaged ({error}): write it again, or use another copy") from error
    except (lzma.LZMAError, ValueError, RecursionError) as error:  # of the text, of JSON, of a number
        raise DamagedStoreError(f"{path} is damaged ({error}): write it again, or use another copy") from error
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error


def _check_kind(path: Path) -> None:
    """Refuse a pipe, which can be read once alone, a device and a folder."""
    try:
        kind = what_it_is(path.stat())
    except OSError:
        return  # opening it says why
    if kind != "a file":
        raise StoreError(f"cannot read {path}: it is {kind}. Name a file of trials")


def _row(path: Path, number: int, line: str) -> StoreRow:
    try:
        found = json.loads(line)
        table = found.pop("table")
        told = found.pop("checksum")
        values = tuple(found.pop(name) for name in COLUMNS[table])
        whole = not found and checksum(values) == told and _fit(table, values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise DamagedStoreError(
            f"{path} is damaged (line {number} is not as it was written): write it again, or use another copy"
        )
    return StoreRow(table, values)


def _fit(table: str, values: tuple[object, ...]) -> bool:
    """Whether they are of the types that a store holds: a checksum is right of whatever it was made of."""
    named = zip(COLUMNS[table], values, strict=True)
    return all(type(value) in _TYPES.get(name, (str, type(None))) for name, value in named)
