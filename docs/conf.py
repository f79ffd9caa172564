"""The site: `make docs` builds it into `site/`, warnings being errors."""

from __future__ import annotations

import sys
from pathlib import Path

import steelyard

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "Steelyard"
author = copyright = "The Steelyard authors"
version = release = steelyard.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "mathml",  # _extensions/: equations without a network
    "leaderboard_files",  # _extensions/: its data and charts, to download
    "method_pages",  # _extensions/: a page for each registered method
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
nitpicky = False
default_role = "py:obj"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
napoleon_use_rtype = False

sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples" / "gallery"),
    "gallery_dirs": "examples",
    "filename_pattern": r"\.py$",
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "plot_gallery": True,
    "capture_repr": (),  # what is printed, and no objects
    "write_computation_times": False,  # a page that fetches scripts from elsewhere
    "min_reported_time": 1e9,  # seconds on the machine that built the site tell a reader nothing
}

html_math_renderer = "mathml"
html_theme = "furo"
html_title = "Steelyard"
html_static_path = ["_static"]
html_css_files = ["steelyard.css"]
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
