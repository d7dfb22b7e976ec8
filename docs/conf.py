"""Settings of the site that `make docs` builds: Sphinx, pages in Markdown, every warning an error."""

from __future__ import annotations

import sys
from pathlib import Path

from qdx import __version__

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "qdx"
author = "The authors of qdx"
version = release = __version__
exclude_patterns = ["extensions"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "command_help",
    "repository_pages",
]

myst_heading_anchors = 3  # `page.md#a-heading` works here as it does in the repository

# Docstrings are Google style, with names in single backticks as in Markdown.
default_role = "code"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_display_short_literal_types = True
python_maximum_signature_line_length = 88
add_module_names = False

html_theme = "pydata_sphinx_theme"
html_title = "qdx"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "navbar_end": ["theme-switcher"],
    "footer_start": [],
    "footer_end": [],
}
