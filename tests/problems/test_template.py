"""The file that `steelyard new` writes is short, works as it is, and shows a task with missing labels."""

from pathlib import Path

import steelyard.problems.template as template
from steelyard.problems import load_problem
from steelyard.study.training.problem_rehearsal import rehearse


def test_it_is_short_works_and_has_missing_labels():
    path = Path(template.__file__)
    assert len(path.read_text().splitlines()) < 60
    problem = load_problem(str(path))
    data = rehearse(problem)
    labelled = {
        name: float(problem.task(name).labelled(data.train.targets[name]).float().mean()) for name in problem.task_names
    }
    assert labelled["progression"] == labelled["bmi"] == 1
    assert 0.5 < labelled["pressure"] < 0.8
