"""Asymmetric transfer: the papers' equations, what gradients do to rows, and whole studies on top of it."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import steelyard
from steelyard.errors import LossError, OptionError, UnknownNameError
from steelyard.models import ArchitectureError, AsymmetricTransfer, build
from steelyard.problems import Data, Problem, Split, binary, load_problem, regression
from steelyard.study.training.batch import recompute
from steelyard.study.training.diagnose_training import diagnose_training
from steelyard.study.training.hardware import ON_CPU
from steelyard.study.training.sampling import batches
from steelyard.study.training.train import train
from steelyard.study.trial import Trial

SIZES = {"a": 1, "b": 3, "c": 1}
FORMS = ["none", "data", "log1p", "detached", "tugda"]
PRICED = ["data", "log1p", "detached"]


def made(uncertainty="none", **options):
    torch.manual_seed(0)
    transfer = AsymmetricTransfer(SIZES, 6, uncertainty=uncertainty, **options).double()
    with torch.no_grad():
        transfer.rows.normal_()
        transfer.offset.normal_()
        if uncertainty != "none":
            transfer.log_variance.copy_(torch.tensor([-1.0, 0.2, 0.8]))
    return transfer


def seen(rows=7):
    generator = torch.Generator().manual_seed(1)
    h = torch.randn(rows, 6, generator=generator, dtype=torch.float64)
    outputs = {task: torch.randn(rows, n, generator=generator, dtype=torch.float64) for task, n in SIZES.items()}
    losses = dict(zip(SIZES, torch.tensor([0.3, 2.0, 0.05], dtype=torch.float64).unbind(), strict=True))
    return h, outputs, losses


def written_out(transfer, h, outputs, losses, heads, trunk, counts):
    """The objective of Lee, Yang, Hwang (2018), term by term in plain loops."""
    total, mean = 0.0, sum(counts.values()) / len(counts)
    A, c = transfer.rows, transfer.offset
    owners = [task for task, size in SIZES.items() for _ in range(size)]
    for t, task in enumerate(SIZES):
        n_t = math.sqrt(counts[task] / mean)
        norm = sum(abs(A[k, i].item()) for k in range(5) for i in range(6) if owners[k] == task)
        loss = losses[task].item()
        if transfer.uncertainty != "none":
            variance = math.exp(transfer.log_variance[t].item())
        if transfer.uncertainty == "none":
            total += (1 + 0.1 * norm) * (loss + 0.001 / n_t)
        elif transfer.uncertainty == "data":
            total += loss / variance + math.log(variance) + 0.001 / n_t + 0.1 * norm * (loss / variance + 0.001 / n_t)
        elif transfer.uncertainty == "tugda":
            total += (1 + 0.1 * norm) * (loss / variance + math.log(variance))
        elif transfer.uncertainty == "log1p":
            total += (1 + 0.1 * norm) * (loss / variance + math.log(1 + variance) + 0.001 / n_t)
        else:
            total += loss / variance + math.log(variance) + 0.001 / n_t + 0.1 * norm * (variance + 0.001 / n_t)
    for b in range(len(h)):
        o = [outputs[task][b, j].item() for task, size in SIZES.items() for j in range(size)]
        for i in range(6):
            rebuilt = max(0.0, sum(o[k] * A[k, i].item() for k in range(5)) + c[i].item())
            total += 0.01 * (h[b, i].item() - rebuilt) ** 2 / len(h)
    total += 1e-4 * sum(abs(w.item()) for head in heads for w in head.weight.flatten())
    total += 1e-4 * 0.5 * sum(w.item() ** 2 for p in trunk.parameters() for w in p.flatten())
    return total


@pytest.mark.parametrize("uncertainty", FORMS)
def test_the_objective_is_the_papers(uncertainty):
    counts = {"a": 200, "b": 20, "c": 110}
    transfer = made(uncertainty, counts=counts)
    h, outputs, losses = seen()
    heads, trunk = [nn.Linear(6, size).double() for size in SIZES.values()], nn.Linear(4, 6).double()
    total = sum(transfer.reweigh(losses).values()) + transfer.penalty(h, outputs, heads, trunk)
    expected = written_out(transfer, h, outputs, losses, heads, trunk, counts)
    assert total.item() == pytest.approx(expected, rel=1e-7)  # the counts' floor is kept in float32


def test_the_objective_of_tugda_is_that_of_its_code():
    """Term by term: factor 1 + U + Σ|A|, a mean over features, norms of the trunk's weights that are not squared."""
    transfer = made("tugda", alpha=1.0, gamma=1e-4 / 6, mu=0.01, decay=0.001, norms="plain")
    h, outputs, losses = seen()
    heads = [nn.Linear(6, size).double() for size in SIZES.values()]
    trunk = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6)).double()
    spread = dict(zip(SIZES, torch.tensor([0.1, 0.4, 0.02], dtype=torch.float64), strict=True))
    total = sum(transfer.reweigh(losses, spread).values()) + transfer.penalty(h, outputs, heads, trunk)
    expected = 1e-4 * float((h - transfer.rebuild(outputs)).square().mean())
    for place, (task, rows) in enumerate(zip(SIZES, transfer.rows.split(list(SIZES.values())), strict=True)):
        s = float(transfer.log_variance[place])
        expected += (1 + float(spread[task]) + float(rows.abs().sum())) * (float(losses[task]) * math.exp(-s) + s)
    expected += 0.01 * sum(float(head.weight.abs().sum()) for head in heads)
    expected += 0.001 * sum(math.sqrt(float(layer.weight.square().sum())) for layer in trunk)
    assert total.item() == pytest.approx(expected, rel=1e-12)
    with pytest.raises(UnknownNameError, match="Did you mean 'plain'"):
        made(norms="plane")


