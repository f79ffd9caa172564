"""Whatever happened to a data file: it is named, or its numbers are the known ones."""

import gzip
import hashlib
import io
import os
import random
import struct

import numpy as np
import pytest

from damage import damaged
from steelyard.errors import DataFileError
from steelyard.problems.builtin import arrays, census, credit_default, idx
from steelyard.problems.files import DataFile

TIMES = 300
SET = DataFile("a_set", "set.npz")
KNOWN = {
    "X": np.arange(60, dtype=np.float32).reshape(20, 3),
    "names": np.array([f"name {number}" for number in range(20)]),
    "bits": np.arange(200, dtype=np.uint8),
}


def packed(save):
    file = io.BytesIO()
    save(file, **KNOWN)
    return file.getvalue()


def read_arrays():
    return arrays.load_arrays(SET, tuple(KNOWN), arrays.digest(KNOWN))


def numbers(rows=20):
    return b"\0\0\x08\x03" + struct.pack(">iii", rows, 28, 28) + bytes(random.Random(0).randbytes(rows * 784))


CSV = "\n".join(
    [
        ",".join(credit_default.COLUMNS),
        *(f"{n % 2},{500 + n},NA,A,{n % 20},RENT,{20_000 + n},{20 + n}" for n in range(40)),
    ]
).encode()
PEOPLE = "\n".join(", ".join(["7"] * len(census.COLUMNS)) for _ in range(30)).encode()
FILES = {
    "npz": (SET, packed(np.savez), read_arrays),
    "compressed npz": (SET, packed(np.savez_compressed), read_arrays),
    "idx": (
        DataFile("mnist", "train-images-idx3-ubyte.gz"),
        gzip.compress(numbers(), mtime=0),
        lambda: idx._read(idx._file("mnist", "train-images", 3)),
    ),
    "csv": (credit_default.FILE, gzip.compress(CSV, mtime=0), credit_default._read),
    "census": (census.FILE, gzip.compress(PEOPLE, mtime=0), census._read),
}


@pytest.fixture
def known(monkeypatch, tmp_path):
    """The made-up contents are the known ones."""
    monkeypatch.setenv("STEELYARD_DATA", str(tmp_path))
    monkeypatch.setitem(idx.HASHES["mnist"], "train-images", (hashlib.sha256(FILES["idx"][1]).hexdigest(),))
    monkeypatch.setattr(credit_default, "TEXT", hashlib.sha256(CSV).hexdigest())
    there = DataFile(census.FILE.folder, census.FILE.name, (hashlib.sha256(FILES["census"][1]).hexdigest(),))
    monkeypatch.setattr(census, "FILE", there)

    def write(file, content):
        path = tmp_path / file.folder / file.name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_data_file_is_named_or_read_as_it_was(known, kind):
    file, content, read = FILES[kind]
    path = known(file, content)
    right, draw, named = repr(read()), random.Random(0), 0
    for _ in range(TIMES):
        path.write_bytes(damaged(content, draw))
        try:
            found = repr(read())
        except DataFileError as error:
            found, named = right if str(path) in str(error) else str(error), named + 1
        assert found == right
    assert named > TIMES / 2


@pytest.mark.parametrize("kind", FILES)
def test_a_data_file_that_may_not_be_read_is_named(known, kind, monkeypatch):
    file, content, read = FILES[kind]
    path = known(file, content)
    path.chmod(0)
    if os.getuid() == 0:  # who may read everything

        def refuse(name, *_, **__):
            raise PermissionError(13, "Permission denied", str(name))

        monkeypatch.setattr("builtins.open", refuse)
        monkeypatch.setattr("io.open", refuse)
    with pytest.raises(DataFileError, match=f"{file.name} cannot be read: Permission denied"):
        read()
