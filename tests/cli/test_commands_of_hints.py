"""What a hint gives to paste is the study's own command, whole, with what the hint is about."""

import dataclasses
import re
import shlex

import pytest
import typer

from steelyard.cli.app import app
from steelyard.cli.program_words import program_of
from steelyard.study.analysis.make_judgement import judge_plan
from steelyard.study.planning.command_again import NAMED, SHORT, TAKES, with_options
from steelyard.study.planning.plan import Choice, Tuning
from steelyard.study.storage.store import Store
from steelyard.study.trial import SINGLE_TASK
from study.made_up import ACCURACY, fill, judged, plan, result

ALONE = [{"left": 0.9, "right": 0.8}] * 3
COMMANDS = typer.main.get_command(app).commands
STUDIES = {
    "in its shortest form": "steelyard compare digits",
    "of a program": "steelyard compare --methods uw --seeds 3 -- python train.py --epochs 7 --tune 1",
    "under torchrun": "steelyard compare --epochs=5 --seeds 3 -- torchrun --nproc-per-node 2 'my train.py'",
    "with all options that a hint is about": (
        "steelyard compare digits --epochs 5 --tune=3 --learning-rate 0.01 --methods 'uw,ema(beta=0.9)' --seeds 3,7"
    ),
    "in short options": "steelyard compare 'my problem.py' -m uw --seeds 10 --fractions 0.1 --fractions left=0.2",
    "with switches": "steelyard compare digits --resplit --reuse-any --epochs 5 --store a.sqlite --page b.html",
}


def read(command):
    """(its options as the command line reads them, the program)."""
    _, name, *words = shlex.split(command)
    context = COMMANDS[name].make_context(name, words)
    return {"": name, **context.params}, program_of(context)


@pytest.mark.parametrize("options", [{"--epochs": "50"}, {"--tune": "5", "--learning-rate": "0.3"}])
@pytest.mark.parametrize("command", STUDIES.values(), ids=STUDIES)
def test_the_options_take_the_place_of_its_own_and_all_others_stay(command, options):
    before, program = read(command)
    after, same = read(with_options(command, options))
    assert same == program
    assert after == {**before, **{name[2:].replace("-", "_"): type_of(value) for name, value in options.items()}}


def type_of(value):
    return float(value) if "." in value else int(value)


def test_methods_are_replaced_in_either_form():
    for command in STUDIES.values():
        assert read(with_options(command, {"--methods": "dwa,uw"}))[0]["methods"] == "dwa,uw"


@pytest.mark.parametrize(
    "command",
    [
        "",
        "a study of mine",
        "it's mine",
        "steelyard",
        "steelyard reproduce ema --quick",
        "python -m mine compare digits",
    ],
)
def test_what_is_no_command_of_a_study_is_left_alone(command):
    assert with_options(command, {"--epochs": "5"}) is None


def test_the_options_are_those_of_the_commands():
    for command, options in TAKES.items():
        there = {name: parameter for parameter in COMMANDS[command].params for name in parameter.opts}
        for option in options:
            assert not there[option].is_flag, "it takes a value"
            short = [name for name in there[option].opts if not name.startswith("--")]
            assert short == [SHORT[option]] if option in SHORT else not short
    assert with_options("steelyard group digits --budget 5", {"--tune": "5"}) is None


# --- over all hints ---------------------------------------------------------------------------------------------------
def still_improving(tmp_path, made):
    with Store(tmp_path / "last", write=True) as store:
        for trial in made.trials:
            found = result(dict.fromkeys(trial.tasks, 0.9))
            store.add_result(trial, dataclasses.replace(found, chosen_epoch=made.epochs))
        return judge_plan(made, store)


def at_the_edge(tmp_path, made):
    chosen = {SINGLE_TASK: Choice(SINGLE_TASK, {"left": 0.3, "right": 0.3}), "equal": Choice("equal", {"": 0.3})}
    methods = tuple(dataclasses.replace(method, chosen=(chosen[method.name],)) for method in made.methods)
    tuned = dataclasses.replace(made, methods=methods, tuning=Tuning((0.1, 0.03, 0.3), 10_007))
    return judged(tmp_path / "edge", tuned, {SINGLE_TASK: ALONE, "equal": ALONE})


HINTS = {still_improving: {"epochs": 4}, at_the_edge: {"tune": 3, "learning_rate": 0.3}}