@pytest.mark.parametrize("uncertainty", FORMS)
def test_gradients_are_right(uncertainty):
    transfer = made(uncertainty)
    h, outputs, losses = seen(rows=3)
    names = list(dict(transfer.named_parameters()))

    def objective(h, *parameters):
        class Both(nn.Module):
            def __init__(self):
                super().__init__()
                self.transfer = transfer

            def forward(self):
                return sum(transfer.reweigh(losses).values()) + transfer.penalty(h, outputs)

        return torch.func.functional_call(Both(), {f"transfer.{n}": p for n, p in zip(names, parameters, strict=True)})

    inputs = [h.requires_grad_(), *(p.detach().clone().requires_grad_() for p in transfer.parameters())]
    if uncertainty == "detached":  # the noise that prices rows is a constant there
        inputs = [x.detach() if n == "log_variance" else x for n, x in zip(["h", *names], inputs, strict=True)]
        (slope,) = torch.autograd.grad(sum(transfer.reweigh(losses).values()), transfer.log_variance)
        L = torch.stack(list(losses.values()))
        torch.testing.assert_close(slope, 1 - (-transfer.log_variance.detach()).exp() * L)
    assert torch.autograd.gradcheck(objective, inputs)


@pytest.mark.parametrize("uncertainty", [form for form in FORMS if form != "tugda"])  # of which the next test is
@pytest.mark.parametrize("log_variance", [-8.0, 0.0, 8.0])
def test_a_larger_transfer_is_never_rewarded(uncertainty, log_variance):
    transfer = made(uncertainty)
    if uncertainty != "none":
        transfer.log_variance.data.fill_(log_variance)
    losses = {"a": torch.zeros(()), "b": torch.tensor(1e-6), "c": torch.tensor(10.0)}
    for task, loss in transfer.reweigh(losses).items():
        (slope,) = torch.autograd.grad(loss, transfer.rows, retain_graph=True)
        assert (slope * transfer.rows.sign() >= 0).all(), task
        if uncertainty in ("none", "log1p"):
            assert loss > 0


def test_the_form_of_the_abstract_would_reward_it():
    """Why there are three others: with ``e^{-s} L + s`` as the price, a small loss makes a larger row cheaper."""
    published = made("tugda")
    published.log_variance.data.fill_(-3.0)
    (slope,) = torch.autograd.grad(published.reweigh({"a": torch.tensor(0.05)})["a"], published.rows)
    assert (slope[0] * published.rows[0].sign() < 0).all()
    transfer, loss = made("data"), torch.tensor(0.05, dtype=torch.float64)
    s = loss.log()  # where it settles
    price = (-s).exp() * loss + s
    (slope,) = torch.autograd.grad((1 + 0.1 * transfer.transferred()[0]) * price, transfer.rows)
    assert (slope * transfer.rows.sign() < 0).any()


