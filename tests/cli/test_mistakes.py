"""The command line: every wrong input ends with a message, exit code 2 and nothing written."""

import sys
from pathlib import Path

import pytest

import steelyard
from cells import every
from steelyard import __version__


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_only_what_may_be_a_program_is_told_where_programs_stand(run):
    assert "program" not in run("diagnose", "digits", "more")[2]
    assert "A program stands behind --" in run("compare", "digits", "more")[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "digist"], "unknown problem 'digist'. Did you mean 'digits'?"),
        (["compare", "digits", "--methods", "emma"], "unknown method 'emma'. Did you mean 'ema'?"),
        (["compare", "digits", "--methods", "ema(bta=0.9)"], "Did you mean 'beta'?"),
        (["compare", "digits", "--methods", "ema(beta=2)"], "beta"),
        (["compare", "digits", "--methods", "equal,"], "an empty entry in 'equal,'"),
        (["compare", "digits", "--fractions", "lft=0.1"], "Did you mean 'left'?"),
        (["compare", "digits", "--fractions", "2"], "must be above 0 and at most 1"),
        (["compare", "digits", "--seeds", "many"], "give a number of seeds"),
        (["compare", "digits", "--seeds", "0"], "at least one seed"),
        (["compare", "digits", "--store", "."], "the store . is a folder"),
        (["compare", "digits", "--shared", "fetures"], "Did you mean 'features'?"),
        (["compare", "digits", "--scale", "summ"], "Did you mean 'sum'?"),
        (["compare", "digits", "--architecture", "hard"], "unknown architecture 'hard'"),
        (["compare", "digits", "--workers", "0"], "workers"),
        (["compare", "digits", "--epochs", "0"], "epochs"),
        (["compare", "digits", "--learning-rate", "-1"], "learning_rate"),
        (["compare", "digits", "--epoch", "3"], "--epochs"),
        (
            ["compare", "digits", "--tune-seeds", "3"],
            "tune_seeds=3: nothing is tuned. Give tune=3, or leave tune_seeds",
        ),
        (["diagnose", "digits", "more"], "Got unexpected extra argument"),
        (["methods", "best-fixed"], "is a row of studies, which choose constant weights for it on validation data"),
        (["new", ".py"], "a problem file ends in .py, e.g. my_problem.py"),
        (["compare", "nowhere.py"], "cannot read the problem file"),
        (["compare"], "give a problem (steelyard problems lists them), or a program: -- python train.py"),
        (["compare", "--"], "there is no program behind --"),
        (["compare", "--", "not-here"], "command not found, or not to be executed: not-here"),
        (["compare", "--", "--methods", "uw", "true"], "--methods: options of steelyard stand before --"),
        (["compare", "--", "true | sh x"], "one word: leave the quotes away, -- true | sh x, or have a shell read it"),
        (["compare", "--", ""], "command not found, or not to be executed: an empty word"),
        (
            ["compare", "--", "false", "--seeds", "3"],
            "behind -- is the program's: --seeds too. Options of steelyard stand",
        ),
        (["compare", "--", "env", "-i", "true"], "keeps the variable STEELYARD_TRIAL from it, as sudo, ssh, env -i"),
        (["compare", "python", "train.py"], "A program stands behind --, with all its words: steelyard compare --"),
        (["diagnose", "digits", "--", "true"], "A program stands behind --, with all its words: steelyard compare --"),
        (["group", "digits", "--budget", "1", "--", "true"], "A program stands behind --, with all its words"),
        (["compare", "--", sys.executable, "-S", "-c", "1"], "ends without having called steelyard.trial(…)"),
        (["compare", "--", sys.executable, "-S", "-m", "gone"], "exit code 1: "),
        (["compare", "--", sys.executable, "gone.py"], "there is no gone.py in "),
        (["compare", "digits", "--", "true"], "a problem (digits) and a program (true): give one of them"),
        *(
            (["compare", *words, "--", "true"], f"{words[0]}: a program sees to that itself")
            for words in (
                ["--shared", "trunk"],
                ["--batch-size", "8"],
                ["--epoch-steps", "8"],
                ["--architecture", "mmoe"],
                ["--ledger", "8"],
                ["--sampling", "even"],
                ["--per-device", "2"],
            )
        ),
        (["compare", "--patience", "-1", "--", "true"], "patience=-1 must be a whole number of at least 1"),
        (["compare", "--workers", "0", "--", "true"], "workers"),
        (["compare", "--keep", "some", "--", "true"], "value of keep 'some'"),
        (["compare", "--methods", "uw@mmoe", "--", "true"], "uw@mmoe: the program builds its network itself"),
        (["compare", "--methods", "moco(shared=trunk)", "--", "true"], "leave shared=trunk away"),
        (["compare", "--methods", "emma", "--", "true"], "steelyard.trial(…): a study asks by that call"),
        (["compare", "--", "true"], "true ends without having called steelyard.trial(…)"),
        (["compare", "--", "false"], "the program ends with exit code 1, and printed nothing"),
        (["report", "nowhere.sqlite"], "there is no store nowhere.sqlite"),
        (["methods", "emma"], "Did you mean 'ema'?"),
        (["problems", "digist"], "Did you mean 'digits'?"),
        (["new", "mine.txt"], "ends in .py, e.g. mine.py"),
        (["compair"], "unknown command 'compair'. Did you mean 'compare'?"),
        (["compare", "digits", "--seed", "3"], "unknown option '--seed'. Did you mean '--seeds'?"),
        (["compare", "digits", "--epochs", "many"], "given: 'many'"),
        (["compare", "digits", "--epochs=many"], "given: 'many'"),
        (["compare", "digits", "--seeds", "99999999999"], "at most 10000"),
        (["compare", "digits", "--seeds", "1,99999999999999999999"], "--seeds '1,99999999999999999999'"),
        (["compare", "digits", "--learning-rate", "inf"], "must be positive and finite"),
        (["compare", "digits", "--tune", "99999999999"], "from 2 to 25 learning rates"),
        (["compare", "digits", "--methods", "moco"], "write moco(shared=trunk) for this arm alone, or --shared trunk"),
        (["report", ""], "the store . is a folder: name a file"),
        (["report", "."], "the store . is a folder: name a file"),
        (["new", ""], "'.': a problem file ends in .py, e.g. my_problem.py"),
        (["new", "."], "'.': a problem file ends in .py, e.g. my_problem.py"),
        (["new", "x" * 300], "a problem file ends in .py"),
    ],
)
def test_wrong_input_is_named_and_nothing_is_written(run, folder, words, message):
    code, out, err = run(*words)
    assert code == 2
    assert message in err.replace("\n", " ")
    assert "Traceback" not in out + err
    assert list(folder.iterdir()) == []


