"""What is looked out for in the first steps: calls that run and balance nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from steelyard.balancing.heads_inside import Sharing, watch_sharing
from steelyard.balancing.observe import Shown
from steelyard.base.method import Method
from steelyard.base.observation import Reads, Seen
from steelyard.errors import AngleWarning, SharedError, warn
from steelyard.gradients.balanced_backward import goes_past, replaces_below
from steelyard.gradients.redirection import Target
from steelyard.gradients.shared_option import Place

ANGLE_LOOKS = 10
"""First steps in which a method that uses angles checks whether tasks share samples."""
REACH_LOOKS = 10
"""First steps that a task may go without a gradient at `shared=`, as behind a last layer that starts at zero."""
NESTED_LOOKS = 10
"""First steps in which it is checked where another balancer inside a loss replaces gradients."""
PAST_LOOKS = 2
"""First steps in which it is checked whether losses go past the features."""
LEARN_LOOKS = 10
"""Steps after which weights that an outside optimizer learns must have moved."""
RATE_LOOKS = 10
"""Steps in a row at rate 0, where another group is trained, until that is called a mistake."""
ALONE_LOOKS = 10
"""First batches that hold one task each, until that is called a loop of one task per batch."""


@dataclass
class FirstSteps:
    """What the first steps have shown, and what was said of it.

    Attributes:
        angle_looks: steps in which the angles were checked.
        reach_looks: steps in which it was checked that every task has a gradient.
        unreached: the tasks that had none in all of them.
        nested_looks: steps in which other balancers were looked for inside the losses.
        past_looks: steps in which ways past the features were looked for.
        sharing: which losses reach which parameters of the trunk; ``None`` once that is known.
        alone: the tasks of the first batches and their weights, as long as each held one alone; ``None`` once one
            held several.
        learned: of weights that an outside optimizer learns, what was counted of them when they were first used, and
            the versions that they then had; ``None`` before, and ``()`` once they have moved or it was said.
        still: first and last of the steps in a row in which learned weights followed a rate of 0 and others trained;
            ``None`` before, and ``()`` once it was said.
        spoiled_said: whether it has been said that finite losses had gradients that are not.
        eval_said: whether it has been said that a call in `eval()` mode balances nothing.
    """

    angle_looks: int = 0
    reach_looks: int = 0
    unreached: frozenset[str] = frozenset()
    nested_looks: int = 0
    past_looks: int = 0
    sharing: Sharing | None = field(default_factory=Sharing)
    alone: tuple[tuple[str, float], ...] | None = ()
    learned: tuple[int, ...] | None = None
    still: tuple[int, ...] | None = None
    eval_said: bool = False
    spoiled_said: bool = False

    def lasting(self) -> FirstSteps:
        """For a copy, which has parameters of its own."""
        return replace(self, learned=None, sharing=None if self.sharing is None else Sharing())

    def trunk(
        self, method: Method, tasks: Sequence[str], losses: Sequence[Tensor], place: Place | None, given: Any
    ) -> None:
        """Warn of heads inside of what is given as the trunk."""
        if method.whole_network or self.sharing is None or len(method.tasks) < 2:
            return
        if place is not None and place.is_trunk:
            self.sharing = watch_sharing(method, self.sharing, tasks, losses, place.tensors, given)

    def look(self, method: Method, shown: Shown) -> None:
        """Warn of gradients in which nothing can be seen."""
        self._angles(method, shown)
        self._reach(method, shown.seen)

    def _angles(self, method: Method, shown: Shown) -> None:
        """Of a Gramian that cannot show conflict."""
        gramian = shown.seen.gramian
        if shown.reading is None or gramian is None or not method.uses_angles or self.angle_looks >= ANGLE_LOOKS:
            return
        if len(shown.seen.tasks) > 1:
            self.angle_looks += 1
            if not shown.reading.angles_hold and disjoint(gramian):
                self.angle_looks = ANGLE_LOOKS
                warn_of_disjoint_samples(method)

    def _reach(self, method: Method, seen: Seen) -> None:
        """Of a task that `shared=` does not reach, where it reaches others."""
        if seen.squared_norms is None or len(seen.tasks) < 2 or self.reach_looks >= REACH_LOOKS:
            return
        still = {task for task, squared in zip(seen.tasks, seen.squared_norms.tolist(), strict=True) if squared == 0}
        self.unreached = frozenset(still) if self.reach_looks == 0 else self.unreached & still
        self.reach_looks = self.reach_looks + 1 if self.unreached else REACH_LOOKS
        if self.unreached and self.reach_looks == REACH_LOOKS and len(self.unreached) < len(seen.tasks):
            warn_of_unreached_tasks(method, sorted(self.unreached), REACH_LOOKS)

    def nested(self, method: Method, tasks: Sequence[str], losses: Sequence[Tensor], targets: Sequence[Target]) -> None:
        """Refuse to replace what arrives above the place where another balancer, inside a loss, does so in turn."""
        if self.nested_looks >= NESTED_LOOKS:
            return
        self.nested_looks += 1
        for task, loss in zip(tasks, losses, strict=True):
            if replaces_below(loss, targets):
                raise refused_nested(method, task)

    def past(self, method: Method, tasks: Sequence[str], losses: Sequence[Tensor], targets: Sequence[Target]) -> None:
        """Warn of losses that read the network in front of the features as well, where these are redirected."""
        if self.past_looks >= PAST_LOOKS:
            return
        self.past_looks += 1
        past = [task for task, loss in zip(tasks, losses, strict=True) if goes_past(loss, targets)]
        if past:
            self.past_looks = PAST_LOOKS
            warn_of_ways_past(method, past)

    def weigh(self, method: Method, seen: Seen, weights: Tensor, reads: Reads) -> None:
        """Of one task per batch where tasks are weighed against each other: every weight says nothing, in silence."""
        if self.alone is None or len(method.tasks) < 2 or method.memory != "none":
            return
        if len(seen.tasks) > 1 or _alone_means_something(method):
            self.alone = None
            return
        self.alone = alone = (*self.alone, (seen.tasks[0], float(weights)))
        if len(alone) < ALONE_LOOKS:
            return
        if len({task for task, _ in alone}) == 1:
            self.alone = alone[1:]
        elif lone(method, reads):
            raise refused_lone_tasks(method, len(alone))
        else:
            self.alone = None
            weights_seen = [weight for _, weight in alone]
            if max(weights_seen) - min(weights_seen) <= 1e-9 * max(weights_seen):
                warn_of_lone_tasks(method, len(alone), alone[0][1])

    def learning(self, method: Method, steps: int, begun: int) -> None:
        """Warn of weights that nobody learns: Parameters that were given to no optimizer.

        Args:
            steps: of the balancer.
            begun: steps of all optimizers there are.
        """
        versions = [each._version for each in method.parameters() if each.requires_grad]
        if self.learned == () or not versions:
            return
        if self.learned is None or self.learned[2:] != tuple(versions):
            self.learned = (steps, begun, *versions) if self.learned is None else ()
        elif steps - self.learned[0] >= LEARN_LOOKS and begun - self.learned[1] >= LEARN_LOOKS:
            self.learned = ()
            warn_of_weights_nobody_learns(method)

    def rate_of_zero(self, method: Method, steps: int, groups: Sequence[Mapping[str, Any]]) -> None:
        """Warn of weights that stand still because the group whose rate they follow is frozen by it."""
        others = [number for number, group in enumerate(groups) if float(group.get("lr", 0.0))]
        if self.still == () or not others:
            return
        first, last = self.still or (steps, steps)
        self.still = (first if steps <= last + method.every else steps, steps)
        if steps - self.still[0] >= RATE_LOOKS:
            self.still = ()
            warn_of_rate_of_zero(method, others[0], float(groups[others[0]]["lr"]))

    def spoiled(self, method: Method) -> None:
        """A step was left out for its gradients: say so once."""
        if not self.spoiled_said:
            warn_of_spoiled_gradients(method)
        self.spoiled_said = True

    def trained_in_eval(self, method: Method) -> None:
        """The backward of an `eval()` call has run: say once that nothing is balanced."""
        if not self.eval_said and method.name != "equal":
            warn_of_training_in_eval(method)
        self.eval_said = True


def _alone_means_something(method: Method) -> bool:
    """Whether a task's weight does not depend on the others."""
    return method.is_blind or (method.independent and method.scale == "paper")


