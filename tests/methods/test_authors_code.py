"""Each method beside its authors' code, restated in `authors_references`, on random trajectories; or why it is not."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

import authors_references as authors
import steelyard
from authors_references import Look, Reference
from loss_sequences import call, task_names
from steelyard.method_registry import options_of

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "docs" / "_extensions"))
import fidelity

EPOCHS, STEPS = 7, 4


class Trajectory:
    """A trunk of 12 numbers; every task's loss is quadratic in it, on another scale, and other in each batch."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(100 * size + seed)
        self.trunk = torch.nn.Parameter(self.drawn(12))
        self.maps, self.goals = self.drawn(size, 15, 12), self.drawn(size, 15)
        self.scales = 10 ** torch.linspace(-1.5, 1.5, size).double()[torch.randperm(size, generator=self.generator)]
        self.tasks = task_names(size)

    def drawn(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def batch(self) -> Tensor:
        """The noise of one batch's labels."""
        return self.drawn(*self.goals.shape)

    def errors(self, noise: Tensor) -> Tensor:
        return self.maps @ self.trunk - self.goals - noise

    def losses(self, noise: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.tasks, self.scales * self.errors(noise).square().mean(1), strict=True))

    def rows(self, noise: Tensor) -> Tensor:
        """The task gradients, in closed form."""
        with torch.no_grad():
            pulls = (self.maps * self.errors(noise)[:, :, None]).mean(1)
            return 2 * self.scales[:, None] * pulls


