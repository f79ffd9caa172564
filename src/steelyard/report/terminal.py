"""A judgement as tables for a terminal: readable without colour, at 80 columns, in a pipe and in ASCII."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from steelyard.io.lists_and_counts import counted
from steelyard.io.printable_text import printable
from steelyard.report import numbers
from steelyard.report.device_text import USUAL, device_text
from steelyard.report.judgement_view import BASELINE, View, recipe_text
from steelyard.report.other_metrics import TOGETHER, heading, in_texts, other_columns
from steelyard.report.verdict_styles import STYLES, style_of
from steelyard.study.judgement import Judgement, Recipe, Row, Setting, TaskInfo

METHOD_WIDTH = 24
MANY = 24  # tasks, beyond which the table has the first few by effect
SHOWN = 12
GAP = 2  # cells between two columns of the table: a blank and the box's invisible divider
ASCII_BOX = box.Box("    \n    \n -- \n    \n    \n -- \n    \n    \n", ascii=True)
ASCII = str.maketrans({
    "±": "+/-", "−": "-", "–": "-", "Δ": "d", "×": "x", "∞": "inf", "…": "..", "↑": "^", "↓": "v",
    "\u202f": ",",
    "—": "-", "’": "'", "“": '"', "”": '"', "→": "->", "▲": "^", "▼": "v", "■": "=", "○": "?",
})  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A finished column: a heading, and a text per method whose lines are all aligned already."""

    heading: str
    entries: list[Text]

    @property
    def width(self) -> int:
        lines = [line for entry in self.entries for line in entry.plain.split("\n")]
        return max(cell_len(line) for line in (*self.heading.split("\n"), *lines))


def render(
    judgement: Judgement, console: Console, every: bool = False, shown_by: str = "steelyard report STORE"
) -> None:
    """Print the tables of all settings, the failed trials and the verdict in words.

    Of many tasks the table has those with the largest effects, the hurt first; with `every`, all in their order, as the
    command `shown_by` has them with ``--all``.
    """
    view = View(judgement)
    clean = _cleaner(console)
    many = len(judgement.settings) > 1
    console.print(Text(clean(f"{judgement.problem}: {judgement.summary}".rstrip(": ")), style="bold"))
    console.print(Text(clean(_facts(view))))
    for setting in judgement.settings:
        console.print()
        if many:
            console.print(Text(clean(f"Training labels: {setting.label}"), style="bold"))
        if not view.started(setting):
            console.print(Text("No trial is finished yet.", style="dim"))
            continue
        tasks = view.tasks if every or len(view.tasks) <= MANY else view.by_effect(setting)[:SHOWN]
        for table in _tables(view, setting, tasks, console.width, clean):
            console.print(table)
        if more := len(view.tasks) - len(tasks):
            said = f"The {len(tasks)} tasks with the largest effects, the hurt first; {more} more:"
            _with_command(f"{said}\n{shown_by} --all", console, clean, style="dim")
        if chosen := view.chosen(setting):
            said = "; ".join(f"{view.readable[method]}: {text}" for method, text in chosen.items())
            console.print(Text(clean(f"Chosen on validation data: {said}."), style="dim"))
    if view.judged:
        console.print(Padding(_legend(view, clean), (0, 1), expand=False))
        if judgement.about:
            console.print(Padding(Text(clean(judgement.about), style="dim"), (0, 1), expand=False))
    _failures(judgement, console, clean)
    _words(judgement, console, clean)


def _words(judgement: Judgement, console: Console, clean: Callable[[str], str]) -> None:
    """What bears on the verdict, the verdict, and where the results come from."""
    if judgement.verdict or judgement.cautions:
        console.print()
        for index, caution in enumerate(judgement.cautions):
            _with_command(f"{'Also' if index else 'First'}: {caution}", console, clean, style="yellow")
        for index, sentence in enumerate(judgement.verdict):
            console.print(Text(clean(sentence), style="bold" if index == 0 else ""))
    for note in judgement.notes:
        console.print(Text(clean(f"Note: {note}.")))
    _recipe(judgement.recipe, console, clean)
    if not judgement.complete and not judgement.salvaged:
        console.print(Text(clean(
            f"Unfinished: {judgement.finished} of {judgement.planned} trials are done. "
            "The same command continues where it stopped."
        ), style="yellow"))  # fmt: skip


def _with_command(said: str, console: Console, clean: Callable[[str], str], style: str) -> None:
    """A sentence; a command may stand on the line below, to be copied: no break that is not the terminal's own."""
    sentence, _, command = said.partition("\n")
    console.print(Text(clean(sentence), style=style))
    if command:
        console.print(Text(f"  {clean(command)}", style=style), soft_wrap=True)


