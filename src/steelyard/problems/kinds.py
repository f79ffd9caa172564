"""The three common kinds of task, so that a problem file reads ``classification("left", classes=10)``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from steelyard.errors import ProblemError
from steelyard.problems.metrics import accuracy, auc, average_precision, mae, r2, rmse
from steelyard.problems.task import Metric, Task


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    # A label column with gaps arrives as floating point with NaN; labelled rows hold whole numbers.
    return F.cross_entropy(outputs, targets.long())


def _binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(outputs.reshape(targets.shape), targets.to(outputs.dtype))


def _squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(outputs.reshape(targets.shape), targets.to(outputs.dtype))


def classification(
    name: str,
    classes: int,
    metrics: tuple[Metric, ...] = (accuracy,),
    label: str = "",
    equivalence: float = 0.01,
) -> Task:
    """Labels 0 … classes - 1, one logit per class, cross-entropy; judged by accuracy.

    Example:
        >>> from steelyard.problems import classification
        >>> task = classification("digit", classes=10)
        >>> task.outputs, task.metrics[0].name
        (10, 'accuracy')
    """
    if not hasattr(classes, "__index__") or classes < 2:  # NumPy's whole numbers are none of Python's type
        raise ProblemError(
            f"task {name!r}: classes={classes!r} must be a whole number >= 2. A task of yes or no has labels 0 and 1 "
            f"and one logit: binary({name!r}), or classes=2"
        )
    return Task(
        name, _cross_entropy, metrics, outputs=classes, label=label, equivalence=equivalence, classes=int(classes)
    )


def binary(
    name: str,
    metrics: tuple[Metric, ...] = (auc, average_precision, accuracy),
    label: str = "",
    equivalence: float = 0.01,
) -> Task:
    """Labels 0 and 1, a single logit, binary cross-entropy; judged by the area under the ROC curve.

    Example:
        >>> from steelyard.problems import binary
        >>> task = binary("default")
        >>> round(task.loss(torch.zeros(3, 1), torch.tensor([0.0, 1.0, 1.0])).item(), 4)  # log 2
        0.6931
    """
    return Task(name, _binary_cross_entropy, metrics, label=label, equivalence=equivalence)


def regression(
    name: str, metrics: tuple[Metric, ...] = (r2, rmse, mae), label: str = "", equivalence: float = 0.01
) -> Task:
    """A real number, a single output, mean squared error; judged by R².

    Example:
        >>> from steelyard.problems import regression
        >>> regression("torque").loss(torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 1.0])).item()
        2.0
    """
    return Task(name, _squared_error, metrics, label=label, equivalence=equivalence)
