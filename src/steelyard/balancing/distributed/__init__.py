"""One balance over several ranks: what they say to each other, and when."""

from steelyard.balancing.distributed.states import synchronise

__all__ = ["synchronise"]
