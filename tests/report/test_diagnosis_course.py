"""A diagnosed training, printed: every cell of its table and every sentence after it."""

from __future__ import annotations

import io
import math

import pytest
import torch
from rich.console import Console

import steelyard
from steelyard.diagnosis.fidelity import Fidelity
from steelyard.diagnosis.text_tables import affinity_table
from steelyard.report.diagnosis_course import show_course
from steelyard.study.training.diagnose_training import Course, averaged


def look(**rows: list[float]) -> steelyard.Diagnosis:
    """Gradients by task at features of ones: a loss is the sum of its row."""
    features = torch.ones(1, 2, requires_grad=True) * 1.0
    losses = {task: (features * torch.tensor(row)).sum() for task, row in rows.items()}
    return steelyard.diagnose(losses, shared=features)


def course(*looks: steelyard.Diagnosis, tasks: tuple[str, ...] = ("a", "b"), **more: object) -> Course:
    made = {"problem": "digits", "summary": "Two digits.", "place": "features", **more}
    return Course(epochs=looks, whole=averaged(tasks, list(looks)), **made)


def shown(found: Course) -> list[str]:
    out = io.StringIO()
    show_course(found, Console(file=out, width=400))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def cells(found: Course) -> list[list[str]]:
    """The table of the epochs below its two lines of titles, by columns."""
    lines = shown(found)
    start = next(place for place, line in enumerate(lines) if "epoch" in line.split()) + 1
    return [line.split() for line in lines[start : start + len(found.epochs)]]


FIRST, SECOND = look(a=[3.0, 4.0], b=[-3.0, 0.0]), look(a=[0.5, 0.0], b=[2.0, 2.0])


def test_the_title_and_what_was_read_where() -> None:
    lines = shown(course(FIRST, SECOND))
    assert lines[0] == "digits: Two digits."
    assert lines[1] == ("The plain sum, trained for 2 epochs; gradients read at the features, means over 2 looks.")
    assert lines[2] == ""
    lines = shown(course(FIRST, place="trunk", summary=""))
    assert lines[0] == "digits"
    assert lines[1] == "The plain sum, trained for 1 epoch; gradients read at the trunk, means over 1 look."


def test_few_tasks_have_columns_of_their_own() -> None:
    found = course(FIRST, SECOND)
    lines = shown(found)
    above, below = lines[3], lines[4]
    assert above.split() == ["loss", "loss", "norm", "norm", "longest/", "lowest", "pairs", "in"]
    assert below.split() == ["epoch", "a", "b", "a", "b", "shortest", "cosine", "conflict"]
    assert cells(found) == [
        ["1", "7", "-3", "5", "3", "1.67", "-0.60", "100", "%"],
        ["2", "0.5", "4", "0.5", "2.83", "5.66", "+0.71", "0", "%"],
    ]
    after = lines[lines.index("Over all epochs") + 1 :]
    assert lines[lines.index("Over all epochs") - 1] == ""
    table = found.whole.table().splitlines()
    assert after[: len(table)] == [line.rstrip() for line in table]
    assert after[len(table)] == ""


def test_what_an_epoch_did_not_see_is_a_dash() -> None:
    found = course(look(b=[3.0, 4.0]), FIRST)
    assert cells(found)[0][:5] == ["1", "-", "7", "-", "5"]
    assert cells(found)[0][6] == "-", "one task has no pair"


def test_of_more_tasks_the_longest_and_the_shortest_gradient() -> None:
    rows = {"a": [1.0, 0.0], "b": [3.0, 4.0], "c": [0.0, -1.0], "d": [0.3, 0.4]}
    found = course(look(**rows), tasks=tuple(rows))
    lines = shown(found)
    assert lines[3].split() == ["sum", "of", "longest", "shortest", "longest/", "lowest", "pairs", "in"]
    assert lines[4].split() == ["epoch", "losses", "gradient", "gradient", "shortest", "cosine", "conflict"]
    assert cells(found) == [["1", "7.7", "b", "5", "d", "0.5", "10", "-0.80", "33", "%"]]
    three = course(look(a=[1.0, 0.0], b=[3.0, 4.0], c=[0.0, -1.0]), tasks=("a", "b", "c"))
    assert cells(three)[0][:7] == ["1", "1", "7", "-1", "1", "5", "1"]


