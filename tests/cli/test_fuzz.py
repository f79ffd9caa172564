"""Two thousand command lines, right, nearly right and wrong: each ends with 0, 1, 2 or 130, none with a traceback.

Nothing is trained for long: what would be trained for hours stops where it would begin.
"""

import os
import random
import sys
import textwrap
from pathlib import Path

import pytest
import typer

from steelyard import cli
from steelyard.errors import PlanError, StoreError
from steelyard.methods import METHODS
from steelyard.study.storage.store import Store
from study import made_up

LINES, SEED = 2000, 7
GOOD = textwrap.dedent(
    """
    import torch
    from torch import nn
    from steelyard.problems import Problem, binary, regression, split

    x = torch.linspace(-1, 1, 160).reshape(40, 4)
    problem = Problem(
        "tiny",
        [regression("left"), binary("right")],
        lambda: split(x, {"left": x.sum(1), "right": torch.arange(40) % 2}),
        lambda: nn.Linear(4, 3),
        lambda task: nn.Linear(3, task.outputs),
        batch_size=8,
        epochs=2,
    )
    """
)
PROBLEMS = {
    "tiny.py": GOOD,
    "syntax.py": "x = (\n",
    "raises.py": "raise RuntimeError('no data here')\n",
    "none.py": "x = 1\n",
    "two.py": GOOD
    + "another = __import__('copy').copy(problem)\ndel problem\nthird = __import__('copy').copy(another)\n",
    "exits.py": "import sys\nsys.exit(0)\n",
    "empty.py": "",
    "bytes.py": b"\x00\xff\xfe PNG",
    "latin.py": "name = 'é'\n".encode("latin-1"),
    "imports.py": "import no_such_module_at_all\n",
    "metric.py": GOOD.replace('binary("right")', 'binary("right", metrics=(lambda o, t: 0.0,))'),
    "network.py": GOOD.replace("lambda: nn.Linear(4, 3)", "nn.Linear(4, 3)"),
    "wide.py": GOOD.replace("nn.Linear(4, 3)", "nn.Linear(5, 3)"),
    "load.py": GOOD.replace("lambda: split", "lambda: None and split"),
    "loads.py": GOOD.replace("lambda: split", "lambda: {}['rows'] and split"),
    "labels.py": GOOD.replace("torch.arange(40) % 2", "torch.ones(40)"),
    "text.py": GOOD.replace("split(x,", "split([['a']] * 40,"),
    "summary.py": GOOD.replace("epochs=2,", "epochs=2, summary=3,"),
    "name.py": GOOD.replace('"tiny"', "None"),
    "optimizer.py": GOOD.replace("epochs=2,", "epochs=2, optimizer=lambda p: None,"),
    "forever.py": "def f():\n    f()\nf()\n",
    "stopped.py": "raise KeyboardInterrupt\n",
}
OTHERS = {
    "notes.txt": "dear diary\n",
    "photo.png": b"\x89PNG\r\n\x1a\n\x00\xff" * 50,
    "nothing": b"",
    "page.html": "<!doctype html>\n<title>my own</title>\n",
}
WORDS = [
    "",
    " ",
    "-",
    "--",
    "-1",
    "0",
    "1e400",
    "nan",
    "inf",
    "99999999999999999999",
    "None",
    "x" * 300,
    "é",
    "\udcff",
    "%",
    "~",
]
WORDS += [
    "()",
    "a=b",
    ",",
    ";",
    "[red]",
    "\x1b[31m",
    "\n",
    "'",
    '"',
    "{",
    "*",
    "--help",
    "$HOME",
    "1,2,3",
    "True",
    "\u202e",
]
SPECS = [
    "equal",
    "ema(beta=0.9)",
    "ema(beta=2)",
    "ema(bta=1)",
    "ema(beta={{}})",
    "uw(initial=high)",
    "ema(priorities=left)",
]
SPECS += [
    "moco",
    "moco(shared=trunk)",
    "mgda@mmoe(experts=2)",
    "equal@",
    "@mmoe",
    "a+b",
    "log+mgda",
    "equal@mmoe(experts=0)",
]
SPECS += [
    "best-fixed",
    "best-fixed(ratios=x)",
    "fixed(weights='left: 1')",
    "fixed(weights=3)",
    "ema(generator=1)",
    "single-task",
]
SPECS += [
    "ema(",
    "ema)",
    "ema(beta=)",
    "ema(beta=1,beta=2)",
    "ema(every=0)",
    "ema(every=x)",
    "dwa(temperature=0)",
    "db-mtl(beta=x)",
]
FILES = [
    *PROBLEMS,
    *OTHERS,
    "folder",
    "folder.py",
    "study.sqlite",
    "cut.sqlite",
    "nowhere.py",
    "nowhere.sqlite",
    "pipe.py",
]
FILES += [
    "pipe.sqlite",
    "tiny.py:problem",
    "tiny.py:other",
    "tiny.py:",
    "link.py",
    "round.py",
    ".",
    "..",
    ".py",
    "folder/new",
]
NUMBERS = ["1", "2", "0", "-1", "1.5", "x", "99999999999", "1e9", "", "nan", "1_0", "٣"]
SEEDS = ["1", "2", "0", "3,7", "1,1", "-1", "x", "99999999999", "5,99999999999999999999999", "1,", "1.0"]
FRACTIONS = [
    "0.5",
    "1",
    "0",
    "2",
    "50%",
    "left=0.5",
    "left=0.5,right=1",
    "lft=1",
    "1e-300",
    "nan",
    "0.1;left=1",
    ";",
    "left=",
    "%",
]
RATES = ["0.1", "0", "-1", "nan", "inf", "1e400", "x", "1e-320"]
PLACES = ["features", "trunk", "fetures", ""]
TASKS = ["left", "left,right", "lft", "", ",", "left,left", "right"]
ARCHITECTURES = [
    "mmoe",
    "mmoe(experts=2)",
    "mmoe(experts=x)",
    "mmoe(experts=-1)",
    "hard-sharing",
    "ple",
    "mtan",
    "mo",
    "",
    "a+b",
]
OUTPUTS = [
    "out.html",
    "out.json",
    "out.csv",
    "out.md",
    "folder/out",
    *OTHERS,
    "tiny.py",
    "folder",
    "study.sqlite",
    "link.py",
    "round.py",
]
OUTPUTS += ["notes.txt/below", "x" * 300, "study.sqlite-wal"]