def test_settled_data_prices_are_the_same_for_all_tasks_and_settled_log1p_prices_keep_the_order_of_losses():
    """At the best ``s`` the data term is 1, whatever the loss: a price of transfer, and the same for all tasks."""
    L = torch.tensor([0.01, 0.5, 4.0], dtype=torch.float64)
    settled = {"data": L, "log1p": (L + (L.square() + 4 * L).sqrt()) / 2}  # the variances
    prices = {}
    for form, variance in settled.items():
        transfer = made(form, alpha=1.0)
        transfer.rows.data.fill_(1e-12)
        transfer.floor.zero_()
        transfer.log_variance.data.copy_(variance.log())
        total = sum(transfer.reweigh(dict(zip(SIZES, L.unbind(), strict=True))).values())
        by_row, by_variance = torch.autograd.grad(total, [transfer.rows, transfer.log_variance])
        torch.testing.assert_close(by_variance, torch.zeros_like(L), rtol=0, atol=1e-9)
        prices[form] = by_row[[0, 1, 4], 0]
    torch.testing.assert_close(prices["data"], torch.ones_like(L))
    assert (prices["log1p"].diff() > 0).all()
    assert prices["log1p"][2] > 10 * prices["log1p"][0]


@pytest.mark.parametrize("uncertainty", ["none", "log1p", "detached"])
def test_a_task_with_a_large_loss_gives_less(uncertainty):
    """Three tasks of one number; the third cannot be learnt, and its row shrinks most."""
    torch.manual_seed(0)
    tasks = {"easy": 1, "other": 1, "noise": 1}
    x = torch.randn(256, 5)
    targets = {"easy": x[:, 0], "other": x[:, 1], "noise": 3 * torch.randn(256)}
    trunk, heads = nn.Sequential(nn.Linear(5, 8), nn.ReLU()), {task: nn.Linear(8, 1) for task in tasks}
    transfer = AsymmetricTransfer(tasks, 8, uncertainty=uncertainty)
    with torch.no_grad():
        transfer.rows.fill_(0.3)
    parameters = [p for module in (trunk, transfer, *heads.values()) for p in module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-2)
    for _ in range(250):
        h = trunk(x)
        outputs = {task: head(h) for task, head in heads.items()}
        losses = {task: F.mse_loss(outputs[task][:, 0], targets[task]) for task in tasks}
        loss = sum(transfer.reweigh(losses).values()) + transfer.penalty(h, outputs, heads.values(), trunk)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    gives = transfer.transferred()
    assert losses["easy"] < 0.2 < losses["noise"]
    assert gives[2] < 0.5 * gives[:2].min()


def test_absent_tasks_and_label_counts_and_the_spread():
    transfer = made(alpha=0.5)
    losses = {"a": torch.tensor(2.0), "b": None, "c": steelyard.masked_mean(torch.ones(4), torch.ones(4) > 0)}
    reweighed = transfer.reweigh(losses)
    assert list(reweighed) == ["a", "c"]
    assert reweighed["c"].label_count == 4
    dearer = transfer.reweigh(losses, spread={"a": torch.tensor(0.25)})
    assert dearer["c"] == reweighed["c"]
    assert (dearer["a"] - reweighed["a"]).item() == pytest.approx(0.25 * 2.001)
    assert list(transfer.reweigh({})) == []


def test_looking_at_one_task_walks_one_head():
    """Losses stay apart: a gradient of one leaves the other heads alone."""
    calls = []
    h = torch.randn(4, 6, requires_grad=True)
    heads = {task: nn.Linear(6, size) for task, size in SIZES.items()}
    outputs = {task: head(h) for task, head in heads.items()}
    for task, output in outputs.items():
        output.register_hook(lambda gradient, task=task: calls.append(task))
    reweighed = AsymmetricTransfer(SIZES, 6).reweigh({t: output.square().mean() for t, output in outputs.items()})
    torch.autograd.grad(reweighed["b"], h, retain_graph=True)
    assert calls == ["b"]


