"""NYUv2 from a small file of the same shape: pixels, labels, splits; and what is wrong with a broken one."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

from steelyard.problems import DataFileError, MissingDataError, load_problem
from steelyard.problems.builtin import nyuv2
from steelyard.problems.builtin.arrays import digest
from steelyard.study.training.train import train
from steelyard.study.trial import Trial

COUNT = 24


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    jpegs = []
    for _ in range(COUNT):
        stream = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (120, 160, 3), dtype=np.uint8)).save(stream, "JPEG")
        jpegs.append(stream.getvalue())
    slope = np.linspace(40, 200, 120)[:, None].repeat(160, 1)
    return {
        "jpeg": np.frombuffer(b"".join(jpegs), np.uint8),
        "offsets": np.cumsum([0, *map(len, jpegs)]),
        "depth_u8": np.stack([(slope + shift).astype(np.uint8) for shift in range(COUNT)]),
        "labels40": random.integers(0, 40, (COUNT, 120, 160), dtype=np.uint8),
    }


@pytest.fixture
def folder(tmp_path, monkeypatch, arrays):
    """A folder of data with the small file, which is made to be the known one."""
    (tmp_path / "nyuv2_120x160").mkdir()
    np.savez(tmp_path / "nyuv2_120x160" / "nyuv2_120x160.npz", **arrays)
    monkeypatch.setenv("STEELYARD_DATA", str(tmp_path))
    monkeypatch.setattr(nyuv2, "ARRAYS", digest(arrays))
    monkeypatch.setattr(nyuv2, "TEST", 8)
    monkeypatch.setattr(nyuv2, "VALIDATION", 4)
    return tmp_path / "nyuv2_120x160"


@pytest.mark.usefixtures("folder")
def test_images_stay_bytes_and_every_image_is_in_one_split(arrays):
    data = nyuv2.load()
    splits = list(data.splits().values())
    assert [len(split) for split in splits] == [12, 4, 8]
    assert all(split.inputs.dtype == torch.uint8 and split.inputs.shape[1:] == (3, 120, 160) for split in splits)
    # Each image's depth has an offset of its own, by which it is known again.
    shifts = torch.cat([split.targets["depth"][:, 0, 60, 80] for split in splits])
    assert len(shifts.unique()) == COUNT
    depths = torch.cat([split.targets["depth"] for split in splits])[:, 0]
    order = shifts.argsort()
    assert torch.equal(depths[order, 2:-2, 2:-2], torch.from_numpy(arrays["depth_u8"])[:, 2:-2, 2:-2])
    inputs = torch.cat([split.inputs for split in splits])[order]
    first = np.asarray(Image.open(io.BytesIO(arrays["jpeg"][: arrays["offsets"][1]].tobytes())))
    assert torch.equal(inputs[0].permute(1, 2, 0), torch.from_numpy(first.copy()))


def test_the_frame_and_what_was_not_measured_count_nowhere(folder, monkeypatch, arrays):
    arrays["depth_u8"][:, 60:63, 80] = (0, 255, 254)
    np.savez(folder / "nyuv2_120x160.npz", **arrays)
    monkeypatch.setattr(nyuv2, "ARRAYS", digest(arrays))
    targets = nyuv2.load().train.targets
    assert targets["depth"][:, 0, 60:63, 80].tolist() == [[0, 0, 254]] * 12
    assert (targets["normals"][:, :, 60:63, 80] == 0).all()
    for side in (slice(0, 2), slice(-2, None)):
        assert (targets["seg"][:, side] == 255).all()
        assert (targets["depth"][..., side] == 0).all()
        assert (targets["normals"][..., side] == 0).all()
    assert (targets["normals"][:, 1, 20:40, 20:60] != 0).all()


def test_forty_classes_become_the_usual_thirteen():
    # 1-based, 40 to 13, as `class13Mapping.mat` of the data set's users has it.
    usual = [12, 5, 6, 1, 4, 9, 10, 12, 13, 6, 8, 6, 13, 10, 6, 13, 6, 7, 7, 5]
    usual += [7, 3, 2, 6, 11, 7, 7, 7, 7, 7, 7, 6, 7, 7, 7, 7, 7, 7, 6]
    assert nyuv2.to_13_classes(torch.arange(40)).tolist() == [*(number - 1 for number in usual), nyuv2.IGNORED]


@pytest.mark.usefixtures("folder")
def test_one_epoch_trains_all_three_tasks_and_measures_them():
    problem = dataclasses.replace(load_problem("nyuv2"))  # a copy, which keeps the small data to itself
    trial = Trial("nyuv2", "equal", problem.task_names, 0, tuple((t, 1.0) for t in sorted(problem.task_names)), 1, 6)
    result = train(trial, problem)
    assert {task: len(values) for task, values in result.test.items()} == {"seg": 2, "depth": 2, "normals": 5}
    assert all(np.isfinite(values).all() for values in result.test.values())


def test_a_missing_a_cut_off_and_a_changed_file_are_named(folder, monkeypatch, arrays):
    file = folder / "nyuv2_120x160.npz"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataFileError, match=r"nyuv2_120x160\.npz does not hold the arrays jpeg"):
        nyuv2.load()
    np.savez(file, **{**arrays, "labels40": arrays["labels40"][:, ::-1]})
    with pytest.raises(DataFileError, match="differ from the known ones"):
        nyuv2.load()
    file.unlink()
    monkeypatch.setattr("steelyard.problems.files.cache", lambda: folder / "empty")
    with pytest.raises(MissingDataError, match=r"nyuv2_120x160\.npz is missing.*1,449 labelled images"):
        nyuv2.load()
