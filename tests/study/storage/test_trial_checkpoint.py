"""What becomes of checkpoints that nobody needs any more."""

import fsspec
import pytest

from steelyard.study.storage.trial_checkpoint import checkpoint_of, let_go, load_checkpoint, save_checkpoint
from study import made_up


@pytest.fixture(params=["path", "address"])
def folder(request, tmp_path):
    if request.param == "path":
        return tmp_path / "checkpoints"
    fsspec.filesystem("memory").store.clear()
    return "memory://checkpoints"


def test_checkpoints_of_stored_trials_go_and_others_stay(folder):
    first, second, third = made_up.plan().trials[:3]
    for trial in (first, second):
        save_checkpoint(checkpoint_of(folder, trial), trial, {"epoch": 1})
    let_go(folder, [first, third])
    assert load_checkpoint(checkpoint_of(folder, first), first) is None
    assert load_checkpoint(checkpoint_of(folder, second), second)["epoch"] == 1


def test_no_folder_is_nothing_to_do(folder, tmp_path):
    let_go(folder, made_up.plan().trials)
    (tmp_path / "a file").write_text("")
    let_go(tmp_path / "a file", made_up.plan().trials)
