"""What one joint network costs."""

from __future__ import annotations

import math

from steelyard.io.lists_and_counts import counted
from steelyard.study.analysis.number_phrases import lowered, method_name
from steelyard.study.analysis.verdict.setting_facts import SettingFacts


def cost(here: SettingFacts) -> list[str]:
    """The time of the plain sum's network, or the first strategy's, over that of all single tasks."""
    reference = here.plain or (here.strategies[0] if here.strategies else "")
    ratio = here.rows[reference].relative_cost if reference else math.nan
    if not math.isfinite(ratio) or here.lonely:
        return []
    return [
        f"One joint network ({lowered(method_name(reference))}) trains in {ratio:.2f} × the time of "
        f"the {counted(len(here.tasks), 'single-task network')}."
    ]
