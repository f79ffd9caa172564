"""Every cell of every table of the page says what the judgement says, read by row and column."""

from __future__ import annotations

import functools
import math
import re
from dataclasses import replace
from itertools import zip_longest

import numpy as np
import pytest
from scipy import stats

from report import judgements
from report.reading import Element, by_setting, number, parse, says, says_interval, table
from steelyard.report.device_text import repeats_text
from steelyard.report.study_page import page
from steelyard.study.judgement import Cell, Judgement, OtherMetric, TaskInfo

READ = {**judgements.ALL, "six_amounts": judgements.six_amounts}
SHOWN = [name for name in READ if name != "nothing"]
WORDS = {"gain": "gain", "no difference": "same", "negative transfer": "hurt", "undecided": "open"}


@functools.cache
def opened(name: str) -> tuple[Judgement, Element]:
    """A judgement and its page."""
    judgement = READ[name]()
    return judgement, parse(page(judgement))


def factor(task: TaskInfo) -> float:
    return 100.0 if task.percent else 1.0


def started(judgement: Judgement) -> list[int]:
    return [s.index for s in judgement.settings if any(cell.setting == s.index for cell in judgement.cells)]


def judged(judgement: Judgement) -> bool:
    return any(cell.difference for cell in judgement.cells)


def own_half(cell: Cell) -> float:
    """Half the 95 % t interval of a method's own mean."""
    count = len(cell.values)
    return math.inf if count < 2 else float(stats.t.ppf(0.975, count - 1)) * cell.sd / math.sqrt(count)


def heading(found: Element, judgement: Judgement) -> None:
    """The head of a table of results: each task with its metric, and where better is."""
    heads = found.one("thead").all("th")[1:]
    for head, task in zip(heads, judgement.tasks, strict=False):
        assert head["title"] == task.label
        assert head.one("small").text == f"{task.metric}{', %' * task.percent} {'↑' if task.higher_is_better else '↓'}"


@pytest.mark.parametrize("name", SHOWN)
def test_the_main_table(name: str) -> None:
    judgement, root = opened(name)
    parts = by_setting(root.one("section", id="table"))
    assert sorted(parts) == started(judgement)
    for setting, part in parts.items():
        (found,) = part.all("table", class_="results")
        heading(found, judgement)
        cells = table(found)
        columns = [task.label for task in judgement.tasks] + ["Δm"] * judged(judgement) + ["Time", "Steps"]
        columns += ["Trained"] * (steps_apart(judgement, setting) is not None) + ["Memory"]
        assert list(cells) == [(method, column) for method in judgement.methods for column in columns]
        known = {(cell.method, cell.task): cell for cell in judgement.cells if cell.setting == setting}
        for method in judgement.methods:
            for task in judgement.tasks:
                check_cell(cells[method, task.label], known.get((method, task.name)), task)
            check_figures(method, setting, cells, judgement)


def check_cell(shown: Element, cell: Cell | None, task: TaskInfo) -> None:
    if cell is None:
        assert (shown.text, shown.classes) == ("–", ["missing"])
        return
    assert says(shown.own, cell.mean * factor(task)), shown.text
    small = shown.one("small")
    spread = small.one("i").text
    notes = [mark["title"] for mark in shown.all("sup")]
    assert notes == [cell.note] * bool(cell.note)
    if cell.difference is None:
        assert (cell.verdict, shown.classes, small.own, small.all("use")) == (None, ["none"], "", [])
        half = own_half(cell) * factor(task)
        assert spread == "" if math.isinf(half) else spread[0] == "±" and says(spread[1:], half)
    else:
        values = (cell.difference.mean, cell.difference.low, cell.difference.high)
        assert says_interval(f"{small.own} {spread}".strip(), *(value * factor(task) for value in values))
        assert cell.verdict is not None
        css = WORDS[cell.verdict]
        assert (small.one("span", class_="sr").text, shown.classes) == (cell.verdict, [css])
        assert (small.one("svg")["class"], small.one("use")["href"]) == (f"mark {css}", f"#mark-{css}")
    check_tooltip(shown["title"], cell, task)


