"""What is refused or warned of, and what to write instead: ``python tests/refusals.py`` writes docs/refused.md.

Every row is run: what was written must raise one of our errors, or give one of our warnings, and what stands beside it
must do neither. `test_refused.py` holds the page to what is said today.
"""

from __future__ import annotations

import contextlib
import functools
import io
import shlex
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import steelyard
from steelyard.cli import app
from steelyard.errors import SteelyardError, SteelyardWarning

PAGE = Path(__file__).parent.parent / "docs" / "refused.md"
TASKS = ["seg", "depth"]
HEAD = """# What is refused, and what to write instead

Written by `python tests/refusals.py` from the errors and warnings themselves: every line on the left has been run and
has said what stands beside it, every line on the right has been run and has said nothing. In them, `losses` maps the
tasks `"seg"` and `"depth"` to scalar tensors, `features` is what the heads read, `model` has the parts `encoder`,
`neck` and `heads`, `x` is a batch, `optimizer` steps the model, `make` is `steelyard.make` with these two tasks
(`make_once` makes one balancer for all turns of a loop). What several ranks are told is in
[distributed.md](distributed.md), what works with what in [works-with.md](works-with.md).
"""


@dataclass(frozen=True)
class Case:
    """One line that is refused or warned of, and one that is not; ``before`` has run in front of either."""

    wrote: str
    instead: str
    before: str = ""


