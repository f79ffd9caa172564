"""torch.compile: trunk and heads apart, the whole model, and what the balancer leaves in the user's graphs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._functorch import config as functorch_config

import steelyard
from steelyard.errors import SharedError

TASKS, SCALES = ["a", "b"], {"a": 1.0, "b": 5.0}
FAST = "aot_eager"  # the whole of torch.compile without its code generator


Backend = str | Callable[..., object]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 9), nn.Tanh())
        self.heads = nn.ModuleDict({t: nn.Sequential(nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 3)) for t in TASKS})

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z = self.trunk(x)
        return z, {task: head(z) for task, head in self.heads.items()}


class _Two(nn.Module):
    """What torch.jit.script understands."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(6, 9), nn.Tanh())
        self.first, self.second = nn.Linear(9, 2), nn.Linear(9, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = self.trunk(x)
        return z, self.first(z), self.second(z)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def forward_of(model: Model, kind: str, backend: Backend) -> Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]:
    """The model, eager, compiled in parts or whole; ``fullgraph`` turns a graph break into an error."""
    if kind == "eager":
        return model
    if kind == "whole":
        return torch.compile(model, backend=backend, fullgraph=True)
    trunk = torch.compile(model.trunk, backend=backend, fullgraph=True)
    heads = {task: torch.compile(head, backend=backend, fullgraph=True) for task, head in model.heads.items()}

    def forward(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z = trunk(x)
        return z, {task: head(z) for task, head in heads.items()}

    return forward


def trained(kind: str, spec: str, where: str, backend: Backend = FAST, steps: int = 3) -> Tensor:
    """All parameters after some steps."""
    model = Model()
    forward = forward_of(model, kind, backend)
    x, y = torch.randn(16, 6), {task: torch.randn(16, 3) for task in TASKS}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer = steelyard.make(spec, TASKS).attach(optimizer)
    for _ in range(steps):
        z, outputs = forward(x)
        losses = {
            task: scale * (outputs[task] - y[task]).square().mean() for task, scale in zip(TASKS, (1, 5), strict=True)
        }
        optimizer.zero_grad()
        shared = {"features": z, "trunk": model.trunk, "none": None, "layer": z}[where]
        balancer(losses, shared=shared, look=model.trunk[2] if where == "layer" else None).backward()
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(
    ("kind", "spec", "where"),
    [
        ("parts", "ema", "none"),
        ("whole", "ema", "none"),
        ("parts", "mgda", "features"),
        ("parts", "db-mtl", "features"),
        ("parts", "mgda", "trunk"),
        ("parts", "max-norm(beta=0)", "trunk"),
        ("parts", "db-mtl", "trunk"),
        ("whole", "mgda", "trunk"),
        ("parts", "mgda", "layer"),
        ("parts", "pcgrad", "layer"),
        ("parts", "pcgrad(look=trunk)", "features"),
    ],
)
def test_compiled_training_is_eager_training(kind: str, spec: str, where: str) -> None:
    assert torch.allclose(trained(kind, spec, where), trained("eager", spec, where), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("spec", "where"), [("mgda", "features"), ("db-mtl", "features"), ("db-mtl(beta=0)", "trunk")])
def test_a_model_compiled_whole_is_refused_where_its_middle_is_needed(spec: str, where: str) -> None:
    with pytest.raises(SharedError, match=r"compiled as one function.*compile them apart"):
        trained("whole", spec, where)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(("spec", "where"), [("mgda", "features"), ("pcgrad", "features"), ("pcgrad", "trunk")])
def test_a_model_scripted_whole_too(spec: str, where: str) -> None:
    model = torch.jit.script(_Two())
    for number in range(4):  # the first passes are measured, and not yet one function
        z, first, second = model(torch.ones(4, 6))
        losses = {"a": first.square().mean(), "b": (second - 1).square().mean()}
        if number < 3:
            sum(losses.values()).backward()
    with pytest.raises(SharedError, match=r"compiled as one function.*torch\.jit\.script"):
        steelyard.make(spec, TASKS)(losses, shared=z if where == "features" else model.trunk)


def test_the_last_layer_is_not_found_inside_a_compiled_function() -> None:
    with pytest.raises(SharedError, match=r"look='last': the last layer is inside a function that torch\.compile made"):
        trained("parts", "mgda(look=last)", "features")


@pytest.mark.parametrize(("spec", "where"), [("ema", "none"), ("mgda", "features"), ("db-mtl", "trunk")])
def test_nothing_is_compiled_twice(spec: str, where: str) -> None:
    """The balancer leaves no hook on the user's modules, parameters or features that a guard would see change."""
    compiled: list[str] = []

    def counting(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        compiled.append(graph.code)
        return graph.forward

    trained("parts", spec, where, counting, steps=2)
    first = len(compiled)
    torch._dynamo.reset()
    trained("parts", spec, where, counting, steps=6)
    assert len(compiled) == 2 * first


@pytest.mark.parametrize(("spec", "where"), [("ema", "none"), ("mgda", "trunk")])
def test_a_balancer_inside_a_compiled_step_cuts_it_once(spec: str, where: str) -> None:
    model, x = Model(), torch.randn(16, 6)
    graphs: list[torch.fx.GraphModule] = []

    def counting(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    def gradients(compiled: bool) -> list[Tensor]:
        balancer = steelyard.make(spec, TASKS)

        def step(x: Tensor) -> Tensor:
            _, outputs = model(x)
            losses = {task: output.square().mean() for task, output in outputs.items()}
            return balancer(losses, shared=model.trunk if where == "trunk" else None)

        result = torch.compile(step, backend=counting)(x) if compiled else step(x)
        return list(torch.autograd.grad(result, list(model.parameters())))

    for inside, outside in zip(gradients(True), gradients(False), strict=True):
        assert torch.allclose(inside, outside, rtol=1e-5, atol=1e-8)
    assert len(graphs) == 1, "what comes before the balancer is one graph, and nothing of the balancer is compiled"


def test_features_inside_a_compiled_step_are_refused() -> None:
    """The graph that is cut before the balancer is one function, trunk and heads in it."""
    model = Model()
    balancer = steelyard.make("mgda", TASKS)

    def step(x: Tensor) -> Tensor:
        z, outputs = model(x)
        return balancer({task: output.square().mean() for task, output in outputs.items()}, shared=z)

    with pytest.raises(SharedError, match="compile them apart"):
        torch.compile(step, backend=FAST)(torch.randn(16, 6))


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler for torch's code generator")
@pytest.mark.skipif(
    not hasattr(functorch_config, "donated_buffer"),
    reason="before torch 2.6 no memory is given away, and generated code turns subnormal numbers off for good",
)
@pytest.mark.slow("torch generates code and compiles it, three times")
def test_generated_code_and_the_memory_it_gives_away() -> None:
    assert torch.allclose(
        trained("parts", "mgda", "features", "inductor"), trained("eager", "mgda", "features"), rtol=1e-4, atol=1e-6
    )
    torch._dynamo.reset()
    with pytest.raises(SharedError, match=r"set torch\._functorch\.config\.donated_buffer = False"):
        trained("parts", "mgda", "trunk", "inductor")
    torch._dynamo.reset()
    with functorch_config.patch(donated_buffer=False):
        compiled = trained("parts", "mgda", "trunk", "inductor")
    assert torch.allclose(compiled, trained("eager", "mgda", "trunk"), rtol=1e-4, atol=1e-6)


AUTOGRAD = [
    ("uw", "losses"),
    ("moco", "trunk"),
    *(
        pytest.param(*each, marks=pytest.mark.slow("torch compiles a backward pass for each way to replace gradients"))
        for each in (
            ("mgda", "features"),
            ("pcgrad", "features"),
            ("pcgrad", "trunk"),
            ("adatask", "trunk"),
        )
    ),
]


@pytest.mark.parametrize(("spec", "where"), AUTOGRAD)
@pytest.mark.takes("torch compiles a backward pass")
def test_compiled_autograd_records_a_backward_with_a_balancer_in_it(spec: str, where: str) -> None:
    found = []
    for compiled in (False, True):
        model = Model()
        balancer = steelyard.make(spec, TASKS, generator=torch.Generator().manual_seed(0))

        def step(model: Model = model, balancer: steelyard.Balancer = balancer) -> None:
            z, outputs = model(torch.ones(4, 6))
            losses = {task: SCALES[task] * output.square().mean() for task, output in outputs.items()}
            shared = {"losses": None, "features": z, "trunk": model.trunk}[where]
            balancer(losses, shared=shared).backward()

        with torch._dynamo.config.patch(compiled_autograd=compiled), functorch_config.patch(donated_buffer=False):
            (torch.compile(step, backend="eager") if compiled else step)()
        found.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("spec", ["", "uw", "famo(learning_rate=0.1)"])
def test_a_compiled_step_of_the_optimizer_is_compiled_once(spec: str) -> None:
    """With a balancer attached or not: hooks that count would have it compiled anew in every step."""
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.01))
    balancer = steelyard.make(spec, TASKS).attach(optimizer) if spec else None
    step = torch.compile(optimizer.step, backend="eager")
    compiled = []
    for _ in range(5):
        torch._dynamo.utils.counters.clear()
        optimizer.zero_grad()
        _, outputs = model(torch.ones(4, 6))
        losses = {task: output.square().mean() for task, output in outputs.items()}
        (sum(losses.values()) if balancer is None else balancer(losses)).backward()
        step()
        if balancer is not None and balancer.needs_after:
            balancer.observe(after={task: loss.detach() for task, loss in losses.items()})
        compiled.append(torch._dynamo.utils.counters["frames"]["total"])
    assert sum(compiled[3:]) == 0, compiled
    assert balancer is None or balancer.steps == 5