def check_tooltip(title: str, cell: Cell, task: TaskInfo) -> None:
    """ "equal on left: 93.1, 92.8. 95 % interval of the difference −2.1 to −1.3. p = 0.012 together with all words"."""
    head = f"{cell.method} on {task.label}: "
    assert title.startswith(head)
    seeds, *more = title.removeprefix(head).split(". ")
    in_order = [cell.values[seed] * factor(task) for seed in sorted(cell.values)]
    assert all(says(text, value) for text, value in zip_longest(seeds.split(", "), in_order))
    expected = []
    if cell.difference and math.isfinite(cell.difference.high):
        low, high = re.fullmatch("95 % interval of the difference (.*) to (.*)", more[0]).groups()
        assert says(low, cell.difference.low * factor(task))
        assert says(high, cell.difference.high * factor(task))
        expected.append(more[0])
    if cell.p_value is not None:
        assert float(re.fullmatch("p = (.*) together with all words", more[-1])[1]) == pytest.approx(
            cell.p_value, rel=0.051
        )
        expected.append(more[-1])
    assert more == expected


def steps_apart(judgement: Judgement, setting: int) -> dict[str, str] | None:
    """By method what is told of its networks' steps; None where all took about as many."""
    taken: dict[str, list[float]] = {method: [] for method in judgement.methods}
    for cell in judgement.cells:
        if cell.setting == setting and cell.steps:
            taken[cell.method].append(float(np.median(list(cell.steps.values()))))
    every = [count for counts in taken.values() for count in counts]
    if not every or max(every) <= 1.1 * min(every):
        return None
    return {
        method: "–".join(dict.fromkeys(f"{round(end(counts)):,}".replace(",", "\u202f") for end in (min, max)))
        if counts
        else "–"
        for method, counts in taken.items()
    }


def check_figures(method: str, setting: int, cells: dict[tuple[str, str], Element], judgement: Judgement) -> None:
    row = next(row for row in judgement.rows if (row.method, row.setting) == (method, setting))
    if judged(judgement):
        check_delta(cells[method, "Δm"], row.delta_m)
    if (told := steps_apart(judgement, setting)) is not None:
        assert cells[method, "Trained"].text == told[method]
    time, steps, memory = (cells[method, column] for column in ("Time", "Steps", "Memory"))
    assert says(time.own, row.relative_cost)
    assert seconds(time.one("i").text) == (pytest.approx(row.seconds, abs=0.51) if row.seeds else None)
    assert says(steps.text, row.steps_per_second)
    amount, _, unit = memory.text.partition(" ")
    assert says(amount, row.peak_memory / {"MiB": 1, "GiB": 1024, "": 1}[unit])
    assert time.own == "–" or re.fullmatch(r"\d+\.\d\d", time.own)
    assert steps.text == "–" or number(steps.text) == pytest.approx(row.steps_per_second, rel=0.005), "three digits"


def check_delta(shown: Element, delta: object) -> None:
    if delta is None:
        assert shown.text == ""
    else:
        assert says_interval(shown.text.replace("±", " ±").replace("  ", " "),
                             *(100 * value for value in (delta.mean, delta.low, delta.high)))  # fmt: skip


def seconds(text: str) -> float | None:
    """ "3 min 20 s" in seconds."""
    parts = re.findall(r"([\d.]+) (s|min|h)", text)
    return sum(float(amount) * {"s": 1, "min": 60, "h": 3600}[unit] for amount, unit in parts) if text else None


