"""What bears on every verdict of a study and so comes before it: networks that were still learning, or never began."""

from __future__ import annotations

import shlex

from steelyard.study.analysis.findings import Findings


def cautions(found: Findings) -> list[str]:
    """What bears on every verdict of a study: networks that were still learning, rates at the edge of those tried."""
    return [*_still_improving(found), *_at_the_edge(found)]


def _still_improving(found: Findings) -> list[str]:
    """A verdict on networks that had not finished learning is a verdict on the number of epochs."""
    plan, results = found.plan, list(found.results.values())
    epochs = plan.epochs
    last = sum(result.chosen_epoch == epochs for result in results)
    if epochs < 2 or last * 2 < len(results) or not results:
        return []
    return [
        f"Validation chose the last epoch in {last} of {len(results)} trainings: they were still improving. Train "
        f"longer before you rely on this, e.g. steelyard compare {shlex.quote(plan.reference)} --epochs {2 * epochs}."
    ]


def _at_the_edge(found: Findings) -> list[str]:
    """Where most networks want the largest rate that was tried, or the smallest, better ones may lie beyond."""
    plan = found.plan
    if plan.tuning is None or not plan.tuning.rates:
        return []
    choices = [choice for method in plan.methods for choice in method.chosen]
    chosen = [rate for choice in choices for rate in choice.learning_rates.values()]
    said, tried = [], len(plan.tuning.rates)
    for word, edge in (("largest", max(plan.tuning.rates)), ("smallest", min(plan.tuning.rates))):
        here = chosen.count(edge)
        if here * 2 > len(chosen):
            said.append(
                f"Validation chose the {word} of {tried} learning rates ({edge:g}) for {here} of {len(chosen)} "
                f"networks: better ones may lie beyond. Try around it: "
                f"steelyard compare {shlex.quote(plan.reference)} --tune {tried} --learning-rate {edge:g}."
            )
    return said
