"""The table of methods, and methods of other packages."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import steelyard
from steelyard.method_registry import method_names, options_of

PROMISED = """
equal fixed schedule random initial-scale log gls uw uw-revised uw-so uw-o dwa ema cov slaw lbtw imtl-l stch famo
softadapt relobralo coba go4align igb inverse-norm mgda db-mtl max-norm
"""


def test_the_promised_names_are_there() -> None:
    assert set(PROMISED.split()) <= set(method_names())


def test_rows_are_complete() -> None:
    for row in steelyard.methods():
        assert row.cls.name == row.name, f"{row.cls.__name__}.name is {row.cls.name!r}, registered as {row.name!r}"
        assert row.summary, f"{row.name} has no docstring"
        assert len(row.summary) < 110, f"the summary of {row.name} does not fit a table"
        assert "Args:" in (row.cls.__doc__ or ""), f"the docstring of {row.name} has no arguments"


def test_the_table_prints() -> None:
    table = repr(steelyard.methods())
    assert table.splitlines()[0].split() == ["name", "class", "reads", "where", "heads", "cost", "paper"]
    assert len({line.index("  ") for line in table.splitlines()}) >= 1
    assert "db-mtl" in table
    assert "arXiv 2308.12029" in table


def test_options_are_the_methods_own() -> None:
    assert tuple(options_of(steelyard.make("dwa", ["a"]).__class__)) == ("temperature", "period")


def test_classes_are_attributes_of_the_package() -> None:
    assert steelyard.DBMTL(["a"]).name == "db-mtl"
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = steelyard.Nothing


@pytest.mark.takes("torch is imported by a process that finds the package")
def test_another_packages_method_registers_by_entry_point(tmp_path: Path) -> None:
    """A real distribution on the path of a fresh interpreter."""
    (tmp_path / "theirs.py").write_text(
        "import steelyard\n"
        "class Half(steelyard.Balancer):\n"
        "    '''Half of everything.'''\n"
        "    name = 'half'\n"
        "    def weigh(self, seen, state):\n"
        "        return seen.losses * 0 + 0.5\n"
    )
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[steelyard.methods]\nhalf = theirs:Half\n")
    code = (
        "import torch, steelyard\n"
        "b = steelyard.make('log+half', ['a'])\n"
        "b({'a': torch.tensor(2.0, requires_grad=True) * 1})\n"
        "print(b.last_weights.item(), 'half' in [row.name for row in steelyard.methods()])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    weight, listed = output.stdout.split()
    assert float(weight) == pytest.approx(0.25)
    assert listed == "True"


def test_every_class_shows_its_own_signature() -> None:
    for row in steelyard.methods():
        shown = inspect.signature(row.cls)
        assert list(shown.parameters) == list(inspect.signature(row.cls.__init__).parameters)[1:], row.name
    assert "losses" in str(inspect.signature(steelyard.Equal(["a"]).forward))
