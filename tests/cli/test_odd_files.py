"""Whatever stands where a command expects its file: it ends at once, names the file, and leaves it as it was."""

import contextlib
import ctypes
import dataclasses
import functools
import os
import shutil
import signal
import socket
import sqlite3
import stat
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
import typer

from cells import every
from steelyard import cli
from steelyard.errors import StoreError
from steelyard.report import announcements
from steelyard.reproductions import REPRODUCTIONS
from steelyard.study.running import forecast
from steelyard.study.storage import lock
from steelyard.study.storage.network_files import pack
from steelyard.study.storage.store import Store
from study import made_up

SECONDS = 60  # until a command that waits for ever is stopped; each takes some hundredths of one
BEGINS = "here the training would begin"
PROBLEM = textwrap.dedent(
    """
    import torch
    from torch import nn
    from steelyard.problems import Problem, binary, regression, split

    x = torch.linspace(-1, 1, 160).reshape(40, 4)
    problem = Problem("tiny", [regression("left"), binary("right")],
                      lambda: split(x, {"left": x.sum(1), "right": torch.arange(40) % 2}),
                      lambda: nn.Linear(4, 3), lambda task: nn.Linear(3, task.outputs), batch_size=8, epochs=1)
    """
)


def foreign(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE photos (id)")


def later(path):
    store(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")


@functools.cache
def whole_store():
    """The bytes of a store and of its networks by their names."""
    made = made_up.plan(seeds=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "s.sqlite")
        with Store(path, write=True) as opened:
            opened.add_plan(made.to_dict())
            found = {"left": 0.9, "right": 0.8}
            made_up.fill(opened, made, {"single-task": [found], "equal": [found]})
            for trial in made.trials:
                opened.networks.add(trial, pack(trial, {}))
        return path.read_bytes(), {file.name: file.read_bytes() for file in opened.networks.folder.iterdir()}


def store(path):
    content, networks = whole_store()
    path.write_bytes(content)
    Path(f"{path}.networks").mkdir()
    for name, network in networks.items():
        Path(f"{path}.networks", name).write_bytes(network)


APP = typer.main.get_command(cli.app.app)


def bound(path):
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path has 107 letters at most
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


def beside(end, content, path):
    """A whole store, and something by the name of a file that belongs to it."""
    store(path)
    if content is None:
        Path(f"{path}{end}").mkdir()
    else:
        Path(f"{path}{end}").write_bytes(content)


def unreadable(path):
    store(path)
    path.chmod(0)


def closed(path):
    """In a folder that was closed to writing."""
    path.parent.mkdir()
    store(path.parent / "a store")
    shutil.copy(path.parent / "a store", path)
    path.parent.chmod(0o555)


# What is made at a path, or the path itself of what is there or cannot be.
KINDS = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a socket": bound,
    "a device": "/dev/null",
    "an endless device": "/dev/zero",
    "a full device": "/dev/full",
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a round link": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "an empty file": Path.touch,
    "a text": lambda path: path.write_text("dear diary\n"),
    "bytes": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff" * 100),
    "another's database": foreign,
    "a later layout": later,
    "a log left beside": functools.partial(beside, "-wal", b"\x37\x7f\x06\x82" + bytes(200)),
    "a journal left beside": functools.partial(beside, "-journal", b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(600)),
    "a folder for its log": functools.partial(beside, "-wal", None),
    "a folder for its lock": functools.partial(beside, ".lock", None),
    "a text for its lock": functools.partial(beside, ".lock", b"dear diary\n" * 100),
    "below a file": "notes.txt/odd",
    "where nothing is made": "/proc/odd",
    "300 letters": "odd" + 297 * "x",
    "letters that leave no room": "odd" + 236 * "x",  # for the names of what belongs to it
    "lines and colours": "odd\nlines\x1b[31m",
    "no UTF-8": os.fsdecode(b"odd caf\xe9"),
    "not to be read": unreadable,
    "closed/odd": closed,
}
STORES = (
    "a log left beside",
    "a journal left beside",
    "a folder for its log",
    "a folder for its lock",
    "a text for its lock",
)
STORES = (*STORES, "not to be read", "closed/odd")
RESTRICTED = ("not to be read", "closed/odd")
NAMES = ("lines and colours", "no UTF-8")
FREE = ("an empty file", "a link to nothing", *NAMES)
READ_PAST = ("a log left beside", "a journal left beside", "a folder for its lock", "a text for its lock")
THROUGH = ("a device", "an endless device", "a link to a device")

TINY = ["tiny.py", "--methods", "equal", "--seeds", "1"]
# The words of each command by what the odd file is to it, and with which kinds it goes on as with any other file.
READ_STORE = {
    "report": ["report", "ODD.sqlite"],
    "report --salvage": ["report", "--salvage", "ODD.sqlite"],
    "merge from": ["merge", "all.sqlite", "ODD.sqlite"],
    "export": ["export", "ODD.sqlite", "--method", "equal", "--out", "net.safetensors"],
}
WRITE_STORE = {
    "compare --store": ["compare", *TINY, "--store", "ODD.sqlite"],
    "compare --dry-run": ["compare", *TINY, "--dry-run", "--store", "ODD.sqlite"],
    "group --store": ["group", "tiny.py", "--budget", "2", "--store", "ODD.sqlite"],
    "merge into": ["merge", "ODD.sqlite", "good.sqlite"],
    "reproduce --store": ["reproduce", "tiny", "--quick", "--store", "ODD.sqlite"],
}
WRITE = {
    "compare --page": ["compare", *TINY, "--page", "ODD.html"],
    "report --page": ["report", "good.sqlite", "--page", "ODD.html"],
    "report --json": ["report", "good.sqlite", "--json", "ODD.json"],
    "report --csv": ["report", "good.sqlite", "--csv", "ODD.csv"],
    "report --trials": ["report", "good.sqlite", "--trials", "ODD.jsonl"],
    "export --out": ["export", "good.sqlite", "--method", "equal", "--out", "ODD.safetensors"],
    "group --page": ["group", "tiny.py", "--budget", "2", "--page", "ODD.html"],
    "group --json": ["group", "tiny.py", "--budget", "2", "--json", "ODD.json"],
    "reproduce --page": ["reproduce", "tiny", "--quick", "--page", "ODD.html"],
    "reproduce --markdown": ["reproduce", "tiny", "--quick", "--markdown", "ODD.md"],
}
READ_PROBLEM = {
    "compare": ["compare", "ODD.py", "--methods", "equal", "--seeds", "1", "--dry-run"],
    "group": ["group", "ODD.py", "--budget", "2"],
    "diagnose": ["diagnose", "ODD.py", "--epochs", "1"],
}
NEW = {"new": ["new", "ODD.py"]}
CHECKPOINTS = {"compare --checkpoints": ["compare", *TINY, "--checkpoints", "ODD"]}
COMMANDS = {**READ_STORE, **WRITE_STORE, **WRITE, **READ_PROBLEM, **NEW, **CHECKPOINTS}


def goes_on(command, kind):
    """Whether this is as good a file as any to that command."""
    if command in READ_STORE:
        return kind in READ_PAST or (command, kind) == ("merge from", "closed/odd")  # nothing is written beside it
    if command == "compare --dry-run":  # reads what is there, and asks for no place
        free = (*FREE, "letters that leave no room", "below a file", "where nothing is made", "closed/odd")
        return kind in (*READ_PAST, *free)
    if command in WRITE_STORE:
        return kind in (*FREE, "a log left beside", "a journal left beside")
    if command in WRITE:
        written = kind in THROUGH and not (command == "export --out" and kind != "a link to a device")
        unwritten = kind == "a full device" and not command.startswith(("report", "export"))
        of_text = command == "reproduce --markdown" and kind == "a text"
        return written or unwritten or of_text or kind in (*FREE, "letters that leave no room")
    if command in NEW:
        return kind in (*NAMES, "letters that leave no room")
    return command in CHECKPOINTS and kind in ("a folder", "letters that leave no room", *NAMES)


class Stopping:
    """Stands where the trials would be trained."""

    def get_ready(self):
        pass

    def open(self, job):
        raise StoreError(BEGINS)


PLANNED = {}


def planned_once(plan):
    """What is planned does not depend on the file, and takes most of the time."""

    def planned(problem, *args, **options):
        if problem not in ("tiny.py", "digits"):
            return plan(problem, *args, **options)
        if problem not in PLANNED:
            PLANNED[problem] = plan(problem, *args, **options)
        return dataclasses.replace(PLANNED[problem], reference=os.path.abspath(problem) if "." in problem else problem)

    return planned


@contextlib.contextmanager
def new_folder():
    """This process is in it. Files to begin with, nothing that trains, and an end to what hangs."""
    path = Path(tempfile.mkdtemp())  # not below pytest's own, into which nobody else may look
    path.chmod(0o777)
    (path / "tiny.py").write_text(PROBLEM)
    (path / "notes.txt").write_text("dear diary\n")
    store(path / "good.sqlite")

    def hangs(number, frame):
        raise TimeoutError(f"still waiting after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(SECONDS)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(path)
            patch.setattr("steelyard.cli.app.app", APP)
            patch.setattr("steelyard.study.running.engines.local.Local", Stopping)
            patch.setattr("steelyard.study.running.engines.local.start_server", lambda: None)
            patch.setattr(forecast, "_time", lambda problem, trial: forecast._Cost(1e-3, 1e-3))
            patch.setattr(lock, "WAIT", 0.1)
            patch.setattr(announcements, "prepare", planned_once(announcements.prepare))
            patch.setitem(REPRODUCTIONS, "tiny", "reproductions.tiny")
            yield path
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        for part in path.rglob("*"):
            if part.is_dir() and not part.is_symlink():
                part.chmod(0o755)
        shutil.rmtree(path)


ABOVE_PERMISSIONS = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


@contextlib.contextmanager
def permissions():
    """Root may read and write everything; for a while permissions hold for it, too."""
    libc, here = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0)  # of capabilities as Linux 2.6.26 has them
    sets = (ctypes.c_uint32 * 6)()  # the effective ones come first
    assert libc.capget(here, sets) == 0
    before, sets[0] = sets[0], sets[0] & ~ABOVE_PERMISSIONS
    assert libc.capset(here, sets) == 0
    try:
        yield
    finally:
        sets[0] = before
        assert libc.capset(here, sets) == 0


def looks(path):
    there = os.lstat(path) if os.path.lexists(path) else None
    return there and (there.st_mode, there.st_size if stat.S_ISREG(there.st_mode) else 0)


@pytest.mark.skipif(sys.platform != "linux", reason="needs files as Linux has them")
@every("kind", KINDS)
@pytest.mark.parametrize("command", COMMANDS)
def test_it_ends_at_once_names_the_file_and_leaves_it(run, command, kind):
    if kind == "a pipe" and command in WRITE:
        pytest.skip("waits for whoever reads the pipe: test_a_pipe_is_written_through")
    if kind in STORES and command not in (*READ_STORE, *WRITE_STORE) and kind not in RESTRICTED:
        pytest.skip("to all others a store is as good as any bytes")
    with new_folder() as folder:
        it_ends_at_once(run, folder, command, kind)


def it_ends_at_once(run, folder, command, kind):
    make, words = KINDS[kind], COMMANDS[command]
    end = next(word[3:] for word in words if word.startswith("ODD"))
    if isinstance(make, str):
        path = make if make.startswith("/dev") else make + end
    else:
        path = f"{kind if kind == 'closed/odd' else 'odd'}{end}"
        make(folder / path)
    before = looks(path)
    words = [path if word.startswith("ODD") else word for word in words]
    if kind in RESTRICTED:
        with permissions():
            code, out, err = run(*words)
    else:
        code, out, err = run(*words)
    said = f"{code}\n{out}\n{err}"
    assert "Traceback" not in said
    assert "\x1b" not in said
    if goes_on(command, kind):
        assert code == 0 or BEGINS in err, said
        return
    assert code == 2, said
    assert BEGINS not in err, said
    assert err.startswith("Error: "), said
    assert Path(path).stem[:7].partition("\n")[0] in err, said
    if not (kind == "a journal left beside" or path.startswith("/dev")):
        assert looks(path) == before
