"""The trials of several stores in one: what is there stays, what is missing comes, and a study goes on with both."""

import dataclasses
import json
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from steelyard.errors import DamagedStoreError, StoreError
from steelyard.grouping.cross_fitting import values_of
from steelyard.report import page
from steelyard.report.frozen_weights import frozen_specs, print_frozen
from steelyard.study import judge, merge
from steelyard.study.planning.plan import Plan
from steelyard.study.storage.short_curves import DIGITS, with_short_curves
from steelyard.study.storage.store import Store
from steelyard.study.storage.trials_file import write_rows
from steelyard.study.trial import Account, Curves, Failed, Result
from study import made_up
from study.storage.test_damage import values


def filled(path, plan, only=None, **changed):
    """A store with a plan and those of its trials that `only` takes."""
    draws = values()
    with Store(path, write=True) as store:
        store.add_plan(plan.to_dict())
    with Store(path.with_name("drawn.sqlite"), write=True) as drawn:
        made_up.fill(drawn, plan, draws)
        with Store(path, write=True) as store:
            for trial, result in drawn.results(plan.trials).items():
                if only is None or only(trial):
                    others = {name: each(result) if callable(each) else each for name, each in changed.items()}
                    store.add_result(trial, dataclasses.replace(result, **others))
    path.with_name("drawn.sqlite").unlink()
    return path


def as_text(store, name, change=lambda row: row):
    with Store(store) as opened:
        write_rows(store.with_name(name), map(change, opened.rows()))
    return store.with_name(name)


@pytest.mark.parametrize("kind", ["stores", "text", "packed text"])
def test_two_halves_are_the_whole(tmp_path, kind):
    plan = made_up.plan()
    whole = filled(tmp_path / "whole.sqlite", plan)
    halves = [
        filled(tmp_path / f"{half}.sqlite", plan, lambda trial, half=half: (trial.seed % 2 == 0) == (half == "even"))
        for half in ("even", "odd")
    ]
    if kind != "stores":
        halves = [as_text(half, half.stem + (".jsonl" if kind == "text" else ".jsonl.xz")) for half in halves]
    even, odd = merge(tmp_path / "all.sqlite", halves)
    assert (even.taken + odd.taken, even.known, odd.known) == (len(plan.trials), 0, 0)
    assert even.taken > 0 < odd.taken
    assert (even.plans, odd.plans, even.differ, odd.differ) == (1, 0, 0, 0)
    assert judge(tmp_path / "all.sqlite") == judge(whole)
    again = merge(tmp_path / "all.sqlite", [whole])
    assert [(each.taken, each.known, each.differ, each.plans) for each in again] == [(0, len(plan.trials), 0, 0)]


def test_short_curves_cost_charts_and_no_verdict(tmp_path):
    plan, draw = made_up.plan(), np.random.default_rng(0)
    drawn = {task: draw.uniform(0.9, 1.0, plan.epochs).tolist() for task in plan.task_names}
    curves = Curves(drawn, drawn, drawn)
    whole = filled(tmp_path / "whole.sqlite", plan, curves=curves)
    short = as_text(whole, "short.jsonl", with_short_curves)
    assert merge(tmp_path / "there.sqlite", [short])[0].taken == len(plan.trials)
    found, expected = judge(tmp_path / "there.sqlite"), judge(whole)
    assert dataclasses.replace(found, curves=expected.curves) == expected
    for curve, full in zip(found.curves, expected.curves, strict=True):
        assert (curve.losses, curve.weights, curve.weight_spreads) == ({}, {}, {})
        assert full.losses
        assert full.weights
        for task, exact in full.validation.items():
            np.testing.assert_allclose(curve.validation[task], exact, rtol=0.5 * 10.0 ** (1 - DIGITS))
            assert curve.validation[task] != exact
    with Store(whole) as store, Store(tmp_path / "there.sqlite") as other:
        for trial, result in other.results(plan.trials).items():
            kept = store.results([trial])[trial]
            for task, values in result.curves.validation.items():  # what choices rest on
                assert values[result.chosen_epoch - 1] == kept.curves.validation[task][result.chosen_epoch - 1]
    assert page(found).count("<svg") < page(expected).count("<svg")
    assert frozen_specs(found) == []
    # Short or whole, it is the same training; with another value on validation data it is not.
    assert [(each.known, each.differ) for each in merge(whole, [short])] == [(len(plan.trials), 0)]
    assert judge(whole) == expected
    assert as_text(tmp_path / "there.sqlite", "twice.jsonl", with_short_curves).read_text() == short.read_text()
    assert [(each.known, each.differ) for each in merge(tmp_path / "there.sqlite", [whole])] == [(len(plan.trials), 0)]
    assert judge(tmp_path / "there.sqlite") == expected  # whole again
    with Store(whole, write=True) as store:
        trial, result = next(iter(store.results(plan.trials).items()))
        task, values = next(iter(result.curves.validation.items()))
        validation = {**result.curves.validation, task: [*values[:-1], values[-1] + 0.01]}
        store.add_result(trial, dataclasses.replace(result, curves=replace(result.curves, validation=validation)))
    assert [(each.known, each.differ) for each in merge(whole, [short])] == [(len(plan.trials) - 1, 1)]


