"""The built-in problems, one file each; `arrays`, `idx`, `overlay`, `surfaces` and `u_net` are what several share.

To add one, write one file and one row below.
"""

from __future__ import annotations

# A Problem; or, for one with options, a function of keywords with defaults that returns one.
PROBLEMS = {
    "digits": "steelyard.problems.builtin.digits:problem",
    "multi-mnist": "steelyard.problems.builtin.multi_mnist:multi_mnist",
    "multi-fashion": "steelyard.problems.builtin.multi_mnist:multi_fashion",
    "mnist-fashion": "steelyard.problems.builtin.multi_mnist:mnist_fashion",
    "digit-reconstruction": "steelyard.problems.builtin.digit_reconstruction:problem",
    "nyuv2": "steelyard.problems.builtin.nyuv2:problem",
    "census": "steelyard.problems.builtin.census:problem",
    "credit-default": "steelyard.problems.builtin.credit_default:problem",
    "gdsc": "steelyard.problems.builtin.gdsc:problem",
    "mnist-imbalanced": "steelyard.problems.builtin.mnist_imbalanced:problem",
    "multi-target": "steelyard.problems.builtin.multi_target:problem",
    "office": "steelyard.problems.builtin.office:problem",
    "qm8": "steelyard.problems.builtin.qm8:problem",
    "sarcos": "steelyard.problems.builtin.sarcos:problem",
    "synthetic-auxiliary": "steelyard.problems.builtin.synthetic_auxiliary:problem",
    "tox21": "steelyard.problems.builtin.tox21:problem",
}
