"""Test outputs as text, kept with a trial where metrics of all tasks together need them."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from steelyard.problems.problem import Problem
from steelyard.study.training.evaluate import TaskOutputs


def keep(problem: Problem, shown: Mapping[str, TaskOutputs]) -> dict[str, str]:
    """What a `Result` keeps of the test outputs: nothing, unless the problem has joint metrics."""
    return {task: pack(found.outputs) for task, found in shown.items()} if problem.joint else {}


def pack(outputs: Tensor) -> str:
    """float32, compressed, as text; the shape stands in front."""
    array = outputs.detach().numpy().astype("<f4")
    shape = "x".join(map(str, array.shape))
    return f"{shape}:{base64.b64encode(zlib.compress(array.tobytes())).decode()}"


def unpack(text: str) -> Tensor:
    """What `pack` was given."""
    shape, _, packed = text.partition(":")
    flat = np.frombuffer(zlib.decompress(base64.b64decode(packed)), "<f4")
    return torch.from_numpy(flat.reshape([int(size) for size in shape.split("x")]).copy())
