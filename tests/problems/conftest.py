import os

import numpy as np
import pytest

from steelyard.problems.builtin.arrays import digest


@pytest.fixture
def real_data():
    """Skips where no folder of real data is named."""
    if not os.environ.get("STEELYARD_DATA"):
        pytest.skip("STEELYARD_DATA names no folder of real data sets")


@pytest.fixture
def write_arrays(tmp_path, monkeypatch):
    """Write small arrays to where a problem's module looks for its file, as if they were the known ones."""

    def write(module, **arrays):
        monkeypatch.setenv("STEELYARD_DATA", str(tmp_path))
        path = tmp_path / module.FILE.folder / module.FILE.name
        path.parent.mkdir(exist_ok=True)
        np.savez(path, **arrays)
        monkeypatch.setattr(module, "ARRAYS", digest(arrays))
        return path

    return write
