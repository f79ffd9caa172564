"""Every cell of the terminal's tables, and of those in Markdown, says what the judgement says, by row and column."""

from __future__ import annotations

import math
import re

import pytest

from report import judgements
from report.reading import number, says, says_interval
from report.test_page_tables import SHOWN, WORDS, factor, judged, started, steps_apart
from report.test_terminal import printed
from steelyard.report.other_metrics import TOGETHER
from steelyard.report.terminal import _fold
from steelyard.reproductions.markdown import _study
from steelyard.study.judgement import Cell, Judgement, OtherMetric, Row, TaskInfo

# A width at which a table is one block, one at which it continues below itself, and a terminal without signs.
TERMINALS = {"wide": (800, "utf-8"), "narrow": (70, "utf-8"), "ascii": (110, "ascii")}
# Left out: names cut or written in wide characters, whose columns only a terminal can measure (see test_terminal.py).
READABLE = [name for name in SHOWN if name != "hostile"]
FIGURES = {"Δm": "%", "steps": "/s", "trained": "steps", "time": "×", "memory": "MiB", "failed": "trials"}


def blocks(text: str) -> list[tuple[str, str, list[str]]]:
    """The tables of a text: their two lines of headings and the lines of their rows."""
    lines = text.splitlines()
    rules = [index for index, line in enumerate(lines) if re.fullmatch("[─-]{5,}", line.strip())]
    found = []
    for rule in rules:
        rows = []
        for index in range(rule + 1, len(lines)):
            if not lines[index].strip() or index + 2 in rules or re.match(" same =|Chosen on|No trial", lines[index]):
                break
            rows.append(lines[index])
        found.append((lines[rule - 2], lines[rule - 1], rows))
    return found


def read(block: tuple[str, str, list[str]], headings: list[str]) -> tuple[list[str], dict[tuple[str, str], list[str]]]:
    """Headings in order, and (method, heading) → words. Columns are aligned on the right, names on the left."""
    first, _, lines = block
    edges, place, shown = [], 0, []
    for heading in headings:
        found = re.compile(rf"(?<!\S){re.escape(heading)}(?!\S)").search(first, place)
        if found:
            place = found.end()
            edges.append(place)
            shown.append(heading)
    assert sorted(first.split()) == sorted(" ".join(shown).split()), "a heading that nobody asked for"
    names: list[str] = []
    cells: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        piece = re.match(r"(?:  )?\S+(?: (?=\S)\S+)*", line) if line[:1] != " " or line[2:3].strip() else None
        if line[0] != " ":
            assert piece
            names.append(piece[0])
        elif piece and "seeds" not in piece[0]:
            names[-1] += piece[0].strip()
        start = len(piece[0]) if piece else 0
        for heading, left, right in zip(shown, [start, *edges], edges, strict=False):
            cells.setdefault((names[-1], heading), []).extend(line[max(left, start) : right].split(" "))
        assert not line[edges[-1] :].strip()
    merged: dict[tuple[str, str], list[str]] = {}
    for (name, heading), words in cells.items():  # the name has grown by lines below the first of its cells
        merged.setdefault((next(whole for whole in names if whole.startswith(name)), heading), []).extend(words)
    return shown, merged


def plain(words: list[str]) -> list[str]:
    """Of a terminal without signs: the signs that stand for them."""
    return ["–" if word == "-" else word.replace("+/-", "±").replace(",", "\u202f") for word in words if word]


@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize("name", READABLE)
def test_every_cell_of_the_terminal(name: str, terminal: str) -> None:
    judgement = {**judgements.ALL, "six_amounts": judgements.six_amounts}[name]()
    width, encoding = TERMINALS[terminal]
    text = printed(judgement, width, encoding)
    signs = {"Δm": "dm", "×": "x", "↑": "^", "↓": "v"} if encoding == "ascii" else {}
    parts = re.split(r"\n\nTraining labels: ", text)
    parts = parts[1:] if len(judgement.settings) > 1 else parts
    for setting, part in zip(judgement.settings, parts, strict=True):
        assert len(judgement.settings) == 1 or part.startswith(setting.label)
        if setting.index not in started(judgement):
            assert "No trial is finished yet." in part.splitlines()
            continue
        rows = {row.method: row for row in judgement.rows if row.setting == setting.index}
        figures = {signs.get(head, head): head for head in FIGURES}
        together = {o.method: o for o in judgement.others if o.task is None and o.setting == setting.index}
        all_tasks = [TOGETHER] if together else []
        headings = [*(task.label for task in judgement.tasks), *all_tasks, *figures]
        shown, cells = [], {}
        for block in blocks(part):
            check_units(block, judgement, signs)
            heads, found = read(block, headings)
            shown += heads
            cells |= found
        told = {"Δm": any(row.delta_m for row in rows.values()), "failed": any(row.failed for row in rows.values())}
        steps = steps_apart(judgement, setting.index)
        told["trained"] = steps is not None
        wanted = [*(task.label for task in judgement.tasks), *all_tasks]
        wanted += [sign for sign, head in figures.items() if told.get(head, True)]
        assert shown == wanted
        assert list(dict.fromkeys(method for method, _ in cells)) == judgement.methods
        known = {(cell.method, cell.task): cell for cell in judgement.cells if cell.setting == setting.index}
        for method in judgement.methods:
            for task in judgement.tasks:
                words, cell = plain(cells[method, task.label]), known.get((method, task.name))
                check_cell(words, cell, task)
                if terminal == "wide" and cell and cell.verdict:
                    assert words[-1] == WORDS[cell.verdict], "value, difference and verdict on one line"
            if together:
                check_together(plain(cells[method, TOGETHER]), together.get(method))
            for sign, head in figures.items():
                if head == "trained":
                    if steps is not None:
                        assert "".join(plain(cells[method, sign])).replace("-", "–") == steps[method]
                elif sign in shown:
                    check_figure(head, " ".join(plain(cells[method, sign])), rows[method])


