"""What claims rest on: comparisons by seed, counted verdicts, and the Δp of a paper from its own printed rows."""

import numpy as np
import pytest

from steelyard.reproductions.evidence import (
    BY_ITSELF,
    Comparison,
    all_tasks,
    best_on_validation,
    better_than_each,
    comparable,
    delta_p,
    each_beaten,
    gains,
    improvements,
    one_task,
    standing,
    standings,
    together,
)
from steelyard.reproductions.reproduction import Finding
from steelyard.study.analysis.make_judgement import findings
from steelyard.study.analysis.trial_results import TrialResults
from steelyard.study.planning.plan import PlannedMetric
from steelyard.study.storage.store import Store
from study.made_up import fill, plan

# Lin et al., arXiv 2308.12029, NYUv2: mIoU, pixel accuracy; absolute, relative error; mean, median, 11.25, 22.5, 30.
ROWS = {
    "single-task": (53.50, 75.39, 0.3926, 0.1605, 21.99, 15.16, 39.04, 65.00, 75.16),
    "equal": (53.93, 75.53, 0.3825, 0.1577, 23.57, 17.01, 35.04, 60.99, 72.05),
    "db-mtl": (53.92, 75.60, 0.3768, 0.1557, 21.97, 15.37, 38.43, 64.81, 75.24),
}
TASKS = {"seg": slice(0, 2), "depth": slice(2, 4), "normals": slice(4, 9)}


def stored(path, made, values):
    with Store(path, write=True) as store:
        fill(store, made, values)
        return findings(made, store)


def test_the_papers_delta_p_follows_from_its_printed_rows(tmp_path):
    higher = (True, True, False, False, False, False, True, True, True)
    names = ("mIoU", "PAcc", "AErr", "RErr", "Mean", "Med", "11.25", "22.5", "30")
    metrics = [PlannedMetric(*each, ideal=None, percent=False) for each in zip(names, higher, strict=True)]
    made = plan(tuple(ROWS), seeds=1, metrics=tuple((task, tuple(metrics[part])) for task, part in TASKS.items()))
    values = {arm: [{task: row[part] for task, part in TASKS.items()}] for arm, row in ROWS.items()}
    found = stored(tmp_path / "s", made, values)
    printed = {"equal": -1.78, "db-mtl": 1.15}
    for arm, value in printed.items():
        assert 100 * found.changes(arm, "single-task", 0)[0] == pytest.approx(value, abs=0.01)
    # A flat mean over the nine metrics would be another number.
    flat = np.mean(
        [(a - b) / b * (1 if up else -1) for a, b, up in zip(ROWS["equal"], ROWS["single-task"], higher, strict=True)]
    )
    assert abs(100 * flat - printed["equal"]) > 1


def by_seed(left, right, jitter=(0.001, -0.001, 0.0)):
    return [{"left": left + noise, "right": right - noise} for noise in jitter]


@pytest.fixture
def found(tmp_path) -> TrialResults:
    made = plan(("single-task", "equal", "uw", "dwa", "pcgrad"))  # the last one never finishes
    values = {
        "single-task": by_seed(0.90, 0.80, (0.0, 0.002, -0.001)),
        "equal": by_seed(0.80, 0.70),
        "uw": by_seed(0.90, 0.80),
        "dwa": by_seed(0.95, 0.9, (0.001, -0.001, 0.0001)),
    }
    return stored(tmp_path / "s", made, values)


