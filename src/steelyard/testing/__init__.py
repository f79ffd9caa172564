"""The contract that every method is held to, shipped so that a method of your own can be held to it too.

In a test of your package::

    from steelyard.testing import check_method
    check_method(MyMethod)                       # or check_method(lambda tasks, **o: MyMethod(tasks, beta=0.5, **o))
"""

from __future__ import annotations

from steelyard.testing.contract import CHECKS, Make, check_method

__all__ = ["CHECKS", "Make", "check_method"]
