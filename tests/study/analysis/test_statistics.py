"""Intervals cover, verdicts are rarely false, and known cases come out as known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from steelyard.study.analysis.simulation import pairing
from steelyard.study.analysis.statistics import (
    _seeds_for,
    claim,
    counted_deviation,
    counted_floor,
    holm,
    interval,
    not_worse,
    relative_changes,
    rounded_deviation,
    rows_half_width,
    seeds_to_settle,
    step_of,
    verdicts,
)
from steelyard.study.judgement import Interval


def test_interval_is_scipys_t_interval():
    sample = [0.2, -0.1, 0.4, 0.35]
    ours = interval(sample)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(sample), scale=stats.sem(sample))
    assert (ours.mean, ours.low, ours.high) == pytest.approx((np.mean(sample), low, high), rel=1e-12)


def test_one_seed_bounds_nothing_and_claims_nothing():
    assert interval([1.0]) == Interval(1.0, -math.inf, math.inf)
    assert interval([]) is None
    assert claim([1.0], 0.1) is None
    assert verdicts({"left": [1.0]}, {"left": 0.1}) == {"left": ("undecided", None)}


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("spread", ["normal", "counted", "skewed"])
def test_paired_intervals_cover_at_few_seeds(seeds, spread):
    """At least 93 % of the 95 % intervals hold the true difference, normal or not."""
    random = np.random.default_rng(seeds)
    shared = random.normal(0, 0.01, (8_000, seeds))  # what a seed does to both networks
    if spread == "normal":
        truth, differences = -0.02, -0.02 + random.normal(0, 0.01, (8_000, seeds))
    elif spread == "counted":  # accuracies on 360 examples
        theirs = random.binomial(360, np.clip(0.96 + shared, 0, 1)) / 360
        ours = random.binomial(360, np.clip(0.94 + shared, 0, 1)) / 360
        truth, differences = (
            (np.clip(0.94 + shared, 0, 1) - np.clip(0.96 + shared, 0, 1)).mean(),
            ours - theirs,
        )
    else:  # log-normal errors, 30 % spread
        theirs, ours = (
            random.lognormal(0, 0.3, (8_000, seeds)),
            1.2 * random.lognormal(0, 0.3, (8_000, seeds)),
        )
        truth, differences = 0.2 * math.exp(0.3**2 / 2), ours - theirs
    half = stats.t.ppf(0.975, seeds - 1) * differences.std(1, ddof=1) / math.sqrt(seeds)
    check = interval(differences[0])
    assert check.high - check.mean == pytest.approx(half[0])  # the vectorised form is the function under test
    coverage = np.mean(np.abs(differences.mean(1) - truth) <= half)
    assert coverage >= 0.93


@pytest.mark.parametrize("seeds", [3, 5])
def test_delta_m_intervals_cover_at_few_seeds(seeds):
    """The change of the mean over three tasks, errors correlated by seed, one of them 60 % worse."""
    random = np.random.default_rng(seeds)
    runs, sizes = 1_000, np.array([0.03, 0.1, 4.0])
    ratios = np.array([1.6, 0.9, 1.0])
    covered = 0
    for _ in range(runs):
        shared = random.normal(0, 0.1, (seeds, 1))
        theirs = sizes * (1 + shared + random.normal(0, 0.08, (seeds, 3)))
        ours = sizes * ratios * (1 + shared + random.normal(0, 0.08, (seeds, 3)))
        changes = [
            relative_changes(ours[:, task], theirs[:, task], higher_is_better=False, ideal=0.0) for task in range(3)
        ]
        found = interval(np.mean(changes, axis=0))
        covered += found.low <= float(np.mean(1 - ratios)) <= found.high
    coverage = covered / runs
    assert coverage >= 0.93


@pytest.mark.parametrize("correlation", [0.0, 0.9])
@pytest.mark.parametrize("means", [(0, 0, 0, 0), (1, 1, 1, 1), (1, -1, 0, 30), (1.05, 0.95, -1.05, 0), (0, 0, 8, -8)])
def test_false_verdicts_stay_below_alpha_over_all_tasks(means, correlation):
    """In at most 5 % of studies is any verdict false; ±1 is the region, so ±1 are the hardest means."""
    random = np.random.default_rng(7)
    means = np.array(means, dtype=float)
    studies, seeds, names = 600, 4, ["a", "b", "c", "d"]
    true = ["gain" if mean > 1 else "negative transfer" if mean < -1 else "no difference" for mean in means]
    noise = math.sqrt(correlation) * random.normal(size=(studies, seeds, 1))
    noise = noise + math.sqrt(1 - correlation) * random.normal(size=(studies, seeds, 4))
    false = 0
    for study in range(studies):
        found = verdicts({n: (means + noise[study])[:, i] for i, n in enumerate(names)}, dict.fromkeys(names, 1.0))
        false += any(found[n][0] not in (true[i], "undecided") for i, n in enumerate(names))
    rate = false / studies
    assert rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


def test_holm_agrees_with_the_definition_and_keeps_names():
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_raw_p_values_and_bonferroni(p_values):
    named = {str(i): p for i, p in enumerate(p_values)}
    for name, adjusted in holm(named).items():
        assert named[name] <= adjusted <= min(1.0, len(named) * named[name]) or adjusted == max(holm(named).values())
        assert named[name] <= adjusted <= 1.0


@pytest.mark.parametrize(
    ("sample", "verdict"),
    [
        ([5.0, 5.2, 4.9, 5.1], "gain"),
        ([-5.0, -5.2, -4.9, -5.1], "negative transfer"),
        ([0.1, -0.1, 0.05, 0.0], "no difference"),
        ([1.0, 1.3, 0.7, 1.1], "undecided"),  # straddles the edge
        ([5.0, -5.0, 9.0, -3.0], "undecided"),  # too wide
        ([0.0, 0.0, 0.0], "no difference"),  # the very same network
        ([-2.0, -2.0, -2.0], "undecided"),  # a tie says nothing of the spread
        ([-2.0 - 1e-15, -2.0, -2.0 + 1e-15], "undecided"),  # nor does one that floats hide
        ([-2.0, -2.0], "undecided"),
    ],
)
def test_known_cases(sample, verdict):
    assert verdicts({"task": sample}, {"task": 1.0})["task"][0] == verdict


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=6).filter(lambda values: np.std(values) > 1e-6))
def test_a_single_tasks_verdict_is_where_its_interval_lies(sample):
    found, region = interval(sample), 1.0
    if found.low > region:
        expected = "gain"
    elif found.high < -region:
        expected = "negative transfer"
    elif -region < found.low and found.high < region:
        expected = "no difference"
    else:
        expected = "undecided"
    assert verdicts({"task": sample}, {"task": region})["task"][0] == expected


def test_holm_can_withhold_what_one_task_alone_would_claim():
    """p = 0.03 alone is a gain; in a family of two whose other member shows nothing it is not."""
    sample = [1.2, 2.0, 2.9, 2.3]
    assert 0.025 < claim(sample, 0.75).p_value < 0.05
    assert verdicts({"a": sample}, {"a": 0.75})["a"][0] == "gain"
    both = verdicts({"a": sample, "b": [3.0, -3.0, 2.0, -1.0]}, {"a": 0.75, "b": 0.75})
    assert both["a"][0] == "undecided"
    assert both["a"][1] == pytest.approx(2 * claim(sample, 0.75).p_value)


def test_mirrored_differences_mirror_the_verdict():
    sample = [2.0, 2.2, 1.9]
    assert claim(sample, 1.0).p_value == claim([-value for value in sample], 1.0).p_value


@pytest.mark.parametrize(
    ("ours", "theirs", "higher", "ideal", "expected"),
    [
        ([0.98, 0.98], [0.96, 0.96], True, 1.0, 0.5),  # the error halves
        ([0.5, 0.7], [0.5, 0.5], True, 1.0, -(1 - 0.6) / 0.5 + 1),
        ([2.0, 2.0], [1.0, 1.0], False, 0.0, -1.0),
        ([-0.5], [0.5], True, 1.0, -2.0),  # R2 below zero: errors 1.5 against 0.5
        ([12.0], [10.0], True, None, 0.2),
        ([-5.0], [-10.0], True, None, 0.5),
        ([-12.0], [-10.0], False, None, 0.2),
    ],
)
def test_relative_change_is_signed_so_that_positive_is_better(ours, theirs, higher, ideal, expected):
    changes = relative_changes(ours, theirs, higher_is_better=higher, ideal=ideal)
    assert changes.mean() == pytest.approx(expected)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("correlated", [False, True])
def test_a_noisy_baseline_does_not_make_changes_worse_than_they_are(seeds, correlated):
    """With a deviation of a quarter a ratio of means is 2 % too large at 3 seeds; a fifth of that is left."""
    random, runs = np.random.default_rng(seeds), 20_000
    theirs = 1 + 0.25 * random.uniform(-1, 1, (runs, seeds)) * math.sqrt(3)
    noise = (theirs - 1) if correlated else 0.25 * random.uniform(-1, 1, (runs, seeds)) * math.sqrt(3)
    ours = 1.2 * (1 + noise)
    plain = float(np.mean(1 - ours.mean(1) / theirs.mean(1)))
    found = float(np.mean([_mean_change(*pair) for pair in zip(ours[:4000], theirs[:4000], strict=True)]))
    error = 0.004 if not correlated else 1e-12
    assert abs(found - -0.2) <= error
    if not correlated:
        assert plain < -0.2 - 0.012


def _mean_change(ours, theirs):
    return float(relative_changes(ours, theirs, higher_is_better=False, ideal=0.0).mean())


def test_the_bias_that_is_taken_off_is_tins():
    ours, theirs = np.array([1.0, 2.0, 2.5]), np.array([1.5, 1.0, 2.0])
    ratio = ours.mean() / theirs.mean()
    off = (ratio * theirs.var(ddof=1) - np.cov(ours, theirs)[0, 1]) / 3 / theirs.mean() ** 2
    assert _mean_change(ours, theirs) == pytest.approx(1 - ratio + off)
    one = relative_changes([1.2], [1.0], higher_is_better=False, ideal=0.0)
    assert one == pytest.approx([-0.2])


def test_non_inferiority_is_a_one_sided_test():
    sample = [0.2, -0.1, 0.4, 0.05]
    assert not_worse(sample, 0.3) == pytest.approx(stats.ttest_1samp(sample, -0.3, alternative="greater").pvalue)
    assert not_worse(sample, 0.0) > not_worse(sample, 0.3)
    assert not_worse([0.1], 0.3) is None
    assert not_worse([0.1, math.nan, 0.2], 0.3) is None
    assert not_worse([0.1, 0.1, 0.1], 0.3) is None
    assert not_worse([0.1, 0.1, 0.1], 0.3, least=0.2) == pytest.approx(stats.t.sf(0.4 / (0.2 / math.sqrt(3)), 2))


def test_parts_that_must_all_hold_are_tested_at_the_full_level():
    """Ten parts, one of them false and at its edge, nine true for certain: in 5 % all are said to hold."""
    random, runs, seeds = np.random.default_rng(4), 2_000, 5
    means = np.array([-1.0] + [9.0] * 9)
    found = means + random.normal(size=(runs, seeds, 10))
    held = [all(not_worse(study[:, part], 1.0) <= 0.05 for part in range(10)) for study in found]
    assert abs(np.mean(held) - 0.05) <= 3 * math.sqrt(0.05 * 0.95 / runs)


def test_a_baseline_at_zero_has_no_relative_change():
    assert relative_changes([0.9], [1.0 - 1e-7], higher_is_better=True, ideal=1.0) is None


def test_equal_scatter_in_both_leaves_no_spread_in_the_change():
    """Where every seed scales both errors alike, the ratio is certain."""
    theirs = np.array([0.1, 0.2, 0.3])
    changes = relative_changes(1.1 * theirs, theirs, higher_is_better=False, ideal=0.0)
    assert changes == pytest.approx([-0.1, -0.1, -0.1])


def test_seeds_to_settle():
    assert seeds_to_settle([1.0, 1.1], 0.1) is None  # two seeds know no spread
    sample = [3.0, 2.0, 2.4, 2.7]
    low, high = seeds_to_settle(sample, 1.0)
    assert len(sample) < low <= high < 30
    assert seeds_to_settle(sample, 1.0, alpha=0.005) > (low, high)
    assert seeds_to_settle(sample, 1.0, most=high) == (low, high)
    assert seeds_to_settle(sample, 1.0, most=high - 1) is None
    assert seeds_to_settle([1.0, 1.2, 0.8], 1.0) is None  # on the edge itself: never
    assert seeds_to_settle([3.0, 1.5, 2.2], 1.9) is None  # may be on the edge
    assert seeds_to_settle([3.0, 3.0, 3.0], 1.0) is None  # nothing is known of the spread
    assert seeds_to_settle([-3.0, -2.0, -2.4, -2.7], 1.0) == (low, high)


@pytest.mark.parametrize(("effect", "alpha"), [(1.5, 0.05), (0.8, 0.01)])
def test_seeds_to_settle_have_the_power_that_they_promise(effect, alpha):
    """So many seeds show the effect in four of five studies, one fewer in less."""
    random = np.random.default_rng(3)
    seeds = _seeds_for(effect, alpha, 3, 100)
    shown = []
    for count in (seeds, seeds - 1):
        samples = random.normal(effect, 1.0, (20_000, count))
        half = stats.t.ppf(1 - alpha / 2, count - 1) * samples.std(1, ddof=1) / math.sqrt(count)
        shown.append(float(np.mean(samples.mean(1) > half)))
    assert shown[0] >= 0.8 - 0.01 > shown[1] - 0.02
    assert shown[1] < 0.81


def test_seeds_to_settle_are_more_than_there_are():
    """What is open for other reasons (a whole study judged together) is never said to need fewer seeds."""
    assert seeds_to_settle([5.0, 5.1, 4.9], 1.0) == (4, 4)
    assert seeds_to_settle([5.0, 5.1, 4.9, 5.0], 1.0) == (5, 5)


def test_differences_of_counts_vary_at_least_as_counts_do():
    """Two networks that disagree on few rows, all but one way, or not at all: never less than the floor."""
    random = np.random.default_rng(0)
    rows = 400
    for better, worse in ((6, 0.0), (6, 2), (20, 20), (0.0, 0.0)):
        differences = (random.poisson(better, 200_000) - random.poisson(worse, 200_000)) / rows
        floor = counted_deviation((better - worse) / rows, 1 / rows)
        assert floor <= math.sqrt(differences.std() ** 2 + rows**-2 / 6) * 1.01
    assert counted_deviation(6 / rows, 1 / rows) == pytest.approx(math.sqrt(6 + 1 / 6) / rows)
    assert counted_deviation(-6 / rows, 1 / rows) == counted_deviation(6 / rows, 1 / rows)
    assert counted_deviation(0.3, 0.0) == 0.0


def test_differences_deviate_by_no_less_than_what_is_known():
    tie, least = [6 / 400] * 3, 0.006
    half = stats.t.ppf(0.975, 2) * least / math.sqrt(3)
    assert interval(tie, least=least).high == pytest.approx(6 / 400 + half)
    assert claim(tie, 0.005, least).p_value == pytest.approx(2 * stats.t.sf(0.01 / (least / math.sqrt(3)), 2))
    assert verdicts({"a": tie}, {"a": 0.005})["a"][0] == "undecided"
    assert verdicts({"a": tie}, {"a": 0.005}, least={"a": 1e-4})["a"][0] == "gain"
    wide = [-0.03, 0.02, 0.06]
    assert interval(wide, least=least) == interval(wide)  # a floor, no addition
    assert claim(wide, 0.001, least) == claim(wide, 0.001)
    assert seeds_to_settle(tie, 0.005, least / 4) is not None


def test_rounding_is_the_least_that_differences_of_rounded_values_vary_by():
    random, step = np.random.default_rng(0), 0.25
    true = random.uniform(0, 10, (2, 100_000))
    errors = np.subtract(*(np.round(true / step) * step - true))
    assert errors.std() == pytest.approx(rounded_deviation(step), rel=0.01)


def test_a_step_is_known_where_every_value_counts_rows():
    assert step_of([0.25, 0.5, 1.0], 4) == 0.25
    assert step_of([float(np.float32(1 / 3)), 2 / 3, math.nan], 3) == 1 / 3
    assert step_of([0.25, 0.3], 4) == 0.0
    assert step_of([0.25], 0) == 0.0


def test_what_must_be_exceeded_may_be_less_than_what_matters():
    """Over all tasks any gain is one, and what stays within the region is no difference."""
    assert claim([0.006, 0.007, 0.0071], 0.01, beyond=0.0).verdict == "gain"
    assert claim([0.0001, -0.0001, 0.0], 0.01, beyond=0.0).verdict == "no difference"
    assert claim([-0.4, -0.5, -0.45], 0.01, beyond=0.0).verdict == "negative transfer"


def test_single_precision_is_judged_in_double():
    sample = np.array([1.1, 1.7, 2.3, 1.3], dtype=np.float32)
    assert claim(sample, 1.0) == claim(sample.astype(np.float64), 1.0)
    assert interval(sample) == interval(sample.astype(np.float64))
    ours, theirs = sample, sample[::-1].copy()
    twice = [array.astype(np.float64) for array in (ours, theirs)]
    for pair in ((ours, twice[1]), (twice[0], theirs)):
        found = relative_changes(*pair, higher_is_better=True, ideal=None)
        assert found.tolist() == relative_changes(*twice, higher_is_better=True, ideal=None).tolist()
        assert found.dtype == np.float64


@pytest.mark.slow("simulates 20,000 studies of every number of seeds and correlation")
@pytest.mark.parametrize("ratio", [1.0, 3.0])
def test_pairing_by_seed_keeps_its_level_and_pays_where_networks_of_a_seed_are_alike(ratio):
    """The rule is one for all studies. It costs power where nothing correlates, and holds its size everywhere."""
    for seeds in (3, 5, 10):
        found = {rho: pairing(seeds, rho, ratio) for rho in (-0.3, 0.0, 0.3, 0.6)}
        assert all(abs(each["paired"][0] - 0.05) < 0.006 for each in found.values())
        assert found[-0.3]["Welch"][0] > 0.05  # it relies on an independence that a seed does not give
        assert found[0.6]["paired"][1] > found[0.6]["Welch"][1]
        assert found[0.0]["paired"][1] > found[0.0]["Welch"][1] - 0.2


def jackknifed(metric, ours, theirs, targets, parts=20):
    """[1, parts]: the difference without each part of the rows."""
    part = np.arange(len(targets)) % parts
    return np.array(
        [
            [
                metric(ours[part != p], targets[part != p]) - metric(theirs[part != p], targets[part != p])
                for p in range(parts)
            ]
        ]
    )


def test_what_other_rows_would_do_is_the_standard_error_of_a_mean():
    """Of a metric that is a mean over rows: t(19) times the deviation of the rows' differences, grouped, over √n."""
    random = np.random.default_rng(3)
    ours, theirs, targets = random.normal(size=(3, 400))
    half = rows_half_width(jackknifed(lambda outputs, wanted: np.mean(np.abs(outputs - wanted)), ours, theirs, targets))
    by_row = np.abs(ours - targets) - np.abs(theirs - targets)
    groups = np.array([by_row[np.arange(400) % 20 == part].mean() for part in range(20)])
    assert half == pytest.approx(stats.t.ppf(0.975, 19) * stats.sem(groups), rel=1e-9)
    assert rows_half_width(np.empty((0, 20))) is None
    assert rows_half_width(np.empty((3, 1))) is None


