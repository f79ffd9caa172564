"""A study's training against a loop written by hand, on the same network and the same data: samples per second.

    python benchmarks/dataloader.py

*pictures*: 20,000 JPEGs of 64 x 64 in a temporary folder, as `examples/problems/pictures.py` has them, cropped and
flipped by two workers. *memory*: 60,000 rows of 100 numbers. Two tasks, the plain sum, Adam. The loops take turns, each
through some epochs of a part of the rows with a pass over the validation data after each, its workers started once.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timing import machine
from torch import nn
from torch.utils.data import DataLoader, Dataset

from steelyard.models import build
from steelyard.problems import Data, Problem, Split, binary, load_problem, regression
from steelyard.problems.rows import DataRows
from steelyard.study.training.train import train
from steelyard.study.trial import Trial

FILE = Path(__file__).parent.parent / "examples" / "problems" / "pictures.py"
PICTURES, ROWS, WIDTH = 20_000, 60_000, 100
EPOCHS, PART = 3, 4_000


def draw_pictures(folder: Path, count: int = PICTURES) -> None:
    """Stripes of some width, brightness and noise."""
    generator = np.random.default_rng(0)
    for number in range(count):
        upright, bright = generator.integers(2), generator.uniform()
        stripes = np.sin(np.arange(64) / generator.uniform(1, 4))
        image = 90 + 80 * bright + 40 * (stripes if upright else stripes[:, None]) + generator.normal(0, 20, (64, 64))
        pixels = np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
        Image.fromarray(pixels).save(folder / f"{number:05d}-{upright}-{bright:.2f}.jpg")


def a_part_of(problem: Problem) -> tuple[Problem, Dataset[Any], Dataset[Any]]:
    """Fewer rows of the same folder: an epoch need not be long to be compared."""
    data, rows = problem.data(), torch.arange(PART)
    fewer = Data(data.train.some(rows), data.validation.some(rows[: PART // 4]), data.test.some(rows[: PART // 4]))
    train_rows, held_out = (part.dataset for part in (fewer.train, fewer.validation))  # type: ignore[attr-defined]
    return dataclasses.replace(problem, load=lambda: fewer), train_rows, held_out


def in_memory() -> Problem:
    def rows(count: int, seed: int) -> Split:
        x = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))
        return Split(x, {"sum": x[:, :5].sum(1), "sign": (x[:, 0] > 0).float()})

    data = Data(rows(ROWS, 0), rows(ROWS // 5, 1), rows(ROWS // 5, 2))
    return Problem(
        "memory",
        [regression("sum"), binary("sign")],
        lambda: data,
        trunk=lambda: nn.Sequential(nn.Linear(WIDTH, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU()),
        head=lambda task: nn.Linear(128, task.outputs),
    )


def study(problem: Problem) -> tuple[float, float]:
    """Seconds of training, and of all from the first epoch's start to the last validation's end."""
    names = problem.task_names
    trial = Trial(problem.name, "equal", names, 0, tuple((n, 1.0) for n in sorted(names)), EPOCHS, problem.batch_size)
    ends: list[float] = []
    result = train(trial, problem, on_epoch=lambda epoch: ends.append(time.perf_counter()))
    # Of the first epoch's start nobody tells: by the others.
    return result.seconds, (ends[-1] - ends[0]) / (EPOCHS - 1) * EPOCHS


def by_hand(
    problem: Problem, batches: Callable[[], Iterable[Any]], held_out: Callable[[], Iterable[Any]]
) -> tuple[float, float]:
    """The same of a loop as one writes it."""
    torch.manual_seed(0)
    network = build(problem, problem.task_names, 0)
    optimizer = problem.optimizer(list(network.parameters()))  # type: ignore[arg-type]
    losses = {task.name: task.loss for task in problem.tasks}
    training, ends = 0.0, []
    for _ in range(EPOCHS):
        started = time.perf_counter()
        for inputs, targets in batches():
            outputs, _ = network(problem.prepare(inputs))
            loss = torch.stack([losses[name](outputs[name], targets[name]) for name in losses]).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        training += time.perf_counter() - started
        network.eval()
        shown: dict[str, list[Any]] = {name: [] for name in losses}
        with torch.inference_mode():
            for inputs, targets in held_out():
                outputs, _ = network(problem.prepare(inputs))
                for name, found in shown.items():
                    found.append((outputs[name], targets[name]))
        for task in problem.tasks:
            metric = task.metrics[0].function
            metric(*(torch.cat(each) for each in zip(*shown[task.name], strict=True)))
        network.train()
        ends.append(time.perf_counter())
    return training, (ends[-1] - ends[0]) / (EPOCHS - 1) * EPOCHS


def by_loader(problem: Problem, train_rows: Dataset[Any], held_out: Dataset[Any]) -> tuple[float, float]:
    options: dict[str, Any] = {"num_workers": 2, "persistent_workers": True}
    batches = DataLoader(train_rows, problem.batch_size, shuffle=True, **options)
    shown = DataLoader(held_out, 2 * problem.batch_size, **options)
    return by_hand(problem, lambda: batches, lambda: shown)


def by_index(problem: Problem) -> tuple[float, float]:
    """Of rows in memory: a permutation an epoch, and its pieces."""
    data = problem.data()

    def batches(split: DataRows, shuffle: bool, size: int) -> Iterable[Any]:
        assert isinstance(split, Split)
        assert isinstance(split.inputs, torch.Tensor)
        order = torch.randperm(len(split)) if shuffle else torch.arange(len(split))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            yield split.inputs[rows], {name: each[rows] for name, each in split.targets.items()}

    size = problem.batch_size
    return by_hand(problem, lambda: batches(data.train, True, size), lambda: batches(data.validation, False, 2 * size))


def compare(name: str, rows: int, loops: dict[str, Callable[[], tuple[float, float]]], rounds: int) -> None:
    seconds: dict[str, list[tuple[float, float]]] = {loop: [] for loop in loops}
    for turn in range(rounds):
        for loop in list(loops)[turn % 2 :] + list(loops)[: turn % 2]:
            seconds[loop].append(loops[loop]())
    print(f"\n{name:12s}{'training':>16s}{'with validation':>22s}   samples/s, median of {rounds} rounds")
    for loop, found in seconds.items():
        cells = [rows * EPOCHS / statistics.median(each) for each in zip(*found, strict=True)]
        print(f"{loop:12s}{cells[0]:>16,.0f}{cells[1]:>22,.0f}")
    study_, hand = (list(zip(*seconds[loop], strict=True)) for loop in ("study", "by hand"))
    ratios = [
        statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        for ours, theirs in zip(study_, hand, strict=True)
    ]
    print(f"{'ratio':12s}{ratios[0]:>16.2f}{ratios[1]:>22.2f}   median of the rounds' ratios", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["pictures", "memory"], help="one of the two")
    parser.add_argument("--folder", type=Path, help="of pictures that are drawn already (or empty: drawn into it)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    if arguments.only != "memory":
        with tempfile.TemporaryDirectory() as temporary:
            folder = arguments.folder or Path(temporary)
            if not any(folder.glob("*.jpg")):
                draw_pictures(folder)
            os.environ["PICTURES"] = str(folder)
            pictures, *parts = a_part_of(load_problem(str(FILE)))
            loops = {"study": lambda: study(pictures), "by hand": lambda: by_loader(pictures, *parts)}
            compare("pictures", PART, loops, arguments.rounds)
    if arguments.only != "pictures":
        memory = in_memory()
        compare("memory", ROWS, {"study": lambda: study(memory), "by hand": lambda: by_index(memory)}, arguments.rounds)


if __name__ == "__main__":
    main()