def sentences(found: Course) -> list[str]:
    return [line.removeprefix("- ") for line in shown(found) if line.startswith("- ")]


def test_every_sentence() -> None:
    fidelity = (Fidelity("features", 2, 0.5, 0.25, 0.125), Fidelity("last", 1, -0.5, 0.0, 2.0))
    found = course(FIRST, SECOND, fidelity=fidelity, affinities={"look-ahead": torch.eye(2)})
    aligned = found.whole.agreement
    assert sentences(found) == [
        "From the first epoch to the last: longest over shortest gradient 1.67 to 5.66, lowest cosine -0.60 to +0.71.",
        f"Alignment score {aligned:+.2f}: 1 where all gradients point one way.",
        "Against the exact gradients of the trunk, 2 looks, the features: cosines correlate +0.50, the sign is wrong "
        "in 25 % of the pairs beyond ±0.1, relative norms are off by 12 %.",
        "Against the exact gradients of the trunk, 1 look, the last layer (look=last): cosines correlate -0.50, the "
        "sign is wrong in 0 % of the pairs beyond ±0.1, relative norms are off by 200 %.",
        "Affinities are no prediction of what sharing gains: on published tables of trained subsets the look-ahead's "
        "rank correlation with measured gains was hardly above zero. `steelyard group` trains what it chooses, and "
        "says how far these numbers would have told it.",
        *found.whole.advice,
    ]
    of_nothing = course(FIRST, fidelity=(Fidelity("last", 3, math.nan, math.nan, 0.0),))
    (said,) = (text for text in sentences(of_nothing) if "3 looks" in text)
    assert said.endswith("(look=last): cosines do not vary, no pair is beyond ±0.1, relative norms are off by 0 %.")
    assert found.whole.advice
    lines = shown(found)
    affinity = affinity_table("look-ahead", ("a", "b"), torch.eye(2)).splitlines()
    start = lines.index(affinity[0])
    assert lines[start : start + len(affinity) + 1] == [*(line.rstrip() for line in affinity), ""]


def test_nothing_is_said_of_what_is_not_known() -> None:
    once = course(FIRST)
    assert [text for text in sentences(once) if text.startswith("From the first epoch")] == []
    assert any(text.startswith("Alignment") for text in sentences(once))
    alone = course(look(a=[1.0, 0.0]), look(a=[2.0, 0.0]), tasks=("a",))
    assert sentences(alone) == list(alone.whole.advice)
    apart = course(look(a=[1.0, 0.0]), look(a=[1.0, 0.0], b=[0.0, 2.0]))
    (moved,) = [text for text in sentences(apart) if text.startswith("From")]
    assert moved == "From the first epoch to the last: longest over shortest gradient 1 to 2."
    never = course(look(a=[1.0, 0.0]), look(b=[0.0, 2.0]))
    assert math.isnan(never.whole.agreement) is not any(text.startswith("Alignment") for text in sentences(never))
    told = sentences(course(FIRST, not_compared="there are no [features]"))
    assert "The places at which gradients can be read were not compared: there are no [features]" in told


@pytest.mark.parametrize("name", ["x" * 30, "[b]"])
def test_names_are_cut_and_no_markup(name: str) -> None:
    found = course(look(**{name: [1.0, 0.0], "b": [0.0, 1.0]}), tasks=(name, "b"), affinities={name: torch.eye(2)})
    lines = shown(found)
    tables = [found.whole.table(), affinity_table(name, found.whole.tasks, torch.eye(2)), *found.whole.advice]
    assert any(name[:5] in line for line in tables)
    assert {line.rstrip() for table in tables for line in table.splitlines()} <= {
        line.removeprefix("- ") for line in lines
    }
    assert name[:5] in lines[4]
