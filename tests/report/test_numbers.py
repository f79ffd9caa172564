"""Numbers as people read them: digits, signs and units at the edges where they change."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from report import judgements  # fmt: skip
from steelyard.report import numbers, palette, verdict_styles
from steelyard.report.charts.curves import Series
from steelyard.report.charts.labels import text_width
from steelyard.report.charts.scale import AxisScale, fit, labels, spans
from steelyard.report.json_and_csv import _cell
from steelyard.report.judgement_view import View
from steelyard.report.panels.drawing import Drawing, of_mean
from steelyard.report.panels.histories import _moves, _point_limit, _weight_scale
from steelyard.report.short_names import elide, short_methods
from steelyard.report.study_page import _sentence_case, _unbroken, date
from steelyard.study.judgement import Interval, TaskInfo

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("halves", "typical", "decimals"),
    [
        ([0.5], NAN, 2),  # two digits of the half-width: ±0.50
        ([0.99], NAN, 2),
        ([1.0], NAN, 1),
        ([12.0], NAN, 0),
        ([120.0], NAN, 0),
        ([0.004], NAN, 4),
        ([1e-9], NAN, 6),
        ([0.5, 0.5, 900.0], NAN, 2),  # the median: one that diverged decides nothing
        ([NAN, INF, 0.0, 0.5], 77.0, 2),  # what is no width says nothing
        ([], 0.5, 4),  # four digits of the value
        ([], -5.0, 3),
        ([], 41.0, 2),
        ([], 4100.0, 0),
        ([], 0.0, 2),
        ([], NAN, 2),
        ([], INF, 2),
    ],
)
def test_decimals(halves: list[float], typical: float, decimals: int) -> None:
    assert numbers.decimals_for(halves, typical) == decimals


@pytest.mark.parametrize(
    ("value", "decimals", "signed", "text"),
    [
        (1.25, 1, False, "1.2"), (1.25, 2, True, "+1.25"), (-1.25, 2, True, "−1.25"), (-1.25, 2, False, "−1.25"),
        (0.0, 1, True, "0.0"), (-0.001, 1, True, "0.0"), (-0.001, 1, False, "0.0"), (0.001, 1, True, "0.0"),
        (NAN, 1, True, "–"), (INF, 1, True, "∞"), (-INF, 1, True, "−∞"),
        (9_999_999.0, 0, False, "9999999"), (1e7, 0, False, "1.00e+07"), (-2.5e8, 3, False, "−2.50e+08"),
        (2.5e8, 3, True, "+2.50e+08"),
    ],
)  # fmt: skip
def test_fixed(value: float, decimals: int, signed: bool, text: str) -> None:
    assert numbers.fixed(value, decimals, signed) == text


def test_intervals() -> None:
    found = Interval(0.013, 0.009, 0.017)
    assert numbers.half(found) == pytest.approx(0.004)
    assert math.isnan(numbers.half(None))
    assert numbers.plus_minus(found, 1, 100) == "+1.3 ±0.4"
    assert numbers.plus_minus(found, 3) == "+0.013 ±0.004"
    assert numbers.plus_minus(Interval(-2.0, -INF, INF), 1) == "−2.0"
    assert numbers.plus_minus(None, 1) == "–"
    assert numbers.brackets(found, 1, 100) == "0.9 to 1.7"
    assert numbers.brackets(found, 3) == "0.009 to 0.017"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.0, "1.00"), (9.994, "9.99"), (12.34, "12.3"), (123.4, "123"), (1234.5, "1\u202f234"),
        (-1.5, "−1.50"), (0.0123, "0.0123"), (1e-4, "0.000100"), (9.9e-5, "9.90e−05"), (1e7, "1.00e+07"),
        (9_999_998.0, "9\u202f999\u202f998"), (NAN, "–"), (INF, "∞"),
    ],
)  # fmt: skip
def test_compact(value: float, text: str) -> None:
    assert numbers.compact(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"), (9.94, "9.9 s"), (10.0, "10 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (60.0, "1 min 0 s"),
        (200.0, "3 min 20 s"), (3599.4, "59 min 59 s"), (3600.0, "1 h 0 min"), (7500.0, "2 h 5 min"), (NAN, "–"),
        (INF, "–"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert numbers.duration(seconds) == text


def test_a_range_of_durations_that_reads_alike_is_said_once() -> None:
    assert numbers.duration_range(60.0, 200.0) == "1 min 0 s to 3 min 20 s"
    assert numbers.duration_range(9.91, 9.94) == "9.9 s"
    assert numbers.duration_range(NAN, NAN) == "–"


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0.4, "0 MiB"), (212.0, "212 MiB"), (1023.0, "1023 MiB"), (1024.0, "1.0 GiB"), (1536.0, "1.5 GiB"), (NAN, "–")],
)
def test_memory(amount: float, text: str) -> None:
    assert numbers.memory(amount) == text


def test_counts_are_whole_and_one_where_they_are_equal() -> None:
    assert numbers.count(660.0, 660.0) == "660"
    assert numbers.count(20, 13200.5) == "20–13\u202f200"
    assert numbers.count(math.nan, math.nan) == "–"


def test_units() -> None:
    share, plain = (TaskInfo("a", "a", "accuracy", True, 1.0, percent, 0.01) for percent in (True, False))
    assert (numbers.factor(share), numbers.unit(share)) == (100.0, " %")
    assert (numbers.factor(plain), numbers.unit(plain)) == (1.0, "")


def test_verdicts_have_words_signs_and_colours_of_their_own() -> None:
    styles = verdict_styles.STYLES
    assert {verdict: (found.word, found.short, found.css) for verdict, found in styles.items()} == {
        "gain": ("gain", "gain", "gain"),
        "no difference": ("no difference", "same", "same"),
        "negative transfer": ("negative transfer", "hurt", "hurt"),
        "undecided": ("undecided", "open", "open"),
    }
    assert all(verdict_styles.style_of(verdict) is found for verdict, found in styles.items())
    assert verdict_styles.style_of(None) == verdict_styles.Style("", "", "", "none", "default")
    assert len({found.sign for found in styles.values()}) == 4


def test_long_names_lose_their_middle() -> None:
    assert elide("twelve chars", 12) == "twelve chars"
    assert elide("thirteen chars", 12) == "thirteen…ars"
    assert elide("  a \n b  ", 3) == "a b"
    assert len(elide("x" * 50, 18)) == 18


def test_scales() -> None:
    linear, log = AxisScale(10.0, 30.0), AxisScale(1.0, 100.0, log=True)
    assert (linear(10), linear(15), linear(30)) == (0, 0.25, 1)
    assert (log(1), log(10), log(100)) == pytest.approx((0, 0.5, 1))
    assert AxisScale(10.0, 30.0, reverse=True)(15) == 0.75
    assert (linear.clip(5), linear.clip(20), linear.clip(50)) == (10, 20, 30)
    assert linear.ticks(4) == [10, 15, 20, 25, 30]
    assert linear.ticks(2) == [10, 20, 30]
    assert AxisScale(1.0, 5.0, log=True).ticks(4) == [1, 2, 3, 4, 5]
    assert log.ticks(5) == [1, 3, 10, 30, 100]
    assert AxisScale(1.0, 10.0, log=True).ticks(4) == [1, 2, 5, 10]
    assert AxisScale(1.0, 5.5, log=True).ticks(4) == [1, 2, 5]
    assert AxisScale(1.0, 1e9, log=True).ticks(4) == [1, 1e3, 1e6, 1e9]
    assert AxisScale(10.0, 40.0, log=True).ticks(3) == [10, 20, 30, 40], "less than a power of ten has round steps"
    assert (fit([2.0, 4.0], pad=0.5).low, fit([2.0, 4.0], pad=0.5).high) == (1, 5)
    assert (fit([4.0, NAN, INF]).low, fit([4.0]).high) == pytest.approx((3.6, 4.4))
    assert (fit([0.0]).low, fit([0.0]).high) == (-1, 1)
    assert (fit([]).low, fit([]).high) == pytest.approx((-0.06, 1.06))
    assert (fit([2.0, 4.0], zero=True, pad=0.5).low, fit([-2.0, -4.0], zero=True, pad=0.5).high) == (0, 0)
    assert (fit([1.0, 100.0, -3.0], log=True, pad=0.5).low, fit([1.0, 100.0], log=True, pad=0.5).high) == (0.1, 1000)
    assert fit([1.0, 1.1], log=True).low == pytest.approx(1 / 1.05)
    assert (spans([1.0, 4.0, NAN]), spans([-1.0, 4.0]), spans([0.0, 4.0]), spans([])) == (4, 1, 1, 1)
    assert labels([1e-5, 0.5, 2e5]) == ["1e−5", "0.5", "2e5"]
    assert labels([-1.0, 1.0], signed=True) == ["−1", "+1"]


def test_one_number_of_decimals_for_all_tasks_of_a_metric() -> None:
    judgement = judgements.diverged()
    view = View(judgement)
    halves = {
        task.name: sorted(
            numbers.half(cell.difference) * numbers.factor(task)
            for cell in judgement.cells
            if cell.task == task.name and cell.difference and numbers.half(cell.difference) > 0
        )
        for task in judgement.tasks
    }
    for task in judgement.tasks:
        typical = halves[task.name][len(halves[task.name]) // 2]
        assert view.decimals(task) == pytest.approx(1 - math.floor(math.log10(typical)), abs=0.1)
    assert view.delta_decimals == 1


def test_inks() -> None:
    found = palette.inks(["a", "single-task", "b", "c", "d", "e", "f", "g", "h"], "single-task")
    assert found["single-task"] == palette.Ink("ref", "5 3")
    assert [found[name] for name in "abcdefg"] == [palette.Ink(f"c{place}", None) for place in range(7)]
    assert found["h"] == palette.Ink("c0", "6 3"), "the colours come around, dashed"


def test_room_for_a_text() -> None:
    widths = {"i": 4.0, "m": 10.4, "w": 10.4, "W": 10.4, "%": 10.4, "X": 8.4, "A": 8.4, "a": 6.8, "數": 12.0, " ": 4.0}
    assert {letter: text_width(letter) for letter in widths} == widths
    assert text_width("Aim") == pytest.approx(8.4 + 4.0 + 10.4)


def test_the_interval_of_a_mean_over_one_seed_has_no_ends() -> None:
    cell = judgements.one_seed().cells[0]
    assert of_mean(cell) == Interval(cell.mean, -INF, INF)


def test_long_runs_are_thinned_the_more_lines_there_are() -> None:
    few = judgements.digits()
    many = replace(few, curves=few.curves * 20)
    crowd = replace(few, curves=few.curves * 1000)
    assert [_point_limit(Drawing(View(found))) for found in (few, many, crowd)] == [
        200,
        60_000 // (3 * 2 * 12 * 20),
        12,
    ]


def test_sentences_open_with_a_capital_but_for_methods() -> None:
    assert _sentence_case("the plain sum hurts", ["uw"]) == "The plain sum hurts"
    assert _sentence_case("uw, dwa help", ["uw", "dwa"]) == "uw, dwa help"
    assert _sentence_case("ema helps", ["ema(beta=0.9)"]) == "ema helps"
    assert _unbroken("1 × 2, 91.6 % (−1 to 2) of all") == "1\u00a0×\u00a02, 91.6\u00a0% (−1\u00a0to\u00a02) of all"


def test_a_name_that_a_spreadsheet_would_compute_is_text() -> None:
    assert (_cell(" =1+1"), _cell("-a"), _cell("a=b"), _cell("a -")) == ("' =1+1", "'-a", "a=b", "a -")


def test_weights_that_leave_the_common_scale_get_their_own() -> None:
    together = AxisScale(0.1, 10.0, log=True)
    ink = palette.Ink("c0", None)
    for values, own in (([0.2, 9.0], False), ([0.05, 1.0], True), ([0.2, 11.0], True), ([-1.0, 1.0], True)):
        assert (_weight_scale([Series("a", ink, values)], together) is not together) == own, values
    assert _weight_scale([Series("a", ink, [1.0, 9.0], spread=[0.0, 2.0])], together) is not together


def test_weights_that_hardly_move_are_still() -> None:
    assert [_moves(values) for values in ([1e3, 1e3 + 0.5], [1e-3, 1.1e-3], [NAN, 2.0], [NAN], [-2.0, -1.0])] == [
        False, True, False, False, True,
    ]  # fmt: skip


def test_without_single_task_nothing_is_known_of_it() -> None:
    found = judgements.nothing()
    view = View(found)
    assert math.isnan(view.baseline(found.settings[0], found.tasks[0]))
    assert math.isnan(view.region(found.settings[0], found.tasks[0]))


def test_dates() -> None:
    assert date("2026-03-14T15:09:26+00:00") == "14 March 2026, 15:09 UTC"
    assert date("2026-03-04T05:09:26") == "4 March 2026, 05:09"
    assert date("yesterday") == "yesterday"


def test_two_methods_of_one_name_are_told_apart() -> None:
    assert short_methods(["ema(beta=0.9)", "ema(beta=0.99)"]) == {
        "ema(beta=0.9)": "ema(beta=0.9)",
        "ema(beta=0.99)": "ema(beta=0.99)",
    }
    long = ["some-quite-long-method-name(option=1)", "uw", "some-quite-long-method-name(option=12)"]
    assert list(short_methods(long, 14).values()) == ["some-quit…n=1)", "uw", "some-quit…=12)"]
    alike = ["some-quite-long-method-name(option=1)", "uw", "some-quite-other-method-name(option=1)"]
    assert list(short_methods(alike, 14).values()) == ["some-q…ame #1", "uw", "some-q…ame #3"]


def test_seeds_so_far_are_told_from_the_first_to_the_last_but_one() -> None:
    found = judgements.digits()
    said = []
    for seeds in range(6):
        rows = [replace(row, seeds=seeds) for row in found.rows]
        said.append(View(replace(found, rows=rows)).so_far("equal", found.settings[0]))
    assert said == ["", "1 of 5 seeds", "2 of 5 seeds", "3 of 5 seeds", "4 of 5 seeds", ""]
