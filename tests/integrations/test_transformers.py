"""The Hugging Face Trainer trains as the plain loop does: a tiny transformer with two heads on generated sequences."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

transformers = pytest.importorskip("transformers", reason="transformers is not installed: make test-integrations")
pytest.importorskip("accelerate", reason="accelerate is not installed: make test-integrations")

import steelyard
from steelyard.errors import LossError, OptionError
from steelyard.integrations.transformers import STATE_FILE, BalancedTrainer
from steelyard.testing.toy import same_state, snapshot
from two_tasks import same

HERE = Path(__file__).parent
TASKS = ["count", "first"]
BATCH, SAMPLES, LENGTH, TOKENS = 4, 32, 8, 11


class TwoHeads(transformers.PreTrainedModel):
    """How many tokens are even (a regression), and which comes first (a classification)."""

    config_class = transformers.BertConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.encoder = transformers.BertModel(config, add_pooling_layer=False)
        self.count = nn.Linear(config.hidden_size, 1)
        self.first = nn.Linear(config.hidden_size, TOKENS)
        self.post_init()

    def forward(self, input_ids: Tensor, count: Tensor, first: Tensor) -> dict[str, Any]:
        features = self.encoder(input_ids).last_hidden_state
        counts, logits = self.count(features[:, 0]).squeeze(1), self.first(features.mean(1))
        losses = {
            "count": nn.functional.mse_loss(counts.float(), count),
            "first": nn.functional.cross_entropy(logits.float(), first),
        }
        return {"losses": losses, "counts": counts, "logits": logits}


def model() -> TwoHeads:
    torch.manual_seed(0)
    # Without dropout, so that the plain loop need not draw the same masks.
    return TwoHeads(
        transformers.BertConfig(
            vocab_size=TOKENS,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=LENGTH,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            attn_implementation="eager",
        )
    )


def samples(number: int = SAMPLES) -> list[dict[str, Any]]:
    tokens = torch.randint(TOKENS, (number, LENGTH), generator=torch.Generator().manual_seed(1))
    return [
        {"input_ids": row, "count": (row % 2 == 0).sum().float() * 3, "first": row[0]}  # 3: a scale of its own
        for row in tokens
    ]


def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def trainer(path: Path, method: str, network: nn.Module | None = None, **settings: Any) -> BalancedTrainer:
    torch.manual_seed(2)
    place = settings.pop("place", {"features": "encoder"})
    options = {
        "output_dir": str(path),
        "num_train_epochs": 2,
        "per_device_train_batch_size": BATCH,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch",
        "max_grad_norm": 0.0,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "label_names": ["count", "first"],
        "train_sampling_strategy": "sequential",
    }
    return BalancedTrainer(
        network or model(),
        transformers.TrainingArguments(**{**options, **settings}),
        data_collator=collate,
        train_dataset=samples(),
        eval_dataset=samples(8),
        balancer=steelyard.make(method, TASKS),
        **place,
    )


def plain_loop(
    method: str, where: str = "features", *, accumulate: int = 1, clip: float = 0.0, autocast: bool = False
) -> nn.Module:
    network = model().train()
    torch.manual_seed(2)
    balancer = steelyard.make(method, TASKS)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0)
    balancer.attach(optimizer)
    features = steelyard.features_of(network.encoder)
    rows = samples()
    for _ in range(2):
        for number, start in enumerate(range(0, SAMPLES, BATCH)):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                losses = network(**collate(rows[start : start + BATCH]))["losses"]
            loss = balancer(losses, shared=features() if where == "features" else network.encoder)
            (loss / accumulate).backward()
            if (number + 1) % accumulate == 0:
                if clip:
                    nn.utils.clip_grad_norm_(network.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
        balancer.end_epoch()
    return network


PLACES = {"features": {"features": "encoder"}, "trunk": {"trunk": "encoder"}}


@pytest.mark.parametrize(
    ("method", "where"), [("uw", "features"), ("dwa", "features"), ("db-mtl", "features"), ("mgda", "trunk")]
)
def test_it_trains_as_the_plain_loop_does(tmp_path: Path, method: str, where: str) -> None:
    trained = trainer(tmp_path, method, place=PLACES[where])
    trained.train()
    assert same(trained.model, plain_loop(method, where))


@pytest.mark.parametrize(("method", "where"), [("uw", "features"), ("db-mtl", "features"), ("db-mtl", "trunk")])
def test_accumulation_and_clipping(tmp_path: Path, method: str, where: str) -> None:
    trained = trainer(tmp_path, method, place=PLACES[where], gradient_accumulation_steps=4, max_grad_norm=0.1)
    trained.train()
    assert trained.balancer.steps == 4
    assert same(trained.model, plain_loop(method, where, accumulate=4, clip=0.1))


@pytest.mark.parametrize(("method", "where"), [("uw", "features"), ("upgrad", "features"), ("upgrad", "trunk")])
def test_bf16(tmp_path: Path, method: str, where: str) -> None:
    """Accelerate hands the model's output over as float32 copies, which carry no gradient of the losses."""
    trained = trainer(tmp_path, method, place=PLACES[where], bf16=True)
    trained.train()
    assert same(trained.model, plain_loop(method, where, autocast=True))


