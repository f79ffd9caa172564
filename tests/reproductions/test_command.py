"""A reproduction by the command, from end to end: announced, run, resumed, judged, written."""

from dataclasses import replace
from pathlib import Path

import pytest

from reproductions import tiny
from steelyard.reproductions import REPRODUCTIONS, load_reproduction, reproduction_names
from steelyard.reproductions.from_trials import fits
from steelyard.study import Estimate, plan
from steelyard.study.planning.arms import parse_arms
from steelyard.study.storage.store import Store


@pytest.fixture
def run(run, monkeypatch):
    """With a tiny reproduction to be run, and what is printed on one line."""
    monkeypatch.setitem(REPRODUCTIONS, "tiny", "reproductions.tiny")

    def command(*words):
        code, out, err = run(*words)
        return code, " ".join(out.split()), err

    return command


def test_the_list_says_what_each_needs_and_takes(run):
    code, out, _ = run("reproduce", "--list")
    assert code == 0
    for text in ("Reconstructed: Only the abstract was at hand", "Data: mnist"):
        assert text in out
    for name in reproduction_names():
        takes = load_reproduction(name).takes
        assert f"{name} {takes['quick']} {takes['real']} {takes['full']} " in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["emma"], "unknown reproduction 'emma'. Did you mean 'ema'?"),
        ([], "reproduce what? `steelyard reproduce --list`"),
        (["tiny", "--quick", "--full"], "--quick and --full exclude each other"),
        (["tiny", "--quick", "--seeds", "x"], "--seeds 'x'"),
        (["tiny", "--quick", "--workers", "0"], "workers=0"),
        (["tiny", "--quick", "--store", "."], "the store . is a folder"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(run, words, message):
    code, _, err = run("reproduce", *words)
    assert code == 2
    assert message in err


@pytest.mark.parametrize("words", [["reproduce", "tiny"], ["compare", "digits", "--methods", "equal"]])
def test_every_dry_run_says_the_same_range(run, words, monkeypatch):
    """Of each study, and of all of them."""
    found = Estimate(trials=10, finished=4, failed=0, seconds=100.0, disk=2**20, least=80.0, most=250.0)
    monkeypatch.setattr("steelyard.reproductions.run_reproduction.estimate", lambda *made, **asked: found)
    monkeypatch.setattr("steelyard.report.announcements.estimate", lambda *made, **asked: found)
    code, out, err = run(*words, "--dry-run")
    assert code == 0, err
    assert "1 min 20 s to 4 min 10 s" in out
    if words[0] == "reproduce":  # two studies
        assert out.count("1 min 20 s to 4 min 10 s") == 2
        assert "about 2 min 40 s to 8 min 20 s on" in out


@pytest.mark.slow("a small reproduction is trained, and trained on")
def test_a_reproduction_from_end_to_end_and_its_growth(run):
    code, out, _ = run("reproduce", "tiny", "--quick", "--dry-run")
    assert code == 0
    assert "30 trials, 90 epochs in all; 30 trials to go: about" in out
    assert not list(Path().iterdir())

    code, out, err = run("reproduce", "tiny", "--quick", "--workers", "2", "--markdown", "docs.md")
    assert code == 0, err
    assert "Claim: Sharing <is> harmless & cheap." in out
    assert "at the quick size" in out
    assert "+1.15 ± .16" in out
    page = Path("steelyard-tiny-quick.html").read_text()
    assert "Sharing &lt;is&gt; harmless &amp; cheap." in page
    assert 'id="few-labels-table"' in page
    assert "<summary>1 part</summary>" in page
    assert "steelyard reproduce tiny <span" in page

    code, out, _ = run("reproduce", "tiny", "--from", "steelyard-tiny.sqlite")
    assert code == 1  # of the other size one study is there
    assert "Unfinished: 1 of 2 studies, 30 of 30 trials of these. Not there: Tuned." in out
    code, out, _ = run("reproduce", "tiny", "--quick", "--from", "steelyard-tiny.sqlite")
    assert code == 0
    assert "— Few labels: by amount" in out

    # The larger size trains only what is new, in the same store; its section takes the place of the earlier one.
    Path("docs.md").write_text("# Ours\n\n" + Path("docs.md").read_text() + "\nEnd.\n")
    code, out, err = run("reproduce", "tiny", "--workers", "2", "--markdown", "docs.md")
    assert code == 0, err
    assert "47 trials, 124 epochs in all; 17 trials to go" in out
    written = Path("docs.md").read_text()
    assert written.startswith("# Ours\n")
    assert written.endswith("\nEnd.\n")
    assert written.count("## `tiny`") == 1
    assert "### Tuned" in written
    assert "\n  - **undecided**: On Few labels: the plain sum." in written  # a part, below the claim
    assert "| `best-fixed(ratios=(3,))` |" in written
    assert "rate 0.00" in written
    assert 'id="study-tuned"' in Path("steelyard-tiny.html").read_text()

    # What the trials say, from the store or sent as text, is what the run said; nothing is trained for it.
    assert run("report", "steelyard-tiny.sqlite", "--trials", "all.jsonl.xz")[0] == 0
    for source in ("steelyard-tiny.sqlite", "all.jsonl.xz"):
        again = Path(f"{source}.md")
        code, out, err = run("reproduce", "tiny", "--from", source, "--markdown", str(again), "--page", "again.html")
        assert code == 0, err
        assert "Unfinished" not in out
        assert again.read_text() in written
        assert "— Tuned: by rate" in out
        assert "The claim " in Path("again.html").read_text()
    assert [path.name for path in Path().glob("*.sqlite")] == ["steelyard-tiny.sqlite"]

    Path("docs.md").write_text(written.replace("<!-- end of tiny -->", ""))
    code, _, err = run("reproduce", "tiny", "--quick", "--markdown", "docs.md")
    assert code == 2
    assert "put the other one back" in err

    # One more seed is a second look.
    code, out, err = run("reproduce", "tiny", "--quick", "--seeds", "4", "--workers", "2")
    assert code == 0, err
    assert "Caution, Few labels: 3 of these 4 seeds were judged before." in " ".join(out.split())


def test_a_store_of_something_else_says_nothing_of_a_reproduction(run):
    words = ["compare", "digits", "--methods", "equal", "--seeds", "1", "--epochs", "1", "--store", "other.sqlite"]
    assert run(*words, "--workers", "1")[0] == 0
    code, _, err = run("reproduce", "tiny", "--from", "other.sqlite")
    assert code == 2
    assert (
        "other.sqlite holds no study that `steelyard reproduce tiny` trains at its real size; it was filled by" in err
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "nowhere.jsonl"], "--from nowhere.jsonl: there is no such file"),
        (["--from", "."], "--from .: that is a folder"),
        (["--from", "x" * 300 + ".sqlite"], ".sqlite: File name too long"),
        (
            ["--from", "x", "--seeds", "3", "--device", "cpu", "--reuse-any"],
            "leave out --seeds, --device and --reuse-any",
        ),
        (["--from", "x", "--open"], "--open: which page? Name one with --page"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_name(run, words, message):
    code, _, err = run("reproduce", "tiny", *words)
    assert code == 2
    assert message in err


def planned(experiment, **changed):
    """A plan of an experiment of `tiny`, as its command makes one."""
    given = replace(experiment, **changed)
    return plan(
        given.problem,
        parse_arms(given.methods),
        seeds=given.seeds,
        settings=given.settings,
        tasks=given.tasks,
        epochs=given.epochs,
        batch_size=given.batch_size,
        epoch_steps=given.epoch_steps,
        patience=given.patience,
        learning_rate=given.learning_rate,
        tune=given.tune,
        tune_seeds=given.tune_seeds,
        tune_beyond=given.tune_beyond,
        shared=given.shared,
        scale=given.scale,
        command="steelyard reproduce tiny --workers 2",
    )


OTHERS = [
    {"problem": "digits(optimizer=sgd)"},
    {"methods": "single-task,equal,uw"},
    {"tasks": ("left",)},
    {"settings": (0.05, 0.1)},
    {"settings": (0.05,)},
    {"epochs": 4},
    {"batch_size": 64},
    {"epoch_steps": 50},
    {"patience": 2},
    {"learning_rate": 0.5},
    {"scale": "paper"},
    {"shared": "trunk"},
    {"tune": 2},
]


@pytest.mark.parametrize("changed", [*OTHERS, {"tune": 3}, {"tune_seeds": 2}, {"tune_beyond": 1}], ids=str)
def test_a_study_of_any_other_setting_is_not_taken_for_the_reproductions(changed):
    arms = "single-task,equal,uw,mgda"  # of which one reads gradients
    few, tuned = (replace(each, methods=arms, learning_rate=0.01) for each in tiny.experiments("real"))
    experiment = few if changed in OTHERS else tuned
    assert fits(planned(experiment), tiny.reproduction, experiment)
    assert fits(planned(experiment, seeds=7), tiny.reproduction, experiment)
    if "tasks" in changed:
        changed = {**changed, "methods": "single-task,equal"}
        experiment = replace(experiment, methods="single-task,equal")
    assert not fits(planned(experiment, **changed), tiny.reproduction, experiment)


def test_a_study_of_compare_is_not_taken_for_a_reproductions():
    (experiment, _) = tiny.experiments("real")
    made = planned(experiment)
    assert fits(made, tiny.reproduction, experiment)
    assert fits(replace(made, command="steelyard reproduce --quick tiny --seeds 3"), tiny.reproduction, experiment)
    assert not fits(replace(made, command="steelyard compare digits"), tiny.reproduction, experiment)
    assert not fits(replace(made, command="steelyard reproduce other"), tiny.reproduction, experiment)


def test_options_at_their_defaults_are_no_other_problem():
    """A study calls its problem without them, an experiment may spell them out."""
    (few, _) = tiny.experiments("real")
    experiment = replace(few, problem="synthetic-auxiliary(drift=1.0,spread=0.0)", methods="single-task,equal")
    made = planned(experiment)
    assert made.reference == "synthetic-auxiliary(spread=0.0)"
    assert fits(made, tiny.reproduction, experiment)
    assert not fits(made, tiny.reproduction, replace(experiment, problem="synthetic-auxiliary(drift=0.5,spread=0.0)"))


def test_a_plan_that_cannot_be_read_is_named_where_nothing_else_is_found(run):
    (experiment, _) = tiny.experiments("real")
    made = planned(experiment)
    with Store("s.sqlite", write=True) as store:
        store.add_plan({**made.to_dict(), "fancy": 1})
    code, _, err = run("reproduce", "tiny", "--from", "s.sqlite")
    assert code == 2
    assert "the plan in the store cannot be read: unknown fields ['fancy']" in err