def _recipe(recipe: Recipe | None, console: Console, clean: Callable[[str], str]) -> None:
    """The lines to copy: no break that is not the terminal's own."""
    if recipe is None:
        return
    console.print()
    console.print(Text(clean(recipe_text(recipe)), style="bold"))
    blocks = [recipe.loop, ["# or its trained network", *recipe.network]] if recipe.network else [recipe.loop]
    for line in [line for block in blocks for line in block if line]:
        console.print(Text(f"  {line}"), soft_wrap=True)


def _facts(view: View) -> str:
    judgement = view.judgement
    network = f" Joint networks: {judgement.architecture}." if judgement.architecture else ""
    tuning = f" {judgement.tuning[:1].upper()}{judgement.tuning[1:]}." if judgement.tuning else ""
    device = f" Trained on {device_text(judgement)}." if device_text(judgement) not in ("", USUAL) else ""
    return (
        f"{counted(len(judgement.tasks), 'task')}, {counted(len(judgement.methods), 'method')}, "
        f"{counted(len(judgement.seeds), 'seed')}, {counted(judgement.epochs, 'epoch')}. "
        f"Test values at {view.epoch}; "
        f"differences from single-task with 95 % intervals.{network}{tuning}{device}"
    )


def _legend(view: View, clean: Callable[[str], str]) -> Text:
    words = ", ".join(f"{found.short} = {found.word}" for found in STYLES.values() if found.short != found.word)
    time = "time × = training time against all single-task networks, ± half its range"
    told = any(view.unequal_steps(setting) for setting in view.settings)
    steps = " trained steps = of each network, from the fewest to the most;" if told else ""
    about = "words are about the region of no difference (±1 %, or a task's own)"
    apart = "and hold together at 5 %; each interval stands by itself"
    return Text(clean(f"{words}; {about} {apart};{steps} {time}; memory = peak while training."), style="dim")


def _tables(
    view: View, setting: Setting, of: Sequence[TaskInfo], width: int, clean: Callable[[str], str]
) -> list[Table]:
    names = Column("", [_name(view, setting, method, clean) for method in view.methods])
    blocks: list[list[Column]] = []
    for compact in (False, True):
        tasks = [_task_column(view, setting, task, compact, clean) for task in of]
        blocks = _pack([*tasks, *_further_columns(view, setting, compact, clean)], width - names.width)
        if len(blocks) == 1:
            break
    return [_table(names, block, clean("±") != "±") for block in blocks]


def _pack(columns: Sequence[Column], width: int) -> list[list[Column]]:
    """As many columns side by side as fit; a table too wide for the terminal continues below itself."""
    blocks: list[list[Column]] = [[]]
    used = 0
    for column in columns:
        if blocks[-1] and used + GAP + column.width > width:
            blocks.append([])
            used = 0
        blocks[-1].append(column)
        used += GAP + column.width
    return blocks


def _table(names: Column, columns: Sequence[Column], ascii_only: bool) -> Table:
    style = ASCII_BOX if ascii_only else box.SIMPLE_HEAD
    table = Table(box=style, pad_edge=False, padding=(0, GAP - 1, 0, 0), show_edge=False)
    for column in (names, *columns):
        heading = [" " * (column.width - cell_len(line)) + line for line in column.heading.split("\n")]
        table.add_column(Text("\n".join(heading)), no_wrap=True, min_width=column.width)
    for entries in zip(names.entries, *(column.entries for column in columns), strict=True):
        table.add_row(*entries)
    return table


def _task_column(view: View, setting: Setting, task: TaskInfo, compact: bool, clean: Callable[[str], str]) -> Column:
    decimals, factor = view.decimals(task), numbers.factor(task)
    cells = [view.cell(method, setting, task) for method in view.methods]
    values = _right([numbers.fixed(cell.mean * factor, decimals) if cell else numbers.MISSING for cell in cells], clean)
    changes = _right(
        [numbers.plus_minus(cell.difference, decimals, factor) if cell and cell.difference else "" for cell in cells],
        clean,
    )
    words = [f"{style_of(cell.verdict).short if cell else '':<4}" for cell in cells]
    heading = [clean(_shorten(task.label)), clean(_shorten(f"{task.metric}{_marks(task)}"))]
    width = max(len(values[0]) + 5, len(changes[0]), *map(cell_len, heading))
    entries = []
    for cell, value, change, word in zip(cells, values, changes, words, strict=True):
        style = style_of(cell.verdict).style if cell else ""
        if compact:
            text = Text(f"{value:>{width - 5}}").append(f" {word}", style)
            if change.strip():
                text.append(f"\n{change:>{width}}", style)
        else:
            text = Text(value).append(f"  {change}  {word}", style)
            text.pad_left(max(map(cell_len, heading)) - cell_len(text.plain))
        entries.append(text)
    return Column("\n".join(heading), entries)


def _marks(task: TaskInfo) -> str:
    return f"{', %' if task.percent else ''} {'↑' if task.higher_is_better else '↓'}"


