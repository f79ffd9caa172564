"""`masked_mean` in a process group: graphs are kept, numbers are not made up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

import steelyard


@pytest.fixture
def process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_a_task_without_labels_keeps_its_graph_where_it_has_one() -> None:
    values, nowhere = torch.ones(3, requires_grad=True), torch.zeros(3, dtype=torch.bool)
    kept = steelyard.masked_mean(values * 2, nowhere)
    assert kept.item() == 0
    assert kept.label_count == 0
    assert kept.requires_grad
    with torch.no_grad():  # a 0 among validation losses would pass for a perfect one
        assert steelyard.masked_mean(values * 2, nowhere) is None
