"""AdaTask: every task has moments of its own at each shared parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from steelyard.balancing.balancer import Balancer
from steelyard.base.method import tensors_of
from steelyard.base.normaliser import form_of, plain_sgd
from steelyard.base.observation import Balance, Seen
from steelyard.base.options import at_least, one_of, within
from steelyard.base.row_state import like_rows
from steelyard.base.state import ELEMENTS, TASKS, State
from steelyard.errors import OptionError

Form = Literal["adam", "rmsprop", "adagrad"]
_BETA1, _BETA2 = 0.9, 0.999


class AdaTask(Balancer):
    """The sum of the steps that each task's own Adam would take: no task's gradients shrink the rate of another.

    Element by element ``d = Σ_k M_k / (√V_k + ε)``, with ``m_k ← β₁ m_k + (1 - β₁) g_k``, ``v_k ← β₂ v_k + (1 - β₂)
    g_k²``, and ``M_k = m_k / (1 - β₁ⁿ)``, ``V_k = v_k / (1 - β₂ⁿ)`` in the task's ``n``-th step. That is a step, not a
    gradient: ``torch.optim.SGD(..., lr)`` without momentum takes it, and what is attached and would normalise or
    average it once more is refused. Where ``shared=`` holds the heads too (all parameters, the whole model), each has
    its task's plain Adam, as in the paper; heads outside of it have the gradient of their loss, for an optimizer of
    their own. SGD's weight decay is AdamW's; ``clip_grad_norm_`` would cut the step.

    Args:
        tasks: task names.
        form: ``"adam"``; ``"rmsprop"``, ``g_k / (√v_k + ε)``; ``"adagrad"``, the same with ``v_k ← v_k + g_k²``.
        beta1: ``0 ≤ β₁ < 1``, per step; of Adam alone.
        beta2: ``0 ≤ β₂ < 1``, per step; AdaGrad has none.
        epsilon: ``ε > 0``, in the unit of the gradients.
        common: the options of `Balancer`; ``priorities`` are the ratios of the tasks' steps.

    Raises:
        OptionError: ``every`` (there are no weights to hold), a ``memory`` (no task has a part in another's step), or
            an attached optimizer that does not take steps as they are; ``optimizer_for(optimizer)`` makes SGD of Adam,
            AdamW, RMSprop or Adagrad, with its rates and AdamW's decay, if the options are its own. What is not
            attached cannot be checked, and any optimizer with "sgd" in its name is taken for one. In a study every
            arm has the problem's optimizer, this method what it makes of that, at all parameters.

    Of several micro-batches each sends the step of its own gradients from the committed moments, which move once, by
    the window's. So the parts of ``m`` add up exactly, while ``v`` holds one micro-batch's squares in place of the
    window's: all of it in the first step, later a share of ``1 - β₂``. A task that is absent has no part in the step,
    and its moments stand still.

    Cost: trunk only, one backward per task; ``T x P`` numbers for the rows, and for each of ``m`` and ``√v``.

    Source: Yang, Pan, Wang, Yu, Shen, Chen, Xiao, Jiang, Guo, "AdaTask: A Task-Aware Adaptive Learning Rate Approach
    to Multi-Task Learning" (AAAI 2023), arXiv 2211.15055, and the authors' code, an optimizer, of Adam alone.
    Certainty: the other forms are torch's optimizers with moments for each task, which the paper names. Deviations:
    that code counts one number of steps for all tasks, which are in every batch; it multiplies losses, not steps, by
    its task weights, which Adam does not see; ``√v`` is kept, whose squares float32 cannot hold at 1e-30.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.SGD([w], lr=0.1)
        >>> balancer = steelyard.AdaTask(["a", "b"], shared=[w]).attach(optimizer)
        >>> a, b = torch.tensor([[1000.0, 1000.0], [1.0, -1.0]]) @ w
        >>> balancer({"a": a, "b": b}).backward()
        >>> w.grad  # one step of each: where they pull apart, b is heard as well as a
        tensor([2., 0.])
    """

    name = "adatask"
    paper = "Yang et al. (2023), arXiv 2211.15055"
    reads = "rows"
    where = frozenset({"trunk"})
    default_heads = "plain"
    weighs = False
    independent = True
    whole_network = True
    sends_steps = True

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        form: Form = "adam",
        beta1: float = _BETA1,
        beta2: float = _BETA2,
        epsilon: float = 1e-8,
        **common: Any,
    ) -> None:
        super().__init__(tasks, **common)
        one_of("form", form, Form)
        within("beta1", beta1, 0, 1)
        within("beta2", beta2, 0, 1)
        at_least("epsilon", epsilon, 0, strictly=True)
        for option, value, default, forms in (
            ("beta1", beta1, _BETA1, ("adam",)),
            ("beta2", beta2, _BETA2, ("adam", "rmsprop")),
        ):
            if form not in forms and value != default:
                raise OptionError(f"form={form!r} has no {option}: leave {option}={value} out")
        if self.memory != "none":
            raise OptionError(
                f"memory={self.memory!r} keeps the tasks' gradients for the weights of others, and adatask has no use "
                "for them: leave it out"
            )
        self.form, self.beta1, self.beta2, self.epsilon = form, beta1, beta2, epsilon
        if form == "adam":
            self.declare("average", (TASKS, ELEMENTS), reduce="mean")
            self.declare("updates", reduce="mean")
        self.declare("sizes", (TASKS, ELEMENTS), reduce="mean")

    def check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        name = type(optimizer).__name__
        if not _is_sgd(optimizer):
            raise OptionError(
                f"adatask sends the steps of every task's own {self.form}, and {name} would change them once more: "
                "attach torch.optim.SGD(parameters, lr=...), whose rate is then the steps', or what "
                f"balancer.optimizer_for(optimizer) makes of this one. Heads that are to have {name} keep it in an "
                "optimizer of their own, or stand in shared= with the trunk"
            )
        if self.form != "adam" or self.beta1 == 0:
            return
        shared = None if self.trunk is None else {id(each) for each in tensors_of(self.trunk)}
        for group in optimizer.param_groups:
            momentum = group.get("momentum", 0)
            if momentum and (shared is None or any(id(each) in shared for each in group["params"])):
                raise OptionError(
                    f"adatask sends steps that are averages already (beta1={self.beta1}), and {name} would average "
                    f"them once more: leave momentum={momentum} out, or write adatask(beta1=0)"
                )

    def optimizer_for(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        if _is_sgd(optimizer):
            return optimizer
        form, kind = form_of(optimizer), type(optimizer).__name__
        if {name: getattr(self, name) for name in form} != form:
            wanted = ", ".join(f"{name}={value}" for name, value in form.items())
            raise OptionError(f"adatask is to divide as this {kind} does: write adatask({wanted})")
        return plain_sgd(optimizer)

    def weigh(self, seen: Seen, state: State) -> Balance:
        assert seen.rows is not None
        rows, sizes = seen.rows, like_rows(state.sizes, seen.rows, self.name)
        # What is made here is changed in place: another [T, P] takes longer to get than to fill.
        if self.form == "adagrad":
            state.sizes = sizes = torch.hypot(sizes, rows)
        else:
            state.sizes = sizes = (self.beta2**0.5 * sizes).hypot_((1 - self.beta2) ** 0.5 * rows)
        ones = torch.ones_like(seen.losses)
        if self.form != "adam":
            return Balance(ones, rows=rows / (sizes + self.epsilon))
        state.updates = state.updates + 1
        state.average = torch.lerp(like_rows(state.average, rows, self.name), rows, 1 - self.beta1)
        steps = state.average / (1 - self.beta1**state.updates)[:, None].to(rows)
        below = sizes / (1 - self.beta2**state.updates).sqrt()[:, None].to(rows)
        return Balance(ones, rows=steps.div_(below.add_(self.epsilon)))


def _is_sgd(optimizer: torch.optim.Optimizer) -> bool:
    """Torch's, or one of the same name that others wrote: in 8 bits, with decoupled decay."""
    return "sgd" in type(optimizer).__name__.lower()