def _further_columns(view: View, setting: Setting, compact: bool, clean: Callable[[str], str]) -> list[Column]:
    rows = [view.row(method, setting) for method in view.methods]

    def column(heading: str, texts: list[str]) -> Column:
        width = max(map(len, clean(heading).split("\n")))
        texts = [clean(text) for text in texts]
        lines = [line for text in texts for line in text.split("\n")]
        width = max(width, *map(len, lines))
        return Column(
            clean(heading),
            [Text("\n".join(f"{line:>{width}}" for line in text.split("\n"))) for text in texts],
        )

    decimals = view.delta_decimals
    deltas = [numbers.plus_minus(row.delta_m, decimals, 100) if row and row.delta_m else "" for row in rows]
    columns = [column("Δm\n%", [delta.replace(" ", "\n") if compact else delta for delta in deltas])]
    columns = [*_together(view, setting, compact, clean, column), *(columns if any(deltas) else [])]
    columns.append(column("steps\n/s", [numbers.compact(row.steps_per_second) if row else "" for row in rows]))
    if view.unequal_steps(setting):
        columns.append(column("trained\nsteps", [numbers.count(*view.steps(m, setting)) for m in view.methods]))
    if BASELINE in view.methods:
        columns.append(column("time\n×", [_cost(row) if row else "" for row in rows]))
    columns.append(column("memory\nMiB", [numbers.fixed(row.peak_memory, 0) if row else "" for row in rows]))
    if any(row and row.failed for row in rows):
        columns.append(column("failed\ntrials", [str(row.failed) if row else "" for row in rows]))
    return columns


def _together(
    view: View, setting: Setting, compact: bool, clean: Callable[[str], str], column: Callable[[str, list[str]], Column]
) -> list[Column]:
    """The metrics of all tasks together; further ones of a single task stand on the page."""
    columns = []
    for (task, _), found in other_columns(view, setting).items():
        if task is not None:
            continue
        texts = in_texts(found)
        cells = [texts.get(method, (numbers.MISSING, "", "")) for method in view.methods]
        changes = _right([f"{change} {half}".rstrip() for _, change, half in cells], clean)
        gap = "\n" if compact else "  "
        # A row without a difference has one line where the others have two.
        shown = [
            value if compact and not change.strip() else f"{value}{gap}{change}"
            for (value, _, _), change in zip(cells, changes, strict=True)
        ]
        columns.append(column(f"{_shorten(TOGETHER)}\n{_shorten(heading(found))}", shown))
    return columns


def _cost(row: Row) -> str:
    """The median over seeds, and where they differ half of their range below it."""
    half = numbers.fixed((row.cost_high - row.cost_low) / 2, 2) if math.isfinite(row.cost_high) else "0.00"
    return numbers.fixed(row.relative_cost, 2) + (f"\n±{half}" if half != "0.00" else "")


def _failures(judgement: Judgement, console: Console, clean: Callable[[str], str]) -> None:
    if not judgement.failures:
        return
    console.print()
    console.print(Text(f"Failed trials: {judgement.failed}", style="bold red"))
    labels = {setting.index: setting.label for setting in judgement.settings}
    for failure in judgement.failures:
        where = [failure.method, *([failure.task] if failure.task else []), f"seed {failure.seed}"]
        if len(judgement.settings) > 1:
            where.append(labels[failure.setting])
        console.print(Padding(Text(clean(f"{', '.join(where)}: {failure.error}")), (0, 0, 0, 2), expand=False))


def _cleaner(console: Console) -> Callable[[str], str]:
    """Removes what a terminal would obey rather than show, and what this terminal cannot write."""
    ascii_only = console.options.ascii_only

    def clean(text: str) -> str:
        text = printable(text)
        if not ascii_only:
            return text
        return text.translate(ASCII).encode("ascii", "backslashreplace").decode("ascii")

    return clean


def _right(texts: list[str], clean: Callable[[str], str]) -> list[str]:
    """Clean texts, aligned on the right."""
    texts = [clean(text) for text in texts]
    return [f"{text:>{max(map(len, texts))}}" for text in texts]


def _shorten(text: str, width: int = 20) -> str:
    short = Text(text.replace("\n", " "))
    short.truncate(width, overflow="ellipsis")
    return short.plain


def _name(view: View, setting: Setting, method: str, clean: Callable[[str], str]) -> Text:
    text = Text("\n".join(_fold(clean(view.readable[method]), METHOD_WIDTH)))
    if so_far := view.so_far(method, setting):
        text.append(f"\n  {so_far}", "dim")
    return text


def _fold(method: str, width: int) -> list[str]:
    """Break a long specification after a comma or a plus, as often as needed; nothing is cut off."""
    lines = [""]
    for piece in method.replace(",", ",\0").replace("+", "+\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(piece) > width:
            lines.append("  ")
        lines[-1] += piece
    return lines