SECTIONS: dict[str, list[Case]] = {
    "Losses": [
        Case("make('uw')(list(losses.values()))", "make('uw')(losses)"),
        Case("make('uw')(torch.stack(list(losses.values())))", "make('uw')(losses)"),
        Case("make('uw')({'segm': losses['seg']})", "make('uw')({'seg': losses['seg']})"),
        Case("make('uw')({'seg': torch.tensor(1.5).item()})", "make('uw')({'seg': losses['seg']})"),
        Case("make('uw')({'seg': losses['seg'], 'depth': 0.0})", "make('uw')({'seg': losses['seg'], 'depth': None})"),
        Case("make('uw')({'seg': losses['seg'].detach()})", "make('uw')({'seg': losses['seg']})"),
        Case("make('uw')({'seg': (features - 1) ** 2})", "make('uw')({'seg': ((features - 1) ** 2).mean()})"),
        Case("make('uw')({'seg': None, 'depth': None})", "make('uw')(losses)"),
        Case("make('uw')(losses, counts=torch.tensor([3, 4]))", "make('uw')(losses, counts={'seg': 3, 'depth': 4})"),
        Case(
            "make('uw')({'seg': steelyard.masked_mean(features.square(), features.detach().abs())})",
            "make('uw')({'seg': steelyard.masked_mean(features.square(), features < 9)})",
        ),
        Case("make('uw')({'seg': losses['seg'], 'depth': losses['seg']})", "make('uw')(losses)"),
        Case(
            "make('uw')({'seg': 0 * losses['seg'] - 1})",
            "make('mgda')({'seg': 0 * losses['seg'] - 1, 'depth': losses['depth']}, shared=features)",
        ),
        Case(
            "make('uw')({'seg': losses['seg'] * float('nan')})",
            "make('uw', on_nonfinite='skip_step')({'seg': losses['seg'] * float('nan')})",
        ),
    ],
    "Where it is called": [
        Case("with torch.no_grad(): make('uw')(model(x))", "with torch.no_grad(): make('uw').eval()(model(x))"),
        Case("losses['seg'].backward(); make('uw')(losses)", "make('uw')(losses).backward()"),
        Case("torch.func.vmap(lambda x: make('uw')(model(x)))(x)", "make('uw')(model(x))"),
        Case("make('uw')(model.to('meta')(x.to('meta')))", "make('uw').eval()(model.to('meta')(x.to('meta')))"),
        Case(
            "balancer(losses); balancer(losses)",
            "balancer(losses); balancer.observe(after=model(x)); balancer(losses)",
            "balancer = make('famo')",
        ),
        Case(
            "loss.backward(); loss.backward()",
            "loss.backward(retain_graph=True); loss.backward()",
            "loss = make('uw')(losses)",
        ),
        Case("balancer.last_weights", "balancer(losses); balancer.last_weights", "balancer = make('uw')"),
        Case("make('uw').observe(after=losses)", "make('famo').observe(after=losses)"),
        Case("make('famo').observe()", "make('famo').observe(after=losses)"),
    ],
    "shared=": [
        Case("make('mgda')(losses)", "make('mgda')(losses, shared=features)"),
        Case("make('mgda')(losses, shared=features.detach())", "make('mgda')(losses, shared=features)"),
        Case("make('mgda')(losses, shared=features * 1)", "make('mgda')(losses, shared=features)"),
        Case("make('mgda')(losses, shared=[features, 3])", "make('mgda')(losses, shared=[features])"),
        Case("make('mgda')(losses, shared=(features, features.tanh()))", "make('mgda')(losses, shared=features)"),
        Case("make('mgda')(losses, shared=[features, model.encoder])", "make('mgda')(losses, shared=model.encoder)"),
        Case("make('mgda')(losses, shared=losses['seg'])", "make('mgda')(losses, shared=features)"),
        Case(
            "z = torch.fft.rfft(features); make('graddrop')({'seg': z.abs().mean(), 'depth': z.real.mean()}, shared=z)",
            "parts = torch.view_as_real(torch.fft.rfft(features)); z = torch.view_as_complex(parts); "
            "make('graddrop')({'seg': z.abs().mean(), 'depth': z.real.mean()}, shared=parts)",
        ),
        Case("make('mgda')(losses, shared=nn.Linear(2, 2))", "make('mgda')(losses, shared=model.encoder)"),
        Case("make('mgda')(losses, shared=model.heads)", "make('mgda')(losses, shared=[model.encoder, model.neck])"),
        Case(
            "for _ in range(10): make_once('mgda')(losses, shared=model)",
            "for _ in range(10): make_once('mgda')(losses, shared=[model.encoder, model.neck])",
        ),
        Case(
            "make('mgda')(losses, shared=model.encoder.requires_grad_(False))",
            "make('mgda')(losses, shared=model.encoder)",
        ),
        Case("make('graddrop')(losses, shared=model.encoder)", "make('graddrop')(losses, shared=features)"),
        Case("make('moco')(losses, shared=features)", "make('moco')(losses, shared=model.encoder)"),
        Case("make('mgda', shared=features)", "make('mgda', shared=model.encoder)"),
        Case("make('uw', look='last')", "make('uw')"),
        Case("make('graddrop', look='last')(losses, shared=features)", "make('graddrop')(losses, shared=features)"),
        Case("make('mgda')(losses, shared=features, look='end')", "make('mgda')(losses, shared=features, look='last')"),
        Case("make('mgda')(losses, shared=model.encoder, look='features')", "make('mgda')(losses, shared=features)"),
        Case(
            "make('mgda')({'seg': features[:2].sum(), 'depth': features[2:].sum()}, shared=features)",
            "make('mgda')({'seg': features[:2].sum(), 'depth': features[2:].sum()}, shared=model.encoder)",
        ),
        Case(
            "for _ in range(10): make_once('mgda')({'seg': losses['seg'], 'depth': (x * w).sum()}, shared=features)",
            "for _ in range(10): make_once('mgda')(losses, shared=features)",
            "w = nn.Parameter(torch.ones(3))",
        ),
        Case(
            "make('pcgrad')({**losses, 'seg': make('db-mtl')(losses, shared=model.encoder)}, shared=model.encoder)",
            "make('pcgrad')({**losses, 'seg': make('db-mtl')(losses, shared=features)}, shared=features)",
        ),
        Case("read()", "model(x); read()", "read = steelyard.features_of(model.neck)"),
        Case(
            "first, second = model(x), model(-x); read()",
            "both = model(torch.cat([x, -x])); read()",
            "read = steelyard.features_of(model.neck)",
        ),
        Case(
            "read = steelyard.features_of(lstm); lstm(x); read()",
            "read = steelyard.features_of(lstm, pick=lambda output: output[0]); lstm(x); read()",
            "lstm = nn.LSTM(3, 4)",
        ),
    ],
    "One task per batch": [
        Case(
            "for k in range(10): make_once('mgda')({TASKS[k % 2]: losses[TASKS[k % 2]]}, shared=model.encoder)",
            "for k in range(10): make_once('mgda', memory='rows')({TASKS[k % 2]: losses[TASKS[k % 2]]}, "
            "shared=model.encoder)",
        ),
        Case(
            "for k in range(10): make_once('dwa')({TASKS[k % 2]: losses[TASKS[k % 2]]})",
            "for k in range(10): make_once('dwa', memory='numbers')({TASKS[k % 2]: losses[TASKS[k % 2]]})",
        ),
    ],
    "Names and options": [
        Case("make('emma')", "make('ema')"),
        Case("make('ema(bta=0.9)')", "make('ema(beta=0.9)')"),
        Case("make('ema(beta=1.5)')", "make('ema(beta=0.9)')"),
        Case("make('ema(0.9)')", "make('ema(beta=0.9)')"),
        Case("make('logg+ema')", "make('log+equal')"),
        Case("steelyard.make('uw', 'seg')", "steelyard.make('uw', ['seg'])"),
        Case("steelyard.make('uw', ['seg', 'seg'])", "steelyard.make('uw', ['seg', 'seg 2'])"),
        Case("steelyard.make('uw', ['seg', 'depth,near'])", "steelyard.make('uw', ['seg', 'depth-near'])"),
        Case("make('uw', priorities={'segm': 2.0})", "make('uw', priorities={'seg': 2.0})"),
        Case("make('uw', on_nonfinite='skip')", "make('uw', on_nonfinite='skip_step')"),
        Case("make('uw', heads='plane')", "make('uw', heads='plain')"),
        Case("make('uw', floor=2.0, cap=1.0)", "make('uw', floor=1.0, cap=2.0)"),
        Case("make('uw', every=0)", "make('uw', every=1)"),
        Case("make('graddrop', every=3)", "make('graddrop')"),
        Case("make('mgda', memory='numbers')", "make('mgda', memory='rows')"),
        Case("make('uw', sync='local-mean')", "make('uw')"),
        Case("make('ol-aux')", "make('ol-aux', main='seg')"),
    ],
    "Optimizers and checkpoints": [
        Case("make('uw').attach(model.parameters())", "make('uw').attach(optimizer)"),
        Case(
            "make('adatask').attach(optimizer)",
            "optimizer = make('adatask').optimizer_for(optimizer); make('adatask').attach(optimizer)",
        ),
        Case(
            "make('dwa').load_state_dict(saved)", "make('uw').load_state_dict(saved)", "saved = make('uw').state_dict()"
        ),
        Case(
            "steelyard.make('uw', ['seg', 'depth', 'normals']).load_state_dict(saved)",
            "steelyard.make('uw', ['depth', 'seg']).load_state_dict(saved)",
            "saved = make('uw').state_dict()",
        ),
        Case(
            "optimizer.load_state_dict(saved); make('uw').attach(optimizer)(losses)",
            "make('uw').attach(optimizer); optimizer.load_state_dict(saved)",
            "saved = trained('uw')",
        ),
        Case(
            "make('dwa').attach(optimizer); optimizer.load_state_dict(saved)",
            "make('uw').attach(optimizer); optimizer.load_state_dict(saved)",
            "saved = trained('uw')",
        ),
        Case(
            "plain = optimizer.state_dict(); make('uw').attach(optimizer); optimizer.load_state_dict(plain)",
            "make('uw').attach(optimizer); optimizer.load_state_dict(saved)",
            "saved = trained('uw')",
        ),
        Case(
            "balancer.set_tasks(['seg'])",
            "balancer.discard(); balancer.set_tasks(['seg'])",
            "balancer = make('uw').attach(optimizer); loss = balancer(losses)",
        ),
    ],
}

