"""`steelyard report STORE --trials FILE` overwrites nothing that the store does not hold."""

import sqlite3

import pytest

from steelyard.errors import StoreError
from steelyard.study import merge
from steelyard.study.storage.short_curves import with_short_curves
from steelyard.study.storage.store import Store
from steelyard.study.storage.trials_file import write_rows
from steelyard.study.storage.trials_target import check_target
from steelyard.study.trial import Failed
from study import made_up
from study.planning.test_merging import as_text, filled


def test_nothing_of_the_users_is_overwritten(tmp_path):
    store = filled(tmp_path / "s.sqlite", made_up.plan())
    with Store(store) as opened:
        rows = list(opened.rows())
    with pytest.raises(StoreError, match=r"ends in \.jsonl or \.jsonl\.xz"):
        check_target(tmp_path / "all.json", store)
    mine = tmp_path / "mine.jsonl"
    check_target(mine, store)
    for theirs in (b'{"my": "data"}\n', b"\x89PNG\xff", b"\xfd7zXZ"):
        for name in ("mine.jsonl", "mine.jsonl.xz"):
            (tmp_path / name).write_bytes(theirs)
            with pytest.raises(StoreError, match="is no file of trials"):
                check_target(tmp_path / name, store)
    write_rows(mine, rows)
    check_target(mine, store)
    mine.write_bytes(mine.read_bytes()[:-30])
    check_target(mine, store)  # one of ours that was cut off
    packed = tmp_path / "mine.jsonl.xz"
    packed.unlink()
    write_rows(packed, rows)
    packed.write_bytes(packed.read_bytes()[:-30])
    check_target(packed, store)


@pytest.mark.parametrize("name", ["o.jsonl", "o.jsonl.xz"])
def test_trials_of_another_store_may_have_no_other_copy(tmp_path, name):
    plan = made_up.plan()
    store = filled(tmp_path / "s.sqlite", plan, lambda trial: trial.seed == 0)
    other = as_text(filled(tmp_path / "o.sqlite", plan), name)
    more = sum(trial.seed != 0 for trial in plan.trials)
    with pytest.raises(StoreError, match=f"holds {more} trials that .*s.sqlite does not hold"):
        check_target(other, store)
    if name == "o.jsonl":  # cut off, and still the only copy of what is before its end
        other.write_bytes(other.read_bytes()[:-30])
        with pytest.raises(StoreError, match=f"holds {more - 1} trials"):
            check_target(other, store)
    check_target(as_text(store, name), filled(tmp_path / "w.sqlite", plan))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("trials/1", "trials/2", 1), r"what cannot be read .*of another version"),
        (lambda text: text.replace('"checksum": "', '"checksum": "0', 1), r"what cannot be read .*line 2 is not"),
    ],
)
def test_of_a_file_that_cannot_be_read_nobody_knows_what_is_in_it(tmp_path, change, message):
    store = filled(tmp_path / "s.sqlite", made_up.plan())
    file = as_text(store, "s.jsonl")
    file.write_text(change(file.read_text()))
    with pytest.raises(StoreError, match=message):
        check_target(file, store)


def test_other_values_and_other_plans_are_not_in_the_store(tmp_path):
    plan = made_up.plan()
    store = filled(tmp_path / "s.sqlite", plan)
    other = as_text(filled(tmp_path / "o.sqlite", plan, steps=11), "o.jsonl")
    with pytest.raises(StoreError, match=f"holds {len(plan.trials)} trials that"):
        check_target(other, store)
    check_target(as_text(filled(tmp_path / "t.sqlite", plan, seconds=99.0), "t.jsonl"), store)  # times alone
    fewer = as_text(filled(tmp_path / "p.sqlite", made_up.plan(seeds=2), lambda trial: False), "p.jsonl")
    with pytest.raises(StoreError, match="holds 1 plan that"):
        check_target(fewer, store)
    with Store(store, write=True) as opened:
        opened.add_failure(plan.trials[0], Failed("ValueError: no", "Traceback"))
    with pytest.raises(StoreError, match="holds 1 trial that"):  # which failed here and finished there
        check_target(as_text(filled(tmp_path / "w.sqlite", plan), "w.jsonl"), store)


def test_a_damaged_store_does_not_write_over_its_own_backup(tmp_path, run):
    plan = made_up.plan()
    store = filled(tmp_path / "s.sqlite", plan)
    backup = as_text(store, "backup.jsonl")
    before = backup.read_text()
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE trial SET result = replace(result, '0.', '9.') WHERE key = ?", (plan.trials[0].key,))
    connection.close()
    code, _, err = run("report", store, "--salvage", "--trials", backup)
    assert (code, "holds 1 trial that" in err) == (2, True)
    assert backup.read_text() == before


def test_trials_are_salvaged_where_no_plan_is_whole(tmp_path, run):
    plan = made_up.plan()
    store = filled(tmp_path / "s.sqlite", plan)
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE plan SET content = '{' || content")
        connection.execute("UPDATE trial SET key = CAST(x'ff00' AS TEXT) WHERE key = ?", (plan.trials[0].key,))
    connection.close()
    code, out, err = run("report", store, "--salvage", "--trials", tmp_path / "t.jsonl")
    assert code == 0, err
    assert "no plan" in err
    assert out.endswith("t.jsonl\n")
    (found,) = merge(tmp_path / "new.sqlite", [tmp_path / "t.jsonl"])
    assert (found.taken, found.plans) == (len(plan.trials) - 1, 0)


def test_whole_curves_may_have_no_other_copy(tmp_path):
    whole = filled(tmp_path / "s.sqlite", made_up.plan())
    text, short = as_text(whole, "s.jsonl"), as_text(whole, "t.jsonl", with_short_curves)
    merge(tmp_path / "short.sqlite", [short])
    with pytest.raises(StoreError, match="does not hold with these values and curves"):
        check_target(text, tmp_path / "short.sqlite")
    check_target(short, tmp_path / "short.sqlite")
    check_target(short, whole)
    check_target(text, whole)
