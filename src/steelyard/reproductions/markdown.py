"""A reproduction as a section of a Markdown file, which the same command renews in place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from steelyard.errors import StateError
from steelyard.io.writing import is_file
from steelyard.report import numbers
from steelyard.report.device_text import USUAL, device_text
from steelyard.report.judgement_view import View
from steelyard.report.output_files import OutputError, write_text, writing
from steelyard.report.panels.drawing import metric
from steelyard.reproductions.reproduction import Finding
from steelyard.reproductions.summary import Summary, facts
from steelyard.study.judgement import Judgement, Setting

TEXTS = ("", ".md", ".markdown", ".mdx", ".qmd", ".rmd", ".txt")
"""Ends of the names of files to which a section is added."""
OTHER_SECTION = re.compile(r"<!-- (?:reproduce .*: written by the command|end of .*) -->")
WIDE = 8  # tasks beyond which a table would not fit: verdicts are counted instead


def section(summary: Summary) -> str:
    """Claim, verdict, the paper's figures beside ours, and the tables of all studies."""
    found, size = summary.reproduction, summary.size
    lines = [f"## `{found.name}`: {found.title}", "", found.paper, "", f"**Claim.** {found.claim}", ""]
    if found.reconstructed:
        lines += [f"**Reconstructed.** {found.reconstructed}", ""]
    if found.scope.get(size):
        lines += [f"**What was run.** {found.scope[size]}", ""]
    lines += ["```sh", summary.command, "```", "", f"{summary.time_text}.{_machine(summary)}", ""]
    if summary.gap:
        lines += [f"**{summary.gap}.** {summary.progress}", ""]
    lines += [f"**The claim {summary.answer}.** {summary.decided}".rstrip(), ""]
    for finding in summary.findings:
        lines += _bullets(finding)
    lines.append("")
    if summary.cautions:
        lines += ["**With caution.**", "", *(f"- {said}" for said in summary.cautions), ""]
    for figures in summary.figures:
        lines += [f"### {figures.title}", ""]
        lines += markdown_table(figures.heads, figures.cells)
        lines += ["", *([figures.note, ""] if figures.note else [])]
    for outcome in summary.outcomes:
        lines += [f"### {outcome.experiment.name}", "", f"{outcome.experiment.about} ({', '.join(facts(outcome))})", ""]
        lines += _study(outcome.judgement)
    return "\n".join(lines).rstrip() + "\n"


def write_section(path: Path, summary: Summary) -> None:
    """Write the section into a file between its two markers; a file without them gets it at the end.

    Raises:
        StateError: one of the two markers is missing.
        OutputError: the file cannot be read or written, or is no Markdown.
    """
    write_between(path, summary.reproduction.name, section(summary))


def write_between(path: Path, name: str, text: str) -> None:
    """Write a text that ends with a line between the two markers of this name; errors as in `write_section`."""
    start, end = _markers(name)
    before = check_section(path, name)
    ends = "\r\n" if "\r\n" in before else "\n"
    block = f"{start}\n{text}{end}".replace("\n", ends)
    if start in before:
        head, _, rest = before.partition(start)
        renewed = head + block + rest.partition(end)[2]
    else:
        above = f"{before.rstrip()}{ends}{ends}" if before.strip() else ""
        renewed = f"{above}{block}{ends}"
    write_text(path, renewed)


def check_section(path: Path, name: str) -> str:
    """What the file holds before its section on the reproduction of that name is written; nothing where there is none.

    Raises:
        StateError: one of the two markers is missing, or another section stands between them.
        OutputError: the file cannot be read, or is no Markdown.
    """
    if not is_file(path):
        return ""
    try:
        with writing(path):
            before = path.read_bytes().decode()  # line ends as they are
    except UnicodeDecodeError as error:
        raise OutputError(f"cannot write {path}: there is a file already, and it is no text in UTF-8") from error
    start, end = _markers(name)
    if (start in before) != (end in before):
        raise StateError(f"{path} holds one of the two lines {start!r} and {end!r}: put the other one back")
    if start in before and not (
        before.count(start) == before.count(end) == 1 and before.index(start) < before.index(end)
    ):
        raise StateError(
            f"{path}: which section is to be renewed? Have the two lines {start!r} and {end!r} once each, in this order"
        )
    within = before.partition(start)[2].partition(end)[0]
    if other := OTHER_SECTION.search(within):
        raise StateError(f"{path}: {other.group()!r} stands between {start!r} and {end!r}, and would be lost: move it")
    if before.strip() and start not in before and path.suffix.lower() not in TEXTS:
        raise OutputError(
            f"cannot write {path}: there is a file already, and no Markdown by its name. Choose a name that ends in .md"
        )
    return before


