"""`steelyard group` from one network for all to a judged grouping; errors of networks are made up, all else is real."""

from __future__ import annotations

import json
import math
import re
import textwrap
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from grouping.imaginary import Imaginary
from grouping.planted_groups import PROBLEM, find, planted, write_problem
from steelyard.errors import GroupingError
from steelyard.grouping.affinity_correlation import FITTED, PAIRS
from steelyard.grouping.group_study import group
from steelyard.grouping.grouping_text import write_words
from steelyard.grouping.train_subset import SEED
from steelyard.report.grouping_section import to_json
from steelyard.study import judge
from steelyard.study.planning.arms import parse_arm
from steelyard.study.planning.readable_arms import readable_methods
from steelyard.study.trial import Trial, derive_seed


@pytest.fixture
def problem(tmp_path):
    return partial(write_problem, tmp_path)


def test_planted_groups_are_found_and_judged_on_fresh_seeds(problem, tmp_path) -> None:
    found, engine, said = find(problem(4), tmp_path / "s.sqlite", planted(0.1, 0.01))
    assert found.grouping.networks == (frozenset(["t0", "t2"]), frozenset(["t1", "t3"]))
    assert found.arms["grouping"] == "equal{t0 t2|t1 t3}"
    assert found.arms["one for all"] == "equal"
    # One for all: each task has one friend and two foes.
    (line,) = said
    # Two networks: one task of its own, the others stay together.
    assert re.fullmatch(
        r"One network for all tasks: −9\.\d % over single tasks, on validation data; "
        r"with networks of their own for t\d: −7\.\d %\.",
        line,
    )
    assert found.over_one is not None
    assert found.over_one.low == pytest.approx(0.2, abs=0.05)
    # Subsets are tried on a seed that nothing is judged on.
    assert {trial.seed for trial in engine.trained if 1 < len(trial.tasks) < 4 and "t0" in trial.tasks} >= {SEED}
    assert SEED not in found.judgement.seeds
    judged = {trial.tasks for trial in engine.trained if trial.seed != SEED}
    assert judged == {("t0",), ("t1",), ("t2",), ("t3",), ("t0", "t1", "t2", "t3"), ("t0", "t2"), ("t1", "t3")}
    words = write_words(found)
    assert words[0].startswith("Train {t0, t2} and {t1, t3} together with equal: +1")
    assert words[0].endswith(" over single tasks on test data, 2 networks instead of 4.")
    assert words[1].startswith("Against one network for all tasks (−")
    assert words[1].endswith(", better.")
    assert "The search trained 11 subsets, 11 trainings of one network; what it found trains in 1.00 ×" in words[-1]


APART = PROBLEM.replace(
    "lambda: split(x, {{task.name: x.sum(1) for task in tasks}})",
    "lambda: Data(*[{{task.name: Split(x[k:], {{task.name: x[k:].sum(1)}}) for task in tasks}} for k in range(3)])",
).replace("split\n", "Data, Split\n")


def test_every_network_of_several_tasks_draws_its_batches_as_asked(problem, tmp_path) -> None:
    """Subsets that are tried, and the groups that are judged; a task alone has nothing to share out."""
    path = tmp_path / "apart.py"
    path.write_text(textwrap.dedent(APART.format(names=["t0", "t1", "t2"])))
    for asked, drawn in ((None, "size"), ("temperature(2)", "temperature(2)")):
        _, engine, _ = find(str(path), tmp_path / f"{drawn}.sqlite", planted(0.05, 0.01), sampling=asked)
        assert {len(trial.tasks) for trial in engine.trained} == {1, 2, 3}
        assert {trial.sampling for trial in engine.trained if len(trial.tasks) > 1} == {drawn}
        assert {trial.sampling for trial in engine.trained if len(trial.tasks) == 1} == {"size"}


def test_the_same_command_trains_nothing_again_and_a_larger_budget_only_more(problem, tmp_path) -> None:
    path, store, error = problem(5), tmp_path / "s.sqlite", planted(0.1, 0.02)
    first, engine, _ = find(path, store, error, budget=6)
    again, idle, _ = find(path, store, error, budget=6)
    assert (again.grouping, idle.trained) == (first.grouping, [])
    more, added, _ = find(path, store, error, budget=9)
    assert list(more.grouping.measured)[:6] == list(first.grouping.measured)
    tried = [trial for trial in added.trained if trial.seed == SEED]
    assert len(tried) == 3
    assert not set(tried) & set(engine.trained)


