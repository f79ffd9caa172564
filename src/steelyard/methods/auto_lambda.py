"""Auto-λ: task weights learnt by looking one weighted step ahead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.base.learned import adam, declare_learned
from steelyard.base.lookahead import LookAhead, StepRule
from steelyard.base.observation import Seen
from steelyard.base.options import at_least, one_of
from steelyard.base.state import State
from steelyard.errors import UnknownNameError
from steelyard.methods.bases import check_main


class AutoLambda(Balancer):
    """Weights learn to lower the main losses on a second batch, one step of the weighted sum ahead.

    ``θ' = θ - η ∇ Σ_t λ_t L_t(θ)``; the derivative of the main losses at ``θ'`` by ``λ_t`` is ``-η ⟨∇L_t(θ), d⟩`` with
    ``d = ∇ Σ_main L_main(θ')`` on the second batch, taken as a finite difference along ``d``; Adam descends it.
    ``w_t = λ_t`` after Adam's step.

    Use it where tasks help one or several main tasks and their usefulness changes slowly: weights move by about
    ``weight_rate`` a step, so that they need thousands of steps from their start.

    Args:
        tasks: task names.
        main: the main task; ``None``: all tasks are.
        start: ``λ_0``, of every task.
        weight_rate: of ``λ``, for Adam.
        step: ``"plain"``, or through the attached ``"optimizer"``, as the authors' code steps with momentum and decay.
        common: the options of `Balancer`. ``learning_rate`` is ``η``, by default the attached optimizer's, else 1e-3.

    Errors: a call without ``again=`` or its held-out batch raises `MissingInputError`. Where no main task is in the
    held-out batch, or a look is not finite, weights hold still.

    Cost: per step two further backward and three further forward passes, and two further sets of parameters, whatever
    the number of tasks.

    Source: Liu, James, Davison, Johns, "Auto-Lambda: Disentangling Dynamic Task Relationships" (2022), arXiv
    2202.03091, with its authors' code. Deviations: absent tasks keep their weights and Adam moments; the plain step is
    the default, where that code adds SGD's momentum and weight decay; one main task or all, no other subset.

    Example:
        >>> model, x = torch.nn.Linear(1, 2), torch.ones(1, 1)
        >>> def losses_on(call, x):
        ...     return dict(zip("ab", (call(x)[0] - 3) ** 2))
        >>> balancer = steelyard.AutoLambda(["a", "b"], main="a", weight_rate=0.01)
        >>> again = steelyard.losses_of(model, losses_on, x, held_out=x)
        >>> _ = balancer(losses_on(model, x), again=again)
        >>> balancer.last_weights  # b, whose parameters are its own, is no help to a
        tensor([0.1100, 0.1000], dtype=torch.float64)
    """

    name = "auto-lambda"
    paper = "Liu, James, Davison, Johns (2022), arXiv 2202.03091"
    reads = "lookahead"
    needs_held_out = True
    signed_weights = True
    look_cost = "2 backwards, 3 forwards"

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        main: str | None = None,
        start: float = 0.1,
        weight_rate: float = 1e-4,
        step: StepRule = "plain",
        **common: Any,
    ) -> None:
        super().__init__(tasks, **common)
        if main is not None and main not in self.tasks:
            raise UnknownNameError("task", str(main), self.tasks, "It stands in main=.")
        self.main = main
        at_least("start", start, 0)
        at_least("weight_rate", weight_rate, 0, strictly=True)
        one_of("step", step, StepRule)
        self.weight_rate, self.step = weight_rate, step
        declare_learned(self, "lambdas", start)

    def check_tasks(self, tasks: Sequence[str]) -> None:
        if self.main is not None:
            check_main(self.name, self.main, tasks)

    def look_ahead(self, ahead: LookAhead, state: State) -> Tensor:
        mains = self.tasks if self.main is None else (self.main,)
        return ahead.slopes(state.lambdas, mains, self.current_learning_rate(), step=self.step)

    def weigh(self, seen: Seen, state: State) -> Tensor:
        assert seen.outlook is not None
        if bool(seen.outlook.isfinite().all()):
            adam(state, "lambdas", -self.current_learning_rate() * seen.outlook, self.weight_rate)
        return state.lambdas
