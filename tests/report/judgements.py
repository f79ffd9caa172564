"""Judgements with plausible numbers, for looking at a report without training anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import stats

from steelyard.study.judgement import (
    Cell,
    Curve,
    Failure,
    Hurt,
    Interval,
    Judgement,
    OtherMetric,
    Row,
    Setting,
    TaskInfo,
    Verdict,
)

METHODS = ["single-task", "equal", "dwa(temperature=2)", "uw", "ema(beta=0.9,variant=to-max)", "log+db-mtl"]
TRACEBACK = """Traceback (most recent call last):
  File "steelyard/study/train.py", line 88, in train
    loss = balancer(losses, shared=features)
steelyard.errors.NonFiniteLossError: task 'right' has the loss inf at step 412
"""


@dataclass
class Plan:
    """What to simulate: `quality(task, method, fraction)` is the expected test value."""

    tasks: list[TaskInfo]
    quality: Callable[[int, int, float], float]
    noise: float
    methods: list[str] = field(default_factory=lambda: list(METHODS))
    fractions: Sequence[float] = (1.0,)
    seeds: int = 5
    epochs: int = 30
    missing: frozenset[tuple[int, str]] = frozenset()  # (method index, task name) without a finished trial


def interval(values: np.ndarray) -> Interval:
    """Student-t interval over seeds; one seed gives none (infinite ends)."""
    mean = float(values.mean())
    if values.size < 2:
        return Interval(mean, -math.inf, math.inf)
    half = float(stats.t.ppf(0.975, values.size - 1) * values.std(ddof=1) / math.sqrt(values.size))
    return Interval(mean, mean - half, mean + half)


def judge(task: TaskInfo, difference: Interval, baseline: float) -> Verdict:
    region = task.equivalence * abs(baseline)
    low, high = (difference.low, difference.high) if task.higher_is_better else (-difference.high, -difference.low)
    if low > region:
        return "gain"
    if high < -region:
        return "negative transfer"
    return "no difference" if low >= -region and high <= region else "undecided"


def simulate(plan: Plan, problem: str, summary: str) -> Judgement:
    rng = np.random.default_rng(7)
    settings = [
        Setting(index, {task.name: fraction for task in plan.tasks}, f"{fraction:.0%}".replace("%", " %"))
        for index, fraction in enumerate(plan.fractions)
    ]
    cells: list[Cell] = []
    rows: list[Row] = []
    curves: list[Curve] = []
    for setting, fraction in zip(settings, plan.fractions, strict=True):
        shared_noise = rng.normal(0, plan.noise * 0.7, (len(plan.tasks), plan.seeds))
        values = np.array(
            [
                [plan.quality(t, m, fraction) + shared_noise[t] + rng.normal(0, plan.noise, plan.seeds)
                 for t in range(len(plan.tasks))]
                for m in range(len(plan.methods))
            ]
        )  # fmt: skip
        for m, method in enumerate(plan.methods):
            gains = []
            for t, task in enumerate(plan.tasks):
                if (m, task.name) in plan.missing:
                    continue
                cell = _cell(plan, method, setting.index, task, values[m, t], values[0, t])
                cells.append(cell)
                baseline = values[0, t].mean()
                scale = abs(task.ideal - baseline) if task.ideal is not None else abs(baseline)
                sign = 1 if task.higher_is_better else -1
                gains.append(sign * (values[m, t] - values[0, t]) / scale)
            curves.append(_curve(plan, method, m, setting.index, values, rng))
            delta = interval(np.mean(gains, axis=0)) if m and gains else None
            cost = 1.0 if m == 0 else (0.54 + 0.06 * m + 0.02 * (m % 3)) * 2 / len(plan.tasks)
            rows.append(
                Row(
                    method, setting.index, delta,
                    delta and Interval(delta.mean - 0.004, 1.3 * delta.low - 0.004, 1.3 * delta.high - 0.004),
                    steps_per_second=310.0 / cost, seconds=41.0 * cost * fraction,
                    peak_memory=212.0 + 9 * m, seeds=plan.seeds, failed=0, relative_cost=cost,
                )
            )  # fmt: skip
    planned = (len(plan.methods) - 1 + len(plan.tasks)) * plan.seeds * len(plan.fractions)
    return Judgement(
        problem=problem,
        summary=summary,
        tasks=plan.tasks,
        methods=plan.methods,
        settings=settings,
        seeds=list(range(plan.seeds)),
        cells=cells,
        rows=rows,
        curves=curves,
        failures=[],
        verdict=_verdict(settings),
        command=f'steelyard compare {problem} --methods "{",".join(plan.methods)}" --seeds {plan.seeds} '
        f"--fractions {','.join(map(str, plan.fractions))} --epochs {plan.epochs} --workers 2",
        versions={"steelyard": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6", "python": "3.11.2"},
        machine="Linux x86_64, 2 cores, Intel Xeon 2.8 GHz, no accelerator",
        created="2026-03-14T15:09:26+00:00",
        epochs=plan.epochs,
        batch_size=256,
        complete=True,
        planned=planned,
        finished=planned,
    )


def _verdict(settings: list[Setting]) -> list[str]:
    said = [
        "The plain sum hurts right: accuracy 91.6 % against 94.1 % alone, −2.5 points (−3.3 to −1.7).",
        "ema(beta=0.9,variant=to-max) repairs it: accuracy 95.1 %, +1.1 points (+0.8 to +1.4).",
        "One joint network (the plain sum) trains in 0.62 x the time of the 2 single-task networks.",
    ]
    if len(settings) == 1:
        return said
    return [f"With {setting.label} of the labels: {text[0].lower()}{text[1:]}" for setting in settings for text in said]


def _cell(plan: Plan, method: str, setting: int, task: TaskInfo, values: np.ndarray, baseline: np.ndarray) -> Cell:
    alone = method == "single-task"
    difference = None if alone else interval(values - baseline)
    sign = 1 if task.higher_is_better else -1
    scale = abs(task.ideal - baseline.mean()) if task.ideal is not None else abs(baseline.mean())
    sd = float(values.std(ddof=1)) if values.size > 1 else math.nan
    verdict: Verdict | None = judge(task, difference, float(baseline.mean())) if difference else None
    return Cell(
        method=method,
        setting=setting,
        task=task.name,
        values={seed: float(value) for seed, value in enumerate(values)},
        mean=float(values.mean()),
        sd=sd,
        last_mean=float(values.mean()) - 0.3 * plan.noise,
        last_sd=1.4 * sd,
        difference=difference,
        relative=None if alone else interval(sign * (values - baseline) / scale),
        p_value=None if alone or values.size < 2 else float(min(1.0, 2 * rng_p(values - baseline))),
        verdict=verdict,
    )


def rng_p(difference: np.ndarray) -> float:
    return float(stats.ttest_1samp(difference, 0).pvalue)


def _curve(plan: Plan, method: str, m: int, setting: int, values: np.ndarray, rng: np.random.Generator) -> Curve:
    epochs = np.arange(1, plan.epochs + 1)
    losses, weights, validation = {}, {}, {}
    logits = np.zeros(len(plan.tasks))
    track = []
    for _ in epochs:
        logits = 0.93 * logits + (0 if method in ("single-task", "equal") else 0.06 * m) * rng.normal(
            0.05 * (-1) ** np.arange(len(plan.tasks)), 1, len(plan.tasks)
        )
        track.append(np.exp(logits) / np.exp(logits).mean())
    for t, task in enumerate(plan.tasks):
        decay = np.exp(-epochs / (plan.epochs / (4 + (m % 3))))
        noise = 1 + rng.normal(0, 0.02, epochs.size)
        losses[task.name] = ((0.05 + 0.01 * m + (1.5 + t) * decay) * noise).tolist()
        weights[task.name] = [float(step[t]) for step in track]
        end = values[m, t].mean()
        start = 0.4 * end if task.higher_is_better else 2.5 * end
        validation[task.name] = (end + (start - end) * decay * noise).tolist()
    if method == "single-task":
        weights = {}
    spreads = {name: [0.1 * abs(value - 1) for value in values] for name, values in weights.items()}
    return Curve(method, setting, epochs.tolist(), losses, weights, validation, spreads if m % 2 else {})


def _accuracy(name: str, label: str = "") -> TaskInfo:
    return TaskInfo(name, label or name, "accuracy", True, 1.0, True, 0.01)


def digits() -> Judgement:
    """Two tasks, six methods, two amounts of training data, five seeds."""
    effect = [0, -0.021, -0.013, -0.004, 0.013, 0.004]

    def quality(t: int, m: int, fraction: float) -> float:
        alone = (0.958, 0.941)[t] - 0.15 * (-math.log10(fraction))
        if m == 0:
            return alone
        return alone + (effect[m] * (1.0 if t else 0.35) if fraction == 1.0 else 0.02 + effect[m])

    plan = Plan([_accuracy("left"), _accuracy("right")], quality, 0.0045, fractions=(0.1, 1.0))
    return simulate(plan, "digits", "Two overlaid handwritten digits: which is on the left, which on the right?")


def seven() -> Judgement:
    """Seven regression tasks of different scale, one setting: lower is better."""
    scale = [4.1, 3.2, 1.5, 1.7, 0.31, 0.45, 0.52]
    tasks = [TaskInfo(f"torque_{t + 1}", f"torque {t + 1}", "RMSE", False, 0.0, False, 0.01) for t in range(7)]

    def quality(t: int, m: int, fraction: float) -> float:
        return scale[t] * (1 + (0 if m == 0 else 0.02 * math.sin(3 * t + m) - 0.012 * m + (0.05 if t == 4 else 0)))

    plan = Plan(tasks, quality, 0.012, epochs=60)
    return simulate(plan, "sarcos", "Inverse dynamics of a robot arm: seven joint torques from 21 readings.")


def twelve() -> Judgement:
    """Twelve tasks, one method without results for two of them, failed trials."""
    names = ["NR-AR", "NR-AR-LBD", "NR-AhR", "NR-Aromatase", "NR-ER", "NR-ER-LBD", "NR-PPAR-gamma", "SR-ARE",
             "SR-ATAD5", "SR-HSE", "SR-MMP", "SR-p53"]  # fmt: skip
    tasks = [TaskInfo(name, name, "ROC AUC", True, 1.0, False, 0.01) for name in names]

    def quality(t: int, m: int, fraction: float) -> float:
        return 0.74 + 0.012 * t - (0 if m == 0 else 0.03 * math.sin(1.7 * t) - 0.006 * m)

    missing = frozenset({(3, "NR-AR"), (3, "SR-p53")})
    found = simulate(Plan(tasks, quality, 0.006, missing=missing, epochs=40), "tox21", "Twelve toxicity assays.")
    failures = [Failure("uw", 0, seed, None, "NonFiniteLossError: task 'NR-AR' has the loss inf", TRACEBACK)
                for seed in (1, 3)]  # fmt: skip
    rows = [replace(row, failed=2) if row.method == "uw" else row for row in found.rows]
    return replace(found, failures=failures, failed=len(failures), rows=rows)


def one_seed() -> Judgement:
    """One seed: values, but no interval and nothing decided."""
    many = digits()
    plan = Plan(many.tasks, lambda t, m, fraction: 0.95 - 0.01 * t + 0.002 * m, 0.004, seeds=1, epochs=2)
    found = simulate(plan, "digits", many.summary)
    return replace(found, verdict=["Nothing is decided: one seed gives no interval. Run at least three seeds."])


def incomplete() -> Judgement:
    """Interrupted: only some methods have a finished trial, the rows of the others hold NaN."""
    full = digits()
    done = {"single-task", "equal", "dwa(temperature=2)"}
    rows = [
        replace(row, seeds=2 if row.method.startswith("dwa") else row.seeds)
        if row.method in done and row.setting == 0
        else replace(row, delta_m=None, delta_m_last=None, steps_per_second=math.nan, seconds=math.nan,
                     peak_memory=math.nan, seeds=0, relative_cost=math.nan)
        for row in full.rows
    ]  # fmt: skip
    return replace(
        full,
        cells=[cell for cell in full.cells if cell.method in done and cell.setting == 0],
        curves=[curve for curve in full.curves if curve.method in done and curve.setting == 0],
        rows=rows,
        complete=False,
        finished=19,
        verdict=["So far: nothing decided at 100 %, because 51 of 70 trials are missing."],
    )


def nothing() -> Judgement:
    """Planned, but no trial is finished."""
    start = incomplete()
    rows = [replace(row, delta_m=None, steps_per_second=math.nan, seconds=math.nan, peak_memory=math.nan,
                    relative_cost=math.nan, seeds=0) for row in start.rows]  # fmt: skip
    return replace(start, cells=[], curves=[], rows=rows, finished=0, verdict=["No trial is finished yet."])


def hostile() -> Judgement:
    """Names that would break a page which does not escape them, and a diverged method."""
    base = digits()
    bad = '<script>alert("x")</script>'
    long = "ein sehr langer Aufgabenname mit ümlauten & 'quotes' 数字 that never seems to end"
    names = {"left": bad, "right": long}
    curves = [
        replace(
            curve,
            losses={names[t]: [math.nan, *v[1:]] for t, v in curve.losses.items()},
            weights={names[t]: v for t, v in curve.weights.items()},
            validation={names[t]: v for t, v in curve.validation.items()},
        )
        for curve in base.curves
    ]
    cells = [
        replace(cell, task=names[cell.task], difference=Interval(-0.85, -0.86, -0.84),
                verdict="negative transfer", note="baseline within 1e-6 of zero: shown absolute <b>")
        if cell.method == "uw"
        else replace(cell, task=names[cell.task])
        for cell in base.cells
    ]  # fmt: skip
    return replace(
        base,
        problem="</title><img src=x>",
        summary=f"{bad} & more",
        tasks=[replace(task, name=names[task.name], label=names[task.name]) for task in base.tasks],
        settings=[replace(s, fractions={names[t]: f for t, f in s.fractions.items()}) for s in base.settings],
        cells=cells,
        curves=curves,
        failed=1,
        failures=[Failure("uw", 0, 1, bad, bad, f"{bad}\n\x1b[31mred\x1b[0m [bold]not markup[/bold]\n")],
        verdict=[f"{bad} is hurt & nothing helps."],
        command=f"steelyard compare '{bad}' --methods \"a&b\"",
        versions={"steelyard": "0.1", bad: bad},
        machine=bad,
    )


def unequal() -> Judgement:
    """Each task has its own amount of training data."""
    base = digits()
    settings = [
        replace(base.settings[0], fractions={"left": 0.1, "right": 1.0}, label="left 10 %, right 100 %"),
        base.settings[1],
    ]

    def steps(cell: Cell) -> dict[int, int]:
        """Where the left task has a tenth of the labels its own network takes a tenth of the steps."""
        few = cell.setting == 0 and cell.method == "single-task" and cell.task == "left"
        return {seed: 1_320 if few else 13_200 + seed for seed in cell.values}

    cells = [replace(cell, steps=steps(cell)) for cell in base.cells]
    return replace(base, settings=settings, cells=cells, others=others(base))


def large(fractions: Sequence[float] = (0.1, 1.0)) -> Judgement:
    """Forty tasks, thirty methods."""
    tasks = [TaskInfo(f"property_{t:02d}", f"property {t:02d}", "MAE", False, 0.0, False, 0.01) for t in range(40)]
    names = ["equal", "uw", "rlw", "dwa", "ema", "db-mtl", "mgda", "pcgrad", "cagrad", "nash-mtl"]
    methods = [
        "single-task",
        *[f"{name}(scale={scale})" for scale in ("paper", "sum", "x") for name in names][:29],
    ]

    def quality(t: int, m: int, fraction: float) -> float:
        return (1 + t) * (1 + (0 if m == 0 else 0.04 * math.sin(t + 2 * m)) - 0.3 * math.log10(fraction))

    plan = Plan(tasks, quality, 0.02, methods=methods, fractions=fractions, seeds=3, epochs=100)
    return simulate(plan, "qm40", "Forty properties of small molecules.")


def others(judgement: Judgement) -> list[OtherMetric]:
    """Two further metrics of the last task, one of them shown in per cent, and one of all tasks together.

    Of the last method none.
    """
    made = []
    for setting in judgement.settings:
        alone: dict[str, np.ndarray] = {}
        for place, method in enumerate(judgement.methods[:-1]):
            own = judgement.tasks[-1].name
            for task, name, size, percent in (
                (own, "RMSE", 41.0, False), (own, "within <5>", 0.62, True), (None, "missed", 0.083, True)
            ):  # fmt: skip
                values = size * (1 + 0.02 * place + 0.01 * np.sin(np.arange(len(judgement.seeds)) + place))
                base = alone.setdefault(name, values)
                difference = None if method == "single-task" else interval(values - base)
                by_seed = dict(zip(judgement.seeds, map(float, values), strict=True))
                made.append(
                    OtherMetric(method, setting.index, task, name, percent, percent, by_seed,
                                float(values.mean()), float(values.std(ddof=1)), difference)
                )  # fmt: skip
    return made


def one_task() -> Judgement:
    """A single task, for which Δm and the difference are one; and a tuned study."""

    def quality(t: int, m: int, fraction: float) -> float:
        return 12.0 - 0.4 * m

    plan = Plan(
        [TaskInfo("age", "age in years", "MAE", False, 0.0, False, 0.02)], quality, 0.2, METHODS[:3], seeds=4, epochs=1
    )
    found = simulate(plan, "census", "How old?")
    rows = [replace(row, chosen=f"rate 0.{place + 1}") for place, row in enumerate(found.rows)]
    said = ["Validation chose the last epoch <4 of 4>: train longer.", "The rate lies at the edge."]
    hurt = [Hurt("equal", 0, "age", {0: 0.25, 1: 0.51}, 0.38, 0.13)]
    found = replace(found, others=others(found), hurt=hurt, architecture="mmoe(experts=3)", parameters=1_234_567)
    return replace(found, rows=rows, tuning="three rates were tried", verdict=["Nothing is hurt."], cautions=said,
                   about="Intervals are about <other> seeds.")  # fmt: skip


def diverged() -> Judgement:
    """Metrics without a value, intervals far off to both sides, a Δm that is undefined, a failed single-task trial."""
    tasks = [
        TaskInfo("depth", "depth", "relative error", False, 0.0, False, 0.03),
        TaskInfo("normal", "surface normal", "score", True, None, False, 0.01),
        TaskInfo("segment", "segmentation", "IoU", True, 1.0, True, 0.01),
    ]

    def quality(t: int, m: int, fraction: float) -> float:
        return (0.21, 41.0, 0.62)[t] * (1 + 0.015 * m * (-1) ** (t + m)) * (1.0 if t else 2 - fraction)

    names = ["single-task", "equal", "uw", "famo", "mgda", "pcgrad", "cagrad", "stch", "equal@mmoe(experts=3)"]
    made = simulate(Plan(tasks, quality, 0.003, names, (0.5, 1.0), seeds=3, epochs=12), "rooms", "Three dense tasks.")
    nothing = Interval(math.nan, math.nan, math.nan)
    changed = {
        ("uw", 1): lambda cell: replace(cell, mean=math.nan, sd=math.nan, last_sd=math.nan, difference=nothing,
                                        relative=None, verdict="undecided", p_value=None),
        ("mgda", 1): lambda cell: replace(cell, difference=Interval(*(side(cell, m) for m in (40.0, 1.0, 79.0)))),
        ("cagrad", 0): lambda cell: replace(cell, difference=None, relative=None, verdict=None, p_value=None)
                                    if cell.task == "depth" else cell,
        ("pcgrad", 0): lambda cell: replace(cell, difference=Interval(*(side(cell, m) for m in (-40.0, -79.0, -1.0)))),
        ("stch", 1): lambda cell: replace(cell, difference=Interval(0.001, -90.0, 90.002), verdict="undecided"),
    }  # fmt: skip

    def side(cell: Cell, times: float) -> float:
        return times * 0.03 * (100 if cell.task == "normal" else 1)

    def odd(curve: Curve) -> Curve:
        if curve.method != "famo":
            return curve
        return replace(curve, losses={"depth": [math.nan, *[9e4] * 11], "normal": [math.nan] * 12,
                                      "segment": [1e-3, math.nan, *curve.losses["segment"][2:]]},
                       weights={**curve.weights, "depth": [math.nan] * 12}, weight_spreads={})  # fmt: skip

    same = lambda cell: cell  # noqa: E731
    failures = [Failure("single-task", 1, 2, "normal", "RuntimeError: no", TRACEBACK),
                Failure("cagrad", 0, 1, None, "ValueError: what", TRACEBACK)]  # fmt: skip
    return replace(
        made,
        cells=[changed.get((cell.method, cell.setting), same)(cell) for cell in made.cells
               if (cell.method, cell.setting) != ("famo", 0)],
        rows=[replace(row, delta_m=nothing if row.method == "uw" else None, delta_m_last=None)
              if row.method in ("uw", "famo") else
              replace(row, delta_m=Interval(-9.0, -16.0, -2.0)) if row.method == "mgda" else
              replace(row, delta_m=Interval(0.004, -11.0, 11.008)) if row.method == "stch" else
              replace(row, failed=1) if row.method == "cagrad" and not row.setting else row for row in made.rows],
        curves=[odd(curve) for curve in made.curves],
        failures=failures,
        failed=len(failures),
        verdict=["With 50 % of the labels: nothing is decided.", "Two of three are hurt: so it is."],
        complete=False,
    )  # fmt: skip


ALL = {
    "digits": digits, "seven": seven, "twelve": twelve, "one_seed": one_seed, "incomplete": incomplete,
    "nothing": nothing, "hostile": hostile, "unequal": unequal, "one_task": one_task, "diverged": diverged,
}  # fmt: skip


def six_amounts() -> Judgement:
    """Two tasks, six amounts of training data."""
    base = digits()

    def quality(t: int, m: int, fraction: float) -> float:
        alone = 0.958 - 0.02 * t - 0.12 * (-math.log10(fraction))
        return alone + (0 if m == 0 else 0.03 * (-math.log10(fraction)) - 0.004 * (6 - m))

    plan = Plan(base.tasks, quality, 0.006, fractions=(0.01, 0.05, 0.1, 0.2, 0.5, 1.0))
    return simulate(plan, "digits", base.summary)