def test_trials_of_other_code_are_judged_where_they_are_to_be_reused(problem, tmp_path) -> None:
    """In all three parts: what all tasks share, the subsets that are tried, and what is judged."""
    path, store, error = problem(4), tmp_path / "s.sqlite", planted(0.1, 0.02)
    first, engine, _ = find(path, store, error)
    with open(path, "a") as file:
        file.write("\n# other code\n")
    again, idle, _ = find(path, store, error, reuse_any=True)
    assert idle.trained == []
    assert (again.grouping, again.over_one, again.paid) == (first.grouping, first.over_one, first.paid)
    anew, trained, _ = find(path, store, error)
    assert (anew.grouping, len(trained.trained)) == (first.grouping, len(engine.trained))


class StopError(Exception):
    pass


@pytest.mark.parametrize("after", [1, 8, 14, 20, 23])
def test_stopped_at_any_moment_it_goes_on(problem, tmp_path, after: int) -> None:
    path, error = problem(4), planted(0.1, 0.02)
    whole, engine, _ = find(path, tmp_path / "whole.sqlite", error, seeds=3, budget=6)
    count = 0

    def stopping(trial: Trial, task: str, kind: str) -> float:
        nonlocal count
        count += (task, kind) == (trial.tasks[0], "validation")
        if count > after:
            raise StopError
        return error(trial, task, kind)

    with pytest.raises(StopError):
        find(path, tmp_path / "stopped.sqlite", stopping, seeds=3, budget=6)
    found, rest, _ = find(path, tmp_path / "stopped.sqlite", error, seeds=3, budget=6)
    assert found.grouping == whole.grouping
    assert found.over_one == whole.over_one
    assert len(rest.trained) == len(engine.trained) - after


def test_a_subset_that_diverges_is_left_out(problem, tmp_path) -> None:
    error = planted(0.1, 0.0)

    def diverging(trial: Trial, task: str, kind: str) -> float:
        return float("nan") if trial.tasks == ("t0", "t2") else error(trial, task, kind)

    found, _, _ = find(problem(4), tmp_path / "s.sqlite", diverging)
    assert found.grouping.failed == (frozenset(["t0", "t2"]),)
    assert frozenset(["t1", "t3"]) in found.grouping.networks
    assert "11 subsets, 1 of them without success" in write_words(found)[-1]


def test_a_task_that_cannot_be_trained_alone_is_named(problem, tmp_path) -> None:
    error = planted(0.1, 0.0)

    def diverging(trial: Trial, task: str, kind: str) -> float:
        return float("nan") if trial.tasks == ("t1",) and trial.seed == SEED else error(trial, task, kind)

    with pytest.raises(GroupingError, match="t1 could not be trained alone"):
        find(problem(3), tmp_path / "s.sqlite", diverging, seeds=2)


@pytest.mark.parametrize(
    ("tasks", "options", "said"),
    [
        (1, {}, "t0 is the only task"),
        (3, {"budget": 0.2}, "budget=0.2: it counts trainings"),
        (3, {"networks": 0}, "networks=0: at least one"),
        (3, {"method": "single-task"}, "name one method"),
        (3, {"method": "uw{t0|t1 t2}"}, "name one method"),
        (3, {"seeds": [0, SEED]}, "is the one that subsets are tried on"),
        (3, {"efforts": (0.5,)}, "rise from above 0 to 1"),
    ],
)
def test_what_makes_no_sense_is_named_before_anything_is_trained(problem, tmp_path, tasks, options, said) -> None:
    engine = Imaginary(planted(0.1, 0.0))
    with pytest.raises(GroupingError, match=said):
        group(
            problem(tasks),
            store=tmp_path / "s",
            on=engine,
            progress=False,
            **{"budget": 3, "networks": 2, **options},
        )
    assert engine.trained == []


def test_two_tasks_and_one_seed(problem, tmp_path) -> None:
    found, _, _ = find(problem(2), tmp_path / "s.sqlite", planted(0.1, 0.0), seeds=1)
    assert found.arms["grouping"] == found.arms["own networks"] == "equal{t0|t1}"
    assert write_words(found)[0] == (
        "Train every task alone: +0.0 % (one seed, no interval) over single tasks on test data, "
        "2 networks instead of 2."
    )