def check_units(block: tuple[str, str, list[str]], judgement: Judgement, signs: dict[str, str]) -> None:
    for other in judgement.others:
        if other.task is None and TOGETHER in block[0]:
            arrow = "↑" if other.higher_is_better else "↓"
            assert f"{other.metric}{', %' * other.percent} {signs.get(arrow, arrow)}" in block[1]
    for task in judgement.tasks:
        if task.label in block[0].split("  "):
            arrow = "↑" if task.higher_is_better else "↓"
            assert f"{task.metric}{', %' * task.percent} {signs.get(arrow, arrow)}" in block[1]
    units = {signs.get(head, head): signs.get(unit, unit) for head, unit in FIGURES.items()}
    ends = {match.end(): match[0] for match in re.finditer(r"\S+", block[1])}
    for match in re.finditer(r"\S+", block[0]):
        if match[0] in units:
            assert ends[match.end()] == units[match[0]]


def check_cell(words: list[str], cell: Cell | None, task: TaskInfo) -> None:
    if cell is None:
        assert words == ["–"]
        return
    assert says(words[0], cell.mean * factor(task))
    said = [word for word in words[1:] if word in WORDS.values()]
    assert said == ([WORDS[cell.verdict]] if cell.verdict else [])
    change = " ".join(word for word in words[1:] if word not in said)
    check_change(change, cell.difference, factor(task))


def check_together(words: list[str], other: OtherMetric | None) -> None:
    if other is None:
        assert words == ["–"]
        return
    times = 100.0 if other.percent else 1.0
    assert says(words[0], other.mean * times)
    check_change(" ".join(words[1:]), other.difference, times)


def check_change(text: str, interval: object, times: float) -> None:
    if interval is None:
        assert text == ""
    else:
        assert says_interval(text, *(times * value for value in (interval.mean, interval.low, interval.high)))


def check_figure(head: str, text: str, row: Row) -> None:
    if head == "Δm":
        check_change(text, row.delta_m, 100)
    elif head == "failed":
        assert text == str(row.failed)
    elif head == "time":
        assert says(text, row.relative_cost)
        assert text == "–" or re.fullmatch(r"\d+\.\d\d", text)
    elif head == "memory":
        assert says(text, row.peak_memory)
        assert "." not in text
    else:
        assert says(text, row.steps_per_second)
        assert text == "–" or number(text) == pytest.approx(row.steps_per_second, rel=0.005)


@pytest.mark.parametrize("name", judgements.ALL)
def test_what_stands_around_the_tables(name: str) -> None:
    judgement = judgements.ALL[name]()
    lines = [re.sub(r"\s+", " ", line).strip() for line in printed(judgement, 2000).splitlines()]

    def many(number: int, noun: str) -> str:
        return f"{number} {noun}{'' if number == 1 else 's'}"

    def flat(text: str) -> str:
        return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())

    counts = [(judgement.tasks, "task"), (judgement.methods, "method"), (judgement.seeds, "seed")]
    facts = ", ".join([*(many(len(found), noun) for found, noun in counts), many(judgement.epochs, "epoch")])
    assert lines[0] == flat(f"{judgement.problem}: {judgement.summary}")
    assert lines[1].startswith(
        f"{facts}. Test values at the epoch chosen on validation data; differences from single-task"
    )
    assert lines[1].endswith("Three rates were tried." if judgement.tuning else "95 % intervals.")
    apart = any(steps_apart(judgement, setting.index) for setting in judgement.settings)
    steps = " trained steps = of each network, from the fewest to the most;" * apart
    legend = [line for line in lines if line.startswith("same =")]
    assert legend == judged(judgement) * [
        "same = no difference, hurt = negative transfer, open = undecided; words are about the region of no difference "
        "(±1 %, or a task's own) and hold together at 5 %; each interval stands by itself;"
        f"{steps} time × = training time against all single-task networks, ± half its range; memory = peak while "
        "training."
    ]
    labels = {setting.index: setting.label for setting in judgement.settings}
    failures = []
    for failure in judgement.failures:
        where = [failure.method, *([failure.task] if failure.task else []), f"seed {failure.seed}"]
        where += [labels[failure.setting]] if len(labels) > 1 else []
        failures.append(flat(f"{', '.join(where)}: {failure.error}"))
    sentences = [flat(sentence) for sentence in judgement.verdict]
    unfinished = [] if judgement.complete else [
        f"Unfinished: {judgement.finished} of {judgement.planned} trials are done. "
        "The same command continues where it stopped."
    ]  # fmt: skip
    title = [f"Failed trials: {judgement.failed}", *failures, ""] if failures else []
    tail = [*title, *sentences, *unfinished]
    assert lines[-len(tail) :] == tail
    chosen = [line for line in lines if line.startswith("Chosen on validation data: ")]
    said = "; ".join(f"{row.method}: {row.chosen}" for row in judgement.rows if row.chosen)
    assert chosen == [f"Chosen on validation data: {said}."] * bool(said)


