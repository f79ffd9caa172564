"""Standard streams that nobody reads any more, as behind ``| head``: the command goes on, and its files are written."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer  # which typing has from Python 3.12 on


@contextlib.contextmanager
def going_on_unread() -> Iterator[None]:
    """What is printed to a pipe or socket that its reader has closed is dropped, and no `BrokenPipeError`."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _patient(sys.stdout), _patient(sys.stderr)
    try:
        yield
    finally:
        for stream in {sys.stdout, sys.stderr}.difference(before):  # ours
            with contextlib.suppress(OSError, ValueError):  # it is closed
                stream.flush()
        sys.stdout, sys.stderr = before


class _Patient(io.FileIO):
    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self.fileno())
            return memoryview(data).nbytes


def _patient(stream: TextIO) -> TextIO:
    """The same stream, if it is one of Python's own to a pipe or socket."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    try:
        kind = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):  # it has no file beneath it, or is closed
        return stream
    if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
        return stream
    stream.flush()
    raw = _Patient(stream.fileno(), "wb", closefd=False)
    file = raw if stream.write_through else io.BufferedWriter(raw)  # through: python -u
    by_line, through = stream.line_buffering, stream.write_through
    return io.TextIOWrapper(file, stream.encoding, stream.errors, line_buffering=by_line, write_through=through)