def test_of_many_tasks_networks_are_spelt_out_once_and_a_command_to_copy_keeps_them(
    problem, tmp_path, monkeypatch
) -> None:
    """By `steelyard group` as what to do, above all else; by `steelyard report` where a sentence first names them."""
    monkeypatch.setattr(
        "steelyard.study.analysis.make_judgement.cautions",
        lambda found: [f"Odd: {found.plan.methods[-1].name}:\n  --methods '{found.plan.methods[-1].name}'"],
    )
    store = tmp_path / "s.sqlite"
    found, _, _ = find(problem(10), store, planted(0.1, 0.01), budget=6)
    spelt, judged = found.arms["grouping"], judge(store)
    assert judged.methods[-1] == spelt
    counted = readable_methods(judged.methods)[spelt]
    assert len(spelt) > 30 > len(counted)
    assert found.judgement.cautions == [f"Odd: the grouping:\n  --methods '{spelt}'"]
    said = found.judgement.verdict[len(write_words(found)) :]
    assert "the grouping" in " ".join(said)
    assert not [text for text in said if "{" in text]
    assert judged.cautions == [f"Odd: {counted}:\n  --methods '{spelt}'"]
    text = " ".join(judged.verdict)
    assert text.count(spelt) == 1
    assert counted in text
    assert text.index(spelt) < text.index(counted)


@pytest.mark.parametrize(("tasks", "alone"), [(2, 2), (4, 1)])
def test_who_is_alone_in_the_best_choice_is_not_said_to_lose_nothing_by_sharing(
    problem, tmp_path, tasks, alone
) -> None:
    """Sharing hurts every task; as many networks as two leave one of four alone, and the other three hurt."""

    def error(trial: Trial, task: str, kind: str) -> float:
        return planted(0.0, 0.01)(trial, task, kind) + 0.3 * (len(trial.tasks) > 1)

    found, _, _ = find(problem(tasks), tmp_path / "s.sqlite", error, budget=1)
    served = found.grouping.served_by.values()
    assert sum(len(network) == 1 for network in served) == alone
    assert "Train every task alone: nothing here is shown to be as good." in found.judgement.verdict
    words = write_words(found)
    assert words[0].startswith("Train every task alone, or " if alone < tasks else "Train every task alone: +0.0 %")
    assert "The search trained 1 subset, 1 training of one network" in words[-1]
    assert not [text for text in found.judgement.verdict if "lose nothing" in text or "Share under" in text]


def test_a_task_served_by_one_network_may_help_in_another(problem, tmp_path) -> None:
    """t1 helps t0 and is hurt by it."""

    def error(trial: Trial, task: str, kind: str) -> float:
        return 1.0 - (0.2 if task == "t0" else -0.2) * (len(trial.tasks) - 1)

    found, _, _ = find(problem(2), tmp_path / "s.sqlite", error)
    assert found.arms["grouping"] == "equal{t0 +t1|t1}"
    assert write_words(found)[0].startswith("Train {t0, helped by t1} together with equal, t1 alone: +10.0 % (+3.7 to")


def test_the_export_says_what_was_found(problem, tmp_path) -> None:
    found, _, _ = find(problem(4), tmp_path / "s.sqlite", planted(0.1, 0.01))
    told = json.loads(to_json(found))
    assert told["networks"] == [["t0", "t2"], ["t1", "t3"]]
    assert told["served_by"]["t3"] == ["t1", "t3"]
    assert told["sentences"] == write_words(found)
    assert told["gains_on_validation_data"] == dict(found.grouping.gains)
    assert len(told["measured"]) == 11
    assert {tuple(row["tasks"]): row["gains"] for row in told["measured"]}[("t0", "t2")] == found.grouping.measured[
        frozenset(["t0", "t2"])
    ]
    assert [row["networks"] for row in told["by_networks"]] == [1, 2, 3, 4]
    gains = [row["gain"] for row in told["by_networks"]]
    assert gains == sorted(gains)
    assert told["over_one_network"]["low"] == found.over_one.low
    assert told["by_budget"][-1] == {"subsets": 11, "gain": found.grouping.gain}


