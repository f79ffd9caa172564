"""The images and labels of MNIST and Fashion-MNIST, in their idx files."""

from __future__ import annotations

import gzip
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from steelyard.errors import DataFileError
from steelyard.problems.files import DataFile, find

Name = Literal["mnist", "fashion_mnist"]

ADDRESSES: dict[Name, str] = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}
HASHES: dict[Name, dict[str, tuple[str, ...]]] = {
    "mnist": {
        "train-images": (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            # the same images, compressed again
            "7ff28fd295f802eefc6d40e461175dfe4b969b1842b2abc8c6dc8c20711cf79f",
        ),
        "train-labels": ("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",),
        "t10k-images": ("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",),
        "t10k-labels": ("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",),
    },
    "fashion_mnist": {
        "train-images": ("3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",),
        "train-labels": ("a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",),
        "t10k-images": ("346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",),
        "t10k-labels": ("67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",),
    },
}


def images_and_labels(name: Name, train: bool) -> tuple[Tensor, Tensor]:
    """uint8 [N, 28, 28] and int64 [N]; N is 60,000 for training, 10,000 for test."""
    part = "train" if train else "t10k"
    images = _read(_file(name, f"{part}-images", 3))
    labels = _read(_file(name, f"{part}-labels", 1))
    return torch.from_numpy(images), torch.from_numpy(labels).long()


def _file(name: Name, part: str, dimensions: int) -> DataFile:
    file = f"{part}-idx{dimensions}-ubyte.gz"
    how = "It is one of four, as they were published: {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz."
    return DataFile(name, file, HASHES[name][part], url=ADDRESSES[name] + file, how=how)


def _read(file: DataFile) -> npt.NDArray[np.uint8]:
    """An idx file: two zeros, the type (8 = unsigned byte), the rank, the sizes (big-endian), the bytes."""
    path = find(file)
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\0\0\x08":
        raise DataFileError(f"{path} is not an idx file of bytes: it starts with {content[:4]!r}")
    rank = content[3]
    shape = tuple(np.frombuffer(content, ">i4", rank, offset=4).tolist())
    array: npt.NDArray[np.uint8] = np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    copy: npt.NDArray[np.uint8] = array.copy()  # torch wants memory that it may write
    return copy
