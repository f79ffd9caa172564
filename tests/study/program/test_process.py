"""Programs in processes of their own: their output, how they end, and that nothing of them is left."""

import os
import subprocess
import sys

import pytest

from steelyard.errors import ProgramError
from steelyard.study.program import process, process_guard
from steelyard.study.program.command import Program
from study.processes import wait_for

linux = pytest.mark.skipif(sys.platform != "linux", reason="orphans in other sessions are found on Linux alone")


def sh(folder, script):
    return Program(("sh", "-c", script), str(folder))


def gone(number):
    """Ended, or a zombie that nobody has let go of yet."""
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_it_runs_in_its_folder_with_what_it_is_told_and_hears_ctrl_c(tmp_path):
    script = "pwd; echo $TOLD; cat; grep -E 'Sig(Blk|Ign)' /proc/self/status"
    ending = process.run(sh(tmp_path, script), {"TOLD": "so"})
    folder, told, blocked, ignored = str(ending.output).splitlines()
    assert (folder, told, ending.code, ending.how) == (str(tmp_path.resolve()), "so", 0, "")
    assert int(blocked.split()[1], 16) & 2 == int(ignored.split()[1], 16) & 2 == 0


@pytest.mark.parametrize(
    ("script", "how", "sent_away"),
    [
        ("echo oh; echo dear >&2; exit 3", "the program ends with exit code 3: oh / dear", False),
        ("exit 1", "the program ends with exit code 1, and printed nothing", False),
        ("kill -SEGV $$", "the program was killed by SIGSEGV", False),
        ("kill -TERM $$", "the program was killed by SIGTERM", True),
        ("kill -KILL $$", "the program was killed by SIGKILL (often because memory was used up)", True),
    ],
)
def test_how_it_ends_is_said_by_name(tmp_path, script, how, sent_away):
    ending = process.run(sh(tmp_path, script), {})
    assert ending.how.startswith(how)
    assert ending.sent_away is sent_away


RANKS = """
import os, signal, sys, time
if os.environ["RANK"] == "1":
    print("rank one speaks", flush=True)
    {}
time.sleep(60)
"""


def test_a_launchers_report_is_told_from_what_the_rank_said(tmp_path):
    report = "E1128 08:51:58.267000 6032 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: -9) "
    (tmp_path / "told").write_text(
        "mine\nW1128 torch/distributed/elastic/multiprocessing/api.py:1028] Sending process 6055 SIGTERM\n"
        + report
        + "local_rank: 3 (pid: 6056) of binary: python\n  error_file: <N/A>\n"
        + report.replace("-9", "-15")
        + "local_rank: 0 (pid: 6055) of binary: python\n"
    )
    ending = process.run(sh(tmp_path, "cat told; exit 1"), {})
    assert ending.how == "local rank 3 of the program was killed by SIGKILL (often because memory was used up): mine"
    assert ending.sent_away
    assert not process.run(sh(tmp_path, "cat told; exit 0"), {}).sent_away


@pytest.mark.slow("torchrun is started for each way to end")
@pytest.mark.parametrize(
    ("ending", "how", "sent_away"),
    [
        (
            "raise ValueError('targets are out of range')",
            "local rank 1 of the program ends with exit code 1: "
            "{} / raise ValueError('targets are out of range') / ValueError: targets are out of range",
            False,
        ),
        ("os.abort()", "local rank 1 of the program was killed by SIGABRT: rank one speaks", False),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "local rank 1 of the program was killed by SIGKILL (often because memory was used up): rank one speaks",
            True,
        ),
    ],
    ids=["raises", "aborts", "is killed"],
)
def test_of_ranks_the_one_that_failed_has_the_word_and_not_its_launcher(tmp_path, ending, how, sent_away):
    (tmp_path / "ranks.py").write_text(RANKS.format(ending))
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "ranks.py")
    found = process.run(Program(torchrun, str(tmp_path)), {"OMP_NUM_THREADS": "1"})
    assert found.code == 1
    assert found.how == how.format(f'File "{tmp_path}/ranks.py", line 5, in <module>')
    assert found.sent_away is sent_away


def test_of_a_million_lines_the_first_and_the_last_are_kept(tmp_path):
    ending = process.run(sh(tmp_path, "yes line | head -1000000; echo the end; exit 1"), {})
    text = str(ending.output)
    assert len(text) < process.HEAD + process.TAIL + 100
    assert text.startswith("line\nline\n")
    assert text.endswith("line\nthe end")
    assert f"… {5_000_008 - process.HEAD - process.TAIL:,} bytes of output left out …" in text
    assert ending.how.endswith("line / line / the end")


def test_what_it_prints_is_shown_and_not_obeyed(tmp_path):
    ending = process.run(sh(tmp_path, r"printf '\033[31mred\033[0m \377'"), {})
    assert str(ending.output) == "red \ufffd"


@pytest.mark.parametrize("words", [("nothere",), ("/etc/passwd",)])
def test_what_cannot_be_started_is_named(tmp_path, words):
    with pytest.raises(ProgramError, match=f"cannot start '{words[0]}'"):
        process.run(Program(words, str(tmp_path)), {})


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ProgramError, match=r"cannot run true in .*gone"):
        process.run(Program(("true",), str(tmp_path / "gone")), {})


@linux
@pytest.mark.parametrize("start", ["sleep 600", "setsid sleep 600", "setsid sh -c 'sleep 600 & sleep 600'"])
def test_children_that_outlive_it_are_ended_and_counted(tmp_path, short_grace, start):
    ending = process.run(sh(tmp_path, f"{start} & echo $!; sleep 0.1"), {})
    assert ending.left == 1
    assert gone(int(str(ending.output)))


@linux
@pytest.mark.parametrize(
    "start",
    [
        "sleep 600",
        "setsid sleep 600",
        "setsid sh -c 'sleep 600 & sleep 600'",
        "sh -c 'trap \"\" TERM INT HUP; sleep 600 & sleep 600'",
    ],
)
def test_when_the_worker_dies_nothing_is_left(tmp_path, start):
    """Its end of the pipe is closed by the kernel then, as here by hand."""
    script = f"{start} & echo $! > pids; echo $$ >> pids; wait"
    status, told = os.pipe()
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", process_guard.__file__, str(told), "sh", "-c", script],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        pass_fds=(told,),
    )
    pids = tmp_path / "pids"
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2, guard)
    found = [int(number) for number in pids.read_text().split()]
    assert not any(map(gone, found))
    guard.stdin.close()
    guard.wait(timeout=30)
    assert all(map(gone, found))
    os.close(status)
    os.close(told)


def test_an_error_while_looking_ends_the_program(tmp_path):
    def look():
        if (tmp_path / "pid").exists():
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        process.run(sh(tmp_path, "echo $$ > here; mv here pid; exec sleep 600"), {}, look)
    wait_for(lambda: gone(int((tmp_path / "pid").read_text())), seconds=30)
