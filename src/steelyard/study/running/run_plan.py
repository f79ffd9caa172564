"""Run a plan: train what is not yet in the store, and write down what comes back. This process is the only writer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.progress import Progress

from steelyard.base.specs import Spec
from steelyard.study.analysis.make_judgement import judge_plan
from steelyard.study.analysis.provenance_notes import stale_note
from steelyard.study.judgement import Judgement
from steelyard.study.planning.arms import Arm
from steelyard.study.planning.make_plan import check_per_device, check_workers
from steelyard.study.planning.make_plan import plan as make_plan
from steelyard.study.planning.plan import Plan
from steelyard.study.planning.tuning import attempts, choose, rounds
from steelyard.study.running.engines import load_engine
from steelyard.study.running.engines.interface import Engine, Job, device_for
from steelyard.study.running.events import Event, Finished
from steelyard.study.running.kept_networks import Keep, Keeper, check_keep
from steelyard.study.running.progress_line import Meter, progress_bar
from steelyard.study.running.send_to_engine import dispatch
from steelyard.study.running.stop_signals import ending_in_order
from steelyard.study.storage.store import Store
from steelyard.study.storage.trial_checkpoint import Folder, as_folder, checkpoint_of, let_go, remove_checkpoint, tidy
from steelyard.study.training.hardware import CPU
from steelyard.study.trial import Failed, Trial


def run(
    plan: Plan,
    store: Path | str,
    *,
    workers: int | None = None,
    per_device: int = 1,
    progress: bool | Progress = True,
    reuse_any: bool = False,
    on: Engine | str = "local",
    checkpoints: Path | str | None = None,
    keep: Keep = "none",
) -> Judgement:
    """Train every trial of a plan that the store does not hold yet, and judge all of them.

    Where the plan leaves something to be chosen on validation data, the trials for that come first.

    Failed trials are recorded with their traceback and do not stop the others; the next run tries them again. A trial
    whose worker is gone is lost, not failed: it is tried again, three times before that is recorded.
    Stopped at any moment, by Ctrl-C or ``kill -9``, the same call goes on where it was: finished trials are never
    repeated and running ones resume from their last checkpoint, with the same numbers as without the stop.

    Args:
        plan: from `steelyard.study.plan`.
        store: the SQLite file; its checkpoints lie beside it in a folder while trials run.
        workers: trials at a time, each with one thread; by default as many as there is room for, here one per core, or
            `per_device` on each GPU where the plan trains on these.
        per_device: trials that share a GPU at a time.
        reuse_any: take finished trials also where they were trained with other code, data or versions.
        progress: True shows a bar on stderr; a `rich.progress.Progress` gets a task of its own.
        on: where the trials run: ``"local"``, processes of this machine; ``"ray(address=auto)"``, a cluster; or an
            engine of your own.
        checkpoints: a folder, or an address that fsspec opens, that every machine sees: a trial that is lost goes on
            from there. By default a folder beside the store, which other machines do not see.
        keep: which trained networks stay beside the store, at the epoch that validation chose: ``"all"``, ``"best"``
            (of each method's networks the best seed on validation data) or ``"none"``; `network` gives them back.

    Raises:
        StoreLockedError: another process writes this store.
        StoreError: the store cannot be used, or the disk is full.
        KeyboardInterrupt: after Ctrl-C, once the workers are stopped. SIGTERM and SIGHUP end the process as they do,
            but not before.

    Example:
        >>> from steelyard.study import plan, run
        >>> made = plan("digits", ["single-task", "equal"], seeds=1, epochs=1)
        >>> run(made, folder / "digits.sqlite", progress=False).problem
        'digits'
    """
    check_workers(workers)
    check_per_device(per_device)
    check_keep(keep)
    engine = load_engine(on) if isinstance(on, str) else on
    device_for(engine, plan.device)
    with ending_in_order(), Store(store, write=True) as opened:
        if reuse_any:
            plan = dataclasses.replace(plan, also=tuple(opened.origins(plan.identity)))
        opened.add_plan(plan.to_dict())
        job = job_of(plan, opened, workers, checkpoints, per_device)
        tidy(job.checkpoints)
        for place in rounds(plan):
            tried = attempts(plan, place)
            trials = list(dict.fromkeys(each.trial for each in tried))
            train_missing(plan, opened, trials, engine, job, progress, "tuning, ")
            plan = choose(plan, tried, opened.results(trials, plan.also))
        if plan.tuning is not None:
            opened.add_plan(plan.to_dict(), settles=True)  # of what was to be chosen, the place is taken
        keeper = None if keep == "none" else Keeper(plan, opened, keep)
        train_missing(plan, opened, plan.trials, engine, job, progress, keeper=keeper)
        return judge_plan(plan, opened)


def compare(
    problem: str,
    methods: Sequence[Arm | Spec | str],
    *,
    store: Path | str,
    workers: int | None = None,
    per_device: int = 1,
    progress: bool | Progress = True,
    reuse_any: bool = False,
    on: Engine | str = "local",
    checkpoints: Path | str | None = None,
    keep: Keep = "none",
    device: str = CPU,
    **options: Any,
) -> Judgement:
    """Plan a study and run it: ``run(plan(problem, methods, device=device, **options), store)``.

    ``device="auto"`` takes GPUs where the engine has them, and a device that is not there is refused at once.

    Example:
        >>> from steelyard.study import compare
        >>> methods = ["single-task", "equal"]
        >>> judgement = compare("digits", methods, store=folder / "digits.sqlite", seeds=1, epochs=1, progress=False)
        >>> judgement.methods
        ['single-task', 'equal']
    """
    check_workers(workers)
    check_keep(keep)
    engine = load_engine(on) if isinstance(on, str) else on
    device = device_for(engine, device)
    engine.get_ready()
    made = make_plan(problem, methods, device=device, **options)
    settings: dict[str, Any] = {"workers": workers, "progress": progress, "reuse_any": reuse_any}
    settings["per_device"] = per_device
    return run(made, store, **settings, on=engine, checkpoints=checkpoints, keep=keep)


def job_of(plan: Plan, store: Store, workers: int | None, checkpoints: Folder | None, per_device: int = 1) -> Job:
    """What an engine has to know of a plan whose trials this store keeps."""
    folder = store.checkpoints if checkpoints is None else as_folder(checkpoints)
    return Job(
        plan.reference,
        plan.origin,
        folder,
        checkpoints is not None,
        store.scratch,
        workers,
        device=plan.device,
        per_device=per_device,
    )


def train_missing(
    plan: Plan,
    store: Store,
    trials: list[Trial],
    engine: Engine,
    job: Job,
    progress: bool | Progress,
    phase: str = "",
    keeper: Keeper | None = None,
) -> None:
    """Train those of these trials that the store does not hold, and show a bar if there are any."""
    waiting = store.unfinished(trials, plan.also)
    let_go(job.checkpoints, set(trials) - set(waiting))
    if not waiting:
        tidy(job.checkpoints)
        return
    engine.get_ready()
    job = dataclasses.replace(job, keep=keeper is not None)
    try:
        with progress_bar(progress) as bar:
            if note := stale_note(plan, store, waiting):
                bar.console.print(note, markup=False, highlight=False)
            meter = Meter(bar, plan, trials, waiting, phase)
            with closing(dispatch(engine, job, waiting)) as events:
                for trial, event in events:
                    if isinstance(event, Finished) and keeper is not None:
                        keeper.take(trial, event.result, event.weights)  # first: what is finished has its network
                    _write_down(store, job.checkpoints, trial, event)
                    meter.tell(trial, event)
    finally:
        tidy(job.checkpoints)


def _write_down(store: Store, checkpoints: Folder, trial: Trial, event: Event) -> None:
    """Keep how a trial ended, and let go of its checkpoint only now that this is stored."""
    if isinstance(event, Finished):
        store.add_result(trial, event.result)
    elif isinstance(event, Failed):
        store.add_failure(trial, event)
    else:
        return
    # One that was lost (no traceback) can still go on from there.
    if isinstance(event, Finished) or event.traceback:
        remove_checkpoint(checkpoint_of(checkpoints, trial))