def test_one_arm_against_others(found):
    shown = standing(all_tasks(found, "uw", ("single-task", "equal", "dwa", "uw")))
    assert shown.words == {"single-task": "open", "equal": "better", "dwa": "worse"}
    # Errors of single-task 0.1 and 0.2: uw loses nothing to it, the plain sum 100 % and 50 %.
    assert shown.intervals["equal"].mean == pytest.approx(0.75, abs=1e-2)
    start = "uw, against 3 arms (up to 1 point is no difference): better than 1 (equal +75.1 points (+"
    assert shown.text.startswith(start)
    # Whoever is named first: the same difference with the other sign.
    turned = standing(all_tasks(found, "equal", ("uw",)))
    assert turned.words == {"uw": "worse"}
    assert turned.intervals["uw"].mean == -shown.intervals["equal"].mean
    assert comparable("x", shown).word == "did not hold"
    assert comparable("x", standing(all_tasks(found, "dwa", ("equal", "uw")))).word == "held"
    assert comparable("x", standing(all_tasks(found, "uw", ("single-task",)))).word == "undecided"
    # An arm that never finished is no arm that was beaten.
    lacking = standing(all_tasks(found, "dwa", ("equal", "uw", "pcgrad")))
    assert lacking.missing == ["pcgrad"]
    assert lacking.text.endswith("; not finished: pcgrad")
    assert comparable("x", lacking).word == "undecided"


def test_comparable_is_non_inferior_to_each_at_the_full_level():
    """Ten others, to each of which it is as good within a point: no word on any of them, and still the claim holds."""
    noise = np.array([0.009, -0.006, 0.001, -0.007, 0.003])
    samples = {f"other {place}": 0.002 + np.roll(noise, place) for place in range(10)}
    shown = standing(Comparison("ours", samples, dict.fromkeys(samples, 0.01)))
    assert set(shown.words.values()) == {"open"}
    finding = comparable("x", shown)
    assert finding.word == "held"
    assert "Not worse by what matters than 10 of 10, each at 5 %, one-sided." in finding.evidence
    # One that is too close to the edge leaves it open, one that never ran too, one that is better breaks it.
    close = {**samples, "close": noise - 0.006}
    assert comparable("x", standing(Comparison("ours", close, dict.fromkeys(close, 0.01)))).word == "undecided"
    absent = {**samples, "absent": np.array([])}
    assert comparable("x", standing(Comparison("ours", absent, dict.fromkeys(absent, 0.01)))).word == "undecided"
    better = {**samples, "better": noise / 10 - 0.05}
    assert comparable("x", standing(Comparison("ours", better, dict.fromkeys(better, 0.01)))).word == "did not hold"


def test_one_task_alone(found):
    shown = standing(one_task(found, "right", "dwa", ("equal", "single-task")))
    assert shown.words == {"equal": "better", "single-task": "better"}
    assert shown.intervals["equal"].mean == pytest.approx(0.2 / 0.3, abs=1e-3)
    # The region is one of errors, like the differences: 1 % of values around 0.8 would be 4 % of errors.
    assert "(up to 1 % is no difference)" in shown.text


def test_places_of_one_claim_are_adjusted_for_together():
    """What is shown at one place alone is not yet, among twenty places; and the text says why."""
    steep = np.array([0.02, 0.025, 0.03])
    asked = Comparison("uw", {"equal": steep}, {"equal": 0.0})
    assert standing(asked).words == {"equal": "better"}
    many = standings({f"place {k}": asked for k in range(20)})
    assert {shown.words["equal"] for shown in many.values()} == {"open"}
    text = many["place 3"].text
    assert "undecided once adjusted for 20 comparisons, though alone better than 1 (equal +2.5 %" in text
    assert many["place 3"].doubt("equal") == " Decided alone, but not once adjusted for 20 comparisons."
    assert standing(asked).doubt("equal") == ""


def test_the_floor_of_one_place_is_none_of_anothers():
    """Shares of ten tasks are known to a tenth at best, of a hundred to a hundredth: each has its own, and shows it."""
    close = np.array([0.05, 0.051, 0.052, 0.049, 0.048])
    coarse, fine = (Comparison("ours", {"sum": close}, {"sum": 0.0}, least=floor) for floor in (0.05, 0.005))
    found = standings({"ten": coarse, "hundred": fine})
    assert (found["ten"].words["sum"], found["hundred"].words["sum"]) == ("open", "better")
    assert found["ten"].intervals["sum"].low < 0 < found["hundred"].intervals["sum"].low


