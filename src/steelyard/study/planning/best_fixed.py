"""The arm ``best-fixed``: constant weights from a small grid, the best of them chosen on validation data."""

from __future__ import annotations

from collections.abc import Sequence

from steelyard.base.specs import Spec, SpecPart
from steelyard.errors import OptionError, UnknownNameError
from steelyard.method_registry import BEST_FIXED

MAIN_RATIOS = (1.0, 0.0, 0.1, 0.3, 3.0)  # weight of every other task beside the main one
PAIR_RATIOS = (1.0, 0.1, 0.3, 3.0, 10.0)  # weight of the second task beside the first
MANY_RATIOS = (3.0,)  # weight of one task beside the others, each task in turn
FEW_RATIOS = (3.0, 0.3)  # the same of three or four tasks


def candidates(spec: Spec, tasks: Sequence[str], main: str | None) -> tuple[str, ...]:
    """The methods among which ``best-fixed`` chooses, the plain sum first.

    With a main task its weight is 1 and all others share one weight; of two tasks the second weighs so many times as
    the first; of more, each task in turn weighs so many times as the others. ``best-fixed(ratios=(0.3,3))`` gives the
    numbers; the plain sum is always among the candidates.
    """
    if spec.stages:
        raise OptionError(f"{spec}: {BEST_FIXED} takes no stages, its weights are constant")
    for option in spec.options:
        if option != "ratios":
            raise UnknownNameError(f"option of {BEST_FIXED}", option, ["ratios"])
    default = MAIN_RATIOS if main else PAIR_RATIOS if len(tasks) == 2 else FEW_RATIOS if len(tasks) < 5 else MANY_RATIOS
    ratios = _numbers(spec.options.get("ratios", default))
    if main:
        vectors = [{task: 1.0 if task == main else ratio for task in tasks} for ratio in ratios]
    elif len(tasks) == 2:
        vectors = [dict(zip(tasks, (1.0, ratio), strict=True)) for ratio in ratios]
    else:
        vectors = [{task: ratio if task == heavy else 1.0 for task in tasks} for ratio in ratios for heavy in tasks]
    every = [dict.fromkeys(tasks, 1.0), *vectors]
    texts = [", ".join(f"{task}: {weight:g}" for task, weight in vector.items()) for vector in every]
    return tuple(dict.fromkeys(str(SpecPart("fixed", {"weights": text})) for text in texts))


def _numbers(found: object) -> list[float]:
    given = found if isinstance(found, tuple | list) else [found]
    numbers = [float(each) for each in given if isinstance(each, int | float) and not isinstance(each, bool)]
    if len(numbers) < len(given) or not numbers or min(numbers) < 0:
        raise OptionError(f"{BEST_FIXED}: ratios={found!r} must be numbers of at least 0, e.g. ratios=(0.1,1,10)")
    return numbers