NEW = [
    "new.py",
    "folder/new.py",
    "tiny.py",
    "new",
    "",
    ".",
    "..",
    ".py",
    "folder.py",
    "folder",
    "x" * 300 + ".py",
    "round.py",
]
NEW += ["x" * 300]

COMMANDS = {
    "compare": (
        FILES,
        {
            "--methods": SPECS, "-m": SPECS, "--tasks": TASKS, "--seeds": SEEDS, "--fractions": FRACTIONS,
            "--epochs": NUMBERS,
            "--batch-size": NUMBERS, "--epoch-steps": NUMBERS, "--patience": NUMBERS, "--ledger": NUMBERS,
            "--learning-rate": RATES, "--tune": NUMBERS, "--sampling": ["size", "even", "temperature(2)", "odd"],
            "--scale": ["sum", "paper", "summ"], "--shared": PLACES, "--architecture": ARCHITECTURES,
            "--workers": NUMBERS, "--store": FILES, "--page": OUTPUTS, "--dry-run": None,
        },
    ),
    "report": (
        FILES,
        {"--page": OUTPUTS, "--json": OUTPUTS, "--csv": OUTPUTS, "--frozen": None},
    ),
    "diagnose": (
        FILES,
        {
            "--epochs": NUMBERS, "--shared": PLACES, "--architecture": ARCHITECTURES, "--seed": NUMBERS,
            "--affinity": None,
        },
    ),
    "reproduce": (
        ["ema", "emma", "", "comparison"],
        {
            "--list": None, "--quick": None, "--full": None, "--seeds": SEEDS, "--workers": NUMBERS, "--store": FILES,
            "--page": OUTPUTS, "--markdown": OUTPUTS, "--dry-run": None,
        },
    ),
    "methods": ([*METHODS, "emma", "single-task", "best-fixed", "ema(beta=1)", ""], {}),
    "architectures": (ARCHITECTURES, {}),
    "problems": ([*FILES, "digits", "gdsc(drugs=50)", "gdsc(drugs=x)", "gdsc(drgs=1)", "digits(", "digits(a=1)"], {}),
    "new": (NEW, {}),
}  # fmt: skip


RIGHT = {
    "compare": "tiny.py",
    "report": "study.sqlite",
    "diagnose": "tiny.py",
    "reproduce": "ema",
    "problems": "tiny.py",
}


def command_line(draw):
    """A line by the grammar; one in five by a careful hand, and three in ten with a slip."""
    name = draw.choices(list(COMMANDS), [8, 5, 2, 2, 2, 1, 2, 2])[0]
    careful = draw.random() < 0.2
    arguments, options = COMMANDS[name]
    words = [name]
    if careful:
        words.append(RIGHT.get(name, arguments[0]))
    elif draw.random() < 0.95:
        words.append(draw.choice([*arguments, "tiny.py", "study.sqlite"] if draw.random() < 0.8 else WORDS))
    for option in draw.sample(list(options), min(len(options), draw.choice([0, 0, 1, 1, 2, 3]))):
        words.append(option)
        if options[option] is not None:
            right = [value for value in options[option][:2] if value not in FILES]
            pool = right if careful and right else options[option] if draw.random() < 0.9 else WORDS
            words.append(draw.choice(pool))
    if careful and name == "compare" and "--dry-run" not in words:
        words.append("--dry-run")
    if not careful and draw.random() < 0.3:
        words = slip(draw, words)
    return words


