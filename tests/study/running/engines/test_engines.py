"""Engines by name: their options, what is refused, and those of other packages."""

import importlib.metadata
import sys

import pytest

from steelyard import study
from steelyard.errors import EngineError, OptionError, StoreError, UnknownNameError
from steelyard.study.running import engines
from steelyard.study.running.engines import engine_names, load_engine
from steelyard.study.running.engines.local import Local
from study import made_up
from study.in_process import MadeUp


def test_the_default_is_a_few_processes_here():
    assert type(load_engine("local")) is Local


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("rai", UnknownNameError, "Did you mean 'ray'"),
        ("", UnknownNameError, "unknown engine ''"),
        ("local(cpus=2)", UnknownNameError, "unknown option of engine local 'cpus'"),
        ("log+local", OptionError, "not before an engine"),
    ],
)
def test_what_is_unknown_is_refused_by_name(text, error, says):
    with pytest.raises(error, match=says):
        load_engine(text)


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_engine_without_its_package_says_what_to_install(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"steelyard.study.running.engines.on_{name}", raising=False)
    with pytest.raises(EngineError, match=rf'pip install "\.\[{name}\]" in a clone of Steelyard'):
        load_engine(name)


def test_another_packages_engine_is_found_by_its_entry_point(monkeypatch, tmp_path):
    entry = importlib.metadata.EntryPoint("made-up", "study.in_process:MadeUp", "steelyard.engines")

    def entry_points(group, name=None):
        return importlib.metadata.EntryPoints(
            [entry] if group == "steelyard.engines" and name in (None, "made-up") else []
        )

    monkeypatch.setattr(engines, "entry_points", entry_points)
    assert "made-up" in engine_names()
    assert isinstance(load_engine("made-up"), MadeUp)
    assert study.run(made_up.plan(), tmp_path / "s.sqlite", on="made-up", progress=False).complete


@pytest.mark.parametrize("folder", ["", "nowhere-at-all://bucket/folder"])
def test_a_folder_for_checkpoints_that_nothing_opens_is_refused_at_once(tmp_path, folder):
    engine = MadeUp()
    with pytest.raises(StoreError, match="checkpoints"):
        study.run(made_up.plan(), tmp_path / "s.sqlite", on=engine, checkpoints=folder, progress=False)
    assert engine.trained == []
