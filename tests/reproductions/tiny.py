"""A reproduction of minutes made into seconds: two studies of digits, of which one is tuned."""

from steelyard.reproductions.evidence import all_tasks, comparable, delta_p, standings, together
from steelyard.reproductions.reproduction import Experiment, Figures, Reproduction


def experiments(size):
    arms = "single-task,equal,uw,equal@mmoe(experts=2)"
    return (
        Experiment("Few labels", "by amount", "digits", arms, seeds=3, epochs=3, settings=(0.05, 0.2)),
        Experiment(
            "Tuned", "by rate", "digits", "single-task,equal,best-fixed(ratios=(3,))", seeds=2, epochs=2, tune=2
        ),
    )[: 1 if size == "quick" else 2]


def judge(outcomes):
    asked = {name: all_tasks(each.findings, "equal", each.judgement.methods) for name, each in outcomes.items()}
    parts = [comparable(f"On {name}: the plain sum", found) for name, found in standings(asked).items()]
    return [together("The plain sum is comparable to everything", parts)]


def figures(outcomes):
    rows = tuple((f"{name}, equal", "+1.15 ± .16", delta_p(each, "equal")) for name, each in outcomes.items())
    return [Figures("Δp", "%", rows, "Printed for another data set.")]


reproduction = Reproduction(
    name="tiny",
    title="a claim about digits",
    paper='Nobody, "Nothing", 2026.',
    claim="Sharing <is> harmless & cheap.",
    reconstructed="All of it.",
    experiments=experiments,
    judge=judge,
    takes={"quick": "1 s", "real": "1 min", "full": "days"},
    scope={"quick": "one study of two."},
    figures=figures,
)
