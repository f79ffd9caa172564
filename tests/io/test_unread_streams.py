"""Behind ``| head`` a command goes on: what it was asked to train and to write is there."""

import os
import shlex
import subprocess
import sys

import pytest

from steelyard import study
from steelyard.cli.new import write_template
from steelyard.report import to_json


def unread(*words, of="stdout", folder):
    """The exit code of a command whose output, or whose messages, nobody reads; and what it says on the other one."""
    reader, writer = os.pipe()
    os.close(reader)
    other = "stderr" if of == "stdout" else "stdout"
    streams = {of: writer, other: subprocess.PIPE}
    command = [sys.executable, "-m", "steelyard", *map(str, words)]
    process = subprocess.run(command, cwd=folder, check=False, text=True, **streams)
    os.close(writer)
    return process.returncode, getattr(process, other)


def test_what_is_to_be_trained_and_written_is_there(tmp_path):
    code, said = unread("compare", "digits", "-m", "equal", "--seeds", 1, "--epochs", 1, folder=tmp_path)
    assert (code, "Error" in said) == (0, False)
    store = tmp_path / "steelyard-digits.sqlite"
    assert study.judge(store).complete
    (tmp_path / "steelyard-digits.html").unlink()
    files = [tmp_path / f"r.{kind}" for kind in ("html", "json", "csv", "jsonl")]
    options = [word for option, file in zip(("page", "json", "csv", "trials"), files, strict=True)
               for word in (f"--{option}", file)]  # fmt: skip
    code, said = unread("report", store, *options, folder=tmp_path)
    assert (code, said) == (0, "")
    assert all(file.stat().st_size > 100 for file in files)
    assert files[1].read_text() == to_json(study.judge(store))


def test_workers_go_on_whatever_the_problem_prints(tmp_path):
    file = tmp_path / "mine.py"
    write_template(file)
    printing = "def load(*words, **named):\n    print('loading ' * 2000, flush=True)\n    return quiet(*words, **named)"
    text = file.read_text()
    assert "load()" in text or "def load" in text
    file.write_text(f"{text}\nquiet = problem.load\n{printing}\nobject.__setattr__(problem, 'load', load)\n")
    code, said = unread("compare", "mine.py", "-m", "equal", "--seeds", 1, "--epochs", 1, folder=tmp_path)
    assert (code, "Error" in said) == (0, False), said
    assert study.judge(tmp_path / "steelyard-mine.sqlite").complete


def test_unbuffered_python_stays_unbuffered(tmp_path):
    """What is printed is there at once, and not when the process ends."""
    text = "import os; print('first', flush=False); os.write(1, b'second '); os._exit(0)"
    file = tmp_path / "ends.py"
    file.write_text(f"from steelyard.io.unread_streams import going_on_unread\nwith going_on_unread(): {text}")
    process = subprocess.run([sys.executable, "-u", file], capture_output=True, text=True)
    assert process.stdout == "first\nsecond "


@pytest.mark.parametrize("of", ["stdout", "stderr"])
def test_the_exit_code_is_that_of_the_work(tmp_path, of):
    assert unread("methods", of=of, folder=tmp_path)[0] == 0
    code, said = unread("report", "none.sqlite", of=of, folder=tmp_path)
    assert code == 2
    assert ("there is no store" in said) == (of == "stdout")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_stream_that_is_closed_from_the_start_is_none(tmp_path, closed):
    words = [sys.executable, "-m", "steelyard", "methods"]
    process = subprocess.run(f"{shlex.join(words)} {closed}", shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0
    assert "Traceback" not in process.stdout + process.stderr