@pytest.mark.parametrize(
    ("method", "where"),
    [("dwa", "features"), ("uw", "features"), ("relobralo", "features"), ("db-mtl", "features"), ("db-mtl", "trunk")],
)
@pytest.mark.parametrize("saved_at", [4, 8])
def test_resume_is_bit_identical(tmp_path: Path, method: str, where: str, saved_at: int) -> None:
    """In the middle of an epoch, and at its last step: before the trainer knows that the epoch is over."""
    settings = {"place": PLACES[where], "num_train_epochs": 3}
    whole = trainer(tmp_path, method, save_strategy="steps", save_steps=saved_at, **settings)
    whole.train()
    checkpoint = tmp_path / f"checkpoint-{saved_at}"
    assert (checkpoint / STATE_FILE).is_file()
    resumed = trainer(tmp_path / "second", method, **settings)
    torch.manual_seed(99)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert whole.balancer.steps == resumed.balancer.steps == 24
    assert same(whole.model, resumed.model)
    assert same_state(snapshot(whole.balancer), snapshot(resumed.balancer))
    if method == "dwa":
        assert whole.balancer.period_steps == 8, "two of three epochs have been heard to end"


def test_the_state_is_loaded_even_where_the_optimizers_checkpoint_drops_it(tmp_path: Path) -> None:
    """As DeepSpeed's and FSDP's do."""
    whole = trainer(tmp_path, "uw", save_strategy="steps", save_steps=8)
    whole.train()
    file = tmp_path / "checkpoint-8" / "optimizer.pt"
    state = torch.load(file, weights_only=True)
    assert state.pop("steelyard")
    torch.save(state, file)
    resumed = trainer(tmp_path / "second", "uw")
    resumed.train(resume_from_checkpoint=str(file.parent))
    assert same_state(snapshot(whole.balancer), snapshot(resumed.balancer))


def test_weight_decay_does_not_touch_learned_weights(tmp_path: Path) -> None:
    decayed, plain = (trainer(tmp_path, "uw", weight_decay=decay, max_steps=1) for decay in (0.9, 0.0))
    for each in (decayed, plain):
        each.train()
    assert not same(decayed.model, plain.model)
    assert same_state(snapshot(decayed.balancer), snapshot(plain.balancer))
    given = {id(p) for group in decayed.optimizer.param_groups for p in group["params"]}
    assert given == {id(p) for p in decayed.model.parameters()}, "the optimizer holds the model's parameters alone"