@pytest.mark.parametrize("name", SHOWN)
def test_who_is_in_a_row_of_the_main_table(name: str) -> None:
    judgement, root = opened(name)
    for setting, part in by_setting(root.one("section", id="table")).items():
        rows = part.one("table", class_="results").one("tbody").all("tr")
        assert [row["data-m"] for row in rows] == [str(place) for place in range(len(judgement.methods))]
        assert [row.get("class") for row in rows] == [
            "baseline" if method == "single-task" else None for method in judgement.methods
        ]
        for method, row in zip(judgement.methods, rows, strict=True):
            said = [small.text for small in row.one("th").all("small")]
            figures = next(r for r in judgement.rows if (r.method, r.setting) == (method, setting))
            failed = f"{figures.failed} trial{'s' * (figures.failed != 1)} failed"
            so_far = f"{figures.seeds} of {len(judgement.seeds)} seeds"
            assert (failed in said) == bool(figures.failed)
            assert (so_far in said) == (0 < figures.seeds < len(judgement.seeds) and not figures.failed)
            shown = row.one("th").own.replace("\u200b", "")
            assert method.startswith(shown.split("+")[0])
            letters = re.sub(r"[^\w.@+-]", "", method)
            options = "".join(text for text in said if text not in (failed, so_far))
            assert sorted(re.sub(r"[^\w.@+-]", "", shown + options)) == sorted(letters) or "+" in method


@pytest.mark.parametrize("name", SHOWN)
def test_the_table_of_the_last_epoch(name: str) -> None:
    judgement, root = opened(name)
    parts = by_setting(root.one("section", id="details"))
    assert sorted(parts) == started(judgement)
    for setting, part in parts.items():
        heading(part.one("table"), judgement)
        cells = table(part.one("table"))
        columns = [task.label for task in judgement.tasks] + ["Δm"] * judged(judgement)
        assert list(cells) == [(method, column) for method in judgement.methods for column in columns]
        known = {(cell.method, cell.task): cell for cell in judgement.cells if cell.setting == setting}
        for method in judgement.methods:
            for task in judgement.tasks:
                shown, cell = cells[method, task.label].text, known.get((method, task.name))
                if cell is None:
                    assert shown == "–"
                    continue
                value, _, spread = shown.partition(" ±")
                assert says(value, cell.last_mean * factor(task))
                assert says(spread, cell.last_sd * factor(task)) if spread else math.isnan(cell.last_sd)
            if judged(judgement):
                row = next(row for row in judgement.rows if (row.method, row.setting) == (method, setting))
                check_delta(cells[method, "Δm"], row.delta_m_last)


@pytest.mark.parametrize("name", SHOWN)
def test_the_verdicts_at_a_glance(name: str) -> None:
    judgement, root = opened(name)
    shown = len(judgement.tasks) >= 7 and judged(judgement)
    for setting, part in by_setting(root.one("section", id="table")).items():
        found = part.all("table", class_="glance")
        assert len(found) == shown
        for glance in found:
            heads = [head.text for head in glance.one("thead").all("th")]
            assert heads == [task.label for task in judgement.tasks]
            rows = glance.one("tbody").all("tr")
            methods = [method for method in judgement.methods if method != "single-task"]
            assert [row.one("th")["title"] for row in rows] == methods
            known = {(cell.method, cell.task): cell for cell in judgement.cells if cell.setting == setting}
            for method, row in zip(methods, rows, strict=True):
                assert row["data-m"] == str(judgement.methods.index(method))
                for task, shown_cell in zip(judgement.tasks, row.elements[1:], strict=True):
                    cell = known.get((method, task.name))
                    assert shown_cell.text == ((cell and cell.verdict) or "")
                    if cell is None or cell.verdict is None:
                        assert shown_cell.all("use") == []
                        continue
                    css = WORDS[cell.verdict]
                    assert (shown_cell.classes, shown_cell.one("use")["href"]) == ([css], f"#mark-{css}")
                    said = re.fullmatch(rf".* on {re.escape(task.label)}: {cell.verdict}, (.*)", shown_cell["title"])[1]
                    values = (cell.difference.mean, cell.difference.low, cell.difference.high)
                    assert says_interval(said.strip(), *(value * factor(task) for value in values))


def test_marks_look_different_and_the_legend_names_them() -> None:
    _, root = opened("digits")
    shapes = {part["id"]: part.get("d") or part.tag for part in root.one("svg", class_="defs").walk() if part.get("id")}
    assert len(set(shapes.values())) == len(shapes)
    legend = root.one("section", id="table").one("span", class_="legend")
    named = {entry.text: (entry.classes, entry.one("use")["href"]) for entry in legend.elements}
    assert named == {word: ([css], f"#mark-{css}") for word, css in WORDS.items()}
    words = {"gain": "Gain", "hurt": "Negative transfer", "same": "No difference", "open": "Undecided"}
    for css, word in words.items():
        (term,) = root.one("details", class_="glossary").all("dt", class_=css)
        assert (term.text, term.one("use")["href"]) == (word, f"#mark-{css}")


