"""The examples that need torch alone run as shown."""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_dict_of_losses(capsys: pytest.CaptureFixture[str]) -> None:
    load("loss_dict").main(steps=40)
    first, last = (eval(line) for line in capsys.readouterr().out.splitlines())
    assert last["loss/sum"] < first["loss/sum"]
    assert "cosine/loss_objectness,loss_box_reg" in last


class TestBurgers:
    def test_the_residual_vanishes_on_a_solution(self) -> None:
        """``u = x / (1 + t)`` solves the equation at any viscosity; ``u = x`` leaves ``u u_x = x``."""
        pinn = load("pinn_burgers")
        points = torch.rand(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        assert pinn.residual(lambda p: p[:, :1] / (1 + p[:, 1:]) + 0 * p[:, :1] ** 2, points).abs().max() < 1e-14
        assert torch.allclose(
            pinn.residual(lambda p: p[:, :1] + 0 * p[:, :1] ** 2 + 0 * p[:, 1:], points), points[:, :1]
        )

    @pytest.mark.slow("a physics-informed network is trained twice")
    def test_both_ways_are_compared_with_the_reference(self, capsys: pytest.CaptureFixture[str]) -> None:
        from steelyard.errors import MissingDataError

        pinn = load("pinn_burgers")
        try:
            points, u = pinn.reference()
        except MissingDataError as error:
            pytest.skip(str(error))
        start = points[:, 1] == 0
        assert torch.allclose(u[start], -(math.pi * points[start, :1]).sin(), atol=1e-6)
        pinn.main(["--steps", "150"])
        printed = re.findall(r"(\w+), seed 0: relative L2 error (\d\.\d+)", capsys.readouterr().out)
        assert [method for method, _ in printed] == ["equal", "upgrad"]
        assert all(0 < float(error) < 0.95 for _, error in printed), "not even better than u = 0"
