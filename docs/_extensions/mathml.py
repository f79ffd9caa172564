"""Equations as MathML, which browsers draw themselves: nothing is fetched."""

from __future__ import annotations

from typing import Any

import latex2mathml.converter
from docutils import nodes
from sphinx.application import Sphinx


def inline(self: Any, node: nodes.Element) -> None:
    self.body.append(latex2mathml.converter.convert(node.astext(), display="inline"))
    raise nodes.SkipNode


def block(self: Any, node: nodes.Element) -> None:
    mathml = latex2mathml.converter.convert(node.astext(), display="block")
    self.body.append(f'<div class="equation">{mathml}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
