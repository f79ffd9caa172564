"""Hugging Face Trainer as a study runs it: `trial` says what to train, and a callback reports.

    python examples/hf_program.py
    steelyard compare --methods uw,db-mtl --seeds 3 -- python examples/hf_program.py

The sequences are random walks over token ids; the tasks are the walk's direction and its range.
"""

from __future__ import annotations

import tempfile

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, EvalPrediction, PreTrainedModel, TrainingArguments, set_seed

import steelyard
from steelyard.integrations.transformers import BalancedTrainer, TrialCallback

TRIAL = steelyard.trial(tasks={"direction": "accuracy", "range": "mae"}, epochs=3, learning_rate=1e-3)
OUTPUTS = {"direction": 2, "range": 1}


class Model(PreTrainedModel):
    """Returns the losses of the trial's tasks by name, and their outputs in one order."""

    config_class = BertConfig

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.heads = nn.ModuleDict({task: nn.Linear(config.hidden_size, OUTPUTS[task]) for task in TRIAL.tasks})
        self.post_init()

    def forward(self, input_ids: Tensor, direction: Tensor, range: Tensor) -> dict[str, object]:
        features = self.encoder(input_ids).last_hidden_state.mean(1)
        outputs = {task: head(features) for task, head in self.heads.items()}
        losses = {}
        if "direction" in outputs:
            losses["direction"] = nn.functional.cross_entropy(outputs["direction"], direction)
        if "range" in outputs:
            losses["range"] = nn.functional.mse_loss(outputs["range"].squeeze(1), range)
        return {"losses": losses, "logits": torch.cat(list(outputs.values()), 1)}


def metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Of the tasks that are trained; what stands in the columns follows their order."""
    (direction, ranges), found, column = prediction.label_ids, {}, 0
    for task in TRIAL.tasks:
        outputs = prediction.predictions[:, column : column + OUTPUTS[task]]
        if task == "direction":
            found[task] = float(np.mean(outputs.argmax(1) == direction))
        else:
            found[task] = float(np.abs(outputs[:, 0] - ranges).mean())
        column += OUTPUTS[task]
    return found


def walks(number: int, seed: int, length: int = 16) -> list[dict[str, Tensor]]:
    steps = torch.randint(-1, 2, (number, length), generator=torch.Generator().manual_seed(seed))
    positions = steps.cumsum(1)
    ranges = (positions.amax(1) - positions.amin(1)).float()
    direction = (positions[:, -1] > 0).long()
    return [
        {"input_ids": walk + length, "direction": d, "range": r}
        for walk, d, r in zip(positions, direction, ranges, strict=True)
    ]


def main() -> None:
    set_seed(TRIAL.seed % 2**32)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    with tempfile.TemporaryDirectory() as folder:
        trainer = BalancedTrainer(
            Model(BertConfig(vocab_size=33, max_position_embeddings=16, **shape)),
            TrainingArguments(
                folder,
                num_train_epochs=TRIAL.epochs,
                per_device_train_batch_size=32,
                learning_rate=TRIAL.learning_rate,
                seed=TRIAL.seed % 2**32,
                eval_strategy="epoch",
                save_strategy="no",
                report_to=[],
                use_cpu=True,
                disable_tqdm=True,
                remove_unused_columns=False,
                label_names=["direction", "range"],
            ),
            train_dataset=walks(256, seed=0),
            eval_dataset={"validation": walks(64, seed=1), "test": walks(64, seed=2)},
            compute_metrics=metrics,
            balancer=TRIAL.balancer(),
            features="encoder",
            callbacks=[TrialCallback(TRIAL, metrics={task: task for task in TRIAL.tasks})],
        )
        trainer.train()


if __name__ == "__main__":
    main()
