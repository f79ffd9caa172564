"""What a worker tells of a group of trials."""

import pytest

from steelyard.errors import StoreError
from steelyard.study.running import worker
from steelyard.study.running.events import Alone, Started, Unwritable
from steelyard.study.trial import Trial


@pytest.mark.parametrize("ended", [0, 1, 2])
def test_a_disk_that_is_full_is_told_of_a_trial_that_has_not_ended(monkeypatch, ended):
    """The pool has let go of the others, and could not say whose it is."""
    trials = tuple(
        Trial("digits", "single-task", ("left",), seed, (("left", 1.0),), epochs=1, batch_size=16) for seed in range(3)
    )

    def train_together(trials, *rest, **options):
        yield from ((trial, None) for trial in trials[:ended])
        raise StoreError("cannot write the checkpoint: no space")

    monkeypatch.setattr(worker, "train_together", train_together)
    told = []
    worker.perform(worker.Work("digits", trials, None), lambda place, event: told.append((place, event)))
    told = [(place, event) for place, event in told if not isinstance(event, Started)]
    assert told[:-1] == [(place, Alone()) for place in range(ended)]
    assert told[-1] == (ended, Unwritable("cannot write the checkpoint: no space"))
