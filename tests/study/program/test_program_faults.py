"""What a program does wrong is refused where it does."""

import pytest
import torch

import steelyard
from steelyard.errors import ProgramError
from steelyard.study.program.program_faults import check_balanced
from steelyard.study.program.step_meter import StepMeter


def test_a_balancer_that_stays_in_eval_is_refused_at_the_first_epoch_without_a_step():
    """It would train the plain sum under every method's name from there on."""
    balancer = steelyard.make("uw", ["a", "b"])
    meter = StepMeter(balancer)

    def step():
        x = torch.tensor(2.0, requires_grad=True)
        balancer({"a": x, "b": x * 2})

    step()
    check_balanced(meter)
    meter.take()
    balancer.eval()
    step()
    with pytest.raises(ProgramError, match=r"not called in training mode since the last report: is it in eval\(\)"):
        check_balanced(meter)
    balancer.train()
    step()
    check_balanced(meter)