def test_a_verdict_has_its_colour() -> None:
    text = printed(judgements.twelve(), 400, colour=True)
    codes = {"gain": "34", "hurt": "31", "open": "2", "same": "39"}
    for word, code in codes.items():
        before = re.findall(rf"\x1b\[([\d;]*)m[^\x1b]*?{word} *\x1b", text)
        assert before, word
        assert set(before) <= {code, ""}, word


@pytest.mark.parametrize("name", judgements.ALL)
def test_every_cell_of_the_markdown(name: str) -> None:
    judgement = judgements.ALL[name]()
    lines = _study(judgement)
    wide = len(judgement.tasks) > 8
    tables: list[list[list[str]]] = [[]]
    for line in lines:
        if line.startswith("| "):
            tables[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif tables[-1] and not line.startswith("|"):
            tables.append([])
    tables = [found for found in tables if found]
    assert len(tables) == len(started(judgement))
    for setting, (heads, *rows) in zip(started(judgement), tables, strict=True):
        marks = {task.name: "↑" if task.higher_is_better else "↓" for task in judgement.tasks}
        tasks = [f"{t.label} ({t.metric}{', %' * t.percent} {marks[t.name]})" for t in judgement.tasks]
        chosen = any(row.chosen for row in judgement.rows if row.setting == setting)
        middle = ["better / same / worse / open"] if wide else [text.replace("|", "\\|") for text in tasks]
        steps = steps_apart(judgement, setting)
        assert heads == ["arm", *middle, "Δm, %", "time ×", *["steps"] * (steps is not None), *["chosen"] * chosen]
        known = {(cell.method, cell.task): cell for cell in judgement.cells if cell.setting == setting}
        for method, (arm, *cells) in zip(judgement.methods, rows, strict=True):
            figures = next(row for row in judgement.rows if (row.method, row.setting) == (method, setting))
            some = 0 < figures.seeds < len(judgement.seeds)
            assert arm == f"`{method}`" + f" ({figures.seeds} of {len(judgement.seeds)} seeds)" * some
            if wide:
                found = [known[method, t.name].verdict for t in judgement.tasks if (method, t.name) in known]
                counts = " / ".join(str(found.count(word)) for word in WORDS if word != "undecided")
                open_ = found.count("undecided")
                assert cells[0] == (f"{counts} / {open_}" if any(found) else "–")
            else:
                for task, text in zip(judgement.tasks, cells, strict=False):
                    check_markdown(text, known.get((method, task.name)), task)
            delta, time, *rest = cells[len(middle) :]
            check_change("" if delta == "–" and figures.delta_m is None else delta, figures.delta_m, 100)
            assert says(time, figures.relative_cost)
            assert rest == [*([steps[method]] if steps else []), *[figures.chosen or "–"] * chosen]


def check_markdown(text: str, cell: Cell | None, task: TaskInfo) -> None:
    if cell is None:
        assert text == "–"
        return
    value, _, rest = text.partition(" (")
    assert says(value, cell.mean * factor(task))
    if cell.difference is None:
        assert rest == ""
        return
    change, _, verdict = rest.removesuffix(")").rpartition(", ")
    assert verdict == cell.verdict
    check_change(change, cell.difference, factor(task))
    assert math.isnan(cell.difference.mean) or change


def test_long_methods_are_folded_and_nothing_is_cut() -> None:
    assert _fold("ema-scale(beta=0.99)+mgda(normalize=none)", 24) == ["ema-scale(beta=0.99)+", "  mgda(normalize=none)"]
    assert _fold("ema(beta=0.9,variant=to-max)", 24) == ["ema(beta=0.9,", "  variant=to-max)"]
    assert _fold("ema(beta=0.9,variant=max)", 25) == ["ema(beta=0.9,variant=max)"]
