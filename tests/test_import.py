"""The balancing half needs torch alone, and imports quickly."""

from __future__ import annotations

import subprocess
import sys

import pytest

import steelyard

STUDY_ONLY = ("numpy", "scipy", "sklearn", "rich", "typer", "jinja2", "pooch")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_the_balancing_half_imports_torch_alone() -> None:
    blocked = "\n".join(f"sys.modules[{name!r}] = None" for name in STUDY_ONLY if name != "numpy")
    code = f"""
import sys

import pytest
{blocked}
import torch, steelyard, steelyard.testing
trunk, x = torch.nn.Linear(3, 3), torch.randn(4, 3)
def losses_of(z):
    return {{"a": z.square().mean(), "b": z.abs().mean()}}
again = steelyard.losses_of(trunk, lambda call, x: losses_of(call(x)), x, held_out=x)
for row in steelyard.methods():
    z = trunk(x)
    losses = losses_of(z)
    options = {{"main": "a"}} if "main" in row.options else {{}}
    place = z if "features" in row.cls.where else trunk
    given = {{"shared": place, "probes": [losses, losses], "again": again}}
    steelyard.make(row.name, ["a", "b"], **options)(losses, **given).backward()
print([name for name in sys.modules if name.startswith(("steelyard.study", "steelyard.problems", "steelyard.report"))])
"""
    assert run(code).strip().splitlines()[-1] == "[]"


def test_completion_offers_every_class() -> None:
    classes = {row.cls.__name__ for row in steelyard.methods()}
    assert {"AsymmetricTransfer", "make", "methods", *classes} <= set(dir(steelyard))
    assert all(hasattr(steelyard, name) for name in dir(steelyard))


def test_import_adds_little_to_torch() -> None:
    """Loaded modules, not seconds: steelyard brings its own and nothing else that torch has not."""
    code = """
import sys, torch, torch.func, importlib.metadata
before = set(sys.modules)
import steelyard
print("\\n".join(sorted(name for name in set(sys.modules) - before if not name.startswith("steelyard"))))
"""
    brought = run(code).split()
    assert len(brought) <= 5, f"importing steelyard also imports {brought}"
    assert not any(name.split(".")[0] in STUDY_ONLY for name in brought)


@pytest.mark.takes("torch is imported by a process of its own")
def test_a_report_does_not_wait_for_scipys_statistics() -> None:
    assert run("import sys, steelyard.report; print('scipy.stats' in sys.modules)").strip() == "False"
