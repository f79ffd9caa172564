"""Write a file whole or not at all, in the place of the old one; what is no file stays what it is.

Everything that Steelyard writes, but for its SQLite stores, is written here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

UNSYNCED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
"""What file systems say that cannot write through to the disk."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a full disk says, or one that gives this user, or a file, no more."""
STREAMS = (1, 2)
"""Standard output and the error stream."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file to be written; it takes the place of `path` at the end of the block, when all of it is on the disk.

    After an error, a kill or a power cut the old file is there or the new one, never half of one. A file that is there
    keeps its mode and its owner. A link stays, and the file that it leads to is written. A terminal, a pipe or
    ``/dev/null`` is written through and stays.

    Raises:
        OSError: it cannot be written, or is a folder, a disk or a socket.
    """
    given = Path(path)
    there = _status(given)
    if there is not None and not is_file(given):
        _refuse_unfit(there)
        with _opened(given, there) as stream:
            yield stream
        return
    target = Path(os.path.realpath(given))
    if there is not None and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "it is write-protected")
    # No longer than any name may be, in the same folder, and private where the old file may be.
    partial = target.with_name(f".steelyard-{secrets.token_hex(8)}.partial")
    try:
        with open(partial, "xb", opener=lambda name, flags: os.open(name, flags, 0o600 if there else 0o666)) as file:
            yield file
            file.flush()
            _sync(file.fileno())
        _take_the_place(partial, target, there)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """Raise what `replacing` would, before there is anything to write; makes the folder."""
    given = Path(path)
    there = _status(given)
    if there is not None and not is_file(given):
        _refuse_unfit(there)
        if standard_stream(there) is None and not os.access(given, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return
    target = Path(os.path.realpath(given))
    if there is not None and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "it is write-protected")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".steelyard-{secrets.token_hex(8)}.partial")
    with open(partial, "xb"):
        pass
    partial.unlink()


def is_file(path: Path) -> bool:
    """Is there a file that another one may take the place of? None that this process prints to is."""
    there = _status(path)
    if there is None or not stat.S_ISREG(there.st_mode) or standard_stream(there) is not None:
        return False
    found = _status(Path(os.path.realpath(path)))  # of a file opened before it was deleted, /proc names none
    return found is not None and os.path.samestat(found, there)


def standard_stream(there: os.stat_result) -> int | None:
    """The stream of this process that this is: ``/dev/stdout`` leads to a terminal, a pipe or a file."""
    for descriptor in STREAMS:
        with contextlib.suppress(OSError):  # closed
            if os.path.samestat(os.fstat(descriptor), there):
                return descriptor
    return None


def what_it_is(there: os.stat_result) -> str:
    """``a folder``, ``a pipe``: what stands where a file would."""
    kinds = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a disk",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(there.st_mode), "no file")


def _status(path: Path) -> os.stat_result | None:
    """Of what a link leads to; None where there is nothing."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _refuse_unfit(there: os.stat_result) -> None:
    if stat.S_ISDIR(there.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if stat.S_ISBLK(there.st_mode) or stat.S_ISSOCK(there.st_mode):
        raise OSError(errno.EINVAL, f"it is {what_it_is(there)}")


def _opened(path: Path, there: os.stat_result) -> BinaryIO:
    """What is written through, at the place where it is."""
    descriptor = standard_stream(there)
    if descriptor is None:
        return path.open("wb")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # what was printed before comes before
    return os.fdopen(os.dup(descriptor), "wb")


def _take_the_place(partial: Path, target: Path, there: os.stat_result | None) -> None:
    if there is None or _made_alike(partial, there):
        os.replace(partial, target)
        with contextlib.suppress(OSError):  # some systems open no folder: then the name comes a little later
            _sync_folder(target.parent)
        return
    # Another owner, or another name of the same file: its content alone can be changed. Room for it comes first, so
    # that a full disk is known before a byte of the old file is gone.
    with open(partial, "rb") as made, os.fdopen(os.open(target, os.O_WRONLY), "wb") as old:
        _make_room(old.fileno(), partial.stat().st_size, there.st_size)
        shutil.copyfileobj(made, old)
        old.truncate()
        old.flush()
        _sync(old.fileno())
    partial.unlink()


def _make_room(descriptor: int, size: int, before: int) -> None:
    """Have the system keep room for a file that grows; where there is none, it is as long as before.

    Raises:
        OSError: the disk is full. Systems that cannot say it do not.
    """
    if size <= before or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        os.ftruncate(descriptor, before)  # what was given of it
        if error.errno in FULL:
            raise


def _made_alike(partial: Path, there: os.stat_result) -> bool:
    """Give it the mode and the owner of the old file, if this user may."""
    made = partial.stat()
    if there.st_nlink > 1:
        return False
    if (made.st_uid, made.st_gid) != (there.st_uid, there.st_gid):
        try:
            os.chown(partial, there.st_uid, there.st_gid)
        except OSError:
            return False
    partial.chmod(stat.S_IMODE(there.st_mode))
    return True


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSYNCED:
            raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