@pytest.mark.parametrize("name", READ)
def test_the_facts_and_the_details(name: str) -> None:
    judgement, root = opened(name)

    def many(number: int, noun: str) -> str:
        return f"{number} {noun}{'' if number == 1 else 's'}"

    counts = [(judgement.tasks, "task"), (judgement.methods, "method"), (judgement.seeds, "seed")]
    facts = [*(many(len(found), noun) for found, noun in counts), many(judgement.epochs, "epoch")]
    if len(judgement.settings) > 1:
        facts.append(f"{len(judgement.settings)} amounts of training labels")
    assert root.one("p", class_="facts").text.split("·") == [*facts, "cpu, float32", "14 March 2026, 15:09 UTC"]
    details = root.one("section", id="details")
    run = details.all("dl", class_="run")[0]
    said = dict(zip((term.text for term in run.all("dt")), (entry.text for entry in run.all("dd")), strict=True))
    failed = f", {judgement.failed} failed" if judgement.failures else ""
    network = judgement.architecture
    assert said == {
        "Seeds": ", ".join(map(str, judgement.seeds)),
        "Training": f"{many(judgement.epochs, 'epoch')}, batches of {judgement.batch_size}",
        **({"Network": f"{network}, {judgement.parameters:,} parameters"} if network else {}),
        **({"Tuning": judgement.tuning} if judgement.tuning else {}),
        "Trials": f"{judgement.finished} of {judgement.planned} finished{failed}",
        "Machine": judgement.machine,
        "Device": f"cpu, float32: {repeats_text(judgement)}",
        "Versions": ", ".join(f"{name}\u00a0{version}" for name, version in judgement.versions.items()),
        "Made": "14 March 2026, 15:09 UTC",
    }
    banner = root.all("p", class_="banner")
    assert len(banner) == (not judgement.complete)
    assert all(f"{judgement.finished} of {judgement.planned} trials are done" in part.text for part in banner)
    check_failures(details, judgement)
    joint = f"; joint networks: {network}" if network else ""
    note = f"means over {many(len(judgement.seeds), 'seed')}{joint}."
    assert all(note in part.all("p", class_="note")[0].text for part in root.all("section", id="table"))
    waiting = [s.label for s in judgement.settings if s.index not in started(judgement)] if started(judgement) else []
    for label in waiting:
        assert f"No trial is finished yet at {label}." in root.one("section", id="table").text
    chosen = [entry.text for part in root.all("section", id="table") for entry in part.all("dd")]
    assert chosen == [row.chosen for row in judgement.rows if row.chosen]


def check_failures(details: Element, judgement: Judgement) -> None:
    boxes = details.all("details", class_="failures")
    assert len(boxes) == bool(judgement.failures)
    labels = {setting.index: setting.label for setting in judgement.settings}
    for box in boxes:
        summary, *each = box.elements
        assert summary.text == f"{len(each)} failed trial{'s' * (len(each) != 1)}"
        for failure, shown in zip(judgement.failures, each, strict=True):
            task = f", {failure.task}" if failure.task else ""
            where = f", {labels[failure.setting]}" if len(labels) > 1 else ""
            said = f"{failure.method}{task}, seed {failure.seed}{where}: {failure.error}"
            assert shown.one("summary").text == re.sub(" +", " ", said)
            assert shown.one("pre").children == [failure.traceback]


@pytest.mark.parametrize("name", READ)
def test_the_verdict_is_the_judgements_word_for_word(name: str) -> None:
    """In order, each under the heading of its setting, with nothing added."""
    judgement, root = opened(name)
    said = []
    for finding in root.all("div", class_="finding"):
        head = "".join(part.text + ": " for part in finding.all("h2"))
        said += [head + " ".join(part.text.split()) for part in finding.all("p")]
    flat = [" ".join(text.split()) for text in judgement.verdict]
    assert [text.lower() for text in said] == [text.lower() for text in flat]
    sizes = [[part.classes[0] for part in finding.all("p")] for finding in root.all("div", class_="finding")]
    assert all(found[1:] == ["lead"] * (len(found) - 1) for found in sizes)
    if len(judgement.settings) == 1:
        assert [found[0] for found in sizes] == ["headline"]


