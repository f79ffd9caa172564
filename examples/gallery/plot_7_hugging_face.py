"""
In the Hugging Face Trainer
===========================

``BalancedTrainer`` is the ``Trainer`` with two more arguments: the balancer, and the
submodule whose output the task heads read.
"""

# %%
# A small transformer reads random walks; one head says on which side a walk ended, the
# other how far it got around. Nothing is downloaded.
import tempfile

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, PreTrainedModel, TrainingArguments
from transformers.trainer_callback import PrinterCallback

import steelyard
from steelyard.integrations.transformers import BalancedTrainer


class Model(PreTrainedModel):
    config_class = BertConfig

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.direction = nn.Linear(config.hidden_size, 2)
        self.range = nn.Linear(config.hidden_size, 1)
        self.post_init()

    def forward(self, input_ids: Tensor, direction: Tensor, range: Tensor) -> dict:
        features = self.encoder(input_ids).last_hidden_state.mean(1)
        ranges = self.range(features).squeeze(1)
        losses = {
            "direction": nn.functional.cross_entropy(
                self.direction(features), direction
            ),
            "range": nn.functional.mse_loss(ranges, range),
        }
        return {"losses": losses, "ranges": ranges}


walks = torch.randint(-1, 2, (512, 16), generator=torch.Generator().manual_seed(0))
walks = walks.cumsum(1)
directions, ranges = (walks[:, -1] > 0).long(), (walks.amax(1) - walks.amin(1)).float()
data = [
    {"input_ids": walk + 16, "direction": direction, "range": span}
    for walk, direction, span in zip(walks, directions, ranges, strict=True)
]

# %%
# What the trainer logs holds the balancer's metrics beside its own.
torch.manual_seed(0)
shape = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
shape |= {"num_attention_heads": 4, "max_position_embeddings": 16, "vocab_size": 33}
trainer = BalancedTrainer(
    Model(BertConfig(**shape)),
    TrainingArguments(
        tempfile.mkdtemp(),
        num_train_epochs=8,
        per_device_train_batch_size=32,
        learning_rate=1e-3,
        logging_steps=4,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        remove_unused_columns=False,
        label_names=["direction", "range"],
    ),
    train_dataset=data,
    balancer=steelyard.make("db-mtl", ["direction", "range"]),  # new
    features="encoder",  # new
)
trainer.remove_callback(PrinterCallback)
said = trainer.train()
logged = [line for line in trainer.state.log_history if "weight/range" in line]
print(f"{said.global_step} steps, mean loss {said.training_loss:.2f}")

figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for axis, what in zip(axes, ("loss", "weight"), strict=True):
    for task in ("direction", "range"):
        axis.semilogy([line[f"{what}/{task}"] for line in logged], label=task)
    axis.set(title=what, xlabel="every fourth step")
axes[0].legend()
