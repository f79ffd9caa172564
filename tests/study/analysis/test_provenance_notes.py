"""Results belong to the code, the data and the versions that they were trained with."""

import dataclasses
import sys
import textwrap
from datetime import datetime

import pytest
import sklearn
from rich.console import Console
from rich.progress import Progress

import steelyard.study.planning.provenance as origin
from steelyard import method_registry, study
from steelyard.errors import SteelyardWarning, TrainingError
from steelyard.problems import load_problem
from steelyard.report import render
from steelyard.report.study_page import page
from steelyard.study.analysis.provenance_notes import changed_since, origin_notes, stale_note
from steelyard.study.analysis.trial_results import TrialResults
from steelyard.study.planning.plan import Plan
from steelyard.study.running.worker import check_origin
from steelyard.study.storage.store import Store, Trained
from steelyard.study.training.ensemble import FEWEST
from study import made_up
from study.in_process import InProcess, MadeUp

PROBLEM = """
    import torch
    from pathlib import Path
    from torch import nn
    from origin_helper import THRESHOLD
    from steelyard.problems import Data, Problem, Split, classification

    def load():
        generator = torch.Generator().manual_seed(0)
        shift = float((Path(__file__).parent / "shift.txt").read_text())
        def split(rows):
            x = torch.randn(rows, 4, generator=generator)
            return Split(x, {"kind": (x[:, 0] > THRESHOLD).long(), "sign": (x[:, 1] > shift).long()})
        return Data(split(96), split(60), split(60))

    problem = Problem("mine", (classification("kind", 2), classification("sign", 2)), load,
                      lambda: nn.Linear(4, 8), lambda task: nn.Linear(8, task.outputs), batch_size=16, epochs=1)
"""

MANY = """
    import torch
    from torch import nn
    from steelyard.problems import Problem, regression, split

    def load():
        x = torch.rand(60, 4)
        return split(x, {f"t{place}": x[:, 0] for place in range(TASKS)})

    problem = Problem("many", [regression(f"t{place}") for place in range(TASKS)], load,
                      lambda: nn.Linear(4, 8), lambda task: nn.Linear(8, task.outputs), batch_size=20, epochs=1)
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "origin_helper.py").write_text("THRESHOLD = 0.0\n")
    (tmp_path / "shift.txt").write_text("0")
    (tmp_path / "mine.py").write_text(textwrap.dedent(PROBLEM))
    yield tmp_path / "mine.py"
    sys.modules.pop("origin_helper", None)


@pytest.fixture
def run(file, tmp_path):
    """Run a study with made-up trials in the workers' place: how many were trained, the notes, and what was said."""

    engine = MadeUp()

    def command(seeds=2, **options):
        engine.trained.clear()
        plan = study.plan(str(file), ["equal"], seeds=seeds)
        with open(tmp_path / "out", "w") as out, Progress(console=Console(file=out, width=200)) as bar:
            judgement = study.run(plan, tmp_path / "s.sqlite", progress=bar, on=engine, **options)
        return len(engine.trained), judgement.notes, (tmp_path / "out").read_text()

    return command


def edit_helper(folder):
    (folder / "origin_helper.py").write_text("THRESHOLD = 1e-9\n")  # the same labels, other code


def edit_data(folder):
    (folder / "shift.txt").write_text("0.05")


def undo(folder):
    (folder / "origin_helper.py").write_text("THRESHOLD = 0.0\n")
    (folder / "shift.txt").write_text("0")
    origin.__version__, origin.torch.__version__ = VERSIONS


VERSIONS = origin.__version__, origin.torch.__version__


@pytest.mark.parametrize("edit", ["helper", "data", "steelyard", "torch"])
def test_after_an_edit_trials_are_trained_anew_and_undone_the_old_ones_are_served(run, tmp_path, monkeypatch, edit):
    assert run()[:2] == (2, [])
    trained, notes, said = run()
    assert trained == 0
    assert notes[0].startswith("2 of 2 trials reused, trained at ")
    load = load_problem(str(tmp_path / "mine.py"))
    if edit == "helper":
        edit_helper(tmp_path)
    elif edit == "data":
        edit_data(tmp_path)
        load._data.clear()  # another process would read the file anew
    elif edit == "steelyard":
        monkeypatch.setattr(origin, "__version__", "0.0.9")
    else:
        monkeypatch.setattr(origin.torch, "__version__", "1.0")
    trained, notes, said = run()
    assert (trained, notes) == (2, [])
    assert "Trained with other code or data: 2 trials." in said
    assert "--reuse-any" in said
    monkeypatch.undo()
    undo(tmp_path)
    load_problem(str(tmp_path / "mine.py"))._data.clear()
    trained, notes, said = run()
    assert trained == 0
    assert "2 of 2 trials reused" in notes[0]