def test_without_activation_negative_features_can_be_rebuilt():
    transfer = made(activation="none")
    h, outputs, _ = seen()
    expected = torch.cat(list(outputs.values()), 1) @ transfer.rows + transfer.offset
    assert torch.equal(transfer.rebuild(outputs), expected)
    assert (made().rebuild(outputs) == expected.relu()).all()
    assert transfer.penalty(h, outputs).item() == pytest.approx(0.01 * (h - expected).square().sum(1).mean().item())


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda t: t.reweigh({"a": torch.tensor(-0.5)}), LossError, "loss of 'a' is -0.5.*shift it above zero"),
        (lambda t: t.reweigh({"d": torch.tensor(0.5)}), UnknownNameError, "unknown task 'd'"),
        (lambda t: t.count({"a": 3, "b": 0, "c": 1}), OptionError, "no positive number for 'b'"),
        (lambda t: t.rebuild({"a": torch.ones(2, 1)}), OptionError, "outputs of 'b' are missing"),
        (
            lambda t: t.penalty(torch.ones(2, 9), {"a": torch.ones(2), "b": torch.ones(2, 3)}),
            OptionError,
            r"features have the shape \[2, 9\]",
        ),
        (lambda t: t.rebuild({"a": torch.ones(2, 4)}), OptionError, r"'a' have the shape \[2, 4\], not \[rows, 1\]"),
        (lambda t: t.penalty(*seen()[:2], heads=[nn.ReLU()]), OptionError, "no weight that could be sparse: set mu=0"),
        (lambda t: AsymmetricTransfer({"a": 0}, 6), OptionError, "a=0 must be a whole number"),
        (lambda t: AsymmetricTransfer({"a": 1}, 6, uncertainty="log"), UnknownNameError, "Did you mean 'log1p'"),
        (lambda t: AsymmetricTransfer({"a": 1}, 6, speed=10.0), OptionError, "speed=10 is of a learnt uncertainty"),
    ],
)
def test_mistakes_are_named(wrong, error, message):
    with pytest.raises(error, match=message):
        wrong(made())


def test_it_is_a_public_name():
    assert steelyard.AsymmetricTransfer is AsymmetricTransfer


# --- the architecture, in studies ---


def problem(dropout=0.0, gaps=False):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(96, 6, generator=generator)
    targets = {"size": x[:, 0] - x[:, 1], "sign": (x[:, 2] > 0.8).float()}
    if gaps:
        targets["size"] = targets["size"].where(torch.arange(96) % 3 > 0, torch.nan)
    split = Split(x, targets)
    return Problem(
        "made",
        tasks=[regression("size"), binary("sign")],
        load=lambda: Data(split, split, split),
        trunk=lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(dropout)),
        head=lambda task: nn.Linear(16, 1),
        batch_size=32,
    )


def trial(architecture, method="equal", fractions=(("sign", 1.0), ("size", 1.0)), epochs=4, **options):
    options = {"scale": "sum", "architecture": architecture, **options}
    return Trial("made", method, ("size", "sign"), 1, fractions, epochs, 32, **options)


def test_a_trial_is_the_plain_loop_with_price_and_penalty():
    made, planned = problem(), trial("amtfl(uncertainty=none)", epochs=1)
    found = train(planned, made)
    network = build(made, made.task_names, 1, "amtfl(uncertainty=none)")
    network.before_training(made.data().train.targets)
    optimizer, losses_seen = made.optimizer(network.parameters()), []
    for rows in batches(torch.ones(96) > 0, 32, seed=1, epoch=1):
        outputs, h = network(made.data().train.inputs[rows])
        losses = {t.name: t.loss(outputs[t.name], made.data().train.targets[t.name][rows]) for t in made.tasks}
        A = network.transfer.rows
        loss = sum((1 + 0.1 * A[k].abs().sum()) * (losses[t] + 0.001) for k, t in enumerate(losses))
        rebuilt = (torch.cat([outputs["size"], outputs["sign"]], 1) @ A + network.transfer.offset).relu()
        loss = loss + 0.01 * (h - rebuilt).square().sum(1).mean()
        loss = loss + 1e-4 * sum(head.weight.abs().sum() for head in network.heads)
        loss = loss + 0.5e-4 * sum(p.square().sum() for p in network.trunk.parameters())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses_seen.append([loss.item() for loss in losses.values()])
    means = torch.tensor(losses_seen).mean(0).tolist()
    assert [found.curves.losses[t][0] for t in made.task_names] == pytest.approx(means, rel=1e-5)  # raw ones


