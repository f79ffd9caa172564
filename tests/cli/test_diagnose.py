"""`steelyard diagnose`: a table and words, and wrong input as everywhere."""

import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from helpers import TwoLayer
from steelyard.cli import app as cli
from steelyard.diagnosis.diagnosis import diagnose
from steelyard.problems.template import __file__ as template
from steelyard.report.diagnosis_course import show_course
from steelyard.study.training.diagnose_training import Course, averaged


@pytest.mark.takes("the command trains two epochs")
def test_it_trains_and_tells(run, tmp_path):
    """On a problem file of three tasks with missing labels."""
    (tmp_path / "mine.py").write_text(Path(template).read_text())
    code, out, err = run("diagnose", "mine.py", "--epochs", "2", "--seed", "3")
    assert (code, err) == (0, "")
    told = " ".join(out.split())
    assert "The plain sum, trained for 2 epochs; gradients read at the features" in told
    assert "From the first epoch to the last" in told
    assert "Alignment score" in told
    assert "Against the exact gradients of the trunk, 8 looks, the last layer (look=last): cosines correlate" in told
    assert "`steelyard compare` trains each task alone and decides" in told
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["mine.py"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digist"], "Did you mean 'digits'?"),
        (["digits", "--shared", "fetures"], "Did you mean 'features'?"),
        (["digits", "--architecture", "hard"], "unknown architecture 'hard'"),
        (["digits", "--epochs", "0"], "epochs=0"),
        (["digits", "--seed", "-1"], "seed=-1"),
        (["digits", "--tasks", "lft"], "Did you mean 'left'?"),
        (["digits", "--afinity"], "Did you mean '--affinity'?"),
        (["nowhere.py"], "cannot read the problem file"),
        ([], "Missing argument"),
    ],
)
def test_wrong_input_is_named(words, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["steelyard", "diagnose", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert message in printed.err.replace("\n", " ")
    assert "Traceback" not in printed.out + printed.err


@pytest.mark.parametrize("tasks", [1, 2, 12])
def test_any_number_of_tasks_fits_eighty_columns(tasks, capsys):
    losses, features = TwoLayer({f"task-{number}": 1.0 for number in range(tasks)}).losses()
    found = averaged(list(losses), [diagnose(losses, shared=features)] * 2)
    matrix = torch.arange(tasks * tasks, dtype=torch.float64).view(tasks, tasks) * 1e-5
    affinities = {"look-ahead (TAG)": matrix.fill_diagonal_(torch.nan)}
    course = Course("made", "made up", "features", (found, found), found, affinities=affinities)
    show_course(course, Console(width=80, highlight=False))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert f"task-{tasks - 1}" in out
    assert "conflict" in out
    if tasks == 2:
        assert "Affinity: look-ahead (TAG), in units of 1e-05\n" in out
        last = [line.split() for line in out.splitlines() if line.startswith("task-1  ")][-1]
        assert last == ["task-1", "+2.00", "-"]
    if tasks == 12:
        shown = [line.split() for line in out[out.index("helped") :].splitlines()[1:11]]
        assert shown[0] == ["task-11", "task-10", "+1.42"]
        assert shown[-1] == ["task-0", "task-1", "+0.01"]
