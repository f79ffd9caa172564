"""A problem's code neither ends the program in silence nor moves it to another folder."""

import io
import os
import sys
import textwrap

import pytest

from steelyard import cli, study
from steelyard.errors import ProblemError
from steelyard.problems.guard import guarded
from steelyard.study.running import run_plan
from steelyard.study.running.events import Started
from steelyard.study.running.worker import Work, perform
from steelyard.study.trial import Failed
from study.in_process import MadeUp

PROBLEM = """
    import os, sys
    import torch
    from torch import nn
    from steelyard.problems import Data, Problem, Split, classification
    {head}
    def load():
        {load}
        def split(rows):
            x = torch.linspace(-1, 1, rows)[:, None].expand(rows, 4)
            kind, sign = torch.arange(rows) % 2, (torch.arange(rows) % 3 > 0).long()
            return Split(x.clone(), {{"kind": kind, "sign": sign}})
        return Data(split(40), split(30), split(30))
    def trunk():
        {trunk}
        return nn.Linear(4, 8)
    def prepare(inputs):
        {prepare}
        return inputs
    problem = Problem("mine", (classification("kind", 2), classification("sign", 2)), load, trunk,
                      lambda task: nn.Linear(8, task.outputs), prepare=prepare, batch_size=16, epochs=1)
"""


@pytest.fixture
def write(tmp_path):
    def file(**code):
        path = tmp_path / "mine.py"
        parts = {"head": "", **dict.fromkeys(("load", "trunk", "prepare"), "pass"), **code}
        path.write_text(textwrap.dedent(PROBLEM).format(**parts))
        return path

    return file


@pytest.mark.parametrize("where", ["head", "load", "trunk", "prepare"])
@pytest.mark.parametrize("ending", ["sys.exit(0)", "sys.exit()", "raise SystemExit('done')", "os._exit(0)"])
def test_an_exit_is_an_error_that_names_the_line(write, where, ending):
    path = write(**{where: ending})
    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if ending in text)
    with pytest.raises(ProblemError, match=rf"mine\.py, line {line}: .*[eE]xit"):
        study.plan(str(path), ["equal"], seeds=1)


def test_the_command_ends_with_code_2(write, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["steelyard", "compare", str(write(load="sys.exit(0)"))])
    monkeypatch.setattr("steelyard.study.running.engines.local.start_server", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "sys.exit(0)" in capsys.readouterr().err


def test_an_exit_in_a_worker_fails_its_trial(write, tmp_path):
    path = write(prepare="if (open(__file__ + '.exit').read() == 'yes'): sys.exit(0)")
    flag = tmp_path / "mine.py.exit"
    flag.write_text("no")
    plan = study.plan(str(path), ["equal"], seeds=1)
    flag.write_text("yes")
    told = []
    perform(Work(plan.reference, tuple(plan.trials), None, plan.origin), lambda *event: told.append(event))
    (_, started), (place, failed) = told
    assert place == 0
    assert isinstance(started, Started)
    assert isinstance(failed, Failed)
    assert failed.error == "SystemExit: 0"


@pytest.mark.parametrize("where", ["head", "load", "trunk", "prepare"])
def test_a_change_of_folder_moves_neither_store_nor_page(write, tmp_path, monkeypatch, where):
    class Watched(MadeUp):
        def open(self, job):
            assert job.checkpoints == tmp_path / "steelyard-mine.sqlite.checkpoints"
            return super().open(job)

    (tmp_path / "elsewhere").mkdir()
    path = write(**{where: f"os.chdir({str(tmp_path / 'elsewhere')!r})"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_plan, "load_engine", lambda text: Watched())
    monkeypatch.setattr("steelyard.study.running.engines.local.start_server", lambda: None)
    monkeypatch.setattr(sys, "argv", ["steelyard", "compare", path.name, "--methods", "equal", "--seeds", "1"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert {file.name for file in tmp_path.iterdir() if file.is_file()} == {
        *("mine.py", "steelyard-mine.sqlite", "steelyard-mine.html")
    }
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_guarded_function_is_otherwise_itself():
    @guarded
    def f(a, b=2):
        return a, b

    assert f(1) == (1, 2)
    assert f.__name__ == "f"
    folder = os.getcwd()
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: os.chdir("/") or 1 / 0)()
    assert os.getcwd() == folder


@pytest.mark.parametrize("where", ["head", "load", "trunk", "prepare"])
@pytest.mark.parametrize("kind", ["BaseException", "GeneratorExit", "asyncio.CancelledError"])
def test_an_exception_of_any_kind_is_an_error_that_names_the_line(write, where, kind):
    ending = f"import asyncio; raise type('Own', ({kind},), {{}})('no')"
    path = write(**{where: ending})
    with pytest.raises(ProblemError, match=r"mine\.py, line \d+: .*Own: no"):
        study.plan(str(path), ["equal"], seeds=1)


def test_an_exception_of_any_kind_in_a_worker_fails_its_trial(write):
    plan = study.plan(str(write()), ["equal"], seeds=1)
    told, path = [], write(prepare="raise type('Own', (BaseException,), {})('no')")
    perform(Work(str(path), tuple(plan.trials), None, None), lambda *event: told.append(event))
    assert isinstance(told[-1][1], Failed)
    assert told[-1][1].error.endswith("Own: no")


@pytest.mark.parametrize("where", ["head", "load", "trunk", "prepare"])
def test_what_is_printed_afterwards_is_seen(write, where, capsys):
    study.plan(str(write(**{where: "import io; sys.stdout = sys.stderr = io.StringIO()"})), ["equal"], seeds=1)
    print("seen")
    assert capsys.readouterr().out.endswith("seen\n")


def test_a_closed_output_is_named(write, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with pytest.raises(ProblemError, match=r"closes sys\.stdout"):
        study.plan(str(write(load="sys.stdout.close()")), ["equal"], seeds=1)


def test_processes_that_are_forked_may_end(write):
    line = "os.fork() or os._exit(7); os.wait()"
    study.plan(str(write(head=line, load=line)), ["equal"], seeds=1)
