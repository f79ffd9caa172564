"""What a stage in front hands on must be what its reader is defined for."""

from __future__ import annotations

import pytest

import steelyard
from loss_sequences import call
from steelyard.errors import LossError


@pytest.mark.parametrize(("spec", "reader"), [("log+ema", "ema"), ("log+gls", "gls"), ("log+log", "LogLosses")])
def test_negative_log_losses_are_refused_by_readers_of_positive_losses(spec: str, reader: str) -> None:
    balancer = steelyard.make(spec, ["left", "right"])
    call(balancer, {"left": 3.0, "right": 20.0})
    with pytest.raises(LossError, match=rf"'right' is negative \(-0.693.*{reader}, which reads it after the stages"):
        call(balancer, {"left": 3.0, "right": 0.5})


@pytest.mark.parametrize("spec", ["log+equal", "log+random", "log+slaw", "log+softadapt", "log", "ema-scale+log"])
def test_others_read_them(spec: str) -> None:
    weights, value = call(steelyard.make(spec, ["left", "right"]), {"left": 3.0, "right": 0.5})
    assert all(weight > 0 for weight in weights.values())
    assert value == value
