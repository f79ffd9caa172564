"""The console on which everything is printed: what it shows, no terminal obeys."""

from __future__ import annotations

from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.segment import Segment

from steelyard.io.printable_text import printable


def make_console(**options: Any) -> Console:
    """A console that colours nothing by itself and prints names and messages `printable`."""
    made = Console(highlight=False, **options)
    made.push_render_hook(_Cleaning())
    return made


class _Cleaning(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Clean(renderable) for renderable in renderables]


class _Clean:
    """What is printed; of what a terminal obeys, the console's own colours and cursor moves alone."""

    def __init__(self, inside: RenderableType) -> None:
        self.inside = inside

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.inside, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