def test_what_reads_more_than_short_curves_says_so(tmp_path):
    plan = made_up.plan()
    merge(tmp_path / "short.sqlite", [as_text(filled(tmp_path / "whole.sqlite", plan), "s.jsonl", with_short_curves)])
    trial = next(trial for trial in plan.trials if len(trial.tasks) == 2)
    for name in ("whole", "short"):
        with Store(tmp_path / f"{name}.sqlite") as store:
            result = store.results([trial])[trial]
        refused = pytest.raises(StoreError, match="written with --short-curves, and groups are searched")
        with nullcontext() if name == "whole" else refused:
            assert values_of(plan, result, trial.tasks)


def test_what_is_there_stays_and_other_values_are_counted(tmp_path):
    plan = made_up.plan()
    ours, theirs = filled(tmp_path / "ours.sqlite", plan), filled(tmp_path / "theirs.sqlite", plan, steps=11)
    before = judge(ours)
    (found,) = merge(ours, [theirs])
    assert (found.taken, found.known, found.differ) == (0, 0, len(plan.trials))
    assert judge(ours) == before


@pytest.mark.parametrize("field", [each.name for each in dataclasses.fields(Result)])
def test_only_times_memory_and_what_was_said_of_the_data_differ_from_one_training_to_the_next(tmp_path, field):
    plan = made_up.plan(seeds=1)
    ours = filled(tmp_path / "ours.sqlite", plan)
    with Store(ours) as store:
        one = next(iter(store.results(plan.trials).values()))
    value = getattr(one, field)
    if field == "curves":
        other = dataclasses.replace(value, validation={"left": [0.5]})
    elif field == "ledger":
        other = {"left": Account(steps=1, hurt=0.5, progress=0.1, against=0.2)}
    elif field in ("test", "last"):
        other = partial(a_little_more, field)
    elif isinstance(value, dict):
        other = {**value, "changed": "x" if field in ("outputs", "start") else [0.5]}
    elif field == "other_data":
        other = "inputs of train"
    else:
        other = value + 1
    theirs = filled(tmp_path / "theirs.sqlite", plan, **{field: other})
    (found,) = merge(ours, [theirs])
    timed = field in ("seconds", "steps_per_second", "peak_memory", "processor_seconds", "other_data")
    assert (found.known, found.differ) == ((len(plan.trials), 0) if timed else (0, len(plan.trials)))


def test_what_failed_here_and_finished_there_is_taken_and_not_the_other_way(tmp_path):
    plan = made_up.plan()
    first, *_ = plan.trials
    theirs = filled(tmp_path / "theirs.sqlite", plan)
    ours = filled(tmp_path / "ours.sqlite", plan, lambda trial: trial != first)
    with Store(ours, write=True) as store:
        store.add_failure(first, Failed("ValueError: no", "Traceback"))
    failed = as_text(ours, "failed.jsonl")
    (found,) = merge(ours, [theirs])
    assert (found.taken, found.known) == (1, len(plan.trials) - 1)
    (found,) = merge(ours, [failed])
    assert (found.taken, found.known) == (0, len(plan.trials))
    with Store(ours) as store:
        assert len(store.results(plan.trials)) == len(plan.trials)
        assert not store.failures(plan.trials)