def test_a_page_that_cannot_be_written_is_named_before_anything_is_trained(run, folder):
    (folder / "taken").write_text("a file, not a folder")
    code, _, err = run("compare", "digits", "--page", "taken/page.html")
    assert (code, err.startswith("Error: cannot write taken/page.html")) == (2, True)
    code, _, err = run("compare", "digits", "--page", folder)
    assert (code, "it is a folder" in err) == (2, True)
    assert [path.name for path in folder.iterdir()] == ["taken"]


def test_a_page_never_overwrites_the_store(run, folder):
    code, _, err = run("compare", "digits", "--store", "study.html")
    assert (code, "cannot write study.html: that is the store" in err) == (2, True)
    assert list(folder.iterdir()) == []


def test_a_file_that_is_no_store_is_named_and_left_alone(run, folder):
    path = Path("notes.sqlite")
    path.write_text("dear diary")
    for words in (["report", path], ["compare", "digits", "--epochs", "1", "--store", path]):
        code, _, err = run(*words)
        assert (code, "is not a Steelyard store" in err) == (2, True)
    assert path.read_text() == "dear diary"


def test_a_broken_problem_file_is_named_with_its_line(run, folder):
    Path("mine.py").write_text("x = 1\ny = x +\n")
    code, _, err = run("compare", "mine.py")
    assert code == 2
    assert "mine.py, line 2: SyntaxError" in err


def test_a_mistake_in_a_loss_is_named_before_anything_is_trained(run, folder):
    run("new", "mine.py")
    text = Path("mine.py").read_text()
    Path("mine.py").write_text(text.replace("nn.Linear(32, task.outputs)", "nn.Linear(33, task.outputs)"))
    code, _, err = run("compare", "mine.py")
    assert code == 2
    assert "the network on inputs [" in err
    assert "32 and 33" in err or "33 and 32" in err or "32x33" in err or "33x" in err
    assert not list(folder.glob("*.sqlite"))


def test_a_program_in_the_place_of_a_problem_file_is_told_before_it_trains(run, folder):
    text = "import steelyard\nsteelyard.trial(tasks={'a': 'rmse'}, epochs=1)\nopen('trained', 'w')\n"
    Path("train.py").write_text(text)
    code, _, err = run("compare", "train.py")
    assert code == 2
    assert "train.py, line 2" in err
    assert "a file that calls steelyard.trial is a program: steelyard compare -- python train.py" in err
    assert [path.name for path in folder.glob("*.*")] == ["train.py"]


def test_new_writes_a_file_once(run, folder):
    code, out, _ = run("new", "deep/my_data.py")
    assert code == 0
    assert "steelyard compare deep/my_data.py" in out
    text = Path("deep/my_data.py").read_text()
    assert '"my-data"' in text
    assert "steelyard compare my_data.py" in text
    Path("deep/my_data.py").write_text("mine")
    code, _, err = run("new", "deep/my_data.py")
    assert (code, "exists already" in err) == (2, True)
    assert Path("deep/my_data.py").read_text() == "mine"


def test_the_lists_name_everything_there_is(run):
    from steelyard.problems import problem_names

    code, out, _ = run("methods")
    assert code == 0
    assert {row.name for row in steelyard.methods()} <= set(out.split())
    code, out, _ = run("problems")
    assert code == 0
    assert set(problem_names()) <= set(out.split())


@every("row", steelyard.methods(), ids=lambda row: row.name)
def test_every_method_can_be_described(run, row):
    code, out, _ = run("methods", row.name)
    assert code == 0
    assert all(f"{option}=" in out for option in row.options)
    assert "``" in out, "no equation"


def test_one_method_and_one_problem_can_be_described(run):
    code, out, _ = run("methods", "ema")
    assert code == 0
    assert "beta=" in out
    code, out, _ = run("methods", "log")
    assert "log (method)" in out
    assert "log (stage, to be put before a method" in out
    code, out, _ = run("problems", "digits")
    assert "left digit" in out
    assert "accuracy" in out


def test_the_version(run):
    assert run("--version") == (0, f"steelyard {__version__}\n", "")


def test_a_dry_run_counts_trials_and_writes_nothing(run, folder):
    code, out, _ = run(
        *["compare", "digits", "--methods", "dwa", "--seeds", "3", "--epochs", "2", "--workers", "1"],
        *["--fractions", "0.5;left=0.1,right=0.5", "--dry-run"],
    )
    assert code == 0
    assert "Added for a fair comparison: single-task and equal." in out
    # single-task: left 0.5, right 0.5 (shared by both settings), left 0.1; equal and dwa: two settings each
    assert "21 trials: about" in out
    assert "left 10 %, right 50 %" in out
    assert "Nothing was trained or written." in out.replace("\n", " ")
    assert list(folder.iterdir()) == []
