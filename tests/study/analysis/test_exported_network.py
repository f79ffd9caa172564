"""A trained network as a program of torch.export: the study's outputs without the study."""

import io
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from steelyard import study
from steelyard.errors import ArchitectureError, UnknownNameError
from steelyard.models import architecture_names, build
from steelyard.problems import Data
from steelyard.study.analysis.exported_network import exported
from steelyard.study.analysis.trained_network import TrainedNetwork
from study.in_process import InProcess
from study.training.small_problem import made

METHODS = ["single-task", "equal", "uw{left|right +left}"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("kept") / "s.sqlite"
    options = {"seeds": 1, "epochs": 1, "on": InProcess(), "keep": "all", "progress": False}
    study.compare("digits", METHODS, store=path, **options)
    return path


def loaded(content):
    return torch.export.load(io.BytesIO(content)).module()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.takes("the first of them waits for a study and for torch.export's imports")
def test_it_gives_the_networks_outputs_for_any_number_of_rows(store, method):
    trained = study.network(store, method)
    program, inputs = loaded(exported(trained)), trained.problem.data().test.inputs
    for rows in (2, 7, 40):
        expected = trained.predict(inputs[:rows])
        found = program(inputs[:rows])
        assert list(found) == list(expected)
        for task, outputs in expected.items():
            torch.testing.assert_close(found[task], outputs)


QUICK = ("hard-sharing", "mmoe", "mtan")


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(each, marks=[] if each in QUICK else pytest.mark.slow("torch traces a network for seconds"))
        for each in architecture_names()
    ],
)
def test_every_architecture_can_be_exported(architecture):
    problem = made(trunk=lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 6)))
    network = build(problem, problem.task_names, 0, architecture)
    trained = TrainedNetwork(problem, [(problem.task_names, network)], (0,)).eval()
    inputs = problem.data().test.inputs
    expected, found = trained.predict(inputs), loaded(exported(trained))(inputs)
    for task, outputs in expected.items():
        torch.testing.assert_close(found[task], outputs)


class Untraceable(nn.Module):
    def forward(self, x):
        return x * 2 if float(x.sum()) > 0 else x


def test_what_torch_cannot_trace_is_an_error_with_its_reason_and_what_to_take_instead():
    problem = made(trunk=Untraceable)
    trained = TrainedNetwork(problem, [(("kind",), Both())], (0,))
    with pytest.raises(ArchitectureError) as raised:
        exported(trained)
    first, reason, last = re.fullmatch(r"(.*?: )(.*)(\. Take its .*)", str(raised.value)).groups()
    assert first == "torch.export makes no program of this network: "
    assert reason == str(raised.value.__cause__).strip().splitlines()[0]
    assert last == (
        ". Take its weights instead, with --out model.safetensors, or the module, with steelyard.study.network"
    )


class Both(nn.Module):
    def forward(self, x):
        return {"kind": Untraceable()(x)}, x


def test_a_program_that_computes_something_else_is_refused():
    problem = made(prepare=lambda x: x + torch.rand(x.shape))
    trained = TrainedNetwork(problem, [(("kind",), Plain())], (0,))
    with pytest.raises(ArchitectureError) as raised:
        exported(trained)
    assert str(raised.value) == (
        "the program that torch.export makes of this network gives other outputs for 'kind' (does prepare() draw at "
        "random?): take its weights instead, with --out model.safetensors"
    )


def test_of_rows_that_are_read_when_they_are_needed_no_program_is_made():
    problem = made()
    apart = SimpleNamespace(eval=lambda: apart, cpu=lambda: apart, problem=SimpleNamespace(data=lambda: Data(*"123")))
    with pytest.raises(ArchitectureError) as raised:
        exported(apart)
    assert str(raised.value) == (
        "torch.export needs rows of one shape in memory to follow a network: this problem's are read when they are "
        "needed, or are apart for each task. Take its weights instead, with --out model.safetensors"
    )
    trained = TrainedNetwork(problem, [(("kind",), Plain())], (0,))
    mark = {"steelyard-network": ""}
    torch.export.load(io.BytesIO(exported(trained)), extra_files=mark)
    assert mark == {"steelyard-network": "1"}


class Plain(nn.Module):
    def forward(self, x):
        return {"kind": x}, x


@pytest.mark.takes("torch is imported by a process that has no Steelyard")
def test_the_command_writes_a_file_that_runs_without_steelyard(store, tmp_path, run):
    out = tmp_path / "model.pt2"
    for _ in range(2):  # its own file may be written again
        code, said, _ = run("export", store, "--method", "single-task", "--task", "left", "--out", out)
        assert code == 0
        assert "single-task of seed 0" in said
    lines = f"""
import sys, torch
outputs = torch.export.load({str(out)!r}).module()(torch.zeros(6, 121))
print({{task: list(found.shape) for task, found in outputs.items()}}, "steelyard" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'left': [6, 10]} False"
    assert run("export", store, "--method", "equal", "--task", "lefty", "--out", out)[0] == 2
    out.write_bytes(b"mine")
    assert run("export", store, "--method", "equal", "--out", out)[0] == 2
    assert out.read_bytes() == b"mine"


def test_the_network_of_a_task_alone(store):
    trained = study.network(store, "uw{left|right +left}")
    assert list(trained.only("right")(torch.zeros(2, 121))) == ["right"]
    with pytest.raises(UnknownNameError, match="task of the network"):
        trained.only("middle")