def _markers(name: str) -> tuple[str, str]:
    """The lines between which the section stands."""
    return f"<!-- reproduce {name}: written by the command -->", f"<!-- end of {name} -->"


def _bullets(finding: Finding, indent: str = "") -> list[str]:
    """A claim, what it rests on, and its parts as bullets below it."""
    lines = [f"{indent}- **{finding.word}**: {finding.claim}{'.' if finding.claim[-1] not in '.?' else ''}"]
    lines += [f"{indent}  {line}" for line in finding.evidence]
    return lines + [line for part in finding.parts for line in _bullets(part, indent + "  ")]


def _machine(summary: Summary) -> str:
    if not summary.outcomes:
        return ""
    judgement = summary.outcomes[-1].judgement
    versions = ", ".join(f"{name} {version}" for name, version in judgement.versions.items())
    device = "" if device_text(judgement) in ("", USUAL) else f"; {device_text(judgement)}"
    return f" {judgement.machine}{device}; {versions}."


def _study(judgement: Judgement) -> list[str]:
    view, lines = View(judgement), []
    if judgement.tuning:
        lines += [f"Tuning: {judgement.tuning}.", ""]
    for setting in judgement.settings:
        if not view.started(setting):
            continue
        if len(judgement.settings) > 1:
            lines += [f"With {setting.label} of the training labels:", ""]
        lines += [*_results(view, setting), ""]
    return lines


def _results(view: View, setting: Setting) -> list[str]:
    wide = len(view.tasks) > WIDE
    heads = ["better / same / worse / open"] if wide else [f"{task.label} ({metric(task)})" for task in view.tasks]
    rows, told = [], view.unequal_steps(setting)
    for method in view.methods:
        row = view.row(method, setting)
        delta = numbers.plus_minus(row.delta_m, view.delta_decimals, 100) if row and row.delta_m else ""
        time = numbers.fixed(row.relative_cost, 2) if row else ""
        entries = [_verdicts(view, method, setting)] if wide else _values(view, method, setting)
        so_far = f" ({said})" if (said := view.so_far(method, setting)) else ""
        steps = [numbers.count(*view.steps(method, setting))] if told else []
        rows.append((f"`{method}`{so_far}", *entries, delta, time, *steps, row.chosen if row else ""))
    chosen = any(row[-1] for row in rows)
    table = ["arm", *heads, "Δm, %", "time ×", *(["steps"] if told else []), *(["chosen"] if chosen else [])]
    return markdown_table(table, rows if chosen else [row[:-1] for row in rows])


def _values(view: View, method: str, setting: Setting) -> list[str]:
    """``97.31 (+0.42 ±0.20, gain)``."""
    entries = []
    for task in view.tasks:
        cell, decimals, factor = view.cell(method, setting, task), view.decimals(task), numbers.factor(task)
        if cell is None:
            entries.append(numbers.MISSING)
            continue
        text = numbers.fixed(cell.mean * factor, decimals)
        if cell.difference is not None:
            text += f" ({numbers.plus_minus(cell.difference, decimals, factor)}, {cell.verdict})"
        entries.append(text)
    return entries


def _verdicts(view: View, method: str, setting: Setting) -> str:
    found = [cell.verdict for task in view.tasks if (cell := view.cell(method, setting, task)) and cell.verdict]
    words = ("gain", "no difference", "negative transfer", "undecided")
    return " / ".join(str(found.count(word)) for word in words) if found else ""  # type: ignore[arg-type]


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str | None]]) -> list[str]:
    """Lines of a table; a cell without a text is a dash."""

    def line(cells: Sequence[str | None]) -> str:
        return "| " + " | ".join((cell or numbers.MISSING).replace("|", "\\|") for cell in cells) + " |"

    return [line(heads), "|" + "---|" * len(heads), *map(line, rows)]
