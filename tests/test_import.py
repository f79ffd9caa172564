"""The balancing half needs torch alone, and imports quickly."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

import steelyard

STUDY_ONLY = ("numpy", "scipy", "sklearn", "rich", "typer", "jinja2", "pooch")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.takes("torch is imported by a process of its own")
def test_the_balancing_half_imports_torch_alone_and_adds_little_to_it() -> None:
    """Loaded modules, not seconds: steelyard brings its own and nothing else that torch has not."""
    blocked = "\n".join(f"sys.modules[{name!r}] = None" for name in STUDY_ONLY if name != "numpy")
    code = f"""
import sys, torch, torch.func, importlib.metadata
before = set(sys.modules)
import steelyard
brought = sorted(name for name in set(sys.modules) - before if not name.startswith("steelyard"))
{blocked}
import steelyard.testing
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
print(brought)
print([name for name in sys.modules if name.startswith(("steelyard.study", "steelyard.problems", "steelyard.report"))])
"""
    brought, studies = map(ast.literal_eval, run(code).strip().splitlines()[-2:])
    assert len(brought) <= 5, f"importing steelyard also imports {brought}"
    assert not any(name.split(".")[0] in STUDY_ONLY for name in brought)
    assert studies == []


def test_completion_offers_every_class() -> None:
    classes = {row.cls.__name__ for row in steelyard.methods()}
    assert {"AsymmetricTransfer", "make", "methods", *classes} <= set(dir(steelyard))
    assert all(hasattr(steelyard, name) for name in dir(steelyard))


@pytest.mark.takes("torch is imported by a process of its own")
def test_a_report_does_not_wait_for_scipys_statistics() -> None:
    assert run("import sys, steelyard.report; print('scipy.stats' in sys.modules)").strip() == "False"