@pytest.mark.parametrize("name", READ)
def test_cautions_come_before_the_verdict_word_for_word(name: str) -> None:
    judgement, root = opened(name)
    boxes = root.one("section", class_="verdict").all("ul", class_="cautions")
    assert len(boxes) == bool(judgement.cautions)
    assert [" ".join(entry.text.split()) for box in boxes for entry in box.all("li")] == judgement.cautions
    text = root.one("section", class_="verdict").text
    assert all(text.index(said) < text.index(judgement.verdict[0]) for said in judgement.cautions)


@pytest.mark.parametrize("name", READ)
def test_what_the_intervals_are_about_stands_above_the_table(name: str) -> None:
    judgement, root = opened(name)
    shown = [part.text for part in root.all("p", class_="about")]
    assert shown == [judgement.about] * bool(judgement.about)


@pytest.mark.parametrize("name", SHOWN)
def test_further_metrics_have_a_table_of_their_own(name: str) -> None:
    judgement, root = opened(name)
    sections = root.all("section", id="further")
    assert len(sections) == bool(judgement.others)
    parts = [found for section in sections for found in by_setting(section).items()]
    assert sorted(setting for setting, _ in parts) == sorted({other.setting for other in judgement.others})
    for setting, part in parts:
        mine = {(o.method, o.task, o.metric): o for o in judgement.others if o.setting == setting}
        for shown in part.all("table", class_="others"):
            columns = list(dict.fromkeys((task, metric) for _, task, metric in mine))
            for head, (task, metric) in zip(shown.one("thead").all("th")[1:], columns, strict=True):
                one = next(o for o in mine.values() if (o.task, o.metric) == (task, metric))
                labels = {None: "all tasks together", **{info.name: info.label for info in judgement.tasks}}
                assert head["title"] == labels[task]
                mark = f"{', %' * one.percent} {'↑' if one.higher_is_better else '↓'}"
                assert head.one("small").text == metric + mark
            rows = shown.one("tbody").all("tr")
            methods = [method for method in judgement.methods if any(key[0] == method for key in mine)]
            assert [row.one("th")["title"] for row in rows] == methods
            for method, row in zip(methods, rows, strict=True):
                for cell, column in zip(row.all("td"), columns, strict=True):
                    check_other(cell, mine[(method, *column)])


@pytest.mark.parametrize("name", SHOWN)
def test_whom_steps_hurt_has_a_table_where_a_ledger_was_kept(name: str) -> None:
    judgement, root = opened(name)
    sections = root.all("section", id="hurt")
    assert len(sections) == bool(judgement.hurt)
    parts = [found for section in sections for found in by_setting(section).items()]
    assert sorted(setting for setting, _ in parts) == sorted({hurt.setting for hurt in judgement.hurt})
    for setting, part in parts:
        mine = {(hurt.method, hurt.task): hurt for hurt in judgement.hurt if hurt.setting == setting}
        rows = part.one("table", class_="others").one("tbody").all("tr")
        methods = [method for method in judgement.methods if any(key[0] == method for key in mine)]
        assert [row.one("th")["title"] for row in rows] == methods
        for method, row in zip(methods, rows, strict=True):
            for cell, task in zip(row.all("td"), judgement.tasks, strict=True):
                shown = mine.get((method, task.name))
                if shown is None:
                    assert cell.text == "–"
                else:
                    assert cell.text == f"{100 * shown.mean:.0f}{100 * shown.against:.0f} against"


def check_other(shown: Element, other: OtherMetric) -> None:
    times = 100.0 if other.percent else 1.0
    assert says(shown.own, other.mean * times)
    small = shown.one("small")
    if other.difference is None:
        assert small.text == ""
        return
    assert says(small.own.strip(), other.difference.mean * times)
    half = (other.difference.high - other.difference.low) / 2
    assert says(small.one("i").text.removeprefix("±"), half * times)


