"""What becomes of checkpoints that nobody needs any more."""

import fsspec
import pytest

from steelyard import study
from steelyard.errors import StoreError
from steelyard.study.storage.trial_checkpoint import (
    as_folder,
    checkpoint_of,
    let_go,
    load_checkpoint,
    save_checkpoint,
    tidy,
)
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


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/steelyard"])
def test_a_folder_that_cannot_be_written_is_told_before_anything_is_trained(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    given = str(tmp_path / place)  # an absolute place stays what it is
    with pytest.raises(StoreError, match=f"cannot keep checkpoints in {given}: .* Choose another folder"):
        as_folder(given)
    made = study.plan("digits", ["equal"], seeds=1, epochs=1)
    with pytest.raises(StoreError, match="cannot keep checkpoints"):
        study.run(made, tmp_path / "s.sqlite", checkpoints=given, progress=False)
    assert study.judge(tmp_path / "s.sqlite").finished == 0
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_is_made_and_left_empty(tmp_path):
    assert as_folder(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
    assert not list((tmp_path / "a" / "b").iterdir())
