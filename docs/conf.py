"""Configuration of the Sphinx site."""

import re
from pathlib import Path

import skdiffusion

HERE = Path(__file__).parent

project = "skdiffusion"
author = "The skdiffusion developers"
copyright = "The skdiffusion developers, BSD-3-Clause licence"
version = release = skdiffusion.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
# No intersphinx: the site must build on a machine that reaches nothing but a package registry.

exclude_patterns = ["_build", "benchmarks/results", "examples"]
templates_path = ["_templates"]
html_static_path = ["_static"]

autosummary_generate = True
# The class template lists the methods, each with its own heading in the contents.
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "/plot_",
    "image_scrapers": ("matplotlib",),
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "show_memory": False,
    "min_reported_time": 1,
    "download_all_examples": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "skdiffusion"
html_show_sourcelink = False
html_css_files = ["site.css"]
# Only the API reference has enough pages to list them at the side.
html_sidebars = {
    page: []
    for page in (
        *("index", "install", "design", "contributing"),
        *("user_guide/*", "auto_examples/*", "benchmarks/*", "whats_new/*"),
    )
}
html_theme_options = {
    "logo": {"text": "skdiffusion"},
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "show_prev_next": False,
    "header_links_before_dropdown": 8,
}


def add_results(app, docname, source):
    """End the benchmarks page with every table that the benchmark scripts have written."""
    if docname == "benchmarks/index":
        for table in sorted((HERE / "benchmarks" / "results").glob("*.md")):
            source[0] += f"\n\n```{{include}} results/{table.name}\n```\n"


def drop_progress(app, docname, source):
    """Of the progress bars that an example printed keep the last full one."""
    if docname.startswith("auto_examples/plot_"):
        lines = source[0].splitlines(keepends=True)
        bars = [i for i, line in enumerate(lines) if re.match(r"\s*\w+: +\d+%\|", line)]
        full = [i for i in bars if "100%" in lines[i]]
        dropped = set(bars) - set(full[-1:])
        source[0] = "".join(line for i, line in enumerate(lines) if i not in dropped)


def setup(app):
    """Register the hooks above."""
    app.connect("source-read", add_results)
    app.connect("source-read", drop_progress)
