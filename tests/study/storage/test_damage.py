"""Damage of any kind, wherever it falls: a named error or the same numbers, no traceback and no other numbers."""

import copy
import dataclasses
import json
import os
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from damage import damaged, flip
from steelyard import study
from steelyard.cli.report import _planned
from steelyard.errors import DamagedStoreError, SteelyardError, SteelyardWarning, StoreError
from steelyard.report.study_page import page
from steelyard.study.analysis.make_judgement import judge
from steelyard.study.planning.merging import merge
from steelyard.study.planning.plan import Plan
from steelyard.study.planning.tuning import tried
from steelyard.study.storage.store import Store
from steelyard.study.storage.trial_checkpoint import load_checkpoint, save_checkpoint
from steelyard.study.storage.whole_length import whole_length
from steelyard.study.trial import SINGLE_TASK, Failed
from study import made_up

FLIPS = 300
FAILED = dataclasses.replace(made_up.plan().trials[0], seed=99)


def values(methods=(SINGLE_TASK, "equal"), seeds=3):
    draw = random.Random(0)
    return {m: [{"left": draw.random(), "right": draw.random()} for _ in range(seeds)] for m in methods}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store of a few pages: two plans, nine finished trials and a failed one."""
    path = tmp_path_factory.mktemp("whole") / "s.sqlite"
    plan = made_up.plan()
    with Store(path, write=True) as store:
        store.add_plan(made_up.plan(seeds=2).to_dict())
        store.add_plan(plan.to_dict())
        made_up.fill(store, plan, values())
        store.add_failure(FAILED, Failed("ValueError: no", "Traceback"))
    return path


def contents(path, write=False):
    """All that a study reads of a store, or what is said of it."""
    try:
        with Store(path, write=write) as store:
            plan = Plan.from_dict(store.latest_plan())
            trials = [*plan.trials, FAILED]
            return repr((plan, store.results(trials), store.failures(trials), sorted(store.finished()))), ""
    except StoreError as error:
        return None, str(error)


@pytest.mark.parametrize("hurt", [flip, damaged])
@pytest.mark.parametrize("write", [False, True])
def test_damage_of_a_store_is_an_error_or_changes_nothing(whole, tmp_path, write, hurt):
    draw, (right, _), path, told = random.Random(1), contents(whole), tmp_path / "s.sqlite", 0
    content, flips = whole.read_bytes(), FLIPS // 12 if write else FLIPS
    for _ in range(flips):
        path.write_bytes(hurt(content, draw))
        found, said = contents(path, write)
        assert found == right or str(path) in said
        told += bool(said)
        for file in tmp_path.iterdir():
            file.unlink()
    assert told > flips / 3  # the rest fell on unused space


def test_what_is_salvaged_is_as_it_was_written(whole, tmp_path):
    """Whatever the damage, every value that is shown is one that was stored."""
    draw, path, shown = random.Random(2), tmp_path / "s.sqlite", 0
    plan = made_up.plan()
    with Store(whole) as store:
        right = {trial: repr(result) for trial, result in store.results(plan.trials).items()}
    content = whole.read_bytes()
    for _ in range(FLIPS // 2):
        path.write_bytes(damaged(flip(content, draw), draw))
        try:
            with Store(path, salvage=True) as store:
                assert Plan.from_dict(store.latest_plan()) in (plan, made_up.plan(seeds=2))
                found = store.results(plan.trials)
        except StoreError:
            continue
        assert all(repr(result) == right[trial] for trial, result in found.items())
        shown += len(found)
    assert shown > 0.5 * FLIPS // 2 * len(right)


def test_one_damaged_row_is_named_and_the_others_are_salvaged(whole, tmp_path, run):
    path = tmp_path / "s.sqlite"
    shutil.copy(whole, path)
    trial = made_up.plan().trials[0]
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE trial SET result = replace(result, '0.', '9.') WHERE key = ?", (trial.key,))
    connection.close()
    for write in (False, True):
        with pytest.raises(DamagedStoreError, match=r"1 of its rows in 'trial' .*report .*s\.sqlite --salvage"):
            Store(path, write=write)
    found = judge(path, salvage=True)
    assert (found.finished, found.planned, found.complete) == (8, 9, False)
    assert "8 of 9 trials are whole" in found.notes[-1]
    # So they can be kept, as text and from there in another store.
    text = tmp_path / "s.jsonl"
    assert run("report", path, "--trials", text)[0] == 2
    code, _, err = run("report", path, "--salvage", "--trials", text)
    assert code == 0, err
    (merged,) = merge(tmp_path / "new.sqlite", [text])
    assert merged.taken == 8 + 1  # the failed one too


def cut_off(folder, share):
    """A store of many pages, and what a copy that broke off left of it."""
    path = folder / "s.sqlite"
    plan = made_up.plan(seeds=40)
    with Store(path, write=True) as store:
        store.add_plan(plan.to_dict())
        made_up.fill(store, plan, values(seeds=40))
        right = {trial: repr(result) for trial, result in store.results(plan.trials).items()}
    os.truncate(path, int(share * path.stat().st_size))
    return path, right


@pytest.mark.parametrize("share", [0.99, 0.8, 0.5])
def test_of_a_copy_that_broke_off_what_is_there_is_salvaged(tmp_path, run, share):
    path, right = cut_off(tmp_path, share)
    before = path.read_bytes()
    code, _, err = run("report", path)
    assert code == 2
    assert "--salvage" in err
    with Store(path, salvage=True) as store:
        found = store.results(list(right))
    assert all(repr(result) == right[trial] for trial, result in found.items())
    assert len(found) > (share - 0.25) * len(right)
    code, out, err = run("report", path, "--salvage", "--trials", tmp_path / "t.jsonl")
    assert code == 0, err
    assert f"salvaged: {len(found)} of {len(right)} trials are whole" in out
    assert "same command continues" not in out
    (merged,) = merge(tmp_path / "new.sqlite", [tmp_path / "t.jsonl"])
    assert merged.taken == len(found)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("s.sqlite")] == ["s.sqlite"]


def test_what_a_killed_writer_left_in_its_log_is_salvaged_too(tmp_path):
    plan, path = made_up.plan(seeds=40), tmp_path / "live" / "s.sqlite"
    path.parent.mkdir()
    copy = tmp_path / "s.sqlite"
    with Store(path, write=True) as store:
        store.add_plan(plan.to_dict())
        made_up.fill(store, plan, values(seeds=40))
        for end in ("", "-wal"):
            shutil.copy(f"{path}{end}", f"{copy}{end}")
    assert Path(f"{copy}-wal").stat().st_size > 0
    os.truncate(copy, max(4096, copy.stat().st_size - 3 * 4096))
    with Store(copy, salvage=True) as store:
        assert len(store.results(plan.trials)) == len(plan.trials)


def test_a_read_only_copy_is_salvaged_by_whoever_may_read_it(tmp_path):
    path, _ = cut_off(tmp_path, 0.8)
    path.chmod(0o444)
    folder = whole_length(path)
    assert os.stat(Path(folder.name) / path.name).st_mode & 0o200  # root could write it in any mode
    folder.cleanup()


def test_trials_are_salvaged_whatever_one_plan_has_become(whole, tmp_path, run):
    path = tmp_path / "s.sqlite"
    for plan in (1, 2):
        shutil.copy(whole, path)
        made_up.version_1(path)  # which has no checksums
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE plan SET content = substr(content, 1, 100) WHERE id = ?", (plan,))
        connection.close()
        text = tmp_path / f"{plan}.jsonl"
        code, _, err = run("report", path, "--salvage", "--trials", text)
        assert code == 0, err
        (merged,) = merge(tmp_path / f"{plan}.sqlite", [text])
        assert merged.taken == 10


def test_of_a_tuned_store_what_chose_its_rates_is_asked_for(tmp_path):
    made = study.plan("digits", ["equal"], seeds=3, epochs=1, tune=3)
    path = tmp_path / "s.sqlite"
    with Store(path, write=True) as store:
        store.add_plan(made.to_dict())
        for trial in tried(made):
            store.add_result(trial, made_up.result(dict.fromkeys(trial.tasks, 0.5)))
    assert not {*tried(made)} & {*made.trials}
    with Store(path, salvage=True) as store:
        assert {*_planned(store)} >= {trial.key for trial in tried(made)}


def test_a_whole_store_has_no_need_of_it(whole, tmp_path, run):
    path = tmp_path / "s.sqlite"
    shutil.copy(whole, path)
    assert judge(path, salvage=True) == judge(path)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM trial WHERE key = ?", (made_up.plan().trials[0].key,))
    connection.close()
    assert "same command continues" in run("report", path, "--salvage")[1]


def test_damage_that_comes_while_it_is_open_is_named(tmp_path):
    path, _ = cut_off(tmp_path, 1.0)
    with Store(path) as store:
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(8192)
            file.write(b"\xff" * (size - 8192))
        store._database.connection.execute("PRAGMA shrink_memory")  # what was read is forgotten
        with pytest.raises(DamagedStoreError):
            store._keys("trial")


def test_what_cannot_be_salvaged_is_not_advised_to_be(tmp_path, run):
    path, _ = cut_off(tmp_path, 0.01)
    for content in (path.read_bytes()[:5000], path.read_bytes()[:3000]):
        path.write_bytes(content)
        code, _, err = run("report", path, "--salvage")
        assert code == 2
        assert str(path) in err.replace("\n", "")
        assert "--salvage" not in err
        assert "Traceback" not in err


def test_of_damaged_plans_the_last_whole_one_is_salvaged(whole, tmp_path):
    path = tmp_path / "s.sqlite"
    shutil.copy(whole, path)
    for plan, expected in ((2, 2), (1, None)):
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE plan SET content = content || ' ' WHERE id = ?", (plan,))
        connection.close()
        with pytest.raises(DamagedStoreError, match="'plan'"):
            judge(path)
        if expected:
            assert len(judge(path, salvage=True).seeds) == expected
        else:
            with pytest.raises(StoreError, match=r"no plan in .* is whole"):
                judge(path, salvage=True)


def test_damage_of_a_log_that_a_killed_writer_left_gives_an_earlier_state_or_an_error(tmp_path):
    """SQLite drops a damaged part of the log and all that follows: trials that are then missing are trained anew."""
    plan, path = made_up.plan(), tmp_path / "live.sqlite"
    copy = tmp_path / "copy" / "s.sqlite"
    copy.parent.mkdir()
    states = []
    with Store(path, write=True) as store:
        store.add_plan(plan.to_dict())
        states.append(store.results(plan.trials))
        for number, trial in enumerate(plan.trials):
            store.add_result(trial, made_up.result(dict.fromkeys(trial.tasks, 0.5 + number / 100)))
            states.append(store.results(plan.trials))
        main, log = path.read_bytes(), path.with_name("live.sqlite-wal").read_bytes()
    draw, complete = random.Random(3), 0
    for _ in range(FLIPS // 2):
        for file in copy.parent.iterdir():
            file.unlink()
        copy.write_bytes(main)
        copy.with_name("s.sqlite-wal").write_bytes(damaged(log, draw))
        try:
            with Store(copy) as store:
                store.latest_plan()
                found = store.results(plan.trials)
        except StoreError:
            continue
        assert found in states
        complete += found == states[-1]
    assert complete < FLIPS // 4


def test_a_store_of_the_first_version_opens_and_gets_checksums_when_it_is_written(whole, tmp_path):
    path = tmp_path / "s.sqlite"
    shutil.copy(whole, path)
    made_up.version_1(path)
    before = path.read_bytes()
    assert repr(judge(path)) == repr(judge(whole))
    assert path.read_bytes() == before  # reading changes nothing
    with Store(path, write=True) as store:
        assert len(store.finished()) == 9
    assert repr(judge(path)) == repr(judge(whole))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE trial SET written = written + 1")
    connection.close()
    with pytest.raises(DamagedStoreError):
        judge(path)


def test_neither_the_version_nor_a_missing_checksum_switches_the_checks_off(whole, tmp_path):
    path = tmp_path / "s.sqlite"
    for statement in ("PRAGMA user_version = 1", "UPDATE trial SET checksum = NULL", "UPDATE plan SET checksum = ''"):
        shutil.copy(whole, path)
        with sqlite3.connect(path) as connection:
            connection.execute(statement)
        connection.close()
        with pytest.raises(DamagedStoreError):
            judge(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7", '{"test": 3}', '{"test": {"left": "a"}, "last": {}}'])
@pytest.mark.parametrize("column", ["result", "curves", "content"])
def test_json_that_is_damaged_in_a_store_without_checksums_is_named(whole, tmp_path, column, text):
    path = tmp_path / "s.sqlite"
    shutil.copy(whole, path)
    made_up.version_1(path)
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE {'plan' if column == 'content' else 'trial'} SET {column} = ?", (text,))
    connection.close()
    with pytest.raises(DamagedStoreError, match=r"damaged|cannot be read"):
        judge(path)


def test_a_damaged_checkpoint_is_said_and_not_loaded(tmp_path):
    import torch

    trial, path, draw = made_up.plan().trials[0], tmp_path / "t.pt", random.Random(4)
    save_checkpoint(path, trial, {"network": {"weight": torch.arange(40.0)}, "epoch": 3})
    content = path.read_bytes()
    assert load_checkpoint(path, trial)["epoch"] == 3
    for _ in range(FLIPS):
        hurt = damaged(content, draw)
        path.write_bytes(hurt)
        if hurt == content:
            continue
        with pytest.warns(SteelyardWarning, match="its trial starts anew"):
            assert load_checkpoint(path, trial) is None
    for length in (0, 1, 30, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.warns(SteelyardWarning, match="its trial starts anew"):
            assert load_checkpoint(path, trial) is None


def test_a_plan_of_another_form_is_named():
    with pytest.raises(DamagedStoreError, match=r"cannot be read: .*missing .*'tasks'"):
        Plan.from_dict({"seeds": [1]})


def test_a_plan_of_whatever_form_is_judged_or_named(whole, tmp_path):
    """JSON of a store of the first version, which has no checksums: values of other types, missing, twice, renamed."""
    path, draw, named = tmp_path / "s.sqlite", random.Random(5), 0
    right = json.loads(json.dumps(made_up.plan().to_dict()))
    shutil.copy(whole, path)
    made_up.version_1(path)
    for _ in range(FLIPS):
        content = json.dumps(spoilt(copy.deepcopy(right), draw))
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE plan SET content = ?", (content,))
        connection.close()
        try:
            page(judge(path))
        except SteelyardError as error:
            assert "cannot be read" in str(error) or "damaged" in str(error), content  # noqa: PT017
            named += 1
    assert named > FLIPS / 3


def spoilt(tree, draw):
    """One value somewhere in a tree of JSON is another one."""
    values = [None, -1, 0, 1.5, "", "text", "\x1b[31m", [], {}, [1], {"a": 1}, True, 10**30, [[]], "digits@"]
    node, places = tree, []
    while isinstance(node, dict | list) and node and (not places or draw.random() < 0.8):
        key = draw.choice(list(node)) if isinstance(node, dict) else draw.randrange(len(node))
        places.append((node, key))
        node = node[key]
    node, key = places[-1]
    how = draw.random()
    if how < 0.7:
        node[key] = draw.choice(values)
    elif how < 0.85:
        del node[key]
    elif isinstance(node, dict):
        node[f"{key}s"] = node.pop(key)
    else:
        node.append(copy.deepcopy(node[key]))
    return tree
