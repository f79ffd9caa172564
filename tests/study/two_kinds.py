"""The text of a small problem file whose `prepare` does what a test tells it: sleep, fail, die."""

import textwrap

TEXT = """\
import multiprocessing, os, time, warnings
from pathlib import Path
import torch
from torch import nn
from steelyard.problems import Data, Problem, Split, classification
{imports}
HERE = Path(__file__).parent

def load():
    generator = torch.Generator().manual_seed(0)
    def split(rows):
        x = torch.randn(rows, 4, generator=generator)
        return Split(x, {{"kind": (x[:, 0] > 0).long(), "sign": (x[:, 1] + x[:, 2] > 0).long()}})
    return Data(split(96), split(60), split(60))

def prepare(inputs):
{prepare}
    return inputs

problem = Problem(
    "mine",
    tasks=(classification("kind", 2), classification("sign", 2)),
    load=load,
    trunk=lambda: nn.Sequential(nn.Linear(4, {width}), nn.ReLU(), nn.Dropout(0.1)),
    head=lambda task: nn.Linear({width}, task.outputs),
    prepare=prepare,
    batch_size=16,
    epochs={epochs},
)
"""


def problem_text(prepare, *, imports="", width="8", epochs=2):
    """Of a file with two tasks over 96 rows.

    Args:
        prepare: lines that run whenever a batch is prepared, with ``HERE``, the file's folder.
        imports: further lines in front.
        width: of the trunk, as the file says it.
        epochs: of the problem.
    """
    lines = textwrap.indent(textwrap.dedent(prepare).strip(), "    ")
    return TEXT.format(imports=textwrap.dedent(imports), prepare=lines, width=width, epochs=epochs)
