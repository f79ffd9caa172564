"""``steelyard group``: which tasks should share a network."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from steelyard.cli import arguments
from steelyard.cli.messages import SOME_FAILED, command_line, resumable, say
from steelyard.cli.shared_options import (
    DEVICE,
    PRECISION,
    Architecture,
    BatchSize,
    Checkpoints,
    Device,
    Epochs,
    EpochSteps,
    LearningRate,
    On,
    OpenPage,
    Patience,
    PerDevice,
    Precision,
    Problem,
    ReuseAny,
    Sampling,
    Shared,
    Store,
    Tasks,
    Workers,
)
from steelyard.cli.show_judgement import show_judgement


def group(
    problem: Problem,
    budget: Annotated[
        float,
        typer.Option(
            help="Trainings of one network that the search may spend, the one for all tasks included; single tasks, "
            "the yardstick, come on top."
        ),
    ],
    networks: Annotated[int, typer.Option(help="The most networks that may be served.")] = 3,
    method: Annotated[
        str, typer.Option("--method", "-m", help="Balances every network of several tasks: uw, or METHOD@ARCHITECTURE.")
    ] = "equal",
    tasks: Tasks = None,
    seeds: Annotated[
        str, typer.Option(help="On which the outcome is judged: how many, or which ones: 5, or 3,7,11.")
    ] = "5",
    efforts: Annotated[
        str,
        typer.Option(
            help="Shares of a whole training, rising to 1, for successive halving: 0.25,1 trains many subsets for a "
            "quarter of the epochs, and the most useful ones in full."
        ),
    ] = "1",
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    epoch_steps: EpochSteps = 0,
    patience: Patience = 0,
    sampling: Sampling = None,
    learning_rate: LearningRate = None,
    shared: Shared = None,
    architecture: Architecture = "hard-sharing",
    device: Device = DEVICE,
    per_device: PerDevice = 1,
    precision: Precision = PRECISION,
    workers: Workers = None,
    on: On = "local",
    checkpoints: Checkpoints = None,
    store: Store = None,
    page: Annotated[
        Path | None, typer.Option(help="The page to write.", show_default="beside the store, -group.html")
    ] = None,
    affinities: Annotated[
        bool, typer.Option(help="Tell how far affinities of the tasks' gradients would have predicted the gains.")
    ] = True,
    json: Annotated[Path | None, typer.Option(help="Write what was found as JSON.")] = None,
    open_page: OpenPage = False,
    reuse_any: ReuseAny = False,
) -> None:
    """Find which tasks should share a network, by training subsets within a budget, and judge it on fresh seeds.

    Stopped at any moment, the same command goes on where it was.
    """
    from steelyard.grouping.group_study import group as find
    from steelyard.problems import load_problem
    from steelyard.report import announcements
    from steelyard.report.grouping_section import JSON, section, to_json
    from steelyard.report.output_files import PAGE, check_outputs, check_store, write_output
    from steelyard.study.running.engines import load_engine
    from steelyard.study.running.engines.interface import device_for

    command = command_line()
    store = store or arguments.default_store(load_problem(problem).name)
    check_store(store)
    page = page or arguments.beside(store, "-group.html")
    check_outputs([(page, PAGE), (json, JSON)], store)
    engine = load_engine(on)
    announcements.tell_devices(on, device, device_for(engine, device), per_device)
    with resumable(command):
        found = find(
            problem,
            budget=budget,
            networks=networks,
            store=store,
            method=method,
            seeds=arguments.parse_seeds(seeds),
            efforts=arguments.parse_efforts(efforts),
            workers=workers,
            device=device,
            per_device=per_device,
            precision=precision,
            on=engine,
            checkpoints=checkpoints,
            reuse_any=reuse_any,
            say=say,
            affinities=affinities,
            tasks=arguments.parse_names("--tasks", tasks),
            epochs=epochs,
            batch_size=batch_size,
            epoch_steps=epoch_steps,
            patience=patience,
            sampling=sampling,
            learning_rate=learning_rate,
            shared=shared,
            architecture=architecture,
            command=command,
        )
    again = shlex.join(["steelyard", "report", str(store)])
    show_judgement(found.judgement, again, page, open_page, first=section(found))
    if json is not None:
        write_output(json, JSON, to_json(found))
        say(f"Written: {json}")
    say(f"Store: {store}")
    if found.judgement.failures:
        raise typer.Exit(SOME_FAILED)
