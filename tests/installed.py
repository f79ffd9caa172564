"""What `make dist` asks of a built distribution: `python tests/installed.py dist`, by the Python that has it.

Nothing but torch and the wheel is there: no pytest, no study extra, and not this repository (`-I`).
"""

from __future__ import annotations

import importlib.util
import sys
import tarfile
import zipfile
from pathlib import Path

import torch

import steelyard


def what_the_wheel_holds(wheel: Path) -> None:
    """What is no Python must come along, and nobody's tests."""
    names = zipfile.ZipFile(wheel).namelist()
    assert "steelyard/py.typed" in names, "the wheel is not marked as typed"
    assert any(name.startswith("steelyard/report/templates/") for name in names), "the wheel has no page templates"
    assert any(name.endswith("licenses/LICENSE") for name in names), "the wheel has no licence"
    strangers = [name for name in names if not name.startswith(("steelyard/", "steelyard-"))]
    assert not strangers, f"the wheel installs more than the package: {strangers[:5]}"


def what_the_sdist_holds(sdist: Path) -> None:
    """Enough to build from and to test."""
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    missing = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "tests/installed.py"} - names
    assert not missing, f"the sdist lacks {sorted(missing)}"


def balances() -> None:
    """Two losses, one of them a thousand times the other, in one optimizer's step."""
    torch.manual_seed(0)
    encoder, heads = torch.nn.Linear(4, 8), {"a": torch.nn.Linear(8, 1), "b": torch.nn.Linear(8, 1)}
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    balancer = steelyard.make("inverse-norm", list(heads)).attach(optimizer)
    features = encoder(torch.randn(16, 4))
    losses = {"a": heads["a"](features).square().mean(), "b": 1000 * heads["b"](features).square().mean()}
    before = encoder.weight.clone()
    balancer(losses, shared=features).backward()
    optimizer.step()
    assert not torch.equal(before, encoder.weight)
    assert balancer.metrics()["weight/a"] > balancer.metrics()["weight/b"] > 0


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    assert steelyard.__version__ == wheel.name.split("-")[1] == sdist.name.removesuffix(".tar.gz").split("-")[1]
    assert "site-packages" in str(steelyard.__file__), f"this is not what was installed: {steelyard.__file__}"
    assert importlib.util.find_spec("typer") is None, "the study extra is here: balancing alone is not what is tried"
    what_the_wheel_holds(wheel)
    what_the_sdist_holds(sdist)
    balances()
    print(f"steelyard {steelyard.__version__}: {wheel.name} is installed and balances two losses")