@pytest.mark.parametrize("name", SHOWN)
def test_the_architecture_is_named_above_the_table(name: str) -> None:
    judgement, root = opened(name)
    note = root.one("section", id="table").all("p", class_="note")[0].text
    assert (f"joint networks: {judgement.architecture}." in note) == bool(judgement.architecture)
    facts = root.one("section", id="details").one("dl", class_="run").text
    assert ("Network" in facts) == bool(judgement.architecture)
    if judgement.parameters:
        assert f"{judgement.architecture}, {judgement.parameters:,} parameters" in facts


@pytest.mark.parametrize("name", READ)
def test_remarks_on_cells_stand_below_the_table_once(name: str) -> None:
    judgement, root = opened(name)
    said = [entry.text for part in root.all("ul", class_="notes") for entry in part.all("li")]
    notes = list(dict.fromkeys(cell.note for cell in judgement.cells if cell.note))
    assert len(said) == len(notes)
    for text, note in zip(said, notes, strict=True):
        labels = {task.name: task.label for task in judgement.tasks}
        about = dict.fromkeys(f"{cell.method} on {labels[cell.task]}" for cell in judgement.cells if cell.note == note)
        assert text == f"{', '.join(about)}: {note}"


@pytest.mark.parametrize("name", SHOWN)
def test_headings_name_the_setting(name: str) -> None:
    judgement, root = opened(name)
    for section in root.all("section"):
        for setting, part in by_setting(section).items():
            label = next(s.label for s in judgement.settings if s.index == setting)
            titles = [title.text for title in part.all("h3", class_="setting")]
            assert titles == [f"Training labels: {label}"] * (len(judgement.settings) > 1)


def test_remarks_name_tasks_by_their_labels() -> None:
    judgement = judgements.digits()
    (task, *_), (cell, *_) = judgement.tasks, judgement.cells
    tasks = [replace(each, label="the first of all" if each == task else each.label) for each in judgement.tasks]
    root = parse(page(replace(judgement, tasks=tasks, cells=[replace(cell, task=task.name, note="a remark")])))
    assert [entry.text for entry in root.one("ul", class_="notes").all("li")] == [
        f"{cell.method} on the first of all: a remark"
    ]


def test_the_smallest_and_largest_time_stand_below_the_median_where_they_differ() -> None:
    judgement = judgements.digits()
    ranges = {judgement.methods[0]: (0.701, 0.702)}
    bounds = [ranges.get(row.method, (0.61, 0.93)) for row in judgement.rows]
    rows = [
        replace(row, relative_cost=0.7, cost_low=low, cost_high=high)
        for row, (low, high) in zip(judgement.rows, bounds, strict=True)
    ]
    cells = table(parse(page(replace(judgement, rows=rows))).all("table", class_="results")[0])
    first, *others = (cells[method, "Time"] for method in judgement.methods)
    assert [small.text for small in first.all("small") if not small.all("i")] == []
    assert others
    for time in others:
        assert time.own == "0.70"
        assert [small.text for small in time.all("small") if not small.all("i")] == ["0.61 to 0.93"]


def test_a_command_in_a_caution_stands_on_its_own_and_no_option_of_it_is_broken() -> None:
    command = "steelyard compare my-problem --workers 2 --epoch-steps 400"
    root = parse(page(replace(judgements.digits(), cautions=[f"Train <longer>:\n{command}", "Another."])))
    first, second = root.one("ul", class_="cautions").all("li")
    assert first.one("code").text == command
    assert first.own.strip() == "Train <longer>:"
    assert [option.text for option in first.one("code").all("span", class_="option")] == ["--workers", "--epoch-steps"]
    assert second.text == "Another."


def test_a_cell_says_what_other_test_rows_would_do() -> None:
    judgement = judgements.digits()
    assert "other test rows" not in page(judgement)
    cells = [replace(cell, rows_half=0.0123 if cell.difference else None) for cell in judgement.cells]
    assert page(replace(judgement, cells=cells)).count("other test rows would move it by ±1.2") >= 1