@pytest.mark.slow("a hundred searches where there is nothing to find")
def test_where_nothing_is_to_gain_groups_are_seldom_said_to_help(problem, tmp_path) -> None:
    """The share of searches that call their groups better than one network for all, where all gains are noise."""
    path, wrong, runs = problem(5), 0, 100
    for luck in range(runs):
        found, _, _ = find(path, tmp_path / f"{luck}.sqlite", planted(0.0, 0.1, luck), budget=8, seeds=3)
        wrong += any(
            sentence.startswith("Against one") and sentence.endswith(", better.") for sentence in write_words(found)
        )
    assert wrong / runs <= 0.05


def test_affinities_that_cannot_be_measured_are_told_and_stop_nothing(problem, tmp_path) -> None:
    """The plain sum diverges here, where no engine trains for real."""
    text = (
        Path(problem(3))
        .read_text()
        .replace("batch_size=8", "batch_size=8, optimizer=lambda p: torch.optim.SGD(p, 1e30)")
    )
    (tmp_path / "made_up.py").write_text(text)
    found, _, said = find(str(tmp_path / "made_up.py"), tmp_path / "s.sqlite", planted(0.1, 0.01), affinities=True)
    assert said[-1].startswith("Affinities were not measured: the training loss of 't0' is")
    assert [each.name for each in found.affinities] == [PAIRS, FITTED]


def few_rows(effect: float, rows: float, luck: int = 0, epochs: int = 12, shared: float = 0.05):
    """What `planted` errors look like on so few validation rows that chance moves a half by `rows` from epoch to epoch.

    Sharing as such helps each task by `shared`; on validation data the best epoch of a single task is the luckiest.
    """
    truth = planted(effect, 0.0)

    def value(trial: Trial, task: str) -> float:
        return truth(trial, task, "test") - shared * (len(trial.tasks) > 1)

    def halves(trial: Trial, task: str) -> list[list[float]]:
        rng = np.random.default_rng(derive_seed(trial.seed, luck, task, *trial.tasks))
        return (value(trial, task) * np.exp(rows * rng.normal(size=(epochs, 2)))).tolist()

    def error(trial: Trial, task: str, kind: str) -> float:
        rng = np.random.default_rng(derive_seed(trial.seed, luck, kind, task, *trial.tasks))
        return value(trial, task) + 0.01 * float(rng.normal())

    return error, halves


def find_on_few_rows(problem: str, store, effect: float, rows: float, luck: int = 0, **options):
    error, halves = few_rows(effect, rows, luck)
    settings = {"budget": 10, "networks": 3, "seeds": 5, "affinities": False, "epochs": 12, **options}
    said = list[str]()
    found = group(problem, store=store, on=Imaginary(error, halves), progress=False, say=said.append, **settings)
    return found, said


def test_few_validation_rows_neither_hide_that_sharing_helps_nor_make_up_groups(problem, tmp_path) -> None:
    """Each task's best epoch looks 20 % better than it is; measured on the other half, one for all gains its 5 %."""
    found, (said,) = find_on_few_rows(problem(8), tmp_path / "s.sqlite", 0.0, 0.3)
    measured = re.match(r"One network for all tasks: ([+−][\d.]+) % over single tasks", said)
    assert measured is not None
    assert float(measured[1].replace("−", "-")) == pytest.approx(5.0, abs=5.0)
    assert found.recommended == "one for all"
    words = write_words(found)
    assert words[0].startswith("Train all tasks together with equal: +")
    assert words[0].endswith("1 network instead of 8.")
    assert "Groups do not pay here" in words[1] or "not shown to be better" in words[1] or "worse" in words[1]


def test_what_is_not_shown_to_be_better_on_test_data_is_not_the_advice(problem, tmp_path) -> None:
    """Validation data are wrong here: they see groups where there are none."""

    def error(trial: Trial, task: str, kind: str) -> float:
        return planted(0.1 if kind == "validation" else 0.0, 0.01)(trial, task, kind)

    found, _, _ = find(problem(4), tmp_path / "s.sqlite", error)
    assert found.arms["grouping"] == "equal{t0 t2|t1 t3}"
    assert found.recommended == "one for all"
    words = write_words(found)
    assert words[0].startswith("Train all tasks together with equal: ")
    assert words[0].endswith("1 network instead of 4.")
    (said,) = [sentence for sentence in words if "t0, t2" in sentence]
    assert said.startswith("The groups that validation data chose, {t0, t2} and {t1, t3} (")
    assert said.endswith(" against that, not shown to be better.")
    assert json.loads(to_json(found))["recommended"] == "one for all"


