"""A training of the plain sum as it was diagnosed: epoch by epoch, then the numbers and words over all of it."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table
from rich.text import Text

from steelyard.diagnosis.diagnosis import Diagnosis
from steelyard.diagnosis.text_tables import affinity_table, cosine, number, share, short
from steelyard.io.lists_and_counts import counted
from steelyard.study.training.diagnose_training import Course

COLUMNS = 3
"""Tasks up to which each has columns of its own."""


def show_course(course: Course, console: Console) -> None:
    """Print a table of the epochs, a table of the tasks, and what follows."""
    console.print(Text(f"{course.problem}: {course.summary}".rstrip(": "), style="bold"))
    place = "the features" if course.place == "features" else "the trunk"
    console.print(
        f"The plain sum, trained for {counted(len(course.epochs), 'epoch')}; gradients read at {place}, means over "
        f"{counted(course.whole.looks, 'look')}.\n",
        markup=False,
    )
    console.print(_epochs(course))
    console.print(f"\nOver all epochs\n{course.whole.table()}\n", markup=False, soft_wrap=True)
    for name, matrix in course.affinities.items():
        console.print(affinity_table(name, course.whole.tasks, matrix), "", sep="\n", markup=False, soft_wrap=True)
    for sentence in (
        *_change(course),
        *_agreement(course),
        *_fidelity(course),
        *_affinities(course),
        *course.whole.advice,
    ):
        console.print(f"- {sentence}", markup=False)


def _epochs(course: Course) -> Table:
    few = len(course.whole.tasks) <= COLUMNS
    table = Table(box=None, pad_edge=False)
    titles = ["epoch"]
    if few:
        titles += [f"{what}\n{short(task, 12)}" for what in ("loss", "norm") for task in course.whole.tasks]
    else:
        titles += ["sum of\nlosses", "longest\ngradient", "shortest\ngradient"]
    titles += ["longest/\nshortest", "lowest\ncosine", "pairs in\nconflict"]
    for title in titles:
        table.add_column(Text(title), justify="right")
    for position, diagnosis in enumerate(course.epochs, 1):
        cells = [str(position), *(_by_task(course, diagnosis) if few else _extremes(diagnosis))]
        pairs = diagnosis.pairs
        lowest = cosine(pairs[0][2]) if pairs else "-"
        cells += [number(diagnosis.ratio), lowest, share(diagnosis.conflict_rate)]
        table.add_row(*map(Text, cells))
    return table


def _by_task(course: Course, diagnosis: Diagnosis) -> list[str]:
    columns = [
        dict(zip(diagnosis.tasks, values.tolist(), strict=True)) for values in (diagnosis.losses, diagnosis.norms)
    ]
    return [number(column[task]) if task in column else "-" for column in columns for task in course.whole.tasks]


def _extremes(diagnosis: Diagnosis) -> list[str]:
    ends = [int(diagnosis.norms.argmax()), int(diagnosis.norms.argmin())]
    return [
        number(float(diagnosis.losses.sum())),
        *(f"{short(diagnosis.tasks[end], 16)} {number(float(diagnosis.norms[end]))}" for end in ends),
    ]


def _agreement(course: Course) -> list[str]:
    if len(course.whole.tasks) < 2 or course.whole.agreement != course.whole.agreement:
        return []
    return [f"Alignment score {cosine(course.whole.agreement)}: 1 where all gradients point one way."]


def _fidelity(course: Course) -> list[str]:
    """What each cheap place shows of the exact gradients, for this network and this problem."""
    if course.not_compared:
        return [f"The places at which gradients can be read were not compared: {course.not_compared}"]
    names = {"features": "the features", "last": "the last layer (look=last)"}
    return [
        f"Against the exact gradients of the trunk, {counted(found.looks, 'look')}, {names[found.place]}: "
        f"{_correlation(found.correlation)}, {_wrong_sign(found.wrong_sign)}, relative norms are off by "
        f"{share(found.norms_off)}."
        for found in course.fidelity
    ]


def _correlation(value: float) -> str:
    return "cosines do not vary" if math.isnan(value) else f"cosines correlate {cosine(value)}"


def _wrong_sign(of_pairs: float) -> str:
    if math.isnan(of_pairs):
        return "no pair is beyond ±0.1"
    return f"the sign is wrong in {share(of_pairs)} of the pairs beyond ±0.1"


def _affinities(course: Course) -> list[str]:
    """What affinities are worth."""
    if not course.affinities:
        return []
    return [
        "Affinities are no prediction of what sharing gains: on published tables of trained subsets the look-ahead's "
        "rank correlation with measured gains was hardly above zero. `steelyard group` trains what it chooses, and "
        "says how far these numbers would have told it."
    ]


def _change(course: Course) -> list[str]:
    """How the picture moved from the first epoch to the last."""
    first, last = course.epochs[0], course.epochs[-1]
    if len(course.epochs) < 2 or len(course.whole.tasks) < 2:
        return []
    told = f"From the first epoch to the last: longest over shortest gradient {first.ratio:.3g} to {last.ratio:.3g}"
    if first.pairs and last.pairs:
        told += f", lowest cosine {cosine(first.pairs[0][2])} to {cosine(last.pairs[0][2])}"
    return [f"{told}."]
