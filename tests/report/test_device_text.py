"""Where trials trained, in words, on the page and in the terminal."""

import dataclasses

import pytest
from rich.console import Console

from report import judgements
from steelyard.report import page, render
from steelyard.report.device_text import device_text, repeats_text


def on_a_gpu():
    return dataclasses.replace(judgements.digits(), device="cuda", precision="bf16", hardware="NVIDIA H100")


@pytest.mark.parametrize(
    ("known", "text"),
    [
        ({"device": "cuda", "precision": "bf16", "hardware": "NVIDIA H100"}, "cuda (NVIDIA H100), bf16"),
        ({"device": "cuda", "precision": "bf16", "hardware": ""}, "cuda, bf16"),
        ({"device": "cpu", "precision": "float32", "hardware": ""}, "cpu, float32"),
        ({"device": "", "precision": "float32", "hardware": "NVIDIA H100"}, ""),  # a user's own program
    ],
)
def test_what_is_known_of_the_device(known, text):
    assert device_text(dataclasses.replace(judgements.digits(), **known)) == text


def test_the_gpus_numbers_are_not_promised_again():
    assert repeats_text(on_a_gpu()) == (
        "trained again, the numbers differ by rounding, which training enlarges: a GPU adds in an order that it does "
        "not promise"
    )
    assert repeats_text(judgements.digits()) == (
        "trained again on a CPU of this kind, the numbers are the same bit for bit"
    )


def test_page_and_terminal_name_it():
    assert "cuda (NVIDIA H100), bf16" in page(on_a_gpu())
    console = Console(record=True, width=200)
    render(on_a_gpu(), console)
    assert "Trained on cuda (NVIDIA H100), bf16." in console.export_text()
    render(judgements.digits(), console)
    assert "Trained on" not in console.export_text()  # what it always was
