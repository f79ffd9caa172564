"""``steelyard compare``: which tasks sharing helps or hurts, method by method."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from steelyard.cli import arguments
from steelyard.cli.messages import SOME_FAILED, command_line, resumable, say
from steelyard.cli.program_words import check_what, program_of, telling_whose_options
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
    Page,
    Patience,
    PerDevice,
    Precision,
    ProblemOrProgram,
    Resplit,
    ReuseAny,
    Sampling,
    Shared,
    Store,
    Tasks,
    Workers,
)
from steelyard.cli.show_judgement import show_judgement

METHODS = "single-task,equal,dwa,uw,ema,db-mtl"
ARCHITECTURE = "hard-sharing"


def compare(
    context: typer.Context,
    problem: ProblemOrProgram = None,
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            "-m",
            help="Separated by commas, options in parentheses: 'ema(beta=0.9),dwa'; METHOD(shared=trunk) reads "
            "gradients there; METHOD@ARCHITECTURE gives one an architecture of its own; my_package:MyMethod is one of "
            "yours; best-fixed: constant weights chosen on validation data. single-task and equal are always added.",
        ),
    ] = METHODS,
    tasks: Tasks = None,
    seeds: Annotated[str, typer.Option(help="How many seeds, or which ones: 5, or 3,7,11.")] = "5",
    fractions: Annotated[
        list[str] | None,
        typer.Option(
            help="Of the training labels. 0.1,1.0 are two settings; left=0.1,right=1.0 is one setting that differs "
            "by task; ';' or the option given again adds settings.",
            show_default="all labels",
        ),
    ] = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    epoch_steps: EpochSteps = 0,
    patience: Patience = 0,
    sampling: Sampling = None,
    resplit: Resplit = None,
    learning_rate: LearningRate = None,
    tune: Annotated[
        int,
        typer.Option(
            help="Try so many learning rates for every method and single task, on a seed of their own, and use the "
            "best on validation data.",
            show_default="0: all at the same rate",
        ),
    ] = 0,
    tune_seeds: Annotated[
        int, typer.Option(help="Try each learning rate and constant weighting on so many seeds (or folds).")
    ] = 1,
    tune_beyond: Annotated[
        int,
        typer.Option(
            help="Where the best of these rates is the largest or the smallest, try the next one past it, and so on, "
            "up to so many."
        ),
    ] = 0,
    scale: Annotated[
        str | None,
        typer.Option(
            help="sum: weights rescaled to sum to the number of tasks; paper: as the paper has them.",
            show_default="sum, where it is defined",
        ),
    ] = None,
    shared: Shared = None,
    architecture: Architecture = ARCHITECTURE,
    ledger: Annotated[
        int,
        typer.Option(
            help="Measure each so many-th step of a joint network: which tasks it helped and which it hurt, to first "
            "order; the page shows how often.",
            show_default="0: none",
        ),
    ] = 0,
    device: Device = DEVICE,
    per_device: PerDevice = 1,
    precision: Precision = PRECISION,
    workers: Workers = None,
    on: On = "local",
    checkpoints: Checkpoints = None,
    keep: Annotated[
        str,
        typer.Option(
            help="Trained networks to keep beside the store: best (of each method's networks the best seed on "
            "validation data), all, or none."
        ),
    ] = "best",
    store: Store = None,
    page: Page = None,
    open_page: OpenPage = False,
    reuse_any: ReuseAny = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained, how long and how much disk; train nothing.")
    ] = False,
) -> None:
    """Train every method over seeds, and say which tasks sharing helps or hurts.

    What is trained is a problem, or any program that calls steelyard.trial: -- torchrun --nproc-per-node 2 train.py.

    Stopped at any moment, the same command goes on where it was.
    """
    from steelyard.problems import load_problem
    from steelyard.report import announcements
    from steelyard.report.output_files import PAGE, check_outputs, check_store
    from steelyard.study import run
    from steelyard.study.planning.make_plan import check_per_device
    from steelyard.study.running.engines import load_engine
    from steelyard.study.running.engines.interface import device_for
    from steelyard.study.running.engines.local import places_here
    from steelyard.study.running.kept_networks import check_keep

    command, program = command_line(), program_of(context)
    given = {
        **{"--batch-size": batch_size, "--epoch-steps": epoch_steps, "--shared": shared},
        **{"--ledger": ledger, "--sampling": sampling},
        "--architecture": None if architecture == ARCHITECTURE else architecture,
        **{"--device": device != DEVICE, "--per-device": per_device != 1, "--precision": precision != PRECISION},
    }
    check_what(problem, program, [name for name, value in given.items() if value])
    settings = arguments.parse_fractions(fractions) if fractions else [1.0]
    engine = load_engine(on)
    kept = check_keep(keep)
    check_per_device(per_device)
    device = device_for(engine, asked := device)
    arms, added = announcements.with_baselines(methods)
    if store is not None:
        check_store(store)
    with resumable(command):
        options: dict[str, Any] = {
            "tasks": arguments.parse_names("--tasks", tasks),
            "seeds": arguments.parse_seeds(seeds),
            **{"settings": settings, "epochs": epochs, "learning_rate": learning_rate, "scale": scale},
            **{"tune": tune, "tune_seeds": tune_seeds, "tune_beyond": tune_beyond},
            **{"patience": patience, "command": command},
        }
        if problem is None:
            assert program is not None
            say(f"Asking {shlex.join(program)} what it trains.")
            with telling_whose_options(context, program):
                plan = announcements.prepare_program(program, arms, workers, engine, resplit=bool(resplit), **options)
        else:
            if resplit is None:
                found = load_problem(problem)
                resplit = announcements.divisions_of(found, store or arguments.default_store(found.name))
            options |= {"resplit": resplit, "batch_size": batch_size, "epoch_steps": epoch_steps, "shared": shared}
            options |= {"ledger": ledger, "sampling": sampling, "device": device, "precision": precision}
            plan = announcements.prepare(problem, arms, workers, engine, architecture=architecture, **options)
        store = store or arguments.default_store(plan.problem)
        page = page or arguments.beside(store, ".html")
        announcements.announce(plan, added)
        announcements.tell_devices(on, asked, device, per_device)
        if dry_run:
            # Who knows how many machines a cluster will have: what it takes is then said of one worker.
            places = places_here(device, per_device, workers) if on == "local" else workers or 1
            announcements.forecast(plan, store, places, reuse_any, keep)
            return
        check_outputs([(page, PAGE)], store)
        judgement = run(
            plan,
            store,
            workers=workers,
            per_device=per_device,
            reuse_any=reuse_any,
            on=engine,
            checkpoints=checkpoints,
            keep=kept,
        )
    show_judgement(judgement, shlex.join(["steelyard", "report", str(store)]), page, open_page)
    say(f"Store: {store}")
    if judgement.failures:
        raise typer.Exit(SOME_FAILED)
