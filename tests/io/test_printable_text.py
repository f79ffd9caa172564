"""Names, messages and paths are somebody's text: a terminal shows them, and obeys none of them."""

import csv
import dataclasses
import errno
import io
import os
import re
import sys
import warnings
from pathlib import Path

import pytest
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

import steelyard
from report import judgements
from steelyard import cli
from steelyard.io.console import make_console
from steelyard.io.printable_text import printable
from steelyard.report.json_and_csv import to_csv
from steelyard.study.storage.store import Store
from steelyard.study.trial import Failed
from study import made_up

ORDERS = {
    "colour": "\x1b[31mred",
    "title of the window": "\x1b]0;owned\x07",
    "one-byte sequence": "\x9b2Jwipe",
    "cursor to the left": "all is well\rall is lost",
    "backspace": "no\x08\x08yes",
    "direction of writing": "\u202egnp.exe",
    "bell and null": "ding\x07\x00",
}
EVIL = " ".join(ORDERS.values())
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def obeyed(text):
    """What in a printed text is neither shown nor a line break."""
    return [each for each in COLOURS.sub("", text) if not each.isprintable() and each not in "\n\u202f\xa0"]


@pytest.fixture
def run(run):
    """What is printed is shown, and not obeyed."""

    def command(*words):
        code, out, err = run(*words)
        assert not obeyed(out + err), words
        assert "\x1b" not in out + err, "no terminal, no colours"
        return code, out, err

    return command


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_printable_leaves_what_can_be_read(order):
    assert not obeyed(printable(order))
    assert printable("déjà vu ± 5 %, 日本語\n🙂\u202f1 000") == "déjà vu ± 5 %, 日本語\n🙂\u202f1 000"
    assert printable("a\tb\r\nc\rd") == "a b\nc d"


@pytest.mark.parametrize("coloured", [False, True])
def test_whatever_a_console_prints(coloured):
    out = io.StringIO()
    console = make_console(file=out, force_terminal=coloured, width=200)
    table = Table(EVIL, "second")
    table.add_row(EVIL, Text(EVIL, "red"))
    console.print(EVIL, markup=False, style="bold")
    console.print(Text(EVIL), table)
    console.print(f"[red]{EVIL}[/red]")
    with Progress(console=console, disable=not coloured) as progress:
        task = progress.add_task("training", total=2)
        progress.console.print(EVIL, style="red", markup=False)
        progress.advance(task)
    text = out.getvalue()
    assert text.count("gnp.exe") >= 5
    for order in ("\x1b]0", "\x9b", "\x07", "\x08", "\u202e", "\x00", "well\r"):
        assert order not in text
    assert "[31m" not in COLOURS.sub("", text)
    if not coloured:  # where the console has colours, it has its own alone
        assert "\x1b" not in text


@pytest.mark.takes("the server that forks workers imports torch for the first test that needs it")
def test_every_command_prints_a_problem_of_evil_names(run, tmp_path):
    text = Path(steelyard.__file__).with_name("problems").joinpath("template.py").read_text()
    name = f"{EVIL[:30]!r}"
    text = text.replace('"my-problem"', name)
    assert text.count(name) == 1
    file = tmp_path / f"{ORDERS['colour']}.py"
    label = EVIL.replace("\r", "").replace("\n", "")  # with a line break it is refused
    file.write_text(f"{text}\nproblem.summary = {EVIL!r}\nobject.__setattr__(problem.tasks[0], 'label', {label!r})\n")
    assert run("problems", file)[0] == 0
    words = ["--methods", "equal", "--seeds", "1", "--epochs", "1"]
    assert run("compare", file, *words, "--dry-run")[0] == 0
    assert run("diagnose", file, "--epochs", "1")[0] == 0
    for broken in (f"raise ValueError({EVIL!r})", f"def {EVIL[:9]}"):
        file.write_text(broken)
        assert run("compare", file)[0] == 2
    file.write_text(text.replace("nn.Linear(32, task.outputs)", f"{{}}[{EVIL!r}]"))
    code, _, err = run("compare", file, *words)
    assert (code, "building the network failed" in err) == (2, True)


@pytest.mark.parametrize(
    "words", [["compare"], ["report"], ["methods"], ["architectures"], ["problems"], ["reproduce"]]
)
def test_every_name_that_is_not_known(run, words):
    for order in ORDERS.values():
        assert run(*words, order)[0] == 2
        assert run(*words, f"--{order}")[0] == 2
    assert run(EVIL)[0] == 2


