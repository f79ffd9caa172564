"""Arrays of an .npz file, checked by their content: whoever makes the file again gets other bytes, same arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from steelyard.errors import DataFileError
from steelyard.problems.files import DataFile, find


def load_arrays(file: DataFile, names: Sequence[str], sha256: str) -> dict[str, npt.NDArray[Any]]:
    """The named arrays of a file; `sha256` is that of their names, types, shapes and values."""
    path = find(file)
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in names}
    except Exception as error:  # of damaged bytes NumPy and zipfile make errors of a dozen kinds
        raise DataFileError(f"{path} does not hold the arrays {', '.join(names)}: {error}. {file.how}") from error
    found = digest(arrays)
    if found != sha256:
        raise DataFileError(
            f"the arrays in {path} differ from the known ones: their sha256 is {found[:16]}…, expected "
            f"{sha256[:16]}…. {file.how}"
        )
    return arrays


def digest(arrays: dict[str, npt.NDArray[Any]]) -> str:
    """sha256 of names, types, shapes and values, whatever the file they came in."""
    hashed = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        little = array.astype(array.dtype.newbyteorder("<"))
        hashed.update(f"{name} {little.dtype.str} {array.shape}\n".encode())
        hashed.update(np.ascontiguousarray(little).tobytes())
    return hashed.hexdigest()