@pytest.mark.slow("simulates 600 test sets for each of four metrics")
@pytest.mark.parametrize("name", ["accuracy", "RMSE", "R2", "AUC"])
def test_intervals_of_other_rows_hold_what_all_rows_would_say(name):
    """Two networks of different quality that err on the same rows: in 95 of 100 test sets, to within chance."""
    from sklearn.metrics import roc_auc_score

    metrics = {
        "accuracy": lambda outputs, wanted: np.mean((outputs > 0) == (wanted > 0)),
        "RMSE": lambda outputs, wanted: np.sqrt(np.mean((outputs - wanted) ** 2)),
        "R2": lambda outputs, wanted: 1 - np.mean((outputs - wanted) ** 2) / np.var(wanted),
        "AUC": lambda outputs, wanted: roc_auc_score(wanted > 0, outputs),
    }
    metric, random = metrics[name], np.random.default_rng(4)

    def drawn(rows):
        wanted, hard = random.normal(size=(2, rows))
        ours, theirs = (wanted + 0.8 * hard + own * random.normal(size=rows) for own in (0.6, 0.9))
        return ours, theirs, wanted

    ours, theirs, wanted = drawn(1_000_000)
    truth, held, studies = metric(ours, wanted) - metric(theirs, wanted), 0, 600
    for _ in range(studies):
        ours, theirs, wanted = drawn(300)
        half = rows_half_width(jackknifed(metric, ours, theirs, wanted))
        held += abs(metric(ours, wanted) - metric(theirs, wanted) - truth) <= half
    assert 0.92 <= held / studies <= 0.98


def test_the_floor_holds_where_folds_have_a_row_more_or_less():
    """One row better in each of three folds of 17, 17 and 16 rows."""
    ours, theirs = np.array([10 / 17, 10 / 17, 9 / 16]), np.array([9 / 17, 9 / 17, 8 / 16])
    known = counted_floor(ours - theirs, [*ours, *theirs], 17, counts=True)
    assert counted_floor(ours - theirs, [*ours, *theirs], 17) == 0
    assert known == counted_deviation(float((ours - theirs).mean()), 1 / 17)
    same = np.array([0.75, 0.5, 0.25])
    assert counted_floor(same, same, 4) == counted_floor(same, same, 4, counts=True) > 0
