"""`steelyard group`: real networks, small; a stopped one goes on; wrong input ends with a message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steelyard.problems import template

WORDS = ["--budget", "3", "--networks", "2", "--seeds", "2", "--epochs", "2", "--workers", "2"]


@pytest.fixture
def run(run):
    """Where the template stands as my_problem.py."""
    Path("my_problem.py").write_text(Path(template.__file__).read_text())
    return run


@pytest.mark.takes("a dozen small networks in processes of their own")
def test_from_a_problem_to_a_sentence_and_again_from_the_store(run) -> None:
    code, out, err = run("group", "my_problem.py", *WORDS, "--json", "found.json")
    assert code == 0, err
    assert "One network for all tasks: " in out
    told = json.loads(Path("found.json").read_text())
    assert " ".join(told["sentences"]) in " ".join(out.split())
    assert told["command"].startswith("steelyard group my_problem.py --budget 3")
    assert {task for network in told["networks"] for task in network} == {"progression", "bmi", "pressure"}
    assert Path("steelyard-my-problem-group.html").is_file()
    page = Path("steelyard-my-problem-group.html").read_text()
    assert told["sentences"][0].split(":")[0] in page
    again = run("group", "my_problem.py", *WORDS, "--json", "found.json")
    assert again[0] == 0
    assert json.loads(Path("found.json").read_text())["measured"] == told["measured"]
    assert run("report", "steelyard-my-problem.sqlite")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["group"], "Missing argument"),
        (["group", "my_problem.py"], "--budget"),
        (["group", "my_problem.py", "--budget", "0"], "it counts trainings of one network"),
        (["group", "my_problem.py", "--budget", "many"], "many"),
        (["group", "my_problem.py", "--budget", "3", "--networks", "0"], "at least one network"),
        (["group", "my_problem.py", "--budget", "3", "--method", "single-task"], "name one method"),
        (["group", "my_problem.py", "--budget", "3", "--tasks", "bmi"], "the only task"),
        (["group", "my_problem.py", "--budget", "3", "--tasks", "bim"], "Did you mean 'bmi'"),
        (["group", "my_problem.py", "--budget", "3", "--efforts", "half"], "shares of a whole training"),
        (["group", "my_problem.py", "--budget", "3", "--efforts", "1,0.5"], "rise from above 0 to 1"),
        (["group", "my_problem.py", "--budget", "3", "--json", "my_problem.py"], "my_problem.py"),
        (["group", "my_problem.py", "--budget", "3", "--sampling", "odd"], "sampling='odd'"),
        (["group", "my_problem.py", "--budget", "3", "--sampling", "even"], "share their rows"),
        (["group", "nothing.py", "--budget", "3"], "nothing.py"),
    ],
)
def test_wrong_input_ends_with_a_message_and_nothing_written(run, words, said) -> None:
    before = Path("my_problem.py").read_text()
    code, _, err = run(*words)
    assert code == 2
    assert said in err
    assert Path("my_problem.py").read_text() == before
    assert [path.name for path in Path().glob("*.*")] == ["my_problem.py"]
