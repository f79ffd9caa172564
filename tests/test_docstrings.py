"""Every public class and function shows how it is used, and what it shows is so."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

import steelyard
import steelyard.grouping
import steelyard.models
import steelyard.problems
import steelyard.study
import steelyard.testing
from steelyard.gradients.layers import gramian_of
from steelyard.methods import bases
from steelyard.models.build_network import architecture_class, architecture_names

WITHOUT = {
    # Aliases and tables are no objects of their own; errors say what to do when they are raised.
    "CHECKS",
    "Make",
    "Part",
    "__version__",
}


def _public() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for module in (
        steelyard,
        steelyard.problems,
        steelyard.models,
        steelyard.study,
        steelyard.grouping,
        steelyard.testing,
    ):
        found |= {name: getattr(module, name) for name in module.__all__}
    found |= {row.cls.__name__: row.cls for row in steelyard.methods()}
    found |= {architecture_class(name).__name__: architecture_class(name) for name in architecture_names()}
    found |= {"gramian_of": gramian_of, "GramianBalancer": bases.GramianBalancer}
    found |= {"AuxiliaryBalancer": bases.AuxiliaryBalancer, "AsymmetricTransfer": steelyard.AsymmetricTransfer}
    raised = (BaseException,)
    return {
        name: each
        for name, each in found.items()
        if name not in WITHOUT and not (inspect.isclass(each) and issubclass(each, raised))
    }


PUBLIC = _public()
ELSEWHERE = {"torchmetric"}
"""Whose example needs a package that is not installed here: it runs in ``tests/integrations``."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where examples write; ``digits.sqlite`` in it is the store of a small study."""
    found = tmp_path_factory.mktemp("examples")
    steelyard.study.compare(
        "digits", ["single-task", "equal"], store=found / "digits.sqlite", seeds=1, epochs=1, progress=False
    )
    return found


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in ELSEWHERE])
def test_it_has_an_example_that_runs(name: str, folder: Path) -> None:
    subject = PUBLIC[name]
    text = inspect.getdoc(subject) or inspect.getdoc(type(subject)) or ""
    names = {"steelyard": steelyard, "torch": torch, "nn": torch.nn, "folder": folder}
    test = doctest.DocTestParser().get_doctest(text, dict(names), name, None, 0)
    assert test.examples, f"{name} has no example in its docstring"
    said: list[str] = []
    torch.manual_seed(0)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)
