"""NYUv2 at 120 x 160: semantic segmentation, depth and surface normals of 1,449 indoor photographs.

The pixels come as JPEGs, depth in 255 steps of 10 m, labels of the 40-class set. From these:

- segmentation: the 13 classes of Couprie et al. (2013), as in the literature on multi-task learning since Liu et al.
  (2019), by the usual table from 40 to 13. The file's class 39 is "other props" and the unlabelled pixels in one; it is
  ignored, so that "objects" lacks other props, and figures do not compare with published ones.
- depth in metres; 0 and 255, no measurement and beyond range, are ignored.
- normals, derived from depth (`surfaces.py`): coarse ones, and ignored where there is no one plane.

The outermost two pixels of each side, a white frame in most photographs, are ignored in all tasks. The file does not
list the official split: 795 images for training and 654 for test are drawn by a fixed seed, and 100 of the 795 are set
aside for validation. (Some images show the same room: a random split is easier than the official one.)

Losses as in Lin et al., "Dual-Balancing for Multi-Task Learning", arXiv:2308.12029: cross-entropy, L1, 1 - cosine.

Source: Silberman, Hoiem, Kohli, Fergus, "Indoor Segmentation and Support Inference from RGBD Images", ECCV 2012.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from steelyard.problems.builtin.arrays import load_arrays
from steelyard.problems.builtin.surfaces import Camera, surface_normals
from steelyard.problems.builtin.u_net import Hourglass, Upsampled, convolution, residual
from steelyard.problems.data import Data
from steelyard.problems.dense import depth, normals, segmentation
from steelyard.problems.files import DataFile
from steelyard.problems.problem import Problem
from steelyard.problems.rows import Split
from steelyard.problems.task import Inputs, Task

HEIGHT, WIDTH, FRAME = 120, 160, 2
TEST, VALIDATION, SEED = 654, 100, 795
METRES, MEAN_DEPTH = 10 / 255, 2.7
# The colour camera of the data set's toolbox, calibrated at 640 x 480; here at a quarter.
CAMERA = Camera(focal=(518.86 / 4, 519.47 / 4), centre=(325.58 / 4 - 0.375, 253.74 / 4 - 0.375))

CLASSES = (
    *("bed", "books", "ceiling", "chair", "floor", "furniture", "objects"),
    *("picture", "sofa", "table", "television", "wall", "window"),
)
IGNORED = 255
# The 40 classes in the file's order, each with the one of the 13 that it belongs to.
MAPPING = {
    **{"wall": "wall", "floor": "floor", "cabinet": "furniture", "bed": "bed", "chair": "chair", "sofa": "sofa"},
    **{"table": "table", "door": "wall", "window": "window", "bookshelf": "furniture", "picture": "picture"},
    **{"counter": "furniture", "blinds": "window", "desk": "table", "shelves": "furniture", "curtain": "window"},
    **{"dresser": "furniture", "pillow": "objects", "mirror": "objects", "floor mat": "floor", "clothes": "objects"},
    **{"ceiling": "ceiling", "books": "books", "refrigerator": "furniture", "television": "television"},
    **{"paper": "objects", "towel": "objects", "shower curtain": "objects", "box": "objects", "whiteboard": "objects"},
    **{"person": "objects", "night stand": "furniture", "toilet": "objects", "sink": "objects", "lamp": "objects"},
    **{"bathtub": "objects", "bag": "objects", "other structure": "objects", "other furniture": "furniture"},
    "other props or unlabelled": None,
}

FILE = DataFile(
    "nyuv2_120x160",
    "nyuv2_120x160.npz",
    how=(
        "It holds the 1,449 labelled images of NYU Depth V2 at 120 x 160: jpeg (uint8, all JPEGs joined), offsets "
        "(int64, where each starts and the last one ends), depth_u8 (uint8, metres x 25.5), labels40 (uint8, 0 to 39)."
    ),
)
ARRAYS = "316e74ab45c443a55877d0d637ba126ee91599305c5fd142a9e0021535035c06"


def load() -> Data:
    arrays = load_arrays(FILE, ("jpeg", "offsets", "depth_u8", "labels40"), ARRAYS)
    images = decode(arrays["jpeg"], arrays["offsets"])
    measured = without_frame(torch.from_numpy(arrays["depth_u8"]), 0)
    measured = measured.masked_fill(measured == 255, 0)[:, None]
    targets = {
        "seg": without_frame(to_13_classes(torch.from_numpy(arrays["labels40"])), IGNORED),
        "depth": measured,
        "normals": surface_normals(measured[:, 0], METRES, CAMERA),
    }
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED))
    test, validation, train = torch.split(order, [TEST, VALIDATION, len(order) - TEST - VALIDATION])

    def chosen(rows: Tensor) -> Split:
        return Split(images[rows], {task: pixels[rows] for task, pixels in targets.items()})

    sizes = " / ".join(str(len(rows)) for rows in (train, validation, test))
    description = f"{sizes} images for training, validation and test, drawn by seed {SEED}"
    return Data(chosen(train), chosen(validation), chosen(test), description)


def decode(jpegs: npt.NDArray[Any], offsets: npt.NDArray[Any]) -> Tensor:
    """JPEGs one after the other -> uint8 [N, 3, H, W]."""
    from PIL import Image  # needed for the pixels of this problem alone

    content = jpegs.tobytes()
    bounds = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    pixels = [np.asarray(Image.open(io.BytesIO(content[start:end])).convert("RGB")) for start, end in bounds]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()


def to_13_classes(labels: Tensor) -> Tensor:
    """Numbers of the 40 classes -> numbers of the 13, `IGNORED` where there is none; uint8."""
    table = [IGNORED if name is None else CLASSES.index(name) for name in MAPPING.values()]
    return torch.tensor(table, dtype=torch.uint8)[labels.long()]


def without_frame(pixels: Tensor, missing: int) -> Tensor:
    """A copy of [N, H, W] with `missing` on the outermost pixels."""
    kept = torch.full_like(pixels, missing)
    inner = (slice(None), slice(FRAME, -FRAME), slice(FRAME, -FRAME))
    kept[inner] = pixels[inner]
    return kept


def prepare(inputs: Inputs) -> Inputs:
    """uint8 pixels -> float32 of about zero mean and unit deviation, channels last: convolutions are faster so."""
    assert isinstance(inputs, Tensor)
    return inputs.contiguous(memory_format=torch.channels_last).float().sub_(110).div_(72)


def trunk() -> nn.Module:
    """An encoder down to 8 x 10 and a decoder back up to 64 features at 30 x 40."""
    deepest = nn.Sequential(convolution(96, 160, stride=2), residual(160))
    middle = nn.Sequential(convolution(64, 96, stride=2), residual(96), Hourglass(deepest, 96, 160))
    return nn.Sequential(
        convolution(3, 32, stride=2), convolution(32, 64, stride=2), Hourglass(middle, 64, 96), convolution(64, 64)
    )


def head(task: Task) -> nn.Module:
    last = nn.Conv2d(32, task.outputs, 1)
    if task.name == "depth":
        assert last.bias is not None
        nn.init.constant_(last.bias, MEAN_DEPTH)  # otherwise the first epochs go into finding it
    return Upsampled(nn.Sequential(convolution(64, 32), last), (HEIGHT, WIDTH))


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3, weight_decay=1e-5)


problem = Problem(
    name="nyuv2",
    summary="indoor photographs at 120 x 160: segmentation, depth and surface normals",
    tasks=(
        segmentation("seg", classes=len(CLASSES), ignored=IGNORED, label="segmentation"),
        depth("depth", unit=METRES),
        normals("normals"),
    ),
    load=load,
    trunk=trunk,
    head=head,
    optimizer=optimizer,
    prepare=prepare,
    batch_size=16,
    epochs=30,
    source="NYU Depth Dataset V2 (for research; terms not stated)",
    needs=("nyuv2_120x160",),
)
