"""Options that several commands have, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ToDescribe = Annotated[str | None, typer.Argument(help="Describe this one.")]
Problem = Annotated[
    str, typer.Argument(help="A name from `steelyard problems`, options in parentheses; or your own my_problem.py")
]
ProblemOrProgram = Annotated[
    str | None,
    typer.Argument(
        help="A name from `steelyard problems`, options in parentheses; or your own my_problem.py. A program of any "
        "kind stands behind --, with its arguments.",
        show_default=False,
    ),
]
Tasks = Annotated[str | None, typer.Option(help="Which tasks to learn, separated by commas.", show_default="all")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training data.", show_default="the problem's")]
BatchSize = Annotated[int | None, typer.Option(help="Rows per step.", show_default="the problem's")]
EpochSteps = Annotated[
    int,
    typer.Option(help="An epoch takes at least so many steps, and several passes where rows are few.", metavar="N"),
]
Resplit = Annotated[
    bool | None,
    typer.Option(
        "--resplit/--no-resplit",
        help="Every seed has its own division of the rows: intervals are about other rows as well.",
        show_default="where a task has fewer than 100 test labels that load's seed divides",
    ),
]
Sampling = Annotated[
    str | None,
    typer.Option(
        help="Where tasks have rows of their own, how batches are drawn: size, even or 'temperature(2)'.",
        show_default="the problem's",
    ),
]
Patience = Annotated[
    int,
    typer.Option(
        help="End a training after so many epochs in a row without a better one on validation data.",
        metavar="N",
        show_default="all epochs",
    ),
]
LearningRate = Annotated[float | None, typer.Option(help="For all networks.", show_default="the problem's")]
Shared = Annotated[
    str | None,
    typer.Option(help="Where gradients are read: features or trunk.", show_default="the problem's"),
]
Architecture = Annotated[
    str,
    typer.Option(help="Of the network: a name from `steelyard architectures`, options in parentheses."),
]
Workers = Annotated[int | None, typer.Option(help="Trainings at a time.", show_default="one per core")]
DEVICE, PRECISION = "cpu", "float32"
"""Their defaults, on every machine: a command plans the same trials everywhere."""
Device = Annotated[
    str,
    typer.Option(
        help="Where to train: cpu, cuda (all of a machine's), cuda:1, mps; or auto: GPUs where there are some.",
    ),
]
PerDevice = Annotated[int, typer.Option(help="Trials at a time on each GPU.", metavar="N")]
Precision = Annotated[
    str,
    typer.Option(
        help="Of networks' forward passes: float32; bf16 or fp16, by autocast. Losses and balancing stay in float32."
    ),
]
On = Annotated[
    str,
    typer.Option(
        help="Where trials run: local; ray(address=auto,cpus=1,gpus=0.5), a cluster, or one that is started here; "
        "slurm(partition=NAME,time=240,gpus=1); or another package's engine.",
    ),
]
Checkpoints = Annotated[
    str | None,
    typer.Option(
        help="A folder, or an address that fsspec opens, that every machine sees: lost trials go on from there.",
        show_default="beside the store",
    ),
]
Store = Annotated[Path | None, typer.Option(help="Where results are kept.", show_default="steelyard-PROBLEM.sqlite")]
Page = Annotated[Path | None, typer.Option(help="The page to write.", show_default="beside the store")]
OpenPage = Annotated[bool, typer.Option("--open/--no-open", help="Open the page when it is written.")]
ReuseAny = Annotated[
    bool,
    typer.Option("--reuse-any", help="Take stored results of other code, data or versions as well, and say so."),
]