def test_gains_are_differences_of_gains_over_single_task(found):
    assert gains(found, "dwa", "equal").mean() == pytest.approx((0.15 / 0.1 + 0.2 / 0.2) / 2, abs=2e-2)
    samples = {
        "held": gains(found, "dwa", "equal"),
        "did not hold": gains(found, "equal", "dwa"),
        "undecided": gains(found, "equal", "equal"),
        "undecided without a seed": np.array([]),
    }
    for finding in improvements(samples):
        assert finding.claim.startswith(finding.word)
    # What holds alone may not hold among many.
    rising = np.array([0.01, 0.02, 0.03])
    assert [finding.word for finding in improvements({"alone": rising})] == ["undecided"]
    steep = np.array([0.02, 0.025, 0.03])
    assert improvements({"alone": steep})[0].word == "held"


def test_seeds_that_failed_in_one_arm_count_in_no_difference(tmp_path):
    made = plan(("single-task", "equal", "uw"))
    values = {
        "single-task": by_seed(0.90, 0.80, (0.0, 0.0, 0.0)),
        "equal": [{"left": 0.8, "right": 0.6}, None, {"left": 0.7, "right": 0.4}],
        "uw": [None, {"left": 0.9, "right": 0.8}, {"left": 0.9, "right": 0.8}],
    }
    found = stored(tmp_path / "s", made, values)
    # Only the last seed has both: errors of 0.3 and 0.6 in place of 0.1 and 0.2.
    assert gains(found, "uw", "equal") == pytest.approx([2.0])


def test_the_variant_of_the_best_validation_error(found):
    assert best_on_validation(found, ["equal", "uw"]) == "equal"  # all validation curves are alike: the first
    assert best_on_validation(found, ["pcgrad"]) is None


def test_a_variant_that_failed_is_not_chosen(tmp_path):
    made = plan(("single-task", "equal", "uw"), seeds=2)
    good = {"left": 0.9, "right": 0.9}
    found = stored(tmp_path / "s", made, {"single-task": [good, good], "equal": [good, None], "uw": [good, good]})
    assert best_on_validation(found, ["equal", "uw"]) == "uw"


def test_claims_about_several_places():
    parts = [Finding("a", word) for word in ("held", "held", "did not hold")]
    assert together("x", parts).word == "did not hold"
    assert together("x", parts[:2]).word == "held"
    assert together("x", [*parts[:1], Finding("b", "undecided")]).word == "undecided"
    assert together("x", []).word == "undecided"


def test_better_than_each_is_held_by_each_at_the_full_level():
    """Ten others, all beaten by intervals that Holm's adjustment over ten would leave open."""
    noise = np.array([0.009, -0.006, 0.001, -0.007, 0.003])
    samples = {f"other {place}": 0.01 + np.roll(noise, place) for place in range(10)}
    shown = standing(Comparison("ours", samples, dict.fromkeys(samples, 0.0)))
    assert set(shown.words.values()) == {"open"}
    assert better_than_each(shown) == "held"
    assert {each.word for each in improvements(samples)} == {"held"}
    assert all(BY_ITSELF in each.evidence[0] for each in improvements(samples))
    for lacking in (noise, np.array([])):  # not beaten, and never run
        assert (
            better_than_each(
                standing(Comparison("ours", {**samples, "x": lacking}, {**dict.fromkeys(samples, 0.0), "x": 0.0}))
            )
            == "undecided"
        )
    # What breaks the claim is adjusted for all that might.
    worse = {**samples, "x": -samples["other 0"]}
    assert better_than_each(standing(Comparison("ours", worse, dict.fromkeys(worse, 0.0)))) == "undecided"
    worse["x"] = noise / 100 - 0.05
    assert better_than_each(standing(Comparison("ours", worse, dict.fromkeys(worse, 0.0)))) == "did not hold"
    assert better_than_each(standing(Comparison("ours", {}, {}))) == "undecided"


