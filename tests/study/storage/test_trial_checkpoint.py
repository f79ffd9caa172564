"""What becomes of checkpoints that nobody needs any more."""

import fsspec
import pytest

from steelyard.study.storage.trial_checkpoint import checkpoint_of, let_go, load_checkpoint, save_checkpoint, tidy
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


def test_tidying_a_folder_leaves_what_is_not_ours(tmp_path):
    """What somebody keeps beside checkpoints in a folder of their own, and that folder; one beside a store may go."""
    chosen, beside = tmp_path / "mine", tmp_path / "s.sqlite.checkpoints"
    for folder in (chosen, beside):
        folder.mkdir()
        (folder / ".steelyard-0123.partial").touch()
    (chosen / "thesis.tar.partial").touch()
    tidy(chosen)
    tidy(beside)
    assert [path.name for path in chosen.iterdir()] == ["thesis.tar.partial"]
    assert not beside.exists()
    (chosen / "thesis.tar.partial").unlink()
    tidy(chosen)
    assert chosen.is_dir()
