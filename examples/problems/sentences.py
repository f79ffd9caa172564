"""Sentences of several lengths, by a tokenizer and a collate_fn: steelyard compare sentences.py."""

import random

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from steelyard.problems import Data, Problem, binary, regression

WORDS = ["the", "a", "good", "bad", "fine", "poor", "film", "book", "song", "was", "is", "very", "not", "really"]
NUMBER = {word: number + 1 for number, word in enumerate(WORDS)}  # 0 fills up


def sentences(count: int, seed: int) -> list[tuple[str, dict[str, float]]]:
    drawn, rows = random.Random(seed), []
    for _ in range(count):
        words = drawn.choices(WORDS, k=drawn.randint(3, 12))
        mood = sum(word in ("good", "fine") for word in words) - sum(word in ("bad", "poor") for word in words)
        rows.append((" ".join(words), {"liked": float(mood > 0), "length": len(words) / 10}))
    return rows


def collate(rows: list) -> tuple[Tensor, dict[str, Tensor]]:
    tokens = [torch.tensor([NUMBER[word] for word in text.split()]) for text, _ in rows]
    return pad_sequence(tokens, batch_first=True), {
        name: torch.tensor([y[name] for _, y in rows]) for name in rows[0][1]
    }


class Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.read = nn.Embedding(len(WORDS) + 1, 16, padding_idx=0), nn.GRU(16, 32, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        there = (tokens > 0)[..., None]  # what fills up a row is none of its words, whatever rows stand beside it
        return (self.read(self.words(tokens))[0] * there).sum(1) / there.sum(1)


parts = [DataLoader(sentences(400, seed), batch_size=32, collate_fn=collate) for seed in range(3)]
tasks, head = [binary("liked"), regression("length")], lambda task: nn.Linear(32, task.outputs)
problem = Problem("sentences", tasks, lambda: Data(*parts), Trunk, head, batch_size=32, epochs=5)
