"""What a step over several ranks wants of the gradients, known before any is read."""

from __future__ import annotations

from dataclasses import dataclass

from steelyard.base.method import Method
from steelyard.base.observation import Reads
from steelyard.errors import OptionError
from steelyard.gradients.shared_option import Place


@dataclass(frozen=True, slots=True)
class Asked:
    """What a step wants of the gradients, known before any is read.

    Attributes:
        reads: what the method is shown; weights that are held need nothing.
        at_parameters: whether they are read at parameters, the trunk's or a layer's.
        by_rows: whether the ranks' gradients themselves are summed there, ``T x P`` numbers.
    """

    reads: Reads
    at_parameters: bool
    by_rows: bool

    @classmethod
    def of(cls, method: Method, place: Place | None, refresh: bool) -> Asked:
        reads = _wanted(method, place, refresh)
        at_parameters = place is not None and place.at_parameters
        return cls(reads, at_parameters, at_parameters and (reads == "rows" or method.sync == "exact"))

    @property
    def square(self) -> bool:
        """Whether products of different tasks are needed."""
        return self.at_parameters or self.reads != "norms"

    def products(self, size: int) -> int:
        """How many products of gradients travel beside the losses of ``size`` tasks."""
        if self.reads == "losses" or self.by_rows:
            return 0
        return size**2 if self.square else size


def _wanted(method: Method, place: Place | None, refresh: bool) -> Reads:
    """What the method reads in this step; weights that are held need nothing."""
    if place is None or not refresh:
        return "losses"
    reads = place.asked_by(method)
    if reads == "along":  # what is read is for carrying alone
        return "losses"
    if place.is_trunk and method.sync == "local-mean" and reads == "rows":
        raise OptionError(
            f"sync='local-mean' takes the mean of the ranks' Gramians, and {method.name} reads the task gradients "
            "themselves at the trunk: use sync='exact'"
        )
    return reads
