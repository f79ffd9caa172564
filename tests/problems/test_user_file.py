"""A user's file: which problem is picked, and where an error is said to be."""

import os
import random
from pathlib import Path

import pytest

import steelyard
from damage import damaged
from steelyard.errors import SteelyardError, UnknownNameError
from steelyard.problems import Problem, ProblemFileError, load_problem, problem_names

GOOD = """
from torch import nn
from steelyard.problems import Problem, regression
{name} = Problem("{name}", [regression("a")], None, nn.Identity, nn.Identity)
"""


@pytest.fixture
def write(tmp_path):
    def file(text, name="my_problem.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return file


def test_the_only_problem_is_picked_whatever_its_name(write):
    path = write(GOOD.format(name="mine"))
    problem = load_problem(str(path))
    assert problem.name == "mine"
    assert problem.reference == str(path)


def test_the_variable_problem_comes_first_and_others_by_name(write):
    path = write(GOOD.format(name="problem") + GOOD.format(name="other"))
    assert load_problem(str(path)).name == "problem"
    other = load_problem(f"{path}:other")
    assert (other.name, other.reference) == ("other", f"{path}:other")
    with pytest.raises(UnknownNameError, match="Did you mean 'other'"):
        load_problem(f"{path}:othr")


def test_a_reference_is_absolute_and_loads_again_from_anywhere(write, monkeypatch, tmp_path):
    path = write(GOOD.format(name="mine"))
    monkeypatch.chdir(path.parent)
    reference = load_problem("my_problem.py").reference
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_problem(reference).name == "mine"


def test_an_unchanged_file_gives_the_same_problem_so_that_data_are_loaded_once(write):
    path = write(GOOD.format(name="mine"))
    assert load_problem(str(path)) is load_problem(str(path))


def test_the_fingerprint_follows_the_text_of_the_file(write):
    first = load_problem(str(write(GOOD.format(name="mine")))).fingerprint
    again = load_problem(str(write(GOOD.format(name="mine")))).fingerprint
    edited = load_problem(str(write(GOOD.format(name="mine") + "\n# edited\n"))).fingerprint
    assert first == again != edited


def test_an_edit_of_one_length_in_the_same_second_is_seen(write, monkeypatch):
    """Python's own check of what it compiled before compares the length and the whole second alone."""
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    for name in ("here", "then"):
        path = write(GOOD.format(name=name))
        os.utime(path, (1e9, 1e9))
        assert load_problem(str(path)).name == name
    assert not (path.parent / "__pycache__").exists()


def test_a_neighbour_of_the_file_can_be_imported(write):
    write("WIDTH = 3\n", "neighbour_of_a_problem.py")
    assert load_problem(str(write("import neighbour_of_a_problem\n" + GOOD.format(name="mine")))).name == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = z\n", r"my_problem\.py, line 2: NameError: name 'z' is not defined\n    y = z"),
        ("x = 1\n\ndef f(:\n", r"my_problem\.py, line 3: SyntaxError"),
        ("import no_such_module\n", r"line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("import json\n\njson.loads('{')\n", r"line 3: json.decoder.JSONDecodeError"),
        ("def f():\n    return 1 / 0\n\nf()\n", r"line 2: ZeroDivisionError"),
        ("import sys\nsys.exit(3)\n", r"line 2: SystemExit"),
        ("x = 1\n", "name one Problem `problem`.*it has none"),
        (GOOD.format(name="one") + GOOD.format(name="two"), "it has one, two"),
        ("x = '\0'\n", r"my_problem\.py: SyntaxError: source code string cannot contain null bytes"),
    ],
)
def test_a_broken_file_is_named_with_line_and_error(write, text, message):
    with pytest.raises(ProblemFileError, match=f"(?s){message}"):
        load_problem(str(write(text)))


def test_a_damaged_file_is_a_problem_or_an_error_that_names_it(tmp_path):
    draw, path, named = random.Random(0), tmp_path / "mine.py", 0
    text = Path(steelyard.__file__).with_name("problems").joinpath("template.py").read_bytes()
    for _ in range(300):
        path.write_bytes(damaged(text, draw))
        try:
            assert isinstance(load_problem(str(path)), Problem)
        except SteelyardError as error:
            assert "mine.py" in str(error) or "problem" in str(error)  # noqa: PT017
            named += 1
    assert 100 < named < 300


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ProblemFileError, match=r"nowhere\.py: No such file"):
        load_problem(str(tmp_path / "nowhere.py"))


def test_an_unknown_name_suggests_the_nearest_and_how_to_give_a_file():
    with pytest.raises(UnknownNameError, match=r"Did you mean 'multi-mnist'.*steelyard new"):
        load_problem("multimnist")


@pytest.mark.parametrize("name", problem_names())
def test_every_registered_problem_can_be_named(name):
    problem = load_problem(name)
    assert isinstance(problem, Problem)
    assert problem.name == problem.reference == name
    assert problem.summary
    assert problem.source


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to itself"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, kind):
    path = tmp_path / "my_problem.py"
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "link to itself": lambda: path.symlink_to(path)}[kind]()
    said = {"folder": "it is a folder", "pipe": "it is a pipe", "link to itself": "symbolic links"}[kind]
    with pytest.raises(ProblemFileError, match=f"cannot read the problem file .*{said}"):
        load_problem(str(path))