def test_a_store_with_evil_contents_under_an_evil_name(run, tmp_path):
    made = made_up.plan(seeds=2)
    tasks = tuple(dataclasses.replace(task, label=f"{EVIL}{task.name}") for task in made.tasks)
    made = dataclasses.replace(made, problem=EVIL, summary=EVIL, command=EVIL, notes=(EVIL,), tasks=tasks)
    store = tmp_path / f"{ORDERS['colour']}.sqlite"
    with Store(store, write=True) as opened:
        opened.add_plan(made.to_dict())
        found = {"left": 0.9, "right": 0.8}
        made_up.fill(opened, made, {"single-task": [found, found], "equal": [found]})
        (failed,) = made.trials_of("equal", 0, 1)
        opened.add_failure(failed, Failed(f"ValueError: {EVIL}", EVIL))
    code, out, _ = run("report", store, "--frozen", "--csv", tmp_path / f"{EVIL[:20]}.csv")
    assert code == 0
    assert "Failed trials: 1" in out


def test_a_warning_is_a_line_of_its_own(run, monkeypatch):
    def warn():
        for category in (steelyard.SteelyardWarning, UserWarning):
            said.append(warnings.formatwarning(category(EVIL), category, f"{EVIL}.py", 3))

    said = []
    monkeypatch.setattr("steelyard.cli.methods._list", warn)
    before = warnings.formatwarning
    assert run("methods")[0] == 0
    clean = printable(EVIL)
    assert said == [f"Warning: {clean}\n", f"Warning: {clean}.py:3: UserWarning: {clean}\n"]
    assert warnings.formatwarning is before


def test_nothing_is_printed_in_another_way():
    sources = Path(steelyard.__file__).parent
    allowed = {
        "io/console.py": {"Console("},
        "cli/messages.py": {"typer.echo("},  # in `say`
        "cli/app.py": {"typer.secho("},  # one word of our own
        "study/program/handle.py": set(),  # in the user's own program, and made printable
    }
    for path in sources.rglob("*.py"):
        name, text = path.relative_to(sources).as_posix(), path.read_text()
        found = {
            word for word in ("Console(", "typer.echo(", "typer.secho(") if re.search(rf"\b{re.escape(word)}", text)
        }
        assert found <= allowed.get(name, set()), name
        if re.search(r"(?<![\w.])print\(", re.sub(r'"""(?s:.*?)"""', "", text)):
            assert name in allowed, f"{name} prints by itself: print by steelyard.io.console"
    assert (sources / "cli/messages.py").read_text().count("typer.echo(") == 1


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "  =", "\t=", "\r=", "＝"])
def test_no_text_of_a_csv_is_a_formula(start):
    evil = f'{start}HYPERLINK("http://x","y")'
    judgement = judgements.one_seed()
    renamed = {judgement.methods[0]: evil, judgement.tasks[0].name: evil}
    judgement = dataclasses.replace(
        judgement,
        problem=evil,
        methods=[renamed.get(method, method) for method in judgement.methods],
        settings=[dataclasses.replace(setting, label=evil) for setting in judgement.settings],
        tasks=[
            dataclasses.replace(task, name=renamed.get(task.name, task.name), metric=evil) for task in judgement.tasks
        ],
        cells=[
            dataclasses.replace(
                cell,
                method=renamed.get(cell.method, cell.method),
                task=renamed.get(cell.task, cell.task),
                values={0: -1.5},
            )
            for cell in judgement.cells
        ],
    )
    text = to_csv(judgement)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert not obeyed(text)
    assert {row["method"] for row in rows} >= {f"'{printable(evil)}"}
    for row in rows:
        for name, cell in row.items():
            if name not in ("setting", "fraction", "seed", "value"):
                assert not cell.lstrip().startswith(("=", "+", "-", "@", "＝")), name
    # Numbers stay numbers, the negative ones too.
    assert {row["value"] for row in rows} == {"-1.5"}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_letter_that_the_encoding_does_not_have_is_shown_by_its_number(monkeypatch, encoding):
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "argv", ["steelyard", "methods", "relobralo"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out.flush()
    assert not ended.value.code
    assert len(out.buffer.getvalue()) > 200


@pytest.mark.parametrize("words", [["methods"], ["methods", "ema"], ["--version"], ["problems"]])
def test_what_cannot_be_printed_is_said(monkeypatch, capsys, words):
    class Full(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cli.app, "_close_output", lambda: None)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(Full(), encoding="utf-8", write_through=True))
    monkeypatch.setattr(sys, "argv", ["steelyard", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "Error: cannot print: No space left on device" in capsys.readouterr().err
    monkeypatch.undo()
