"""What one joint network costs."""

from __future__ import annotations

import math

from steelyard.io.lists_and_counts import counted
from steelyard.study.analysis.number_phrases import lowered, method_name
from steelyard.study.analysis.verdict.setting_facts import SettingFacts


def cost(here: SettingFacts) -> list[str]:
    reference = here.plain or (here.strategies[0] if here.strategies else "")
    cost = here.rows[reference].relative_cost if reference else math.nan
    if not math.isfinite(cost) or here.lonely:
        return []
    return [
        f"One joint network ({lowered(method_name(reference))}) trains in {cost:.2f} × the time of "
        f"the {counted(len(here.tasks), 'single-task network')}."
    ]
