"""Problems to study: tasks, data and networks. A user's own file has the same face as a built-in one."""

from steelyard.errors import DataFileError, MissingDataError, ProblemError, ProblemFileError
from steelyard.problems.data import Data
from steelyard.problems.from_torchmetrics import torchmetric
from steelyard.problems.kinds import binary, classification, regression
from steelyard.problems.metrics import (
    accuracy,
    auc,
    average_precision,
    balanced_error,
    error_rate,
    mae,
    pearson,
    r2,
    rmse,
)
from steelyard.problems.network_parameters import Parameters
from steelyard.problems.problem import Problem
from steelyard.problems.problem_registry import load_problem, problem_names
from steelyard.problems.rows import Split
from steelyard.problems.splits import split
from steelyard.problems.task import JointMetric, Metric, Task

__all__ = [
    "Data",
    "DataFileError",
    "JointMetric",
    "Metric",
    "MissingDataError",
    "Parameters",
    "Problem",
    "ProblemError",
    "ProblemFileError",
    "Split",
    "Task",
    "accuracy",
    "auc",
    "average_precision",
    "balanced_error",
    "binary",
    "classification",
    "error_rate",
    "load_problem",
    "mae",
    "pearson",
    "problem_names",
    "r2",
    "regression",
    "rmse",
    "split",
    "torchmetric",
]
