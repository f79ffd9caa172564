"""Arms of several networks: how they are written, what is trained, and from which network a task is read."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from steelyard import study
from steelyard.errors import SteelyardError
from steelyard.problems import template
from steelyard.study.planning.arm_networks import Network, check_networks, parse_networks, write_networks
from steelyard.study.planning.arms import parse_arm, parse_arms
from steelyard.study.planning.plan import Plan
from study.in_process import InProcess

NAMES = st.text(min_size=1).filter(lambda name: name.isprintable() or "\n" in name)


@st.composite
def networks(draw: st.DrawFn) -> tuple[Network, ...]:
    """A partition of some tasks, each network with a few helpers."""
    tasks = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    places = [draw(st.integers(0, 2)) for _ in tasks]
    found = []
    for place in sorted(set(places)):
        serves = [task for task, own in zip(tasks, places, strict=True) if own == place]
        helping = [task for task in tasks if task not in serves and draw(st.booleans())]
        found.append(Network(tuple(t for t in tasks if t in serves or t in helping), tuple(serves)))
    return check_networks(found, tasks)


@given(networks())
def test_what_is_written_is_read_back(found: tuple[Network, ...]) -> None:
    """Names of any characters, alone and as part of an arm in a list of arms."""
    tasks = sorted({task for network in found for task in network.learns})
    text = write_networks(found)
    assert check_networks(parse_networks(text[1:-1]), tasks) == check_networks(found, tasks)
    arms = parse_arms(f"equal,uw{text}@mmoe(experts=8),fixed(weights={{'a':1}}){text}")
    assert [str(arm) for arm in arms] == ["equal", f"uw{text}@mmoe(experts=8)", f"fixed(weights={{'a':1}}){text}"]
    assert check_networks(arms[1].networks, tasks) == check_networks(found, tasks)
    assert parse_arm(str(arms[2])) == arms[2]


@given(st.text(alphabet="ab{}|+\" ,@()'\\", max_size=20))
@example("+a b")  # who helps is written last, and read so too
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        arms = parse_arms(f"uw{{{text}}}")
    except SteelyardError:
        return
    for arm in arms:
        assert parse_arm(str(arm)) == arm


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("uw{}", "serves no task"),
        ("uw{left|}", "serves no task"),
        ("uw{left|+right}", "serves no task"),
        ("uw{left left|right}", "names left twice"),
        ("uw{left right|right}", r"has right in two networks: write \+right where it only helps"),
        ("uw{left|rihgt}", "unknown task 'rihgt'. Did you mean 'right'"),
        ("uw{left}", "leaves right out"),
        ("single-task{left|right}", "takes no options, stages or architecture, and no networks"),
        ("best-fixed{left|right}", "leave the braces away"),
    ],
)
def test_what_makes_no_sense_is_named(text: str, said: str) -> None:
    with pytest.raises(SteelyardError, match=said):
        study.plan("digits", [text], seeds=1, epochs=1)


def test_an_option_that_names_a_task_must_fit_every_network() -> None:
    arm = "fixed(weights={'progression':1,'bmi':2,'pressure':3}){progression bmi|pressure}"
    with pytest.raises(SteelyardError, match="the network of progression, bmi cannot have it"):
        study.plan(template.__file__, [arm], seeds=1, epochs=1)


def test_tasks_stand_in_the_studys_order_and_an_arm_has_one_name() -> None:
    made = study.plan("digits", ["uw{right|left +right}", "uw{left +right | right}"], seeds=1, epochs=1)
    assert [method.name for method in made.methods] == ["uw{left +right|right}"]
    assert Plan.from_dict(made.to_dict()) == made


@pytest.mark.takes("three networks are trained")
def test_each_task_is_read_from_the_network_that_serves_it(tmp_path) -> None:
    """A network alone is the single task's, one of all tasks the joint one's; both are trained once."""
    arms = ["single-task", "equal", "equal{left|right}", "equal{left +right|right}"]
    made = study.plan("digits", arms, seeds=1, epochs=2)
    assert len(made.trials) == 3
    joint = made.trials_of("equal", 0, 0)[0]
    assert made.trials_of("equal{left +right|right}", 0, 0) == [joint, made.trials_of("single-task", 0, 0)[1]]
    assert all(
        made.steps(trial) == 2 * made.settings[0].steps[" ".join(trial.tasks) if len(trial.tasks) == 1 else ""]
        for trial in made.trials
    )
    judgement = study.run(made, tmp_path / "s.sqlite", progress=False, on=InProcess())
    values = {(cell.method, cell.task): cell.values for cell in judgement.cells}
    for task in ("left", "right"):
        assert values["equal{left|right}", task] == values["single-task", task]
    assert values["equal{left +right|right}", "left"] == values["equal", "left"]
    assert values["equal{left +right|right}", "right"] == values["single-task", "right"]
    assert values["equal", "right"] != values["single-task", "right"]
    curves = {curve.method: curve for curve in judgement.curves}
    assert curves["equal{left +right|right}"].validation["right"] == curves["single-task"].validation["right"]
    rows = {row.method: row for row in judgement.rows}
    assert rows["equal{left|right}"].relative_cost == pytest.approx(1.0)


def test_rates_are_tuned_network_by_network(tmp_path) -> None:
    made = study.plan("digits", ["single-task", "equal{left +right|right}"], seeds=1, epochs=1, tune=2)
    judgement = study.run(made, tmp_path / "s.sqlite", progress=False, on=InProcess())
    assert judgement.complete
    rows = {row.method: row.chosen for row in judgement.rows}
    assert "rate" in rows["equal{left +right|right}"]
