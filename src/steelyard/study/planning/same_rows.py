"""Whether the parts of a study's data are what they are called: rows that are learnt from are no test."""

from __future__ import annotations

from collections.abc import Mapping

from steelyard.study.planning.plan import Plan

SAID = {
    ("train", "test"): "The test data are the training data: what is measured is how well rows are learnt by heart",
    ("validation", "test"): (
        "The test data are the validation data, which choose the epoch: values are those of the luckiest one"
    ),
    ("train", "validation"): (
        "The validation data are the training data: the epoch that they choose is the one that knows most by heart"
    ),
}
"""Of two parts, the gravest first: one says enough."""


def same_rows(plan: Plan) -> list[str]:
    """What to say of training, validation and test data that are the same, inputs and labels alike.

    By the digests that the plan holds. No refusal: whether a network can learn a few rows by heart is a fair question,
    and where nothing is chosen by validation data they may be those of the test.
    """
    found = [each for each in (plan.origin.data if plan.origin else ()) if each]
    same = [pair for pair in SAID if any(_alike(digests, *pair) for digests in found)]
    if plan.choose == "last" and plan.tuning is None and ("validation", "test") in same:
        same.remove(("validation", "test"))
    return [f"{SAID[pair]}. Give Data(train, validation, test) other rows each, as split() does." for pair in same[:1]]


def _alike(digests: Mapping[str, str], one: str, other: str) -> bool:
    """Whether all tensors of one part are those of another (``inputs of train``, ``'kind' of train of 'kind'``).

    Other labels of the same inputs are other rows: the nodes of one graph.
    """
    first, second = (
        {name.replace(f" of {part}", " of ", 1): value for name, value in digests.items() if f" of {part}" in name}
        for part in (one, other)
    )
    return bool(first) and first == second
