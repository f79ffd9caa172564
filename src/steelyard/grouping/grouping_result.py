"""What `steelyard group` found, judged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steelyard.grouping.affinity_correlation import Affinity
from steelyard.grouping.search import Grouping
from steelyard.study.judgement import Interval, Judgement


@dataclass(frozen=True)
class GroupingResult:
    """What a search found, and what it is worth on test data.

    Attributes:
        judgement: single tasks, one network for all, own networks for those that it hurts, and the grouping, judged.
        arms: these by what they are: ``one for all``, ``own networks``, ``grouping``; the same arm may be several.
        grouping: the networks, with the gains that were measured on validation data.
        over_one: Δm of the grouping minus that of one network for all, on test data.
        over_own: the same against own networks for those that one network for all hurts.
        own_over_one: Δm of own networks for those minus that of one network for all, on test data.
        paid: what networks chosen on one half of the validation rows gained over one for all on the other half; none
            where that is not known. Where it is not above 0, the grouping is one network for all.
        limit: the number of networks that were allowed.
        by_networks: the mean gain on validation data of the best choice of at most so many networks.
        by_budget: the mean gain on validation data after so many subsets, at some twenty numbers of them.
        affinities: what cheaper numbers would have told of the measured gains; nothing was chosen by them.
    """

    judgement: Judgement
    arms: Mapping[str, str]
    grouping: Grouping
    over_one: Interval | None
    over_own: Interval | None
    own_over_one: Interval | None
    by_networks: Mapping[int, float]
    by_budget: Sequence[tuple[int, float]]
    affinities: Sequence[Affinity] = ()
    paid: float | None = None
    limit: int = 1

    @property
    def recommended(self) -> str:
        """``one for all``, unless the grouping or own networks are better than that on test data, by their interval.

        Of two that are, the better one on average. Validation data proposes, and has no say here: where they are few,
        what they call better may be worse. With one seed there are no intervals, and what they chose stands.
        """
        better = {"grouping": self.over_one, "own networks": self.own_over_one}
        known = [over for over in better.values() if over is not None]
        if known and all(over.low == -math.inf for over in known):
            return "grouping"
        shown = {what: over.mean for what, over in better.items() if over is not None and over.low > 0}
        return max(shown, key=lambda what: shown[what], default="one for all")