@pytest.mark.slow("sixty searches each with none, little and much noise")
@pytest.mark.parametrize("rows", [0.02, 0.1, 0.4])
def test_with_any_noise_of_validation_data_the_advice_is_no_worse_than_one_network(problem, tmp_path, rows) -> None:
    """True gains of what is advised, where there are groups and where there are none."""
    path, runs, false = problem(6), 60, 0
    for effect in (0.0, 0.06):
        truth, gained = planted(effect, 0.0), []
        for luck in range(runs):
            found, _ = find_on_few_rows(path, tmp_path / f"{effect}{luck}.sqlite", effect, rows, luck, seeds=3)
            arm, everybody = parse_arm(found.arms[found.recommended]), found.grouping.tasks
            serves = {task: n.learns for n in arm.networks for task in n.serves} or dict.fromkeys(everybody, everybody)
            true = {t: 0.05 * (len(s) > 1) - truth(trial_of(s), t, "test") for t, s in serves.items()}
            everything = {t: 0.05 - truth(trial_of(everybody), t, "test") for t in everybody}
            gained.append(np.mean([true[t] - everything[t] for t in true]))
            false += effect == 0.0 and found.recommended != "one for all"
        assert np.mean(gained) > (-0.002 if effect == 0.0 else 0.03 if rows < 0.2 else 0.0)
    assert false / runs <= 0.05


def trial_of(tasks: tuple[str, ...]) -> Trial:
    return Trial("made-up", "equal", tuple(tasks), 0, (), 1, 1)


@pytest.mark.parametrize("lost", ["one", "one of each"])
def test_a_trial_that_failed_leaves_the_advice_as_it_was(problem, tmp_path, lost) -> None:
    """Arms are compared on the seeds that both have finished, each with itself: what sharing gives differs by seed."""

    def error(trial: Trial, task: str, kind: str) -> float:
        by_seed = 0.05 * (trial.seed % 5) * (len(trial.tasks) > 1)
        return planted(0.1, 0.01)(trial, task, kind) - by_seed

    def with_failures(trial: Trial, task: str, kind: str) -> float:
        of_groups = trial.seed == 2 and trial.tasks == ("t0", "t2")
        of_all = lost == "one of each" and trial.seed == 0 and len(trial.tasks) == 4
        return math.nan if of_groups or of_all else error(trial, task, kind)

    whole, _, _ = find(problem(4), tmp_path / "whole.sqlite", error)
    found, _, _ = find(problem(4), tmp_path / "s.sqlite", with_failures)
    for each in (whole, found):
        assert write_words(each)[0].startswith("Train {t0, t2} and {t1, t3} together with equal: +")
        assert each.over_one.mean == pytest.approx(0.2, abs=0.02)
        assert each.over_one.low > 0.15


def test_as_many_networks_as_tasks_are_not_advised_to_be_more(problem, tmp_path) -> None:
    """Validation data are wrong here: sharing helps by them, and hurts."""

    def error(trial: Trial, task: str, kind: str) -> float:
        shared = 0.3 if kind == "test" else -0.3
        return planted(0.0, 0.01)(trial, task, kind) + shared * (len(trial.tasks) > 1)

    for networks, told in ((4, False), (2, True)):
        found, _, _ = find(problem(4), tmp_path / f"{networks}.sqlite", error, budget=1, networks=networks)
        first = write_words(found)[0]
        assert first.startswith("Train every task alone, or ")
        assert ("allow more networks" in first) == told


def test_json_of_an_arm_without_a_whole_seed_has_no_nan(problem, tmp_path) -> None:
    def error(trial: Trial, task: str, kind: str) -> float:
        lost = trial.seed != SEED and trial.tasks == ("t0", "t2")
        return math.nan if lost else planted(0.1, 0.01)(trial, task, kind)

    found, _, _ = find(problem(4), tmp_path / "s.sqlite", error)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    told = json.loads(to_json(found), parse_constant=refuse)
    assert None in [row["relative_cost"] for row in told["rows"]]
