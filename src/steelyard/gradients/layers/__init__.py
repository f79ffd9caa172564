"""Gramians of one layer's task gradients, without forming those gradients where that is cheaper.

A formula is registered for the autograd node that the layer leaves in the graph. It names the parameters it covers
and turns the gradients that arrive at the node's output into ``⟨g_i, g_j⟩`` over those parameters::

    @gramian_of("AddmmBackward0", LINEAR)
    def linear_with_bias(node): ...

Names of nodes and of what they save are private to torch, so everything that knows them is in this folder; a node that
is not known here, or that does not look as expected, falls back to autograd on its own parameters.

To add a layer, write one file and one row below.
"""

from __future__ import annotations

# One row per kind of layer: a file registers its formulas as it is imported.
from steelyard.gradients.layers import convolution as convolution
from steelyard.gradients.layers import embedding as embedding
from steelyard.gradients.layers import linear as linear
from steelyard.gradients.layers.formula import Formula, Match, gramian_of, match

__all__ = ["Formula", "Match", "gramian_of", "match"]
