"""What groups are worth on the half of the validation rows whose gains did not choose them; the noise of one gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from steelyard.grouping.proposals import Subset
from steelyard.grouping.search import Grouping, best_of
from steelyard.grouping.train_subset import Halves


def noise_of(halves: Halves, over_seeds: Mapping[str, float]) -> dict[str, float]:
    """By task, the standard deviation of one measured gain: over seeds, and over validation rows.

    The mean of two halves that differ by d has a variance of about d² / 4; the mean of that over the subsets.

    Args:
        halves: gains on either half of the rows; a task without halves tells nothing of its rows.
        over_seeds: the standard deviation of one seed's gain.
    """
    found = {}
    for task, deviation in over_seeds.items():
        apart = [float(np.ptp(of[task])) for of in halves.values() if task in of]
        rows = float(np.mean(np.square(apart))) / 4 if apart else 0.0
        found[task] = (deviation**2 + rows) ** 0.5
    return found


def paid_on_the_other_half(
    tasks: Sequence[str], halves: Halves, networks: int, noise: Mapping[str, float] | None
) -> float | None:
    """What networks chosen on one half of the validation rows bring over one for all on the other half, on average.

    The largest of many noisy gains is the luckiest, and the luck of a half's rows does not come back on the other half.
    Where a network's values on the halves are noise of their own, what is expected here is no more than 0, whatever was
    promised. They nearly are, not quite: each half is read at the epoch that is best on the other (`values_of`), so
    that the half that judges has chosen the epochs at which the choice was made. Where both halves are best at one
    epoch, both have its luck, and what is left of it here is too much by that. It is a first check; the advice rests
    on test data.

    Args:
        tasks: all tasks.
        halves: gains on either half, the one of all tasks among them.
        networks: the most networks.
        noise: of one measured gain (`noise_of`).

    Returns:
        The mean over tasks with two halves, and over both directions; none where there are none, or nothing is chosen.
    """
    everything = frozenset(tasks)
    judged = [task for task in tasks if all(len(of[task]) == 2 for of in halves.values() if task in of)]
    if everything not in halves or not judged:
        return None
    found = []
    for half in (0, 1):
        here = {
            subset: {task: float(each[half % len(each)]) for task, each in of.items()} for subset, of in halves.items()
        }
        chosen = best_of(tasks, here, networks, noise=noise)
        if chosen is None:
            return None
        for task in judged:
            network = chosen.network_of(task)
            ours = float(halves[network][task][1 - half]) if len(network) > 1 else 0.0
            found.append(ours - float(halves[everything][task][1 - half]))
    return float(np.mean(found))


def only_network(found: Grouping, network: Subset) -> Grouping:
    """One network for all in the place of what was found, which does not pay."""
    gains = dict(found.measured[network])
    served_by = dict.fromkeys(found.tasks, network)
    return Grouping(
        found.tasks, (network,), served_by, gains, 0.0, found.measured, failed=found.failed, spent=found.spent
    )
