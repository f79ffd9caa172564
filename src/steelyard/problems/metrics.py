"""Ready metrics. Outputs are the head's raw outputs (logits), targets the labelled rows of a split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from steelyard.errors import ProblemError
from steelyard.problems.task import Metric


def _accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Fraction of rows whose largest logit (or, for a single one, whose sign) is right."""
    if outputs.dim() == 1 or outputs.shape[1:].numel() == 1:
        predicted = outputs.reshape(targets.shape) > 0
    else:
        predicted = outputs.argmax(1)
        if predicted.numel() != targets.numel():
            raise ProblemError(
                f"accuracy needs one label for each of {list(predicted.shape)} predictions, got {list(targets.shape)}"
            )
        targets = targets.reshape(predicted.shape)  # of [N, 1], which beside [N] would be stretched
    return float((predicted == targets).double().mean())


def _error_rate(outputs: Tensor, targets: Tensor) -> float:
    return 1.0 - _accuracy(outputs, targets)


def _balanced_error(outputs: Tensor, targets: Tensor) -> float:
    """Mean of the shares of positives and of negatives that the sign of a single logit gets wrong."""
    positive, wrong = targets > 0, (outputs.reshape(targets.shape) > 0) != (targets > 0)
    if positive.all() or not positive.any():
        raise ProblemError(
            f"the balanced error needs labels 0 and 1; the {len(targets)} labelled rows hold one of them"
        )
    return float((wrong[positive].double().mean() + wrong[~positive].double().mean()) / 2)


def _pearson(outputs: Tensor, targets: Tensor) -> float:
    """Correlation of outputs and targets; 0 where all outputs are equal, which tells nothing apart."""
    targets = targets.double()
    outputs = outputs.double().reshape(targets.shape)
    ours, theirs = outputs - outputs.mean(), targets - targets.mean()
    if theirs.norm() == 0:
        raise ProblemError(f"the correlation is undefined: all {len(targets)} targets are equal")
    # Rounding leaves a constant row some deviation of its own.
    if ours.norm() <= 1e-12 * outputs.norm():
        return 0.0
    return float((ours * theirs).sum() / (ours.norm() * theirs.norm()))


def _residuals(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    targets = targets.double()
    return outputs.double().reshape(targets.shape) - targets, targets


def _r2(outputs: Tensor, targets: Tensor) -> float:
    """1 - Σ(o - y)² / Σ(y - ȳ)²."""
    residuals, targets = _residuals(outputs, targets)
    total = (targets - targets.mean(0)).square().sum()
    if total == 0:
        raise ProblemError(f"R² is undefined: all {len(targets)} targets are equal")
    return float(1 - residuals.square().sum() / total)


def _rmse(outputs: Tensor, targets: Tensor) -> float:
    return float(_residuals(outputs, targets)[0].square().mean().sqrt())


def _mae(outputs: Tensor, targets: Tensor) -> float:
    return float(_residuals(outputs, targets)[0].abs().mean())


def _ranking(name: str, score: str) -> Callable[[Tensor, Tensor], float]:
    def function(outputs: Tensor, targets: Tensor) -> float:
        import sklearn.metrics  # slow to import; only problems with binary tasks need it

        if not torch.isfinite(outputs).all():
            return float("nan")  # a diverged network has no ranking; the study reports it as such
        low, high = float(targets.min()), float(targets.max())
        if (low, high) != (0, 1):
            found = f"only {low:g}" if low == high else f"{low:g} to {high:g}"
            raise ProblemError(f"{name} needs labels 0 and 1; the {len(targets)} labelled rows hold {found}")
        scored: Any = getattr(sklearn.metrics, score)(targets.numpy(), outputs.reshape(targets.shape).numpy())
        return float(scored)

    return function


accuracy = Metric("accuracy", _accuracy, higher_is_better=True, ideal=1.0, percent=True)
error_rate = Metric("error", _error_rate, higher_is_better=False, ideal=0.0, percent=True)
balanced_error = Metric("balanced error", _balanced_error, higher_is_better=False, ideal=0.0, percent=True)
pearson = Metric("correlation", _pearson, higher_is_better=True, ideal=1.0)
r2 = Metric("R²", _r2, higher_is_better=True, ideal=1.0)
rmse = Metric("RMSE", _rmse, higher_is_better=False, ideal=0.0)
mae = Metric("MAE", _mae, higher_is_better=False, ideal=0.0)
auc = Metric("AUC", _ranking("AUC", "roc_auc_score"), higher_is_better=True, ideal=1.0)
average_precision = Metric(
    "AP", _ranking("average precision", "average_precision_score"), higher_is_better=True, ideal=1.0
)