def values(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([loss.detach() for loss in losses.values()])


@dataclass(frozen=True)
class Held:
    """A line that makes a method its authors' code, the code, and their defaults where it is a default of ours."""

    spec: str
    reference: Callable[[int], Reference]
    theirs: Mapping[str, object] = field(default_factory=dict)
    sizes: tuple[int, ...] = (2, 5)
    tolerance: float = 1e-6  # relative
    one_batch: bool = False  # the three batches of a step are one

    @property
    def name(self) -> str:
        return self.spec.partition("(")[0]


NORMALISE = ("none", "l2", "loss", "loss+")
FLOAT32 = 1e-5  # rows are remembered in float32
HELD = [
    Held("random", authors.random),
    Held("random(distribution=dirichlet)", authors.random_dirichlet),
    Held("uw", authors.uw, {"initial": 0.0}),
    Held("uw-o", authors.uw_o),
    Held("uw-so", authors.uw_so, {"temperature": 1.0}),
    Held("dwa", authors.dwa, {"temperature": 2.0}),
    Held("cov", authors.cov, {"epsilon": 1e-8}),
    Held("cov(decay=0.7)", partial(authors.cov, decay=0.7)),
    Held("slaw", authors.slaw, {"beta": 0.99}),
    Held("slaw(beta=0.9)", partial(authors.slaw, beta=0.9)),
    Held("lbtw(scale=sum)", authors.lbtw, {"alpha": 0.5}),
    Held("stch", authors.stch, {"smoothness": 1.0, "warm_up": 4}),
    Held("famo(decay=0.01)", authors.famo, {"learning_rate": 0.025, "decay": 0.01, "minimum": 0.0, "epsilon": 1e-8}),
    Held("softadapt(order=3)", authors.softadapt, {"beta": 0.1}),
    Held("softadapt(order=1)", partial(authors.softadapt, order=1)),
    Held("softadapt(order=3,variant=loss-weighted)", partial(authors.softadapt, variant="loss-weighted")),
    Held("relobralo(keep=1)", authors.relobralo, {"alpha": 0.999, "temperature": 1.0, "keep": 1.0}),
    Held("relobralo(keep=0.5)", partial(authors.relobralo, keep=0.5)),
    Held("coba(window=200,warm_up=4)", authors.coba, {"window": 200, "warm_up": 100, "temperature": 5.0}),
    Held("go4align", authors.go4align, {"step_size": 1e-4}),
    Held("igb", authors.igb, {"base_epoch": 2}),
    Held("ldc-mtl(penalty=0.01,normalise=False)", authors.ldc_mtl, {"penalty": 0.01, "initial": 1.0}, sizes=(2,)),
    *(Held(f"mgda(normalise={by})", partial(authors.mgda, normalise=by, least=0.0), sizes=(2,)) for by in NORMALISE),
    Held("pe-ltr(least=0)", authors.pe_ltr, sizes=(2,)),
    Held("pcgrad", authors.pcgrad),
    Held("cagrad", authors.cagrad, {"c": 0.5, "rescale": True}),
    Held("nash-mtl", authors.nash_mtl, {"max_norm": 1.0}, sizes=(2, 3)),
    Held("fairgrad", authors.fairgrad, {"alpha": 1.0}),
    Held("fairgrad(alpha=2)", partial(authors.fairgrad, alpha=2.0)),
    *(
        Held(f"aligned-mtl(common_scale={each})", partial(authors.aligned_mtl, common=each))
        for each in ("median", "rmse")
    ),
    Held("aligned-mtl", authors.aligned_mtl, {"common_scale": "min"}),
    Held("config", authors.config),
    Held("metabalance(main=task0)", authors.metabalance, {"relax": 0.7, "beta": 0.9}),
    Held("db-mtl(decay=0)", authors.db_mtl, {"epsilon": 1e-8, "beta": 0.9, "decay": 0.0}, tolerance=FLOAT32),
    Held("max-norm(decay=0)", partial(authors.db_mtl, logarithm=False), tolerance=FLOAT32),
    Held("moco", authors.moco, {"beta": 0.5, "gamma": 0.1, "rho": 0.0}, tolerance=FLOAT32),
    Held("adatask", authors.adatask, {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}, tolerance=FLOAT32),
    Held("excess-mtl", authors.excess_mtl, {"eta": 0.01, "epsilon": 1e-7}, tolerance=FLOAT32),
    Held(
        "sdmgrad",
        partial(authors.sdmgrad, beside=0.0),
        {"lam": 0.3, "eta": 10.0, "momentum": 0.5, "steps": 20},
        one_batch=True,
    ),
    Held("modo(gamma=0.1)", authors.modo, {"gamma": 0.1, "rho": 0.1}),
]


def courses(held: Held, size: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Direction and weights of ours, and what the authors' code says, in every step; the trunk goes our way."""
    course = Trajectory(size)
    balancer = steelyard.make(held.spec, course.tasks, generator=torch.Generator().manual_seed(7))
    twin = torch.Generator().manual_seed(7)
    reference, after_last, found = held.reference(size), None, []
    next(reference)
    for epoch in range(EPOCHS):
        for step in range(STEPS):
            noise = course.batch()
            probes = [noise, noise] if held.one_batch else [course.batch(), course.batch()]
            losses, arguments = course.losses(noise), {}
            if balancer.reads == "cross_gramian":
                arguments["probes"] = [course.losses(probe) for probe in probes]
            fallen = torch.arange(size) / size * (epoch * STEPS + step) / (EPOCHS * STEPS)
            validation = 1 - 0.9 * fallen + 1e-3 * course.drawn(size)
            if balancer.needs_validation:
                balancer.observe(validation=dict(zip(course.tasks, validation, strict=True)))
            rows = (course.rows(probes[0]), course.rows(probes[1]))
            look = Look(values(losses), course.rows(noise), rows, epoch, after_last, validation, twin)
            course.trunk.grad = None
            balancer(losses, shared=[course.trunk], **arguments).backward()
            direction = course.trunk.grad
            found.append((direction, balancer.last_weights, reference.send(look)))
            with torch.no_grad():
                course.trunk -= 0.1 * direction / direction.norm()
            after_last = values(course.losses(noise))
            if balancer.needs_after:
                balancer.observe(after=course.losses(noise))
        balancer.end_epoch()
    return found


@pytest.mark.parametrize(
    ("held", "size"), [pytest.param(each, size, id=f"{each.spec} {size}") for each in HELD for size in each.sizes]
)
def test_it_is_its_authors_code(held: Held, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`PCGrad` in the order of the list, for once."""
    ascending = torch.tensor([[j for j in range(size) if j != i] for i in range(size)]).T
    monkeypatch.setattr(inspect.getmodule(steelyard.PCGrad), "random_orders", lambda size, generator: ascending)
    for step, (direction, weights, theirs) in enumerate(courses(held, size)):
        ours = weights if len(theirs) == size else direction
        off = float((ours - theirs).norm() / theirs.norm())
        assert off < held.tolerance, f"step {step}: {ours.tolist()} beside {theirs.tolist()}"


@pytest.mark.parametrize("size", [3, 5])
def test_mgda_of_more_tasks_is_no_longer_than_its_authors_code(size: int) -> None:
    """Theirs has not reached the smallest norm, or no norm at all; where shares lie inside, it is near."""
    ratios = []
    for seed in range(8):
        course = Trajectory(size, seed)
        losses, rows = course.losses(noise := course.batch()), course.rows(noise)
        balancer = steelyard.MGDA(course.tasks, normalise="l2" if seed % 2 else "none")
        balancer(losses, shared=[course.trunk])
        rows = rows / rows.norm(dim=1, keepdim=True) if seed % 2 else rows
        theirs = authors.mgda_iterated(rows @ rows.T)
        if theirs is not None:
            ratios.append(float((theirs @ rows).norm() / (balancer.last_weights @ rows).norm()))
    assert len(ratios) > 5
    assert min(ratios) > 1 - 1e-9
    assert max(ratios) < 1.02


@pytest.mark.parametrize("leak", [0.0, 0.3])
def test_graddrop_is_its_authors_code_up_to_the_length(leak: float) -> None:
    course = Trajectory(3)
    balancer = steelyard.GradDrop(course.tasks, leak=leak, generator=torch.Generator().manual_seed(7))
    twin = torch.Generator().manual_seed(7)
    for _ in range(EPOCHS * STEPS):
        features = course.drawn(6, 5)
        features[:, 1] = 0  # as behind a layer of zeros: it has no votes
        features.requires_grad_()
        goals = course.drawn(3, 6, 5)
        losses = dict(zip(course.tasks, course.scales * (features - goals).square().mean((1, 2)), strict=True))
        gradients = course.scales[:, None, None] * 2 * (features.detach() - goals) / 30
        balancer(losses, shared=features).backward()
        theirs = authors.graddrop(features.detach(), gradients, torch.rand(5, generator=twin), leak)
        ours = features.grad * features.grad.norm() / gradients.sum(0).norm()
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-6


@pytest.mark.parametrize("rising", [True, False])
def test_normalised_softadapt_is_its_authors_code_while_losses_rise_and_turns_no_sign_while_they_fall(
    rising: bool,
) -> None:
    tasks, beta = task_names(3), 0.1 if rising else -0.1
    balancer = steelyard.SoftAdapt(tasks, variant="normalised", beta=beta)
    reference = authors.softadapt(3, variant="normalised", order=1)
    next(reference)
    losses = torch.tensor([1.0, 30.0, 500.0], dtype=torch.float64)
    for step in range(6):
        losses = losses * (1 + (0.1 if rising else -0.1) * torch.rand(3, generator=torch.Generator().manual_seed(step)))
        weights, _ = call(balancer, dict(zip(tasks, losses.tolist(), strict=True)))
        theirs = reference.send(Look(losses, losses, (losses, losses), 0, None, losses, torch.Generator()))
        assert list(weights.values()) == pytest.approx(theirs.tolist(), rel=1e-6)


@pytest.mark.parametrize("held", [each for each in HELD if each.theirs], ids=lambda held: held.name)
def test_defaults_are_theirs_or_the_docstring_names_theirs(held: Held) -> None:
    cls = type(steelyard.make(held.name, ["a", "b"], **({"main": "a"} if "main=" in held.spec else {})))
    options = {**inspect.signature(cls.__init__).parameters, **options_of(cls)}
    for name, value in held.theirs.items():
        assert options[name].default == value or f"{name}={value:g}``" in (inspect.getdoc(cls) or ""), name


ELSEWHERE = {
    "auto-lambda": "methods/test_auto_lambda.py::test_it_is_the_authors_loop",
    "graddrop": "methods/test_authors_code.py::test_graddrop_is_its_authors_code_up_to_the_length",
    "upgrad": "methods/test_against_torchjd.py::test_agreement",
    "dualproj": "methods/test_against_torchjd.py::test_agreement",
}
READ_ONLY = {
    "lr-annealing": "its authors' recursion is another, as its docstring says; in no step do the two agree",
    "pcd": "its authors' code is out of reach; the problem is taken from a description of it",
}
NO_CODE = "no code of its authors was found"
WITHOUT = {
    **dict.fromkeys(("equal", "fixed", "schedule", "initial-scale", "log", "inverse-norm"), "nobody's method"),
    **dict.fromkeys(("gls", "uw-revised", "imtl-l", "imtl-g", "imtl", "gradnorm", "gradvac"), NO_CODE),
    **dict.fromkeys(("gcs", "ol-aux", "multibalance", "conicgrad", "gradops"), NO_CODE),
    "ema": "reconstructed from the abstract",
    "hydalearn": "the repository of its authors holds other code",
}


def test_every_method_is_held_or_says_why_not() -> None:
    """And a docstring speaks of its authors' code where it has been read, not elsewhere."""
    names = [row.name for row in steelyard.methods() if row.cls.__module__.startswith("steelyard.")]
    followed = {held.name for held in HELD} | set(ELSEWHERE)
    assert sorted([*followed, *READ_ONLY, *WITHOUT]) == sorted(names)
    for row in steelyard.methods():
        if row.name in names:
            found = fidelity.fidelity(row.cls).code
            assert found is (row.name in followed or row.name in READ_ONLY), f"{row.name}: {found}"


@pytest.mark.parametrize("test", sorted(set(ELSEWHERE.values())))
def test_what_is_held_elsewhere_is(test: str) -> None:
    file, _, name = test.partition("::")
    assert f"def {name}(" in (Path(__file__).parent.parent / file).read_text(encoding="utf-8")