def test_the_latest_plan_stays_the_latest_and_others_come_before_it_in_order(tmp_path):
    plans = [made_up.plan(seeds=seeds) for seeds in (1, 2, 3, 4)]
    ours = filled(tmp_path / "ours.sqlite", plans[3])
    theirs = filled(tmp_path / "theirs.sqlite", plans[0])
    with Store(theirs, write=True) as store:
        for plan in (plans[1], plans[3], plans[2]):
            store.add_plan(plan.to_dict())
    (found,) = merge(ours, [theirs])
    assert found.plans == 3
    with Store(ours) as store:
        assert [Plan.from_dict(each) for each in store.plans()] == [plans[3], plans[2], plans[1], plans[0]]
    with Store(ours, write=True) as store:
        store.add_plan(plans[1].to_dict())
        assert Plan.from_dict(store.latest_plan()) == plans[1]


def test_networks_come_along(tmp_path):
    plan = made_up.plan()
    theirs = filled(tmp_path / "theirs.sqlite", plan)
    with Store(theirs) as store:
        store.networks.add(plan.trials[0], b"weights")
    merge(tmp_path / "all.sqlite", [theirs])
    with Store(tmp_path / "all.sqlite") as store:
        assert store.networks.file(plan.trials[0]).read_bytes() == b"weights"
        assert [store.networks.has(trial) for trial in plan.trials].count(True) == 1


def test_nothing_is_merged_where_one_source_is_refused(tmp_path):
    plan = made_up.plan()
    whole = filled(tmp_path / "whole.sqlite", plan)
    text = as_text(whole, "cut.jsonl")
    text.write_bytes(text.read_bytes()[:-40])
    with pytest.raises(DamagedStoreError, match=r"cut\.jsonl is damaged"):
        merge(tmp_path / "all.sqlite", [whole, text])
    with pytest.raises(StoreError, match="there is no store"):
        merge(tmp_path / "all.sqlite", [whole, tmp_path / "missing.sqlite"])
    with pytest.raises(StoreError, match="there is nothing to merge"):
        merge(tmp_path / "all.sqlite", [])
    (tmp_path / "link.sqlite").symlink_to(whole)
    with pytest.raises(StoreError, match="is the store itself"):
        merge(whole, [tmp_path / "link.sqlite"])
    assert not (tmp_path / "all.sqlite").exists()


def test_curves_come_and_times_stay(tmp_path):
    """Of a trial that was trained twice its own times are kept, whichever of both had its curves whole."""
    plan = made_up.plan(seeds=1)
    ours = as_text(filled(tmp_path / "ours.sqlite", plan), "ours.jsonl", with_short_curves)
    theirs = filled(tmp_path / "theirs.sqlite", plan, seconds=77.0)
    merge(tmp_path / "all.sqlite", [ours])
    with Store(tmp_path / "all.sqlite") as store:
        before = store.trained(plan.trials)
    (found,) = merge(tmp_path / "all.sqlite", [theirs])
    assert (found.taken, found.known, found.differ) == (0, len(plan.trials), 0)
    with Store(tmp_path / "all.sqlite") as store:
        results = store.results(plan.trials)
        assert {result.seconds for result in results.values()} == {10.0}
        assert all(result.curves.losses for result in results.values())
        assert store.trained(plan.trials) == before


def test_networks_come_after_the_trials(tmp_path):
    plan = made_up.plan(seeds=1)
    source = filled(tmp_path / "s.sqlite", plan)
    merge(tmp_path / "all.sqlite", [as_text(source, "s.jsonl")])
    with Store(source) as store:
        folder = store.networks.folder
    folder.mkdir()
    for trial in plan.trials:
        (folder / f"{trial.key}.safetensors").write_bytes(trial.key.encode())
    (found,) = merge(tmp_path / "all.sqlite", [source])
    assert found.known == len(plan.trials)
    with Store(tmp_path / "all.sqlite") as store:
        assert {file.read_bytes().decode() for file in store.networks.folder.iterdir()} == {t.key for t in plan.trials}
    # One that is there stays.
    (folder / f"{plan.trials[0].key}.safetensors").write_bytes(b"other")
    merge(tmp_path / "all.sqlite", [source])
    with Store(tmp_path / "all.sqlite") as store:
        kept = store.networks.folder / f"{plan.trials[0].key}.safetensors"
        assert kept.read_bytes().decode() == plan.trials[0].key


