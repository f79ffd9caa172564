"""Epochs of a study on the CPU and on the accelerator, side by side: multi-mnist (a LeNet) and nyuv2 (a U-Net).

    python benchmarks/study_gpu.py                        # what is here
    python benchmarks/study_gpu.py --problems digits --steps 5

Times are of training alone, as a study has them (the device is waited for), the median of the epochs after the first.
Problems whose data files are not here are left out by name.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Sequence

import torch

from steelyard.errors import MissingDataError
from steelyard.problems import load_problem
from steelyard.problems.data import Data
from steelyard.problems.problem import Problem
from steelyard.problems.rows import DataRows, Split, take
from steelyard.study.training.hardware import CPU, Hardware, devices_here
from steelyard.study.training.train import train
from steelyard.study.trial import Trial

METHODS = (("equal", None), ("uw", None), ("mgda", "features"))
COLUMNS = ("problem", "method", "device", "precision", "ms / step", "MiB", "times the CPU")


def shortened(problem: Problem, rows: int) -> Problem:
    """The problem with its first training rows, and few others: evaluation is not timed."""
    data = problem.data()

    def first(split: DataRows, count: int) -> Split:
        assert isinstance(split, Split)
        few = slice(0, count)
        return Split(take(split.inputs, few), {task: targets[few] for task, targets in split.targets.items()})

    short = Data(first(data.train, rows), first(data.validation, rows), first(data.test, rows))
    return dataclasses.replace(problem, folds=1, load=lambda: short)


def timed(problem: Problem, method: str, place: str | None, hardware: Hardware, epochs: int) -> tuple[float, float]:
    """Milliseconds of a step, and the peak of the memory in MiB."""
    names = problem.task_names
    trial = Trial(
        problem.name, method, names, 0, tuple((name, 1.0) for name in sorted(names)), 1, problem.batch_size,
        shared=place, scale="sum", device=hardware.device.type, precision=hardware.precision,
    )  # fmt: skip
    found = [train(trial, problem, hardware=hardware) for _ in range(epochs + 1)][1:]
    return statistics.median(1e3 * each.seconds / each.steps for each in found), max(each.peak_memory for each in found)


def here() -> list[Hardware]:
    """The CPU, and the first accelerator in every precision that it has."""
    first = devices_here()[0]
    if first == CPU:
        print("No accelerator is here: the CPU alone.")
        return [Hardware.of(CPU)]
    found = [Hardware.of(CPU), *(Hardware.of(first, precision) for precision in ("float32", "bf16", "fp16"))]
    print(f"{found[1].name}, torch {torch.__version__}")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=["multi-mnist", "nyuv2"])
    parser.add_argument("--steps", type=int, default=50, help="of an epoch")
    parser.add_argument("--epochs", type=int, default=3, help="timed, after one to warm up")
    options = parser.parse_args(arguments)
    every = here()
    print("  ".join(f"{column:>14}" for column in COLUMNS))
    for name in options.problems:
        try:
            loaded = load_problem(name)
            problem = shortened(loaded, options.steps * loaded.batch_size)
        except MissingDataError as error:
            print(f"{name}: left out: {error}")
            continue
        for method, place in METHODS:
            of_cpu = 0.0
            for hardware in every:
                milliseconds, memory = timed(problem, method, place, hardware, options.epochs)
                of_cpu = of_cpu or milliseconds
                cells = (name, method, str(hardware.device), hardware.precision, f"{milliseconds:.2f}", f"{memory:.0f}")
                print("  ".join(f"{cell:>14}" for cell in (*cells, f"{of_cpu / milliseconds:.1f}")), flush=True)


if __name__ == "__main__":
    main()