def test_metrics_are_logged_beside_the_loss(tmp_path: Path) -> None:
    trained = trainer(tmp_path, "db-mtl", logging_steps=8)
    trained.train()
    last = [row for row in trained.state.log_history if "loss" in row][-1]
    assert last["step"] == 16
    expected = trained.balancer.metrics()
    assert {name: last[name] for name in expected} == expected
    assert "weight/count" in expected


class Unending(torch.utils.data.IterableDataset[Any]):
    """Data without a length: the trainer counts epochs in parts of max_steps."""

    def __iter__(self) -> Any:
        return iter(samples())


@pytest.mark.parametrize("known", [True, False])
def test_epochs_end_whether_data_have_a_length_or_not(tmp_path: Path, known: bool) -> None:
    trained = trainer(tmp_path, "dwa", max_steps=3 * SAMPLES // BATCH + 2)
    if not known:
        trained.train_dataset = Unending()
    ended = []
    trained.balancer.end_epoch = lambda: ended.append(trained.state.global_step)  # type: ignore[method-assign]
    trained.train()
    assert ended == [SAMPLES // BATCH * (number + 1) for number in range(3)]


def test_what_the_trainer_logs_is_kept(tmp_path: Path) -> None:
    """With a task called `sum` the balancer's own sum of losses is called `loss`, as the trainer's mean is."""
    trained = trainer(tmp_path, "equal", logging_steps=8)
    trained.balancer.metrics = lambda: {"loss": -1.0, "weight/count": 1.0}  # type: ignore[method-assign]
    trained.train()
    rows = [row for row in trained.state.log_history if "loss" in row]
    assert all(row["loss"] > 0 and row["weight/count"] == 1 for row in rows)


def test_evaluation_reports_the_plain_sum_and_predictions_without_losses(tmp_path: Path) -> None:
    trained = trainer(tmp_path, "uw", num_train_epochs=1)
    trained.train()
    predictions = trained.predict(trained.eval_dataset)
    assert [part.shape for part in predictions.predictions] == [(8,), (8, TOKENS)]
    with torch.no_grad():
        losses = trained.model.eval()(**collate(trained.eval_dataset))["losses"]
    assert predictions.metrics["test_loss"] == pytest.approx(sum(loss.item() for loss in losses.values()), rel=1e-5)


def test_places_are_checked(tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="encodr"):
        trainer(tmp_path, "db-mtl", place={"features": "encodr"})
    with pytest.raises(OptionError, match="leave out features='encoder' or trunk='encoder'"):
        trainer(tmp_path, "db-mtl", place={"features": "encoder", "trunk": "encoder"})


def test_what_would_change_the_loss_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"label_smoothing_factor=0.1 works on the one loss"):
        trainer(tmp_path, "uw", label_smoothing_factor=0.1)
    with pytest.raises(OptionError, match="compute_loss_func would replace"):
        trainer(tmp_path, "uw", place={"compute_loss_func": lambda outputs, labels, **_: outputs})


def test_a_model_without_losses_by_name_is_told_what_to_return(tmp_path: Path) -> None:
    class Plain(TwoHeads):
        def forward(self, **inputs: Any) -> Any:
            return {"loss": super().forward(**inputs)["losses"]["count"]}

    with pytest.raises(LossError, match=r"has no entry 'losses': return the losses by task name"):
        trainer(tmp_path, "uw", Plain(model().config)).train()


@pytest.mark.parametrize(("method", "where"), [("uw", "features"), ("db-mtl", "features"), ("mgda", "trunk")])
def test_ddp_with_two_processes(tmp_path: Path, method: str, where: str) -> None:
    """The trainer's own default, ``find_unused_parameters=True``, copies what the model returns."""
    path = os.pathsep.join([*sys.path, str(HERE.parent)])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *(str(HERE / "transformers_ddp.py"), str(tmp_path), method, where),
        ],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["network"].keys() == second["network"].keys()
    assert all(torch.equal(value, second["network"][name]) for name, value in first["network"].items())
    assert str(first["balancer"]) == str(second["balancer"])