def lone(method: Method, reads: Reads) -> bool:
    """Whether a task that is alone in its batch has a weight that says nothing: its gradient meets no other."""
    return method.memory != "rows" and reads in ("gramian", "cross_gramian", "rows")


def refused_lone_tasks(method: Method, steps: int) -> SharedError:
    """One task per batch, and a method that compares the gradients of several."""
    if method.reads == "cross_gramian" or "trunk" not in method.where:
        rows = ""
    else:
        rows = "make it with memory='rows' and pass shared=trunk (it keeps each task's last gradient, T x P numbers), "
    return SharedError(
        f"{method.name} compares the gradients of different tasks, and each of the first {steps} batches held one task "
        f"alone: {rows}put several tasks into a batch, or choose a method that reads losses or norms"
    )


def refused_nested(method: Method, task: str) -> SharedError:
    """What the inner one replaces it multiplies by what it received, which is not what this one gives the trunk."""
    weighted = "" if method.reads == "rows" else "make this one with heads='weighted', "
    return SharedError(
        f"{method.name}: the loss of {task!r} comes from another balancer, which replaces gradients further down in "
        f"the network than this one does, and would not follow the weights of this one there: {weighted}pass both the "
        "same features as shared=, or give all losses to one balancer"
    )


def warn_of_lone_tasks(method: Method, steps: int, weight: float) -> None:
    """One task per batch, and a method that weighs tasks against the others in the batch."""
    warn(
        f"{method.name} weighs tasks against the others in a batch, and each of the first {steps} batches held one "
        f"task alone: all had the weight {weight:g}. Make it with memory='numbers', which weighs a task against "
        "what was last seen of the others, or put several tasks into a batch",
    )


