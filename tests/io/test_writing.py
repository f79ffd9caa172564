"""What is no file of Steelyard's own is never replaced: by no command, under no option, as no user."""

import contextlib
import errno
import os
import re
import stat
import threading
from pathlib import Path

import pytest

import steelyard
from report import judgements
from steelyard.cli.new import write_template
from steelyard.errors import ProblemFileError
from steelyard.io.writing import replacing
from steelyard.report import write_page
from steelyard.report.output_files import CSV, JSON, PAGE, OutputError, check_outputs, write_output
from steelyard.reproductions.markdown import check_section
from steelyard.study.storage.store import Store
from steelyard.study.storage.trial_checkpoint import save_checkpoint
from steelyard.study.trial import Trial
from study import made_up

KINDS = {"--page": PAGE, "--json": JSON, "--csv": CSV}
MARKS = {"--page": b"<!doctype html>", "--json": b'{\n "format"', "--csv": b"problem,method,"}
USERS = {
    "problem": "from steelyard.problems import Problem\n",
    "page": "<!doctype html>\n<title>my homepage</title>\n",
    "json": '{"weights": [1, 2]}\n',
    "csv": "name,age\nann,31\n",
    "bytes": b"\x89PNG\r\n\x1a\n\x00\xff",
}


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = made_up.plan(seeds=1)
    found = {"left": 0.9, "right": 0.8}
    with Store("study.sqlite", write=True) as opened:
        opened.add_plan(made.to_dict())
        made_up.fill(opened, made, {"single-task": [found], "equal": [found]})
    return Path("study.sqlite")


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def unchanged(paths):
    return {path: (path.lstat().st_mode, path.lstat().st_ino, path.lstat().st_rdev) for path in paths}


@pytest.mark.parametrize("option", KINDS)
@pytest.mark.parametrize("content", USERS.values(), ids=USERS)
def test_a_file_of_the_users_is_left_alone(run, store, option, content):
    mine = write(Path("mine.txt"), content)
    before = mine.read_bytes()
    code, _, err = run("report", store, option, mine)
    assert code == 2
    assert f"cannot write mine.txt: there is a file already, and it is no {KINDS[option].name}" in err
    assert mine.read_bytes() == before


@pytest.mark.parametrize("option", KINDS)
def test_an_earlier_output_is_renewed_and_so_is_an_empty_file(run, store, option):
    out = write(Path("out"), b"")
    for _ in range(2):
        assert run("report", store, option, out)[0] == 0
        assert MARKS[option] in out.read_bytes()[:200]
        out.write_bytes(out.read_bytes() + b"\n\n")
    others = [other for other in KINDS if other != option]
    assert [run("report", store, other, out)[0] for other in others] == [2, 2], "an output of another kind"


@pytest.mark.parametrize("option", KINDS)
def test_a_device_stays_a_device(run, store, option, tmp_path):
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        device.write_bytes(b"")
    except OSError:
        pytest.skip("this user may make no device")
    link = tmp_path / "link"
    link.symlink_to(device)
    before = unchanged([device, link])
    for path in (device, link):
        code, _, err = run("report", store, option, path)
        assert code == 0, err
    assert unchanged([device, link]) == before


