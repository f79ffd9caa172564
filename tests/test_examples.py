"""The examples that need torch alone run as shown."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

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