def warn_of_unreached_tasks(method: Method, tasks: Sequence[str], steps: int) -> None:
    """Their losses do not depend on what the others share, by mistake more often than not."""
    one = len(tasks) == 1
    warn(
        f"{method.name}: the gradient of {', '.join(map(repr, tasks))} at shared= was exactly zero in each of the "
        f"first {steps} steps, so {'it is' if one else 'they are'} not balanced: "
        f"{'its head reads' if one else 'their heads read'} something else (detached or other features, or shared= is "
        "the head of another task). Pass what all heads read, or the module that all tasks share",
    )


def warn_of_ways_past(method: Method, tasks: Sequence[str]) -> None:
    """What the balanced gradient replaces at the features is not all that these losses send to the trunk."""
    fixes = ["pass shared=trunk"] if "trunk" in method.where else []
    fixes += [] if method.reads == "rows" else ["make it with heads='weighted'"]
    warn(
        f"{method.name} with plain heads sends its direction through the features, and the loss of "
        f"{', '.join(map(repr, tasks))} reads what lies in front of them by another way too (an activation further in "
        "front, a derivative by the inputs), which is neither seen nor weighed: "
        f"{', or '.join(fixes) or 'choose a method that weighs the losses'}"
    )


def disjoint(gramian: Tensor) -> bool:
    """Whether two tasks that both have a gradient have an inner product of exactly zero: they share no samples."""
    moving = gramian.diagonal() > 0
    return bool(((gramian == 0) & moving[:, None] & moving).any())


def warn_of_disjoint_samples(method: Method) -> None:
    """Angles between such tasks mean nothing at the features."""
    warn(
        f"{method.name} uses the angles between task gradients, but at the features some tasks share no samples "
        "(their own inputs, disjoint labels, one task per batch): their inner products are exactly zero there, and "
        "conflict is invisible. Read the gradients at the last layer (look='last') or at the trunk (shared=trunk), or "
        "choose a method that reads losses or norms",
        AngleWarning,
    )


def warn_of_training_in_eval(method: Method) -> None:
    """Most often ``model.eval()``, to keep batch statistics still, and a balancer inside the model."""
    warn(
        f"{method.name} was called in eval() mode, where it returns the plain sum and balances nothing, and the "
        "backward of the result ran. If this is training, call balancer.train(); model.eval() reaches a balancer that "
        "is a part of the model: keep the balancer out of the model, or call balancer.train() after model.eval()"
    )


def warn_of_spoiled_gradients(method: Method) -> None:
    """Losses were finite and the gradients that arrived were not."""
    warn(
        f"{method.name}: the losses were finite and their gradients were not (sqrt or a logarithm at 0, an overflow in "
        "half precision), so the step was left out, as later ones like it will be. Find the cause: "
        "torch.autograd.set_detect_anomaly(True) names the operation"
    )


def warn_of_rate_of_zero(method: Method, other: int, rate: float) -> None:
    """Most often a backbone that is frozen by its rate and stands first in the optimizer."""
    warn(
        f"{method.name} learns at the rate of the optimizer's first group, param_groups[0], which was 0 in "
        f"{RATE_LOOKS} steps in a row while that of param_groups[{other}] was {rate:g}, so its weights stand still: "
        f"put a group that is trained first, or make it with a rate of its own, learning_rate={rate:g}"
    )


def warn_of_weights_nobody_learns(method: Method) -> None:
    """They are Parameters of the balancer, and the optimizer was made of the model's."""
    names = ", ".join(name for name, each in method.named_parameters() if each.requires_grad)
    warn(
        f"{method.name}: {names} did not move in {LEARN_LOOKS} steps, so the weights stay as they are: an outside "
        "optimizer is to learn them (learn='external') and does not have them. Give them to it, "
        "torch.optim.Adam([*model.parameters(), *balancer.parameters()]), or make the balancer with learn='inside'"
    )