COMMANDS = {
    "steelyard compare digit": "steelyard compare digits",
    "steelyard compare digits --methods emma": "steelyard compare digits --methods ema",
    "steelyard compare digits --seeds 0": "steelyard compare digits --seeds 3",
    "steelyard compare digits --fractions 2": "steelyard compare digits --fractions 0.5",
    "steelyard report nowhere.sqlite": "steelyard report digits.sqlite",
}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.neck = nn.Linear(3, 4), nn.Linear(4, 4)
        self.heads = nn.ModuleDict({task: nn.Linear(4, 1) for task in TASKS})

    def losses_at(self, features: Tensor) -> dict[str, Tensor]:
        return {task: (head(features) - 1).square().mean() for task, head in self.heads.items()}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.losses_at(self.neck(self.encoder(x).tanh()).tanh())


def names() -> dict[str, Any]:
    """What a line may use; the same in every run."""
    torch.manual_seed(0)
    model, x = Model(), torch.linspace(-1, 1, 15).reshape(5, 3)
    features = model.neck(model.encoder(x).tanh()).tanh()
    kept: dict[str, steelyard.Balancer] = {}

    def make(method: str, **options: Any) -> steelyard.Balancer:
        return steelyard.make(method, TASKS, **options)

    def make_once(method: str, **options: Any) -> steelyard.Balancer:
        return kept.setdefault(method, make(method, **options))

    def trained(method: str) -> dict[str, Any]:
        """The checkpoint of an optimizer that a balancer was attached to."""
        twin = Model()
        twin_optimizer = torch.optim.Adam(twin.parameters())
        balancer = make(method).attach(twin_optimizer)
        for _ in range(20):
            balancer(twin(x)).backward()
            twin_optimizer.step()
        return twin_optimizer.state_dict()

    return {
        "torch": torch, "nn": nn, "steelyard": steelyard, "TASKS": TASKS, "model": model, "x": x, "features": features,
        "losses": model.losses_at(features), "optimizer": torch.optim.Adam(model.parameters()), "make": make,
        "make_once": make_once, "trained": trained,
    }  # fmt: skip