def test_the_flag_takes_results_of_other_code_and_says_so_for_ever(run, tmp_path):
    run()
    edit_helper(tmp_path)
    trained, notes, _ = run(seeds=3, reuse_any=True)
    assert trained == 1
    assert notes[0].startswith("2 of 3 trials reused")
    assert notes[1].startswith("trained with other code or data, and taken all the same: 2 trials; changed since: ")
    again = study.judge(tmp_path / "s.sqlite")
    assert again.notes == notes
    assert all(note in page(again) for note in notes)
    with open(tmp_path / "shown", "w") as out:
        render(again, Console(file=out, width=200))
    assert all(note in (tmp_path / "shown").read_text() for note in notes)
    # Without it they are trained; the estimate counts alike.
    plan = study.plan(str(tmp_path / "mine.py"), ["equal"], seeds=3)
    for reuse_any, finished in ((False, 1), (True, 3)):
        assert study.estimate(plan, tmp_path / "s.sqlite", reuse_any=reuse_any).finished == finished
    assert run(seeds=3)[0] == 2


def test_a_plan_of_the_first_version_is_shown_and_says_what_is_not_known(tmp_path):
    plan = made_up.plan()
    with Store(tmp_path / "s.sqlite", write=True) as store:
        values = plan.to_dict()
        del values["origin"], values["also"]
        store.add_plan(values)
        made_up.fill(store, plan, {"equal": [{"left": 0.5, "right": 0.5}]})
    made_up.version_1(tmp_path / "s.sqlite")
    judgement = study.judge(tmp_path / "s.sqlite")
    assert judgement.finished == 1
    assert judgement.notes == [
        "planned by Steelyard 0.1, which took no note of code and data: results may be of earlier ones"
    ]


def test_trials_of_the_first_version_are_not_taken_for_todays_but_by_the_flag(run, tmp_path):
    plan = study.plan(str(tmp_path / "mine.py"), ["equal"], seeds=1)
    old = dataclasses.replace(plan.trials[0], problem="mine.py@0123456789abcdef")
    with Store(tmp_path / "s.sqlite", write=True) as store:
        store.add_result(old, made_up.result({task: [0.5, 0.5] for task in old.tasks}))
    made_up.version_1(tmp_path / "s.sqlite")
    assert run(seeds=1, reuse_any=True)[0] == 0
    trained, _, said = run(seeds=1)
    assert trained == 1
    assert "Trained with other code or data: 1 trial." in said


def test_a_built_in_problem_has_an_origin_too():
    plan = study.plan("digits", ["equal"], seeds=1, epochs=1)
    assert plan.trials[0].problem == f"digits@{plan.origin.mark(plan.trials[0])}"
    assert Plan.from_dict(plan.to_dict()) == plan
    assert plan.origin.versions["sklearn"] == sklearn.__version__  # the file imports it
    assert not plan.origin.extensions  # Steelyard's own methods are known by its version


def test_each_fold_has_its_own_data():
    plan = study.plan("digits", ["equal"], seeds=3, epochs=1)
    zero, one, two = plan.trials
    folds = dataclasses.replace(plan.origin, data=({"inputs of train": "a"}, {"inputs of train": "b"}))
    assert folds.mark(zero) == folds.mark(two) != folds.mark(one)
    assert dataclasses.replace(folds, data=(folds.data[0], None)).mark(zero) == folds.mark(zero)  # others do not matter


def test_a_worker_notices_an_edit_and_tells_of_other_data(file, tmp_path):
    problem, trial = load_problem(str(file)), study.plan(str(file), ["equal"], seeds=1).trials[0]
    made = origin.Origin.of(problem, [0])
    assert check_origin(made, problem, trial) == ""
    other = {**made.data[0], "'kind' of test": "other", "inputs of train": "other"}
    with pytest.warns(SteelyardWarning, match=r"not those that .* planned with \(inputs of train, 'kind' of test\)"):
        found = check_origin(dataclasses.replace(made, data=(other,)), problem, trial)
    assert found == "inputs of train, 'kind' of test"
    edit_helper(tmp_path)
    with pytest.raises(TrainingError, match=r"origin_helper\.py was changed while the study was running"):
        check_origin(made, problem, trial)