@pytest.mark.parametrize("hint", HINTS)
@pytest.mark.parametrize("command", STUDIES.values(), ids=STUDIES)
def test_every_command_in_a_judgement_is_the_studys_own(hint, command, tmp_path):
    """Whatever sentence it stands in."""
    judgement = hint(tmp_path, dataclasses.replace(plan(), command=command))
    said = "\n".join([*judgement.cautions, *judgement.verdict, *judgement.notes])
    commands = [line for line in said.splitlines() if line.startswith("steelyard ")]
    assert commands
    assert not re.search(r"\S steelyard (compare|group|report)", said), "a command stands on a line of its own"
    before, program = read(command)
    for each in commands:
        after, same = read(each)
        assert (after, same) == ({**before, **HINTS[hint]}, program)


def test_a_study_that_python_planned_is_told_the_options_alone(tmp_path):
    said = "\n".join(still_improving(tmp_path, dataclasses.replace(plan(), command="")).cautions)
    assert "before you rely on this, e.g. epochs=4." in said
    said = "\n".join(at_the_edge(tmp_path, dataclasses.replace(plan(), command="")).cautions)
    assert "Try around it, e.g. tune=3, learning_rate=0.3." in said


def test_a_reproduction_whose_command_takes_no_such_options_is_told_none(tmp_path):
    given = {name for parameter in COMMANDS["reproduce"].params for name in parameter.opts}
    assert not given & {"--epochs", "--learning-rate", "--tune", "--tune-seeds", "--epoch-steps", "--resplit"}
    made = dataclasses.replace(plan(), command="steelyard reproduce ema --quick")
    (said,) = still_improving(tmp_path, made).cautions
    assert said.endswith("they were still improving. Train longer before you rely on this.")
    told = [*at_the_edge(tmp_path, made).cautions, made.again(tune=3), made.hint(" (--tune 5)")]
    assert told[0].endswith("better ones may lie beyond.")
    assert not any("--" in text for text in told)


def test_a_hint_names_no_option_that_the_studys_own_command_does_not_take(tmp_path):
    """Whatever the study: of few test rows, tuned on one seed, of unequal steps, or decided within other rows."""
    for command, options in NAMED.items():
        assert {*options} <= {name for parameter in COMMANDS[command].params for name in parameter.opts}
    told = {}
    for number, command in enumerate(("", "steelyard compare digits", "steelyard group digits --budget 5")):
        made = dataclasses.replace(plan(), command=command, tuning=Tuning((), 7))
        tasks = tuple(dataclasses.replace(task, test_rows=9, train_rows=90) for task in made.tasks)
        found = judged(tmp_path / str(number), dataclasses.replace(made, tasks=tasks), {SINGLE_TASK: ALONE})
        told[command] = "\n".join(found.cautions)
    python, compare, group = told.values()
    assert compare == python
    assert all(option in compare for option in ("(--resplit)", "(--tune-seeds 3)"))
    assert "--" not in group
    assert "another one may give another picture." in group
    grouped = dataclasses.replace(plan(), command="steelyard group digits --budget 5")
    assert grouped.hint(" with --epoch-steps 5") == " with --epoch-steps 5"


@pytest.mark.parametrize("further", [[], ["--plan", "0"], ["--plan", "1"], ["--salvage"]])
def test_the_command_that_prints_all_tasks_names_store_and_plan(run, tmp_path, further):
    made = plan(metrics=[(f"task {number}", (ACCURACY,)) for number in range(30)])
    with Store(tmp_path / "my store.sqlite", write=True) as store:
        for _ in range(2):
            store.add_plan(made.to_dict())
        fill(store, made, {method: [dict.fromkeys(made.task_names, 0.9)] * 3 for method in (SINGLE_TASK, "equal")})
    code, out, err = run("report", "my store.sqlite", "--json", "a.json", *further)
    assert code == 0, err
    (command,) = [line.strip() for line in out.splitlines() if line.strip().startswith("steelyard report")]
    code, out, err = run(*shlex.split(command)[1:])
    assert code == 0, err
    assert all(task in out for task in made.task_names)
    before, after = (read(shlex.join(["steelyard", "report", "my store.sqlite", *further])), read(command))
    assert after[0] == {**before[0], "every": True}