@functools.cache
def said(before: str, line: str) -> str:
    """What a line is told: the error's or the warning's name and words; nothing where it runs."""
    given = names()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(before, given)
        try:
            exec(line, given)
        except SteelyardError as error:
            return f"**{type(error).__name__}**: {error}"
    ours = [each for each in caught if issubclass(each.category, SteelyardWarning)]
    return f"**{ours[0].category.__name__}**: {ours[0].message}" if ours else ""


def said_by_command(line: str) -> tuple[int, str]:
    """The exit code of a command, and its words."""
    error, given, code = io.StringIO(), sys.argv, 0
    with contextlib.redirect_stderr(error):
        try:
            sys.argv = shlex.split(line)
            app.main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.argv = given
    return code, error.getvalue().strip().removeprefix("Error: ")


def page() -> str:
    blocks = [HEAD]
    for title, cases in SECTIONS.items():
        rows = [(case.before, case.wrote, said(case.before, case.wrote), case.instead) for case in cases]
        lines = [
            f"| {_code(f'{before}; {wrote}' if before else wrote)} | {_text(words)} | {_code(instead)} |"
            for before, wrote, words, instead in rows
        ]
        blocks.append("\n".join([f"## {title}\n", "| You wrote | It says | Write |", "|---|---|---|", *lines, ""]))
    lines = [
        f"| {_code(line)} | {_text(said_by_command(line)[1])} | {_code(instead)} |"
        for line, instead in COMMANDS.items()
    ]
    heading = ["## The command\n", "| You typed | It says, and ends with 2 | Type |", "|---|---|---|"]
    blocks.append("\n".join([*heading, *lines, ""]))
    return "\n".join(blocks)


def _code(text: str) -> str:
    return f"`{_text(text)}`"


def _text(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
