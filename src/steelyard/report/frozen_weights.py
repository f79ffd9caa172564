"""Each method's mean weights as a method of fixed weights, so that a study can test whether its dynamics matter."""

from __future__ import annotations

import math
from dataclasses import replace

from steelyard.base.specs import Spec, SpecPart
from steelyard.io.console import make_console
from steelyard.report.judgement_view import BASELINE
from steelyard.study.judgement import Curve, Judgement
from steelyard.study.planning.arms import parse_arm
from steelyard.study.planning.command_again import with_options

DIGITS = 4
STILL = ("equal", "fixed", "best-fixed")


def frozen_specs(judgement: Judgement) -> list[tuple[str, int, str]]:
    """Method, setting and ``fixed(weights='left: 0.93, right: 1.07')``: means over epochs and seeds, in its network.

    Methods whose weights stand still, those without a finished trial, and those with a trial whose curves were
    shortened, are left out.
    """
    found = []
    for curve in judgement.curves:
        arm = parse_arm(curve.method)
        if curve.method != BASELINE and arm.method.name not in STILL:
            means = _means(curve)
            if means and all(map(math.isfinite, means.values())):
                text = ", ".join(f"{task}: {mean:.{DIGITS}g}" for task, mean in means.items())
                scale = {name: value for name, value in arm.method.options.items() if name == "scale"}
                fixed = Spec((), SpecPart("fixed", {"weights": text, **scale}))
                found.append((curve.method, curve.setting, str(replace(arm, method=fixed, shared=None))))
    return found


def print_frozen(judgement: Judgement, aside: bool = False) -> None:
    """Print them, to be compared in another study; on the error stream where an export is printed."""
    console = make_console(stderr=aside)

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)  # to be copied: no break that is not the terminal's own

    labels = {setting.index: setting.label for setting in judgement.settings}
    found = frozen_specs(judgement)
    say("\nMean weights as methods, to test whether the dynamics matter:")
    for method, setting, spec in found:
        where = f" ({labels[setting]})" if len(labels) > 1 else ""
        say(f"  {method}{where}: {spec}")
    own = [method for method in judgement.methods if method != BASELINE]
    specs = list(dict.fromkeys(spec for *_, spec in found))
    if found and (command := with_options(judgement.command, {"--methods": ",".join([*own, *specs])})):
        say(f"With them:\n  {command}")
    if not found:
        short = any(curve.validation and not curve.weights for curve in judgement.curves)
        none = "no method whose weights move has a finished trial"
        say(f"  none: {'trials were written with --short-curves' if short else none}")


def _means(curve: Curve) -> dict[str, float]:
    """Over the epochs in which the task was present."""
    means = {}
    for task, values in curve.weights.items():
        known = [value for value in values if not math.isnan(value)]
        means[task] = math.fsum(known) / len(known) if known else math.nan
    return means
