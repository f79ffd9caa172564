"""A problem file and its helpers on a machine that has neither: it is loaded there, and is the same."""

import pickle
import subprocess
import sys
import textwrap

import pytest

from steelyard import study
from steelyard.errors import TrainingError
from steelyard.study.running.shipped_modules import Luggage

PROBLEM = """
    import torch
    from torch import nn
    from luggage_helper import WIDTH
    from luggage_package.inside import shift
    from steelyard.problems import classification, split, Problem

    def load():
        x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)) + shift()
        return split(x, {"kind": (x[:, 0] > 0).long(), "sign": (x[:, 1] > 0).long()})

    first = Problem("first", (classification("kind", 2), classification("sign", 2)), load,
                    lambda: nn.Linear(4, WIDTH), lambda task: nn.Linear(WIDTH, task.outputs), batch_size=16, epochs=1)
    second = first
"""
# What a worker does with it, in a process that has never seen the files.
ELSEWHERE = """
    import pickle, sys
    luggage, trial = pickle.load(sys.stdin.buffer)
    from steelyard.study.running.worker import Work, perform
    told = []
    for _ in range(2):  # unpacked once
        reference, origin = luggage.unpack()
    perform(Work(reference, (trial,), None, origin), lambda place, event: told.append(event))
    sys.stdout.buffer.write(pickle.dumps((reference, told)))
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "home" / "luggage_package").mkdir(parents=True)
    (tmp_path / "home" / "luggage_package" / "__init__.py").write_text("BASE = 0.25\n")
    (tmp_path / "home" / "luggage_package" / "inside.py").write_text(
        "from . import BASE\ndef shift():\n    return BASE\n"
    )
    (tmp_path / "home" / "luggage_helper.py").write_text("WIDTH = 8\n")
    path = tmp_path / "home" / "mine.py"
    path.write_text(textwrap.dedent(PROBLEM))
    yield path
    for name in [name for name in sys.modules if name.startswith("luggage_")]:
        del sys.modules[name]


def elsewhere(luggage, trial):
    command = [sys.executable, "-c", textwrap.dedent(ELSEWHERE)]
    done = subprocess.run(command, input=pickle.dumps((luggage, trial)), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return pickle.loads(done.stdout)


@pytest.mark.takes("torch is imported by a process that lacks the files")
def test_a_problem_of_several_files_is_the_same_where_they_are_not(file, tmp_path):
    plan = study.plan(f"{file}:second", ["equal"], seeds=1)
    luggage = Luggage.of(plan.reference, plan.origin)
    here = study.run(plan, tmp_path / "s.sqlite", progress=False).cells[0].values[0]
    assert luggage.unpack()[0] == plan.reference  # what lies there is used there
    file.parent.rename(tmp_path / "moved")
    reference, told = elsewhere(luggage, plan.trials[0])
    assert reference != plan.reference
    assert [type(event).__name__ for event in told if type(event).__name__ != "Epoch"] == ["Started", "Finished"], told
    assert told[-1].result.test["kind"][0] == here


def test_what_was_changed_since_is_not_sent(file):
    plan = study.plan(f"{file}:first", ["equal"], seeds=1)
    (file.parent / "luggage_helper.py").write_text("WIDTH = 9\n")
    with pytest.raises(TrainingError, match="was changed while the study was running"):
        Luggage.of(plan.reference, plan.origin)


def test_a_registered_problem_travels_by_its_name():
    plan = study.plan("digits", ["equal"], seeds=1, epochs=1)
    luggage = Luggage.of(plan.reference, plan.origin)
    assert luggage.texts == ()
    assert luggage.unpack() == ("digits", plan.origin)
