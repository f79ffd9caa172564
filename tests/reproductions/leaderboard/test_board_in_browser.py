"""The leaderboard's page in a real browser: no errors, no sideways scrolling, nothing written over anything."""

from __future__ import annotations

import pytest

from report.browser import Browser, find
from reproductions.leaderboard.made_up_board import planted
from steelyard.reproductions.leaderboard.answers import answers
from steelyard.reproductions.leaderboard.board import Board
from steelyard.reproductions.leaderboard.board_page import board_page
from steelyard.reproductions.leaderboard.stability import stability

CHROMIUM = find()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: install chromium to test the page in a browser"),
]


@pytest.mark.parametrize("count", [2, 8])
def test_it_opens_on_a_phone_and_on_a_desk(tmp_path, count):
    board = Board(planted()[:count])
    found = stability(board, draws=20, halves=2)
    (tmp_path / "board.html").write_text(board_page(board, found, answers(board, found)))
    with Browser(CHROMIUM) as browser:
        for width in (390, 1280):
            browser.open(tmp_path / "board.html", width=width)
            browser.run("document.querySelectorAll('details').forEach(part => { part.open = true })")
            assert browser.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            assert browser.problems == []
            assert len(browser.requests) == 1
            outside = browser.run(
                "[...document.querySelectorAll('svg.plot text')].map(t => [t.textContent, t.getBoundingClientRect()])"
                ".filter(([_, box]) => box.left < 0 || box.right > document.documentElement.clientWidth)"
                ".map(([name]) => name)"
            )
            assert outside == []