@pytest.mark.parametrize("uncertainty", FORMS)
@pytest.mark.parametrize("method", ["equal", "uw", "mgda", "famo", "modo"])
def test_any_method_runs_on_top(method, uncertainty):
    if method == "uw" and uncertainty in ("data", "detached"):
        pytest.skip("uw needs losses above zero")
    shared = "trunk" if method == "modo" else "features"
    found = train(trial(f"amtfl(uncertainty={uncertainty})", method, epochs=3, shared=shared), problem(gaps=True))
    assert found.curves.losses["sign"][-1] < found.curves.losses["sign"][0]


@pytest.mark.parametrize("where", ["features", "trunk"])
def test_price_and_penalty_reach_the_trunk_next_to_a_direction(where):
    """Plain heads replace what arrives at the features; the penalty's part of it is kept."""
    made = problem()
    network = build(made, made.task_names, 0, "amtfl(decay=0.5,gamma=1.0)").double()
    inputs = made.data().train.inputs.double()

    def step():
        outputs, h = network(inputs)
        targets = made.data().train.targets
        losses = {t.name: t.loss(outputs[t.name], targets[t.name].double()) for t in made.tasks}
        return network.reweigh(losses, outputs, h), network.penalty(outputs, h), h

    parameters = list(network.trunk.parameters())
    balancer = steelyard.make("pcgrad", made.task_names)
    losses, penalty, h = step()
    expected = torch.autograd.grad(penalty, parameters, retain_graph=True)
    alone = torch.autograd.grad(
        balancer(losses, shared=h if where == "features" else network.trunk), parameters, retain_graph=True
    )
    losses, penalty, h = step()
    loss = steelyard.make("pcgrad", made.task_names)(losses, shared=h if where == "features" else network.trunk)
    (loss + penalty).backward()
    for parameter, first, second in zip(parameters, alone, expected, strict=True):
        torch.testing.assert_close(parameter.grad, first + second, rtol=1e-5, atol=1e-7)


def test_looking_again_uses_the_price_and_the_given_parameters():
    made = problem(dropout=0.5)
    network, tasks = build(made, made.task_names, 0, "amtfl(passes=3)"), list(made.tasks)
    data = made.data().train
    targets = {t.name: (data.targets[t.name], None) for t in tasks}
    state = ON_CPU.random_state()
    outputs, h = network(data.inputs)
    plain = {t.name: t.loss(outputs[t.name], data.targets[t.name]) for t in tasks}
    first = network.reweigh(plain, outputs, h)
    again = recompute(network, tasks, data.inputs, targets, state)
    assert {t: loss.item() for t, loss in again().items()} == {t: loss.item() for t, loss in first.items()}
    rows = network.transfer.rows
    dearer = again({"network.transfer.rows": rows + 1})
    assert all(dearer[task] > first[task] for task in dearer)
    assert torch.equal(network.transfer.rows, rows)


def test_counts_follow_the_labels_that_are_kept():
    made, kept = problem(), {"size": 1.0, "sign": 0.25}
    network = build(made, made.task_names, 0, "amtfl")
    targets = made.data().train.targets
    network.before_training({task: targets[task][: round(96 * kept[task])] for task in kept})
    n = torch.tensor([96 / 60, 24 / 60]).sqrt()
    torch.testing.assert_close(network.transfer.floor, 0.001 / n)
    both = [train(trial("amtfl", fractions=(("sign", f), ("size", 1.0))), problem()) for f in (1.0, 0.25)]
    assert both[0].curves.losses != both[1].curves.losses

    binary_only = build(made, made.task_names, 0, "amtfl(counts=positives)")
    with pytest.raises(OptionError, match="labels of 'size' are not all 0 or 1: write counts=labels"):
        binary_only.before_training(targets)
    assert binary_only._number("sign", targets["sign"]) == int(targets["sign"].sum()) < 96


def test_dropout_passes_are_averaged_and_their_variance_makes_a_task_dearer():
    made = problem(dropout=0.5)
    network = build(made, made.task_names, 0, "amtfl(passes=4,uncertainty=none,alpha=0.0)")
    inputs = made.data().train.inputs
    outputs, shared = network(inputs)
    assert shared.shape == (4, 96, 16)
    each = torch.stack([network.heads[0](shared[n]) for n in range(4)])
    torch.testing.assert_close(outputs["size"], each.mean(0))
    reweighed = network.reweigh({"size": torch.tensor(2.0)}, outputs, shared)
    assert reweighed["size"].item() == pytest.approx((1 + each.var(0).mean().item()) * 2.001, rel=1e-5)
    assert network.penalty(outputs, shared).item() > 0
    assert network.eval()(inputs)[1].shape == (96, 16)
    found = train(trial("amtfl(passes=4)", "mgda"), made)
    assert all(math.isfinite(loss) for losses in found.curves.losses.values() for loss in losses)