@pytest.mark.slow("judges 2,000 made-up conjunctions of ten comparisons")
def test_a_conjunction_is_held_wrongly_in_five_of_a_hundred_at_most():
    """One of ten is no worse, the others are beaten clearly: the worst case for the claim that all are beaten."""
    random, held, studies = np.random.default_rng(5), 0, 2000
    for _ in range(studies):
        ours, theirs = random.normal(size=5), random.normal(size=(10, 5))
        effects = np.array([0.0] + [8.0] * 9)
        samples = {str(place): ours - theirs[place] + effects[place] for place in range(10)}
        held += better_than_each(standing(Comparison("ours", samples, dict.fromkeys(samples, 0.0)))) == "held"
    assert held / studies <= 0.05
    assert held / studies >= 0.01  # 2.5 % is the level of an interval's one side


def test_of_many_that_one_is_compared_to_the_nearest_are_named():
    """What decides a claim of "no worse" are those that come closest, and the text of differences names the largest."""
    noise = np.array([0.002, -0.001, 0.0, 0.001, -0.002])
    samples = {f"other {place}": 0.01 * place + np.roll(noise, place) for place in range(8)}
    said = comparable("here", standing(Comparison("ours", samples, dict.fromkeys(samples, 0.01), " points"))).evidence
    assert "better than 6 (other 7 +7.00 points" in said[0]
    assert said[2].startswith("Nearest, by the lower end: other 0 +0.00 points (")
    assert "other 4 +4.00 points (" in said[2]
    assert "other 5" not in said[2]
    few = dict(list(samples.items())[:5])
    said = comparable("here", standing(Comparison("ours", few, dict.fromkeys(few, 0.01), " points"))).evidence
    assert len(said) == 2


def test_a_part_that_is_held_by_itself_says_so_where_its_line_is_undecided():
    noise = np.array([0.009, -0.006, 0.001, -0.007, 0.003])
    many = {f"other {place}": 0.01 + np.roll(noise, place) for place in range(10)}
    shown = standing(Comparison("ours", many, dict.fromkeys(many, 0.0)))
    held = each_beaten("x", shown, "Seen so: ", ["And more."])
    assert held.word == "held"
    assert held.evidence[0].startswith("Seen so: ours, against 10 arms: undecided once adjusted for 10 comparisons")
    assert held.evidence[0].endswith(f". {BY_ITSELF}")
    assert held.evidence[1:] == ("And more.",)
    clear = {"other": 0.05 + noise}
    (line,) = each_beaten("x", standing(Comparison("ours", clear, {"other": 0.0}))).evidence
    assert BY_ITSELF not in line


def test_arms_with_fewer_seeds_than_were_planned_are_named(tmp_path):
    made = plan(("single-task", "equal", "uw", "dwa"))
    right = {"left": 0.9, "right": 0.8}
    values = {
        "single-task": by_seed(0.9, 0.8), "equal": [None, right, right], "uw": by_seed(0.95, 0.9), "dwa": [None] * 3,
    }  # fmt: skip
    found = stored(tmp_path / "s", made, values)
    text = standing(all_tasks(found, "uw", ("equal", "single-task", "dwa"))).text
    assert text.endswith("; not finished: dwa; over 2 of 3 seeds: equal")
    text = standing(one_task(found, "left", "uw", ("equal", "single-task"))).text
    assert text.endswith("; over 2 of 3 seeds: equal")


def test_delta_p_is_of_values_and_delta_m_of_errors(outcome):
    made = outcome("d", {"single-task": 0.8, "equal": 0.88})
    assert delta_p(made, "equal").startswith("+10.00")  # .88 in place of .8
    row = next(each for each in made.judgement.rows if each.method == "equal")
    assert 100 * row.delta_m.mean == pytest.approx(40, abs=0.1)  # an error of .12 in place of .2
