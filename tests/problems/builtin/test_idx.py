"""Images and labels from idx files; a missing, damaged or foreign file is named."""

import gzip
import hashlib

import pytest
import torch

from steelyard.problems import DataFileError, MissingDataError, load_problem
from steelyard.problems.builtin import idx

IMAGES = torch.arange(2 * 28 * 28, dtype=torch.int64).remainder(256).to(torch.uint8).reshape(2, 28, 28)
FILES = {
    "train-images": b"\0\0\x08\x03"
    + b"".join(size.to_bytes(4, "big") for size in (2, 28, 28))
    + bytes(IMAGES.flatten()),
    "train-labels": b"\0\0\x08\x01" + (2).to_bytes(4, "big") + bytes([7, 3]),
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes the files of a data set of two digits, whose hashes are made the known ones."""
    monkeypatch.setenv("STEELYARD_DATA", str(tmp_path))
    folder = tmp_path / "mnist"
    folder.mkdir()

    def files(**contents):
        for part, content in {**FILES, **contents}.items():
            packed = gzip.compress(content)
            (folder / f"{part}-idx{3 if 'images' in part else 1}-ubyte.gz").write_bytes(packed)
            monkeypatch.setitem(idx.HASHES["mnist"], part, (hashlib.sha256(packed).hexdigest(),))
        return folder

    return files


def test_images_and_labels_come_as_they_were_written(write):
    write()
    images, labels = idx.images_and_labels("mnist", train=True)
    assert torch.equal(images, IMAGES)
    assert labels.tolist() == [7, 3]


def test_a_damaged_file_is_named_with_both_hashes(write):
    path = write() / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataFileError, match=r"train-labels-idx1-ubyte\.gz is damaged or another version"):
        idx.images_and_labels("mnist", train=True)


def test_a_file_of_another_kind_is_named(write):
    write(**{"train-images": b"\x89PNG and more"})
    with pytest.raises(DataFileError, match=r"train-images-idx3-ubyte\.gz is not an idx file of bytes"):
        idx.images_and_labels("mnist", train=True)


@pytest.mark.parametrize("name", ["multi-mnist", "digit-reconstruction"])
def test_a_problem_says_which_file_it_misses_and_where_it_looked(name, tmp_path, monkeypatch):
    monkeypatch.setenv("STEELYARD_DATA", str(tmp_path))
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache")
    monkeypatch.setitem(idx.ADDRESSES, "mnist", "http://127.0.0.1:9/")  # nobody answers there
    with pytest.raises(MissingDataError, match=r"mnist/train-images-idx3-ubyte\.gz is missing: it is not in .*cache"):
        load_problem(name).load()
