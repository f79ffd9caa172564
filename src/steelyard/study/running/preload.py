"""What every worker needs, imported once in the server that forks them: torch alone takes seconds.

torch._dynamo is imported by the first optimizer, scikit-learn by the first metric or data set that needs it.
"""

import gc

import sklearn.datasets
import sklearn.metrics  # noqa: F401
import torch._dynamo  # noqa: F401

import steelyard.study.running.engines.local  # noqa: F401
from steelyard.problems.sources import packages_of_modules

packages_of_modules()  # each worker asks for the versions of what its problem imports
# The collector need not visit these modules again in each worker (0.15 s), nor copy their pages by doing so.
gc.collect()
gc.freeze()
