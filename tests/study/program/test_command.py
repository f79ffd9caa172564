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
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
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


@pytest.mark.parametrize(
    "words",
    [
        ("python", "train.py", "--config=config.yaml"),
        ("sh", "-c", "python train.py --config config.yaml"),
        ("sh", "-c", "cd . && exec python train.py --config=config.yaml # it's"),
        ("env", "MODE=fast", "python", "train.py", "config=config.yaml"),
    ],
)
def test_so_they_are_however_the_command_is_written(here, words):
    expected = {"train.py", "neighbour", "further", "further.below", "config.yaml"}
    found = set(program(here, *words).sources())
    assert found == expected if "it's" not in words[-1] else found <= expected


@pytest.mark.parametrize("text", ["python train.py > run.json", "python train.py --log=run.log 2>run.log"])
def test_what_a_command_within_one_writes_is_no_source(here, text):
    for name in ("run.json", "run.log"):
        (here / name).write_text("of an earlier run")
    assert not {"run.json", "run.log"} & set(program(here, "sh", "-c", text).sources())


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
        (("run.sh", "x"), r"executed: run\.sh: write -- \./run\.sh x"),
        (
            ("./run.sh", "x"),
            r"executed: \./run\.sh: chmod \+x \./run\.sh, or name what runs it, as in -- sh \./run\.sh x",
        ),
        (("python train.py",), "It is one word: leave the quotes away, -- python train.py, or have a shell read it"),
        (("further",), "executed: further$"),
        (("",), "executed: an empty word"),
        (("--methods", "uw"), "executed: --methods: options of steelyard stand before --"),
    ],
)
def test_what_is_missing_is_named_before_anything_starts(here, words, says):
    with pytest.raises(ProgramError, match=says):
        program(here, *words).check()


def test_a_script_that_may_be_executed_is_named_with_its_folder(here):
    (here / "run.sh").chmod(0o755)
    program(here, "./run.sh").check()
    program(here, str(here / "run.sh")).check()
    with pytest.raises(ProgramError, match=r"write -- \./run\.sh"):  # a shell would not find it either
        program(here, "run.sh").check()


def test_an_option_that_ends_in_py_is_no_script(here):
    program(here, "python", "train.py", "--problem=gone.py").check()