def test_dense_outputs_are_refused():
    made = problem()
    made.head = lambda task: nn.Unflatten(1, (4, 4))
    with pytest.raises(ArchitectureError, match=r"task 'size' puts out \[4, 4\] numbers per row"):
        build(made, made.task_names, 0, "amtfl")


def test_a_stopped_trial_resumes_to_the_last_bit(tmp_path):
    planned, path = trial("amtfl(uncertainty=log1p)", "uw"), tmp_path / "t.pt"

    def stop(epoch):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(planned, problem(), path, stop, checkpoint_seconds=0)
    resumed, whole = train(planned, problem(), path), train(planned, problem())
    assert (resumed.curves, resumed.test) == (whole.curves, whole.test)


def test_diagnosis_sees_what_a_balancer_sees():
    course = diagnose_training(load_problem("digits"), epochs=1, architecture="amtfl(uncertainty=none)")
    plain = diagnose_training(load_problem("digits"), epochs=1)
    assert course.whole.losses.sum() > plain.whole.losses.sum()  # prices are on top


@pytest.mark.parametrize("uncertainty", ["data", "log1p", "detached", "tugda"])
def test_speed_is_that_of_the_uncertainty_under_adam_and_changes_nothing_else(uncertainty):
    """Its first step is so many times the rate; where it stands for the same uncertainty, losses are the same."""
    found = {}
    for speed in (1.0, 100.0):
        transfer = AsymmetricTransfer({"a": 1, "b": 1}, 3, uncertainty=uncertainty, speed=speed)
        with torch.no_grad():
            transfer.rows.fill_(0.1)
            transfer.log_variance.copy_(torch.tensor([0.4, -0.3]) / speed)
        optimizer = torch.optim.Adam(transfer.parameters(), lr=1e-4)
        reweighed = transfer.reweigh({"a": torch.tensor(2.0), "b": torch.tensor(0.1)})
        before = speed * transfer.log_variance.detach().clone()
        sum(reweighed.values()).backward()
        optimizer.step()
        step = (speed * transfer.log_variance.detach() - before).abs()
        found[speed] = torch.stack(list(reweighed.values())).detach(), transfer.rows.detach().clone()
        torch.testing.assert_close(step, torch.full((2,), 1e-4 * speed), rtol=1e-3, atol=0)
    for slow, fast in zip(found[1.0], found[100.0], strict=True):
        torch.testing.assert_close(slow, fast)
    with pytest.raises(OptionError, match="speed must be greater than 0"):
        AsymmetricTransfer({"a": 1}, 3, speed=0.0)


def test_it_starts_as_a_linear_layer_of_all_outputs_where_that_is_asked():
    """As TUGDA, whose `A` is an nn.Linear from 100 outputs to 700 features: each row sums to 35, against 6 to 7."""
    torch.manual_seed(0)
    outputs = {f"t{place}": 1 for place in range(100)}
    linear, normal = (AsymmetricTransfer(outputs, 700, start=start) for start in ("linear", "normal"))
    of_torch = torch.nn.Linear(100, 700)
    for ours, theirs in ((linear.rows, of_torch.weight), (linear.offset, of_torch.bias)):
        assert float(ours.abs().max()) <= 0.1
        assert float(ours.std()) == pytest.approx(float(theirs.std()), rel=0.05)
        assert float(ours.mean()) == pytest.approx(0.0, abs=0.01)
    assert float(linear.transferred().mean()) == pytest.approx(35.0, rel=0.02)
    assert float(normal.transferred().mean()) == pytest.approx(700 * 0.01 * (2 / torch.pi) ** 0.5, rel=0.02)
    assert not normal.offset.any()
    with pytest.raises(UnknownNameError, match="unknown value of start 'glorot'"):
        AsymmetricTransfer({"a": 1}, 3, start="glorot")
