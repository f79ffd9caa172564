"""A program's command: what it is called, what it is written in, and what is missing before it is started."""

import sys

import pytest

from steelyard.errors import ProgramError
from steelyard.study.program.command import LARGEST_FILE, Program


@pytest.fixture
def here(tmp_path):
    (tmp_path / "train.py").write_text("import neighbour\nimport torch\n")
    (tmp_path / "neighbour.py").write_text("import further.below\n")
    (tmp_path / "further").mkdir()
    (tmp_path / "further" / "__init__.py").write_text("")
    (tmp_path / "further" / "below.py").write_text("")
    (tmp_path / "unrelated.py").write_text("")
    (tmp_path / "config.yaml").write_text("rate: 1")
    return tmp_path


def program(folder, *words):
    return Program(words, str(folder))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("python", "train.py"), "train"),
        (("torchrun", "--nproc-per-node", "2", "train.py", "--data", "x"), "train"),
        (("python", "-m", "further.below"), "below"),
        (("torchrun", "-m", "further.below"), "below"),
        (("./run.sh", "fast"), "run.sh"),
    ],
)
def test_it_is_called_by_its_script(here, words, name):
    assert program(here, *words).name == name


def test_its_reference_is_a_line_for_a_shell_and_is_read_back(here):
    made = program(here / "a folder", "python", "train.py", "--text", "it's")
    assert Program.read(made.reference) == made
    assert Program.read("digits") is None
    assert Program.read("my_problem.py") is None


def test_its_sources_are_the_script_what_that_imports_and_small_files_of_the_command(here):
    before = list(sys.path)
    found = program(here, "torchrun", "train.py", "--config", "config.yaml").sources()
    assert set(found) == {"train.py", "neighbour", "further", "further.below", "config.yaml"}
    assert sys.path == before
    assert "further.below" in program(here, "python", "-m", "further.below").sources()


def test_a_large_file_of_the_command_is_data(here):
    with (here / "data.bin").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    assert set(program(here, "python", "unrelated.py", "data.bin").sources()) == {"unrelated.py"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "no program behind --"),
        (("nothere", "x"), "command not found, or not to be executed: nothere"),
        (("train.py", "x"), "write -- python train.py x"),
        (("python", "gone.py"), "no gone.py in"),
    ],
)
def test_what_is_missing_is_named_before_anything_starts(here, words, says):
    with pytest.raises(ProgramError, match=says):
        program(here, *words).check()


def test_an_option_that_ends_in_py_is_no_script(here):
    program(here, "python", "train.py", "--problem=gone.py").check()
