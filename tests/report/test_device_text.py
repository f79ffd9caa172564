"""Where trials trained, in words, on the page and in the terminal."""

import dataclasses

from rich.console import Console

from report import judgements
from steelyard.report import page, render
from steelyard.report.device_text import device_text, repeats_text


def on_a_gpu():
    return dataclasses.replace(judgements.digits(), device="cuda", precision="bf16", hardware="NVIDIA H100")


def test_the_gpus_numbers_are_not_promised_again():
    assert device_text(on_a_gpu()) == "cuda (NVIDIA H100), bf16"
    assert "differ by rounding" in repeats_text(on_a_gpu())
    assert "the same bit for bit" in repeats_text(judgements.digits())


def test_page_and_terminal_name_it():
    assert "cuda (NVIDIA H100), bf16" in page(on_a_gpu())
    console = Console(record=True, width=200)
    render(on_a_gpu(), console)
    assert "Trained on cuda (NVIDIA H100), bf16." in console.export_text()
    render(judgements.digits(), console)
    assert "Trained on" not in console.export_text()  # what it always was
