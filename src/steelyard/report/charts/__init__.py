"""Inline SVG charts. Horizontal positions are per cent, so that text keeps its size at every page width."""
