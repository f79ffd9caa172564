"""Problems and architectures of other packages are found by their entry points, as installed packages have them."""

import pytest
import torch

from steelyard.errors import OptionError, UnknownNameError
from steelyard.models import architecture_names, build
from steelyard.problems import Problem, ProblemError, load_problem, problem_names

MODULE = """
from torch import nn
from steelyard.problems import Problem, regression, split

def load():
    import numpy as np
    return split(np.zeros((10, 3)), {"a": np.arange(10.0), "b": np.ones(10)})

tasks = [regression("a"), regression("b")]
problem = Problem("theirs", tasks, load, lambda: nn.Linear(3, 2), lambda task: nn.Linear(2, 1))

def sized(width=2, kind="plain"):
    return Problem("sized", tasks, load, lambda: nn.Linear(3, width), lambda task: nn.Linear(width, 1))

def nothing(width=2):
    return None
wrong = "not a problem"

class Doubled(nn.Module):
    @classmethod
    def from_problem(cls, problem, tasks, part):
        network = cls()
        network.trunk = part("trunk", problem.trunk)
        build_head = lambda task: part(f"head/{task}", lambda: problem.head(problem.task(task)))
        network.heads = nn.ModuleDict({task: build_head(task) for task in tasks})
        return network

    def forward(self, inputs):
        features = 2 * self.trunk(inputs)
        return {task: head(features) for task, head in self.heads.items()}, features
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A third party's package, laid out as pip installs it."""
    (tmp_path / "their_problems.py").write_text(MODULE)
    info = tmp_path / "their_problems-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-problems\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[steelyard.problems]\ntheirs = their_problems:problem\nwrong = their_problems:wrong\n"
        "sized = their_problems:sized\nnothing = their_problems:nothing\n"
        "[steelyard.architectures]\ndoubled = their_problems:Doubled\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("package")
def test_a_third_party_registers_a_problem_and_an_architecture():
    assert "theirs" in problem_names()
    problem = load_problem("theirs")
    assert isinstance(problem, Problem)
    assert problem.reference == "theirs"
    assert "doubled" in architecture_names()
    plain, doubled = (build(problem, ("a", "b"), 0, name) for name in ("hard-sharing", "doubled"))
    inputs = torch.ones(1, 3)
    assert torch.equal(doubled(inputs)[1], 2 * plain(inputs)[1])


@pytest.mark.usefixtures("package")
def test_an_entry_point_that_is_no_problem_is_named():
    with pytest.raises(ProblemError, match="'wrong' is registered as a str"):
        load_problem("wrong")
    with pytest.raises(ProblemError, match="'nothing' returned NoneType"):
        load_problem("nothing")


@pytest.mark.usefixtures("package")
def test_options_make_another_problem_and_defaults_do_not():
    plain, wide = load_problem("sized"), load_problem("sized(width=7)")
    assert (plain.name, plain.reference) == ("sized", "sized")
    assert (wide.name, wide.reference) == ("sized(width=7)",) * 2
    assert wide.trunk().out_features == 7
    assert load_problem("sized( width = 2,kind=plain)") is plain
    assert load_problem("sized(kind=plain,width=7)") is wide


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("sized(widht=3)", UnknownNameError, "unknown option of sized 'widht'. Did you mean 'width'"),
        ("theirs(width=3)", UnknownNameError, "unknown option of theirs 'width'. Known: optimizer"),
        ("sised(width=3)", UnknownNameError, "unknown problem 'sised'. Did you mean 'sized'"),
        ("log+sized(width=3)", OptionError, "not before a problem"),
        ("sized(3)", OptionError, "write it as key=value"),
    ],
)
def test_what_cannot_be_read_is_named(reference, error, message):
    with pytest.raises(error, match=message):
        load_problem(reference)