def changed(row, **values):
    return replace(row, values=tuple({**row.named, **values}.values()))


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("trial", lambda row: {"key": "0" * 64}, "is damaged .* its key is another trial's"),
        ("trial", lambda row: {"status": "weird"}, "is damaged .* a status of 'weird'"),
        ("trial", lambda row: {"result": told(row, energy=1)}, "a newer one wrote it"),
        ("trial", lambda row: {"result": told(row, test={})}, "is damaged .* test values of no task"),
        ("trial", lambda row: {"result": told(row, last={})}, "is damaged .* test values of no task"),
        ("trial", lambda row: {"result": told(row, test={t: [] for t in tasks_of(row)})}, "is damaged .* test values"),
        ("trial", lambda row: {"status": "failed", "error": None}, "is damaged .* in the place of str"),
        ("trial", lambda row: {"result": "[" * 100_000}, "is damaged"),
        ("plan", lambda row: {"content": json.dumps({**json.loads(row.named["content"]), "fancy": 1})}, "a newer one"),
        ("plan", lambda row: {"content": "{}"}, "is damaged .* the plan in the store cannot be read"),
        ("trial", lambda row: {"result": told(row, seconds="long")}, "is damaged .*'long' in the place of float"),
        ("trial", lambda row: {"curves": "[]"}, "is damaged .* list in place of names and values"),
        ("trial", lambda row: {"result": None}, "is damaged"),
        ("plan", lambda row: {"content": "{"}, "is damaged .*plan 1"),
        ("plan", lambda row: {"content": "3"}, "is damaged .* int in place of names and values"),
    ],
)
@pytest.mark.parametrize("there", [False, True])
def test_rows_that_nobody_could_read_come_into_no_store(tmp_path, table, change, message, there):
    """Their checksums are right; a file of them is refused whole, before anything is written."""
    plan = made_up.plan(seeds=1)
    made = filled(tmp_path / "made.sqlite", plan)
    mine = filled(tmp_path / "mine.sqlite", plan, lambda trial: trial.method == "equal")
    before = judge(mine) if there else None
    file = as_text(made, "f.jsonl", lambda row: changed(row, **change(row)) if row.table == table else row)
    into = mine if there else tmp_path / "new.sqlite"
    with pytest.raises(StoreError, match=rf"f\.jsonl.*{message}"):
        merge(into, [file])
    if there:
        assert judge(mine) == before
    else:
        assert not into.exists()


def tasks_of(row):
    return json.loads(row.named["config"])["tasks"]


def test_a_name_of_a_file_of_trials_is_no_name_of_a_store(tmp_path):
    source = filled(tmp_path / "s.sqlite", made_up.plan(seeds=1))
    with pytest.raises(StoreError, match=r"all\.jsonl is a name of a file of trials"):
        merge(tmp_path / "all.jsonl", [source])
    assert not (tmp_path / "all.jsonl").exists()
    text = as_text(source, "s.jsonl")
    with pytest.raises(StoreError, match=r"no store: `steelyard merge all\.sqlite .*s\.jsonl` makes one of it"):
        Store(text)


def a_little_more(field, result):
    """Metrics by task, another last digit each."""
    return {task: [values[0] + 1e-9] for task, values in getattr(result, field).items()}


def told(row, **values):
    return json.dumps({**json.loads(row.named["result"]), **values})


def test_a_mean_over_some_of_the_seeds_is_no_curve(tmp_path, capsys):
    """Of trials some of which were shortened no losses and weights are drawn; values on validation data are of all."""
    plan = made_up.plan(seeds=2)
    short = as_text(filled(tmp_path / "a.sqlite", plan, lambda trial: trial.seed == 0), "a.jsonl", with_short_curves)
    whole = filled(tmp_path / "b.sqlite", plan, lambda trial: trial.seed == 1)
    merge(tmp_path / "all.sqlite", [short, whole])
    found = judge(tmp_path / "all.sqlite")
    assert len(found.curves) == 2
    assert all(curve.validation and not (curve.losses or curve.weights) for curve in found.curves)
    assert all(curve.losses for curve in judge(whole).curves)
    print_frozen(found)
    assert "none: trials were written with --short-curves" in capsys.readouterr().out
