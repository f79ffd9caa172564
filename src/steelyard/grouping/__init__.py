"""Which tasks belong together: subsets are measured within a budget, and the best few networks among them chosen."""

from __future__ import annotations

from steelyard.grouping.search import Grouping, Measure, choose, search

__all__ = ["Grouping", "Measure", "choose", "search"]
