"""Look at a study: terminal tables, one self-contained HTML page, JSON and CSV."""

from steelyard.report.json_and_csv import from_json, to_csv, to_json
from steelyard.report.study_page import page, write_page
from steelyard.report.terminal import render

__all__ = ["from_json", "page", "render", "to_csv", "to_json", "write_page"]
