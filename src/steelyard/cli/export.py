"""``steelyard export``: a study's trained network as a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steelyard.cli.arguments import ArgumentError
from steelyard.cli.messages import say
from steelyard.errors import UnknownNameError


def export(
    store: Annotated[Path, typer.Argument(help="The file that `steelyard compare --keep best` filled.")],
    method: Annotated[str, typer.Option(help="Whose network, as the study calls it.")],
    out: Annotated[
        Path,
        typer.Option(
            help="The file to write: NAME.safetensors, the weights; or NAME.pt2, a program of torch.export that runs "
            "without Steelyard."
        ),
    ],
    seed: Annotated[int | None, typer.Option(help="Of its trials.", show_default="the best on validation data")] = None,
    task: Annotated[
        str | None, typer.Option(help="Of a method that trains several networks, the one that serves this task.")
    ] = None,
    setting: Annotated[int, typer.Option(help="Which fractions of labels, counted from 0.")] = 0,
    plan: Annotated[
        int, typer.Option(help="Which study of the store: 0 is the latest, 1 the one before, and so on.", min=0)
    ] = 0,
) -> None:
    """Write a network that a study has trained and kept: its weights, or the whole of it as a program."""
    from steelyard.io.writing import replacing
    from steelyard.report.output_files import NETWORK, PROGRAM, check_outputs, check_store, writing

    check_store(store)
    kinds = {".safetensors": NETWORK, ".pt2": PROGRAM}
    if out.suffix not in kinds:
        raise ArgumentError(
            f"--out {out}: a file of weights ends in .safetensors, and a program of torch.export in .pt2"
        )
    check_outputs([(out, kinds[out.suffix])], store)
    write = _weights if out.suffix == ".safetensors" else _program
    found, what = write(store, method, seed, task, setting, plan)
    with writing(out), replacing(out) as file:
        file.write(found)
    say(f"Written: {out}, {what}, {len(found) / 2**20:.2f} MiB")


def _weights(
    store: Path, method: str, seed: int | None, task: str | None, setting: int, place: int
) -> tuple[bytes, str]:
    """One network's, as the study kept them."""
    from steelyard.io.lists_and_counts import listed
    from steelyard.study.analysis.trained_network import kept_trials
    from steelyard.study.planning.plan import Plan
    from steelyard.study.storage.store import Store

    with Store(store) as opened:
        plan = Plan.from_dict(opened.plan(place))
        trials = kept_trials(plan, opened, method, seed, setting)
        serves = [plan.serves(method, trial.tasks) for trial in trials]
        known = [name for tasks in serves for name in tasks]
        if task is not None and task not in known:
            raise UnknownNameError(f"task of {method}:", task, known)
        found = [trial for trial, tasks in zip(trials, serves, strict=True) if task is None or task in tasks]
        if len(found) != 1:
            there = "; ".join(map(listed, serves))
            raise ArgumentError(
                f"{method} has {len(found)} networks ({there}), and a file of weights holds one: say of which task, "
                f"--task {listed([tasks[0] for tasks in serves], 'or')}"
            )
        return opened.networks.file(found[0]).read_bytes(), f"{method} of seed {found[0].seed}"


def _program(
    store: Path, method: str, seed: int | None, task: str | None, setting: int, place: int
) -> tuple[bytes, str]:
    """All networks of a method, or the one of a task; inputs as the problem's data hold them."""
    from steelyard.problems.guard import guarded
    from steelyard.study.analysis.exported_network import exported
    from steelyard.study.analysis.trained_network import network

    trained = guarded(network)(store, method, seed, setting, plan=place)
    if task is not None:
        trained = trained.only(task)
    seeds = ", ".join(map(str, dict.fromkeys(trained.seeds)))
    return guarded(exported)(trained), f"{method} of seed {seeds}: inputs as the data hold them, outputs by task"
