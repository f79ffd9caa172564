"""Arrays are known by their content, not by the bytes of the file they come in."""

import numpy as np
import pytest

from steelyard.problems import DataFileError
from steelyard.problems.builtin.arrays import digest, load_arrays
from steelyard.problems.files import DataFile

FILE = DataFile("a_set", "set.npz", how="Made of columns 0:3.")
ARRAYS = {"X": np.arange(6.0).reshape(2, 3), "names": np.array(["a", "b"])}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("STEELYARD_DATA", str(tmp_path))
    (tmp_path / "a_set").mkdir()
    return tmp_path / "a_set"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_however_it_was_saved_the_arrays_are_recognised(folder, save):
    save(folder / "set.npz", **ARRAYS, more=np.zeros(3))
    loaded = load_arrays(FILE, ("X", "names"), digest(ARRAYS))
    assert loaded["X"].tolist() == ARRAYS["X"].tolist()


@pytest.mark.parametrize(
    "other",
    [
        {**ARRAYS, "X": ARRAYS["X"] + 1e-9},
        {**ARRAYS, "X": ARRAYS["X"].astype(np.float32)},
        {**ARRAYS, "X": ARRAYS["X"].reshape(3, 2)},
        {**ARRAYS, "names": np.array(["a", "c"])},
    ],
)
def test_other_arrays_are_refused(folder, other):
    np.savez(folder / "set.npz", **other)
    with pytest.raises(DataFileError, match=r"differ from the known ones.*Made of columns"):
        load_arrays(FILE, ("X", "names"), digest(ARRAYS))


def test_a_file_that_is_cut_off_or_lacks_an_array_is_named(folder):
    np.savez(folder / "set.npz", X=ARRAYS["X"])
    with pytest.raises(DataFileError, match=r"set\.npz does not hold the arrays X, names"):
        load_arrays(FILE, ("X", "names"), digest(ARRAYS))
    content = (folder / "set.npz").read_bytes()
    (folder / "set.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataFileError, match=r"set\.npz does not hold"):
        load_arrays(FILE, ("X",), digest(ARRAYS))
    (folder / "set.npz").write_bytes(b"")
    with pytest.raises(DataFileError, match=r"set\.npz does not hold"):
        load_arrays(FILE, ("X",), digest(ARRAYS))
