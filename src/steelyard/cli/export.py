"""``steelyard export``: a study's trained network as a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steelyard.cli.arguments import ArgumentError
from steelyard.cli.messages import say


def export(
    store: Annotated[Path, typer.Argument(help="The file that `steelyard compare --keep best` filled.")],
    method: Annotated[str, typer.Option(help="Whose network, as the study calls it.")],
    out: Annotated[Path, typer.Option(help="The file of safetensors to write.")],
    seed: Annotated[int | None, typer.Option(help="Of its trials.", show_default="the best on validation data")] = None,
    task: Annotated[
        str | None, typer.Option(help="Of a method that trains several networks, the one that serves this task.")
    ] = None,
    setting: Annotated[int, typer.Option(help="Which fractions of labels, counted from 0.")] = 0,
) -> None:
    """Write the weights of a network that a study has trained and kept, for any loader of safetensors."""
    from steelyard.io.writing import replacing
    from steelyard.report.output_files import NETWORK, check_outputs, check_store, writing
    from steelyard.study.analysis.trained_network import kept_trials
    from steelyard.study.planning.plan import Plan
    from steelyard.study.storage.store import Store

    check_store(store)
    if out.suffix != ".safetensors":
        raise ArgumentError(f"--out {out}: a file of safetensors ends in .safetensors")
    check_outputs([(out, NETWORK)], store)
    with Store(store) as opened:
        plan = Plan.from_dict(opened.latest_plan())
        trials = kept_trials(plan, opened, method, seed, setting)
        found = [trial for trial in trials if task is None or task in plan.serves(method, trial.tasks)]
        if len(found) != 1:
            there = "; ".join(" and ".join(trial.tasks) for trial in trials)
            raise ArgumentError(f"--task {task or ''}: {method} has networks of {there}: name a task of one")
        weights = opened.networks.file(found[0]).read_bytes()
    with writing(out), replacing(out) as file:
        file.write(weights)
    say(f"Written: {out}, {method} of seed {found[0].seed}, {len(weights) / 2**20:.2f} MiB")