@pytest.mark.filterwarnings("default::steelyard.SteelyardWarning")
@pytest.mark.parametrize("tasks", [2, FEWEST])  # trained one by one, and together
def test_data_that_a_worker_finds_to_be_others_are_the_first_caution_for_good(tmp_path, tasks):
    path = tmp_path / "many.py"
    path.write_text(textwrap.dedent(MANY).replace("TASKS", str(tasks)))
    plan = study.plan(str(path), ["single-task", "equal"], seeds=1)
    (data,) = plan.origin.data
    elsewhere = dataclasses.replace(plan.origin, data=({**data, "inputs of train": "other", "'t0' of test": "other"},))
    study.run(dataclasses.replace(plan, origin=elsewhere), tmp_path / "s.sqlite", on=InProcess(), workers=1)
    first, *_ = study.judge(tmp_path / "s.sqlite").cautions
    assert first.startswith(
        f"The data were not those that the study was planned with in {tasks + 1} of {tasks + 1} trainings (inputs of "
        "train, 't0' of test): they were changed since, or load() gives other numbers in every process"
    )


# --- methods, loss stages and architectures of other packages ---

EXTENSIONS = """
    import steelyard
    from origin_numbers import POWER

    class Theirs(steelyard.Balancer):
        name = "theirs"
        positive_losses = True
        def weigh(self, seen, state):
            return seen.losses ** POWER

    class Halved(steelyard.LogLosses):
        pass
"""
ARCHITECTURE = """
    from steelyard.models.architectures.hard_sharing import HardSharing

    class Other(HardSharing):
        "An architecture of another package."
"""
USED = {"theirs": "theirs", "halved+equal": "halved", "equal@other": "other"}


@pytest.fixture
def package(tmp_path, monkeypatch, file):
    """A third party's package, laid out as pip installs it, elsewhere than the problem."""
    folder = tmp_path / "site"
    info = folder / "origin_theirs-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: origin-theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[steelyard.methods]\ntheirs = origin_theirs:Theirs\n[steelyard.stages]\nhalved = origin_theirs:Halved\n"
        "[steelyard.architectures]\nother = origin_other:Other\n"
    )
    (folder / "origin_theirs.py").write_text(textwrap.dedent(EXTENSIONS))
    (folder / "origin_numbers.py").write_text("POWER = -0.5\n")
    (folder / "origin_other.py").write_text(textwrap.dedent(ARCHITECTURE))
    monkeypatch.syspath_prepend(folder)
    method_registry._from_entry_points.cache_clear()
    yield folder
    method_registry._from_entry_points.cache_clear()
    for name in ("origin_theirs", "origin_numbers", "origin_other"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("edited", "arms"),
    [
        ("origin_theirs.py", {"theirs", "halved+equal"}),
        ("origin_numbers.py", {"theirs", "halved+equal"}),
        ("origin_other.py", {"equal@other"}),
    ],
)
def test_an_edit_of_another_packages_code_trains_what_uses_it_anew(file, package, tmp_path, edited, arms):
    engine, methods = MadeUp(), ["single-task", "equal", *USED]

    def run(**options):
        engine.trained.clear()
        with open(tmp_path / "out", "w") as out, Progress(console=Console(file=out, width=300)) as bar:
            plan = study.plan(str(file), methods, seeds=1)
            study.run(plan, tmp_path / "s.sqlite", progress=bar, on=engine, **options)
        arms = {(trial.method, trial.architecture) for trial in engine.trained}
        return {f"{m}@{a}" if a == "other" else m for m, a in arms}, (tmp_path / "out").read_text().strip()

    assert run()[0] == {*methods}
    assert run() == (set(), "")
    before = (package / edited).read_text()
    (package / edited).write_text(before + "# edited\n")
    trained, said = run()
    assert trained == arms
    assert f"Changed since: {edited} of " in said
    assert any(USED[arm] in said for arm in arms)
    (package / edited).write_text(before)
    assert run() == (set(), "")


