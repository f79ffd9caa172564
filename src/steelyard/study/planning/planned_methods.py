"""Methods as they were asked for, made once each, so that what cannot work is refused before anything is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from steelyard.balancing.balancer import Balancer
from steelyard.base.specs import Spec, SpecPart, parse_spec
from steelyard.errors import OptionError, PlanError
from steelyard.method_registry import BEST_FIXED, make, method_class, options_of
from steelyard.models.build_network import architecture_spec
from steelyard.problems.problem import check_place
from steelyard.study.planning.arm_networks import check_networks
from steelyard.study.planning.arms import SHARED, Arm, make_arm, parse_arm
from steelyard.study.planning.best_fixed import candidates
from steelyard.study.planning.plan import PlannedMethod
from steelyard.study.trial import SINGLE_TASK


def planned_methods(
    methods: Sequence[Arm | Spec | str],
    tasks: Sequence[str],
    shared: str | None,
    scale: str | None,
    architecture: str,
    main: str | None,
) -> tuple[tuple[PlannedMethod, ...], list[str]]:
    """The methods as they will be run, each made once, and what is to be said of them.

    Args:
        shared: where gradients are read; None where that is not the study's to say.
    """
    if not methods:
        raise PlanError("no methods: name at least one, e.g. single-task,equal")
    if shared is not None:
        check_place(shared)
    planned: dict[str, PlannedMethod] = {}
    notes = []
    for method in methods:
        arm = parse_arm(method) if isinstance(method, str) else method if isinstance(method, Arm) else make_arm(method)
        spec = arm.method
        own = None if arm.architecture is None else str(architecture_spec(str(arm.architecture)))
        if own == architecture:
            own = None  # the study's own, said once more
        networks = check_networks(arm.networks, tasks) if arm.networks else ()
        if spec.name == SINGLE_TASK:
            if spec.options or spec.stages or own or arm.shared or networks:
                raise OptionError(
                    f"{arm}: {SINGLE_TASK} takes no options, stages or architecture, and no networks: it is the plain "
                    "loss of one task"
                )
            planned[SINGLE_TASK] = PlannedMethod(SINGLE_TASK)
            continue
        if networks and spec.name == BEST_FIXED:
            raise OptionError(f"{arm}: {BEST_FIXED} weighs all tasks of one network, so leave the braces away")
        options = candidates(spec, tasks, main) if spec.name == BEST_FIXED else ()
        spec = spec if options else _with_main(spec, main)
        tried = parse_spec(options[0]) if options else spec
        used = scale
        if "scale" in tried.options:
            used, balancer = None, make(tried, tasks)
        elif scale is not None:
            balancer = make(tried, tasks, scale=scale)
        else:
            try:
                used, balancer = "sum", make(tried, tasks, scale="sum")
            except OptionError as error:
                used, balancer = "paper", make(tried, tasks, scale="paper")
                notes.append(f"{tried}: weights as in the paper, because they cannot be rescaled ({error})")
        place = _place(arm, balancer, shared)
        architectures = None if own is None else parse_spec(own)
        named = Arm(spec, architectures, None if place in (None, shared) else place, networks)
        planned[str(named)] = PlannedMethod(str(named), used, place, own, networks, options)
    return tuple(planned.values()), notes


def _place(arm: Arm, balancer: Balancer, shared: str | None) -> str | None:
    """Where an arm reads gradients: where it says itself, or where the study does; None where it reads none."""
    if shared is None:
        return None
    if not balancer.needs_shared:
        if arm.shared is not None:
            raise OptionError(f"{arm}: {arm.name} reads no gradients, so leave {SHARED}={arm.shared} away")
        return None
    place = arm.shared or shared
    if place not in balancer.where and balancer.look is None:
        there = " or ".join(sorted(balancer.where))
        instead = Arm(arm.method, arm.architecture, min(balancer.where))
        raise OptionError(
            f"{arm} cannot read gradients at the {place}, it is defined at the {there}: write {instead} for this arm "
            f"alone, or --shared {min(balancer.where)} (in Python shared={min(balancer.where)!r}) for the whole study"
        )
    return place


def _with_main(spec: Spec, main: str | None) -> Spec:
    """A method that serves a main task and was not told which serves the problem's: ``gcs`` -> ``gcs(main=income)``."""
    if main is None or "main" in spec.options or "main" not in options_of(method_class(spec.name)):
        return spec
    return dataclasses.replace(spec, method=SpecPart(spec.name, {**spec.options, "main": main}))