def slip(draw, words):
    """A word too many, too few, out of place or mistyped. No slash is typed: nothing outside the folder is meant."""
    place = draw.randrange(len(words))
    word = words[place]
    letter = draw.randrange(len(word) + 1)
    kind = draw.choice(["drop", "double", "swap", "type", "forget", "replace", "join"])
    if kind == "drop":
        return words[:place] + words[place + 1 :]
    if kind == "double":
        return words[: place + 1] + words[place:]
    if kind == "swap":
        other = draw.randrange(len(words))
        words[place], words[other] = words[other], words[place]
        return words
    if kind == "join" and place + 1 < len(words):
        return [*words[:place], f"{word}={words[place + 1]}", *words[place + 2 :]]
    typed = {
        "type": word[:letter] + draw.choice("abz-=(),.@+ 0\x1b'\udc80é:[]%") + word[letter:],
        "forget": word[:letter] + word[letter + 1 :],
    }
    return [*words[:place], typed.get(kind, draw.choice(WORDS)), *words[place + 1 :]]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files of all kinds, and no training."""
    monkeypatch.chdir(tmp_path)
    for name, content in {**PROBLEMS, **OTHERS}.items():
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    made = made_up.plan(seeds=1)
    with Store("study.sqlite", write=True) as store:
        store.add_plan(made.to_dict())
        found = {"left": 0.9, "right": 0.8}
        made_up.fill(store, made, {"single-task": [found], "equal": [found]})
    whole = Path("study.sqlite").read_bytes()
    Path("cut.sqlite").write_bytes(whole[: len(whole) // 2])
    Path("folder").mkdir()
    Path("folder.py").mkdir()
    os.mkfifo("pipe.py")
    os.mkfifo("pipe.sqlite")
    Path("link.py").symlink_to("tiny.py")
    Path("round.py").symlink_to("round.py")

    def stop(*_, **__):
        raise StoreError("here a study would begin")

    def stop_planning(*_, **__):
        raise PlanError("here a reproduction would be planned")

    from steelyard.study.running import forecast
    from steelyard.study.training.diagnose_training import diagnose_training

    monkeypatch.setattr("steelyard.cli.app.app", typer.main.get_command(cli.app.app))  # built once, not 2000 times
    monkeypatch.setattr("steelyard.study.run", stop)
    monkeypatch.setattr("steelyard.reproductions.run_reproduction.prepare", stop_planning)
    monkeypatch.setattr("steelyard.study.running.engines.local.start_server", lambda: None)
    monkeypatch.setattr(forecast, "_time", lambda problem, trial: forecast._Cost(1e-3, 1e-3))
    monkeypatch.setattr(
        "steelyard.study.training.diagnose_training.diagnose_training",
        lambda problem, epochs, *more: diagnose_training(problem, epochs if epochs is None else min(epochs, 1), *more),
    )
    return tmp_path


def contents(folder):
    return {
        name: (folder / name).read_bytes()
        for name in (*PROBLEMS, *OTHERS, "study.sqlite", "cut.sqlite")
        if name != "nothing"
    }


@pytest.mark.slow("two thousand command lines")
def test_no_command_line_ends_in_a_traceback_or_takes_a_file_of_the_users(folder, monkeypatch, capsys):
    draw = random.Random(SEED)
    before, codes, wrong = contents(folder), [], []
    for _ in range(LINES):
        words = command_line(draw)
        monkeypatch.setattr(sys, "argv", ["steelyard", *words])
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException as error:
            code = repr(error)
        printed = capsys.readouterr()
        codes.append(code)
        if code not in (0, 1, 2, 130) or "Traceback" in printed.out + printed.err:
            wrong.append((words, code))
        elif code == 2 and not (printed.err + printed.out).strip():
            wrong.append((words, "fails without a word"))
        elif (after := contents(folder)) != before:
            wrong.append((words, f"changed {[name for name in before if after[name] != before[name]]}"))
            before = after
    assert not wrong, f"{len(wrong)} lines: " + "\n".join(f"{words!r}: {code}" for words, code in wrong[:40])
    # The grammar is worth something: many lines are right, and go all the way.
    assert {0, 2, 130} <= set(codes)
    assert codes.count(0) > LINES / 10