def test_what_a_revised_default_changes_is_trained_anew_and_nothing_else(file, tmp_path, monkeypatch):
    """The same name and version, other weights: the results of before are not taken for those of now."""
    engine, methods = MadeUp(), ["single-task", "equal", "uw", "log+equal", "equal@mmoe"]

    def run(**options):
        engine.trained.clear()
        with open(tmp_path / "out", "w") as out, Progress(console=Console(file=out, width=300)) as bar:
            plan = study.plan(str(file), methods, seeds=1)
            assert Plan.from_dict(plan.to_dict()) == plan
            notes = study.run(plan, tmp_path / "s.sqlite", progress=bar, on=engine, **options).notes
        return {f"{t.method}@{t.architecture}" for t in engine.trained}, (tmp_path / "out").read_text().strip(), notes

    assert len(run()[0]) == len(methods)
    revised = {
        "method uw": "uw@hard-sharing",
        "loss stage log": "log+equal@hard-sharing",
        "architecture mmoe": "equal@mmoe",
    }
    for part, arm in revised.items():
        cls = origin._class_of(part)
        monkeypatch.setattr(cls, "revision", 1, raising=False)
        assert run(reuse_any=True)[2][1].endswith(f"1 trial; changed since: {part} (revised)")
        trained, said, _ = run()
        assert trained == {arm}
        assert f"Trained with other code or data: 1 trial. Changed since: {part} (revised)." in said
        monkeypatch.setattr(cls, "revision", 0)
        assert run()[0] == set(), "the old results are there still"


def test_a_worker_notices_an_edit_of_a_methods_code_in_trials_of_that_method(file, package):
    plan = study.plan(str(file), ["equal", "theirs"], seeds=1)
    problem, (equal, theirs) = load_problem(str(file)), plan.trials
    (package / "origin_numbers.py").write_text("POWER = -1.0\n")
    check_origin(plan.origin, problem, equal)
    with pytest.raises(TrainingError, match=r"origin_numbers\.py was changed while"):
        check_origin(plan.origin, problem, theirs)


# --- which part it is that changed ---


def test_what_changed_is_named(file, tmp_path):
    trial = study.plan(str(file), ["equal"], seeds=1).trials[0]
    first = study.plan(str(file), ["equal"], seeds=1).origin
    name, unchanged = "origin_helper.py", origin.differences(first, first, trial)
    assert unchanged == []
    code = first.code
    edited = dataclasses.replace(code, digests={**code.digests, "origin_helper": "other"})
    assert origin.differences(first, dataclasses.replace(first, code=edited), trial) == [f"{name} (edited)"]
    fewer = dataclasses.replace(code, digests={"": code.digests[""]})
    assert origin.differences(first, dataclasses.replace(first, code=fewer), trial) == [f"{name} (gone)"]
    assert origin.differences(dataclasses.replace(first, code=fewer), first, trial) == [f"{name} (new)"]
    other = dataclasses.replace(first, versions={**first.versions, "torch": "1.0", "numpy": "2"})
    found = origin.differences(other, dataclasses.replace(first, versions={**first.versions, "timm": "3"}), trial)
    assert found == ["numpy (2 -> none)", "timm (none -> 3)", f"torch (1.0 -> {first.versions['torch']})"]
    for changed, said in (
        ({"'kind' of test": "other"}, "'kind' of test"),
        ({"'kind' of test": "other", "'kind' of train": "other"}, "'kind' of train and test"),
        ({"inputs of validation": "other", "'sign' of test": ""}, "inputs of validation, 'sign' of test"),
        ({f"'task {each}' of train": "new" for each in range(7)}, "'task 3' of train, 3 more"),
    ):
        others = dataclasses.replace(first, data=({**first.data[0], **changed},))
        assert origin.differences(first, others, trial)[0].endswith(f"{said})")


@pytest.mark.parametrize("edit", ["helper", "data", "torch"])
def test_the_study_and_its_page_say_what_changed(run, tmp_path, monkeypatch, edit):
    run()
    if edit == "helper":
        edit_helper(tmp_path)
        told = "origin_helper.py (edited)"
    elif edit == "data":
        edit_data(tmp_path)
        load_problem(str(tmp_path / "mine.py"))._data.clear()
        told = "data ('sign' of train and validation and test)"
    else:
        told = f"torch ({VERSIONS[1]} -> 9.9)"
        monkeypatch.setattr(origin.torch, "__version__", "9.9")
    _, notes, _ = run(reuse_any=True)
    assert notes[1] == f"trained with other code or data, and taken all the same: 2 trials; changed since: {told}"
    _, _, said = run()
    assert f"Trained with other code or data: 2 trials. Changed since: {told}. What was found then" in " ".join(
        said.split()
    )
    monkeypatch.undo()
    undo(tmp_path)
    load_problem(str(tmp_path / "mine.py"))._data.clear()


