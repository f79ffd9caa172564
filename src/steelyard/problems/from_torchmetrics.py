"""A metric of torchmetrics by its name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from steelyard.errors import ProblemError, UnknownNameError
from steelyard.problems.task import Metric


def torchmetric(
    name: str,
    *,
    higher_is_better: bool | None = None,
    ideal: float | None = None,
    percent: bool = False,
    **options: Any,
) -> Metric:
    """A metric of the torchmetrics library, over all labelled rows of a split.

    Outputs become what it asks for: with ``task="binary"`` or ``"multilabel"`` the logits' sigmoid, with
    ``"multiclass"`` their softmax, and without a task the outputs in the shape of the targets.

    Args:
        name: of its class, e.g. ``"MatthewsCorrCoef"``, ``"F1Score"``, ``"SpearmanCorrCoef"``.
        higher_is_better, ideal: where torchmetrics does not say which way is better, or what the perfect value is.
        percent: show as a percentage.
        options: of the class: ``task="binary"``, ``num_classes=3``, …

    Raises:
        ProblemError: torchmetrics is not installed, the options do not fit, a value is no single number, or the
            direction is not known.
        UnknownNameError: it has no metric of that name.

    Example:
        >>> from steelyard.problems import binary, torchmetric
        >>> sold = binary("sold", metrics=(torchmetric("MatthewsCorrCoef", task="binary"),))
        >>> sold.metrics[0].function(torch.tensor([[-1.0], [2.0], [0.3]]), torch.tensor([0.0, 1.0, 1.0]))
        1.0
    """
    made = _made(name, options)
    if higher_is_better is None:
        higher_is_better = made.higher_is_better
    if higher_is_better is None:
        raise ProblemError(f"torchmetrics does not say whether a higher {name} is better: give higher_is_better=")
    bound = None
    if ideal is None:
        ideal = bound = made.plot_upper_bound if higher_is_better else made.plot_lower_bound
    task = options.get("task")

    def value(outputs: Tensor, targets: Tensor) -> float:
        fresh = _made(name, options)
        try:
            found = fresh(*_as_asked(task, outputs, targets))
        except (ValueError, RuntimeError, TypeError) as error:
            raise ProblemError(f"torchmetrics' {name}: {error}") from error
        if not isinstance(found, Tensor) or found.numel() != 1:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ProblemError(f"torchmetrics' {name} gives {shape}, not one number: average it, e.g. average='macro'")
        if bound is not None:
            _check_bound(name, float(found), float(bound), bool(higher_is_better))
        return float(found)

    return Metric(name, value, bool(higher_is_better), None if ideal is None else float(ideal), percent)


def _check_bound(name: str, value: float, bound: float, higher_is_better: bool) -> None:
    """The best value is taken from the end of torchmetrics' charts, which sums over rows go beyond."""
    beyond = value - bound if higher_is_better else bound - value
    if beyond > 1e-3 * max(1.0, abs(bound)):
        raise ProblemError(
            f"torchmetrics' {name} gives {value:g}, and the best value by its charts is {bound:g}: if it is a sum over "
            "rows, give reduction='mean', else say what is best, ideal="
        )


def _as_asked(task: str | None, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and targets; with labels such a metric asks for probabilities, and would take small logits for some."""
    if task == "multiclass":
        return outputs.softmax(1), targets.long()
    outputs = outputs.reshape(targets.shape)
    return (outputs, targets) if task is None else (outputs.sigmoid(), targets.long())


def _made(name: str, options: Mapping[str, Any]) -> Any:
    try:
        import torchmetrics
    except ImportError as error:
        raise ProblemError(f"torchmetric({name!r}) needs the torchmetrics package: pip install torchmetrics") from error
    known = [each for each in torchmetrics.__all__ if each[0].isupper()]
    if name not in known:
        raise UnknownNameError("metric of torchmetrics", name, known)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Metric .* will save all targets")  # one split, for a moment
            return getattr(torchmetrics, name)(**options)
    except (TypeError, ValueError) as error:
        raise ProblemError(f"torchmetrics' {name} cannot be made with {dict(options)}: {error}") from error
