"""Where a study's trials trained, and whether they would give the same numbers again, in words."""

from __future__ import annotations

from steelyard.study.judgement import Judgement

USUAL = "cpu, float32"


def device_text(judgement: Judgement) -> str:
    """``cpu, float32``; ``cuda (NVIDIA H100), bf16``; empty where nobody but the user's program knows."""
    if not judgement.device:
        return ""
    called = f" ({judgement.hardware})" if judgement.hardware else ""
    return f"{judgement.device}{called}, {judgement.precision}"


def repeats_text(judgement: Judgement) -> str:
    """What training again would show."""
    if judgement.device == "cpu":
        return "trained again on a CPU of this kind, the numbers are the same bit for bit"
    return (
        "trained again, the numbers differ by rounding, which training enlarges: a GPU adds in an order that it does "
        "not promise"
    )
