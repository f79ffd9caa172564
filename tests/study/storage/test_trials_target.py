"""`steelyard report STORE --trials FILE` overwrites nothing that the store does not hold."""

import pytest

from steelyard.errors import StoreError
from steelyard.study.storage.short_curves import with_short_curves
from steelyard.study.storage.store import Store
from steelyard.study.storage.trials_file import write_rows
from steelyard.study.storage.trials_target import check_target
from study import made_up
from study.storage.test_merging import as_text, filled


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


def test_whole_curves_may_have_no_other_copy(tmp_path):
    whole = filled(tmp_path / "s.sqlite", made_up.plan())
    text, short = as_text(whole, "s.jsonl"), as_text(whole, "t.jsonl", with_short_curves)
    from steelyard.study import merge

    merge(tmp_path / "short.sqlite", [short])
    with pytest.raises(StoreError, match="or not with all of their curves"):
        check_target(text, tmp_path / "short.sqlite")
    check_target(short, tmp_path / "short.sqlite")
    check_target(short, whole)
    check_target(text, whole)