@pytest.mark.parametrize("option", KINDS)
def test_a_pipe_is_written_through(run, store, option, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    code, _, err = run("report", store, option, pipe)
    reader.join(240)
    assert code == 0, err
    assert MARKS[option] in got[0][:200]
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


@pytest.mark.parametrize("option", KINDS)
@pytest.mark.parametrize("exists", [True, False])
def test_what_a_link_leads_to_is_written_and_the_link_stays(run, store, option, exists, tmp_path):
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "out", tmp_path / "link"
    if exists:
        target.write_bytes(b"")
    link.symlink_to(target)
    code, _, err = run("report", store, option, link)
    assert code == 0, err
    assert link.is_symlink()
    assert MARKS[option] in target.read_bytes()[:200]
    mine = write(tmp_path / "far" / "mine.py", "x = 1\n")
    link.unlink()
    link.symlink_to(mine)
    assert run("report", store, option, link)[0] == 2
    assert mine.read_text() == "x = 1\n"


@contextlib.contextmanager
def standard_output(descriptor):
    kept = os.dup(1)
    os.dup2(descriptor, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@pytest.mark.parametrize("option", KINDS)
def test_standard_output_gets_the_export_and_nothing_else(run, store, option):
    out = Path("redirected")
    with out.open("ab") as file:
        file.write(b"before\n")
        file.flush()
        with standard_output(file.fileno()):
            code, printed, err = run("report", store, option, "/dev/stdout")
    assert (code, printed, "made-up" in err) == (0, "", True)
    assert out.read_bytes().startswith(b"before\n" + MARKS[option])


def test_what_is_piped_into_another_command_arrives(run, store):
    read, wrote = os.pipe()
    with standard_output(wrote):
        code, printed, err = run("report", store, "--csv", "/dev/stdout")
    os.close(wrote)
    with os.fdopen(read, "rb") as file:
        got = file.read()
    assert (code, printed, "made-up" in err) == (0, "", True)
    assert got.startswith(MARKS["--csv"])


def test_the_store_and_one_file_for_two_outputs_are_refused(run, store):
    for beside in ("", "-wal", "-shm", "-journal", ".lock"):
        code, _, err = run("report", store, "--csv", f"{store}{beside}")
        assert (code, "that is the store" in err) == (2, True)
    Path("again.sqlite").symlink_to(store)
    assert "that is the store" in run("report", store, "--csv", "again.sqlite")[2]
    assert run("report", store, "--trials", "all.jsonl")[0] == 0
    os.link("all.jsonl", "second.md")  # written to, it would be no file of trials any more
    with pytest.raises(OutputError, match=r"second\.md: that is the file of trials"):
        check_outputs([(Path("second.md"), None)], Path("all.jsonl"))
    assert "give each a file of its own" in run("report", store, "--csv", "out", "--json", "./out")[2]
    assert not Path("out").exists()


@pytest.mark.parametrize("command", ["compare", "report", "reproduce"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "link to a pipe"])
def test_a_store_is_a_file(run, tmp_path, monkeypatch, command, kind):
    monkeypatch.chdir(tmp_path)
    place = Path("place")
    Path("real").mkdir() if kind == "folder" else os.mkfifo("real")
    place.symlink_to("real")
    words = {"compare": ["digits", "--store", place], "report": [place], "reproduce": ["ema", "--store", place]}
    code, _, err = run(command, *words[command])
    what = "a folder" if kind == "folder" else "a pipe"
    assert (code, f"the store place is {what}: name a file" in err) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["place", "real"]


def test_a_page_asked_for_by_compare_or_reproduce_overwrites_nothing_of_the_users(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("new", "mine.py")[0] == 0
    before = Path("mine.py").read_bytes()
    words = ["compare", "mine.py", "--methods", "equal", "--seeds", "1", "--epochs", "1", "--page", "mine.py"]
    code, _, err = run(*words)
    assert (code, "it is no page that Steelyard wrote" in err) == (2, True)
    for option in ("--page", "--markdown"):
        code, _, err = run("reproduce", "ema", "--quick", option, "mine.py")
        assert (code, "cannot write mine.py: there is a file already" in err) == (2, True)
    assert Path("mine.py").read_bytes() == before
    assert [path.name for path in tmp_path.glob("*.*")] == ["mine.py"], "nothing was trained"


def test_a_section_is_added_to_text_alone(tmp_path):
    assert check_section(tmp_path / "new.md", "ema") == ""
    assert check_section(write(tmp_path / "notes.md", "# Notes\n"), "ema") == "# Notes\n"
    for name, content in (("photo.md", b"\xff\xfe\x00"), ("mine.py", "x = 1\n"), ("page.html", USERS["page"])):
        with pytest.raises(OutputError, match=f"cannot write .*{name}: there is a file already"):
            check_section(write(tmp_path / name, content), "ema")


def test_write_page_overwrites_pages_alone(tmp_path):
    mine = write(tmp_path / "mine.py", "x = 1\n")
    with pytest.raises(OutputError, match="no page that Steelyard wrote"):
        write_page(judgements.digits(), mine)
    assert mine.read_text() == "x = 1\n"


# --- one way of writing, held to by everything that writes


def checkpoint(path):
    save_checkpoint(path, Trial("p", "equal", ("a",), 0, (("a", 1.0),), 1, 1), {"epoch": 1})


WRITERS = {
    "page": lambda path: write_output(path, PAGE, PAGE.mark.decode()),
    "export": lambda path: write_output(path, CSV, "problem,method,setting,setting_label,task,x\n"),
    "checkpoint": checkpoint,
}


@pytest.mark.parametrize("write_to", WRITERS.values(), ids=WRITERS)
class TestEveryWriter:
    def test_mode_and_owner_stay(self, write_to, tmp_path):
        path = write(tmp_path / "out", b"")
        path.chmod(0o640)
        owner = (12345, 12346) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
        os.chown(path, *owner)
        write_to(path)
        found = path.stat()
        assert found.st_size > 0
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, *owner)

    def test_an_owner_that_cannot_be_kept_by_replacing_is_kept(self, write_to, tmp_path, monkeypatch):
        path = write(tmp_path / "out", b"")
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        os.chown(path, 12345, 12346)

        def refuse(*_):
            raise PermissionError(1, "not permitted")

        monkeypatch.setattr(os, "chown", refuse)
        before = path.stat().st_ino
        write_to(path)
        assert (path.stat().st_uid, path.stat().st_ino) == (12345, before)
        assert path.stat().st_size > 0
        assert list(tmp_path.iterdir()) == [path]

    def test_all_names_of_a_file_show_the_new_content(self, write_to, tmp_path):
        path = write(tmp_path / "out", b"")
        (tmp_path / "other").hardlink_to(path)
        write_to(path)
        assert (tmp_path / "other").read_bytes() == path.read_bytes() != b""

    def test_a_new_file_is_as_the_users_other_files_are(self, write_to, tmp_path):
        write_to(tmp_path / "out")
        assert (tmp_path / "out").stat().st_mode == write(tmp_path / "plain", b"").stat().st_mode

    def test_it_is_on_the_disk_before_it_has_its_name(self, write_to, tmp_path, monkeypatch):
        done, real_sync, real_replace = [], os.fsync, os.replace

        def sync(descriptor):
            done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
            real_sync(descriptor)

        def replace(old, new):
            done.append("name")
            real_replace(old, new)

        monkeypatch.setattr(os, "fsync", sync)
        monkeypatch.setattr(os, "replace", replace)
        write_to(tmp_path / "out")
        assert done == ["file", "name", "folder"]

    def test_a_full_disk_leaves_the_old_file(self, write_to, tmp_path, monkeypatch):
        write_to(tmp_path / "out")
        before = (tmp_path / "out").read_bytes()

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_to(tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == before
        assert list(tmp_path.iterdir()) == [tmp_path / "out"]

    def test_the_longest_name_there_can_be(self, write_to, tmp_path):
        write_to(tmp_path / ("n" * 255))

    def test_a_folder_and_a_link_to_itself_are_refused(self, write_to, tmp_path):
        (tmp_path / "folder").mkdir()
        (tmp_path / "round").symlink_to("round")
        for name in ("folder", "round"):
            with pytest.raises(OSError, match=name):
                write_to(tmp_path / name)


def test_the_template_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ProblemFileError, match="No space left"):
            write_template(tmp_path / "mine.py")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file.py").touch()
    (tmp_path / "folder.py").mkdir()
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "link.py").symlink_to("nowhere")
    for taken in list(tmp_path.iterdir()):
        with pytest.raises(ProblemFileError, match="exists already"):
            write_template(taken)


def test_a_write_protected_file_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    path = write(tmp_path / "out.html", PAGE.mark)
    monkeypatch.setattr(os, "access", lambda place, mode: False)  # root may write everything
    with pytest.raises(OutputError, match="write-protected"):
        check_outputs([(path, PAGE)], tmp_path / "store")
    with pytest.raises(OutputError, match="write-protected"):
        write_output(path, PAGE, "new")
    assert path.read_bytes() == PAGE.mark


def test_a_disk_is_refused(tmp_path):
    disk = tmp_path / "disk"
    try:
        os.mknod(disk, 0o666 | stat.S_IFBLK, os.makedev(240, 200))  # of no driver
    except OSError:
        pytest.skip("this user may make no device")
    with pytest.raises(OutputError, match="it is a disk"):
        write_output(disk, PAGE, "new")


def test_nothing_else_in_the_sources_writes_files_of_its_own():
    """What may: the store and its lock are SQLite's; /proc is no disk."""
    sources = Path(steelyard.__file__).parent
    telling = (
        "os.replace",
        "mkstemp",
        "NamedTemporaryFile",
        ".write_text(",
        ".write_bytes(",
        '"wb"',
        '"w"',
        "torch.save(",
    )
    allowed = {
        "io/writing.py": telling,
        "cli/app.py": ('"wb"',),  # the null device
        "io/unread_streams.py": ('"wb"',),  # streams that were open, and the null device
        "study/running/shipped_modules.py": (".write_bytes(",),  # a temporary folder that this process alone sees
        "study/program/assignment.py": (".write_text(",),  # read by the program that is started once it is there
        "study/running/engines/on_slurm.py": (".write_text(",),  # a sign of life, of which only the time counts
        "study/storage/trial_checkpoint.py": ("torch.save(",),  # into memory
        "study/training/peak_memory.py": (".write_text(",),
        "testing/contract.py": ("torch.save(",),
    }
    wrapped = {"integrations/transformers.py", "study/program/handle.py"}  # torch.save into what `replacing` opened
    for path in sources.rglob("*.py"):
        name, text = path.relative_to(sources).as_posix(), re.sub(r"(?m)^ *>>> .*$", "", path.read_text())
        found = [word for word in telling if word in text and word not in allowed.get(name, ())]
        if name in wrapped:
            assert "with replacing(" in text
            found.remove("torch.save(")
        assert not found, f"{name} writes by {found}: use steelyard.io.writing.replacing"


def test_a_full_disk_takes_nothing_of_a_file_with_two_names(tmp_path, monkeypatch):
    """Such a file is written in place: room is asked for before its first byte changes."""
    file, other = tmp_path / "notes.md", tmp_path / "second.md"
    file.write_text("mine\n" * 100)
    os.link(file, other)
    with replacing(file) as opened:
        opened.write(b"shorter\n")
    assert file.read_text() == other.read_text() == "shorter\n"
    with replacing(file) as opened:
        opened.write(b"longer\n" * 1000)
    assert file.read_text() == other.read_text() == "longer\n" * 1000

    def full(descriptor, offset, size):
        assert (offset, size) == (0, 80_000)
        os.ftruncate(descriptor, 50_000)  # some systems give what they have
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="No space left"), replacing(file) as opened:
        opened.write(b"longest\n" * 10_000)
    assert file.read_text() == other.read_text() == "longer\n" * 1000

    def unknown(descriptor, offset, size):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unknown, raising=False)
    with replacing(file) as opened:
        opened.write(b"longest\n" * 10_000)
    assert file.read_text() == other.read_text() == "longest\n" * 10_000
    assert sorted(each.name for each in tmp_path.iterdir()) == ["notes.md", "second.md"]