# --- the notes in full ---


def when(timestamp):
    return datetime.fromtimestamp(timestamp).astimezone().strftime("%Y-%m-%d %H:%M")


def notes(made, written, problems=(), changed=""):
    """Of trials that were written then, the first of them with other code or data."""
    trained = {}
    for place, (trial, at) in enumerate(zip(made.trials, written, strict=False)):
        trained[trial] = Trained(written=at, problem=problems[place] if place < len(problems) else trial.problem)
    return origin_notes(TrialResults(made, {}, {}, trained, changed))


def test_what_was_reused_and_since_when_in_full(file):
    made = study.plan(str(file), ["equal", "dwa"], seeds=2)
    start = datetime.fromisoformat(made.created).timestamp()
    assert notes(made, []) == []
    assert notes(made, [start, start + 1]) == [], "trained by this command"
    assert notes(made, [start - 100]) == [f"1 of 4 trials reused, trained at {when(start - 100)}"]
    assert notes(made, [start - 4000, start - 90_000, start - 8000, start]) == [
        f"3 of 4 trials reused, trained from {when(start - 90_000)} to {when(start - 4000)}"
    ]
    other = "trained with other code or data, and taken all the same: 2 trials"
    assert notes(made, [start] * 3, ["old", "older"]) == [other]
    assert notes(made, [start] * 3, ["old", "older"], "x.py (edited)") == [f"{other}; changed since: x.py (edited)"]
    old = dataclasses.replace(made, origin=None)
    assert notes(old, []) == []
    first = "planned by Steelyard 0.1, which took no note of code and data: results may be of earlier ones"
    assert notes(old, [start]) == [first]


def test_the_latest_of_several_origins_says_what_changed(file, tmp_path):
    """A plan with the same origin, of which the latest result was trained, tells; without one nothing is told."""
    now = study.plan(str(file), ["equal"], seeds=2)
    first, second = now.trials

    def before(torch):
        return dataclasses.replace(
            now, origin=dataclasses.replace(now.origin, versions={**now.origin.versions, "torch": torch})
        )

    old, older = before("1.0"), before("0.9")
    with Store(tmp_path / "s.sqlite", write=True) as store:
        store.add_plan(older.to_dict())
        store.add_plan(now.to_dict())
        trained = {first: Trained(10.0, older.identity_of(first)), second: Trained(20.0, old.identity_of(second))}
        version = now.origin.versions["torch"]
        assert changed_since(now, store, trained) == "", "nobody planned with the latest"
        store.add_plan(old.to_dict())
        assert changed_since(now, store, trained) == f"torch (1.0 -> {version})"
        trained[first] = Trained(30.0, older.identity_of(first))
        assert changed_since(now, store, trained) == f"torch (0.9 -> {version})"
        own = {first: Trained(40.0, first.problem)}
        assert changed_since(now, store, own) == ""
        assert changed_since(now, store, {**trained, **own}) == f"torch (1.0 -> {version})"
        assert changed_since(dataclasses.replace(now, origin=None), store, trained) == ""


def test_what_is_about_to_be_trained_anew_in_full(file, tmp_path):
    now = study.plan(str(file), ["equal"], seeds=2)
    old = dataclasses.replace(
        now, origin=dataclasses.replace(now.origin, versions={**now.origin.versions, "torch": "1.0"})
    )
    version = now.origin.versions["torch"]
    after = "What was found then stays in the store; now they are trained anew (--reuse-any takes them as they are)."
    with Store(tmp_path / "s.sqlite", write=True) as store:
        assert stale_note(now, store, now.trials) == ""
        store.add_plan(old.to_dict())
        for trial, said in zip(now.trials, ("1 trial", "2 trials"), strict=True):
            found = made_up.result({task: [0.5, 0.5] for task in trial.tasks})
            store.add_result(dataclasses.replace(trial, problem=old.identity_of(trial)), found)
            assert stale_note(now, store, iter(now.trials)) == (
                f"Trained with other code or data: {said}. Changed since: torch (1.0 -> {version}). {after}"
            )
        assert stale_note(now, store, []) == ""
        unknown = dataclasses.replace(now, origin=None)
        assert stale_note(unknown, store, unknown.trials) == f"Trained with other code or data: 2 trials. {after}"
