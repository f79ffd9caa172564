"""A page for each registered method, the table of all, and their known deviations, written before the site is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fidelity
import leaderboard_files
import tomllib
from sphinx.application import Sphinx

import steelyard
from steelyard.method_registry import MethodRow, options_of, stage_class
from steelyard.methods.loss_stages import STAGES
from steelyard.models.build_network import architecture_class, architecture_names

EQUATIONS = Path(__file__).parent.parent / "equations.toml"
GROUPS = {
    "losses": "Losses alone",
    "norms": "Lengths of the task gradients",
    "gramian": "Lengths and angles of the task gradients",
    "cross_gramian": "Products of independent batches",
    "rows": "Task gradients, element by element",
    "lookahead": "What a step not taken would do",
}
WHERE = {"any": "not read", "features, trunk": "features or trunk"}


def page(row: MethodRow, equation: str, standing: str) -> str:
    """One method: facts, equation, where it stands on the leaderboard, and the docstring of its class."""
    cls = row.cls
    facts = {
        "Class": f":class:`steelyard.{cls.__name__}`",
        "Reads": GROUPS[row.reads].lower(),
        "Where": WHERE.get(row.where, row.where),
        "Heads": f"{row.heads} by default",
        "Cost beside a plain step": row.cost,
        "Source": row.paper or "–",
    }
    if standing:
        facts[":doc:`Leaderboard </leaderboard>`"] = standing
    table = "\n".join(f"   * - {key}\n     - {value}" for key, value in facts.items())
    options = ", ".join(str(option.replace(annotation=option.empty)) for option in options_of(cls).values())
    return f"""{row.name}
{"=" * len(row.name)}

{row.summary}.

.. math::

   {equation}

.. code-block:: python

   balancer = steelyard.make("{row.name}", tasks)   # options of its own: {options or "none"}

.. code-block:: shell

   steelyard compare digits --methods "{row.name}"

.. list-table::
   :stub-columns: 1
   :widths: 25 75

{table}

.. autoclass:: {cls.__module__}.{cls.__qualname__}
   :no-index-entry:
"""


def index(rows: list[MethodRow]) -> str:
    """All methods, by what they read."""
    parts = [
        "Methods\n=======\n\nEvery method by what it reads, from the registry. The options that all of them take stand "
        "in :doc:`/balance/options`; which one to take, in :doc:`/balance/which-method`; where one is not its "
        "authors' to the letter, in :doc:`deviations`.\n"
    ]
    for reads, title in GROUPS.items():
        group = [row for row in rows if row.reads == reads]
        lines = "\n".join(f"   * - :doc:`{row.name}`\n     - {row.summary}\n     - {row.cost}" for row in group)
        parts.append(
            f"{title}\n{'-' * len(title)}\n\n.. list-table::\n   :header-rows: 1\n   :widths: 18 62 20\n\n"
            f"   * - method\n     - what it does\n     - cost\n{lines}\n"
        )
    title = "In front of any method"
    stages = "\n\n".join(f".. autoclass:: {cls.__module__}.{cls.__qualname__}" for cls in map(stage_class, STAGES))
    parts.append(
        f"{title}\n{'-' * len(title)}\n\nLoss stages transform the losses before a method sees them: "
        f'``steelyard.make("log+mgda", tasks)``.\n\n{stages}\n'
    )
    names = "\n".join(f"   {row.name}" for row in rows)
    return "\n".join(parts) + f"\n.. toctree::\n   :hidden:\n\n   deviations\n{names}\n"


def write(app: Sphinx) -> None:
    """Write what has changed, so that a second build reads no more than that."""
    folder = Path(app.srcdir) / "methods"
    folder.mkdir(exist_ok=True)
    equations = tomllib.loads(EQUATIONS.read_text(encoding="utf-8"))
    rows = [row for row in steelyard.methods() if row.cls.__module__.startswith("steelyard.")]
    architectures = {name: architecture_class(name) for name in architecture_names()}
    architectures["AsymmetricTransfer"] = steelyard.AsymmetricTransfer
    standings = leaderboard_files.standings(Path(app.srcdir) / leaderboard_files.FOLDER)
    texts = {f"{row.name}.rst": page(row, equations[row.name], standings.get(row.name, "")) for row in rows}
    texts |= {
        "index.rst": index(rows),
        "deviations.rst": fidelity.page({row.name: row.cls for row in rows}, architectures),
    }
    for name, text in texts.items():
        file = folder / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
    for file in folder.glob("*.rst"):
        if file.name not in texts:
            file.unlink()


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
