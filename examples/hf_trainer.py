"""Hugging Face Trainer: a small transformer with two heads, whose losses `BalancedTrainer` balances.

    python examples/hf_trainer.py

The sequences are random walks over token ids; the tasks are the walk's direction and its range.
"""

from __future__ import annotations

import argparse
import tempfile

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, PreTrainedModel, TrainingArguments

import steelyard
from steelyard.integrations.transformers import BalancedTrainer


class Model(PreTrainedModel):
    """Returns its losses by task name beside its predictions."""

    config_class = BertConfig

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.direction, self.range = nn.Linear(config.hidden_size, 2), nn.Linear(config.hidden_size, 1)
        self.post_init()

    def forward(self, input_ids: Tensor, direction: Tensor, range: Tensor) -> dict[str, object]:
        features = self.encoder(input_ids).last_hidden_state.mean(1)
        logits, ranges = self.direction(features), self.range(features).squeeze(1)
        losses = {
            "direction": nn.functional.cross_entropy(logits, direction),
            "range": nn.functional.mse_loss(ranges, range),
        }
        return {"losses": losses, "logits": logits, "ranges": ranges}


def walks(number: int, length: int = 16) -> list[dict[str, Tensor]]:
    steps = torch.randint(-1, 2, (number, length), generator=torch.Generator().manual_seed(0))
    positions = steps.cumsum(1)
    ranges = (positions.amax(1) - positions.amin(1)).float()
    direction = (positions[:, -1] > 0).long()
    return [
        {"input_ids": walk + length, "direction": d, "range": r}
        for walk, d, r in zip(positions, direction, ranges, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = Model(BertConfig(vocab_size=33, max_position_embeddings=16, **shape))
    with tempfile.TemporaryDirectory() as folder:
        trainer = BalancedTrainer(
            model,
            TrainingArguments(
                folder,
                num_train_epochs=arguments.epochs,
                per_device_train_batch_size=32,
                learning_rate=1e-3,
                weight_decay=0.01,
                logging_steps=16,
                report_to=[],
                use_cpu=True,
                remove_unused_columns=False,
                label_names=["direction", "range"],
            ),
            train_dataset=walks(512),
            eval_dataset=walks(64),
            balancer=steelyard.make("db-mtl", ["direction", "range"]),  # new
            features="encoder",  # new: the submodule whose output the heads read
        )
        trainer.train()
        print(trainer.evaluate())


if __name__ == "__main__":
    main()
