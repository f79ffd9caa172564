"""Exact small problems on ``[T, T]`` matrices, in float64 with relative tolerances."""
