"""Texts of other people's code are shown without what a terminal would obey, and messages never at length."""

import time

import pytest

from steelyard.io.printable_text import printable
from steelyard.study.trial import Failed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("as it is: ä, ✓, 中\n\ttabs", "as it is: ä, ✓, 中\n tabs"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;a title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b[2J\x1b[H\x1b[?25lgone\x1bc", "gone"),
        ("\x9b31mC1\x7f\x00\x08", "C1"),
        ("\x9d0;a title\x9cafter", "after"),
        ("\u202egnp.exe", "gnp.exe"),
        ("a\r\nb\rc", "a\nb c"),
    ],
)
def test_control_sequences_are_taken_out(text, shown):
    assert printable(text, 1000) == shown


def test_no_control_character_is_left_whatever_comes():
    for code in [*range(32), *range(127, 160)]:
        for text in (chr(code), f"\x1b{chr(code)}", f"\x1b[{chr(code)}m", f"\x1b]{chr(code)}"):
            assert not [c for c in printable(text, 100) if ord(c) < 32 and c != "\n"]
            assert "\x9b" not in printable(text, 100)


@pytest.mark.parametrize("text", ["x" * 5_000_000, "\x1b]" * 2_500_000, "\x1b[" * 2_500_000, "\n" * 5_000_000])
def test_a_long_text_is_short_at_once(text):
    started = time.process_time()
    found = printable("first" + text + "\nlast", 1000)
    assert len(found) < 1100
    assert found.startswith("first")
    assert found.endswith("last")
    assert time.process_time() - started < 1  # of a minute before


def test_errors_are_made_plain_where_they_arise():
    try:
        raise ValueError("\x1b[31m" + "x" * 5_000_000)
    except ValueError as error:
        failed = Failed.of(error)
    assert failed.error.startswith("ValueError: xxx")
    assert "\x1b" not in failed.error + failed.traceback
    assert len(failed.error) < 2_100
    assert len(failed.traceback) < 20_100
    assert "Traceback" in failed.traceback
