"""What a summary says of a reproduction that is not complete."""

from types import SimpleNamespace

import pytest

from steelyard.reproductions.summary import Summary
from study.made_up import judged, plan


@pytest.mark.parametrize(
    ("plain_sum", "studies", "gap", "progress"),
    [
        (2, 1, "Unfinished", "1 of 1 studies, 8 of 9 trials of these."),
        (3, 1, "Not all trials succeeded", "1 of 1 studies, 8 of 9 trials of these, 1 failed."),
        (3, 2, "Unfinished", "1 of 2 studies, 8 of 9 trials of these, 1 failed."),
    ],
)
def test_trials_that_failed_are_not_waited_for(tmp_path, plain_sum, studies, gap, progress):
    right = {"left": 0.9, "right": 0.8}
    values = {"single-task": [right] * 3, "equal": [right, right, None][:plain_sum]}
    outcome = SimpleNamespace(judgement=judged(tmp_path / "s", plan(), values))
    summary = Summary(SimpleNamespace(name="x"), "real", "", (None,) * studies, (outcome,), (), (), 0.0)
    assert not summary.complete
    assert (summary.gap, summary.progress) == (gap, progress)
