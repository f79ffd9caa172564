"""The README's table of methods, from the registry: ``python tests/readme_methods.py`` writes it into README.md."""

from __future__ import annotations

import re
from pathlib import Path

from steelyard.method_registry import MethodRow, methods
from steelyard.methods import METHODS

README = Path(__file__).parent.parent / "README.md"
TABLE = re.compile(r"^\| reads \|.*?\n\n", re.MULTILINE | re.DOTALL)
READS = {
    "losses": (
        "losses",
        "a few hundredths of a step of 20 ms, up to a third of one of a few ms; `famo` one more forward",
    ),
    "norms": ("lengths of task gradients", "features: each head's backward; trunk: a backward per task"),
    "gramian": ("lengths and angles of task gradients", "the same"),
    "cross_gramian": ("products of independent batches", "the losses of two further batches, a backward per task"),
    "rows": ("task gradients, element by element", "`graddrop`: each head's backward; others: a backward per task"),
    "lookahead": ("what a step not taken would do", "further forwards and backwards"),
}


def table(rows: list[MethodRow]) -> str:
    """One line for everything that methods read."""
    lines = ["| reads | methods | cost beside a plain step |", "|---|---|---|"]
    for reads, (title, cost) in READS.items():
        names = " ".join(f"`{row.name}`" for row in rows if row.reads == reads)
        lines.append(f"| {title} | {names} | {cost} |")
    return "\n".join(lines) + "\n\n"


def written(readme: str) -> str:
    """The README with the table as it should be."""
    own = [row for row in methods() if row.name in METHODS]
    assert {row.reads for row in own} == set(READS), "methods read something that has no line here"
    text, found = TABLE.subn(lambda _: table(own), readme)
    assert found == 1, "README.md has one table of methods"
    return text


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
