"""Configuration of the Sphinx site."""

import re
import sys
from pathlib import Path

import skdiffusion

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
from own_methods import methods_of_classes

project = "skdiffusion"
author = "The skdiffusion developers"
copyright = "The skdiffusion developers, BSD-3-Clause licence"
version = release = skdiffusion.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "benchmark_pages",
    "link_names",
    "search_words",
]

exclude_patterns = ["_build", "benchmarks/results", "examples"]
templates_path = ["_templates"]
html_static_path = ["_static"]

# Stored, see _inventories/make.py: the site must build on a machine that reaches nothing but a
# package registry.
intersphinx_mapping = {
    name: (address, f"_inventories/{name}.inv")
    for name, address in {
        "python": "https://docs.python.org/3/",
        "numpy": "https://numpy.org/doc/stable/",
        "scipy": "https://docs.scipy.org/doc/scipy/",
        "sklearn": "https://scikit-learn.org/stable/",
        "pandas": "https://pandas.pydata.org/docs/",
        "torch": "https://docs.pytorch.org/docs/stable/",
        "matplotlib": "https://matplotlib.org/stable/",
    }.items()
}

autosummary_generate = True
# The class template lists the methods, each with its own heading in the contents.
autosummary_context = {"methods_of": methods_of_classes()}
numpydoc_show_class_members = False
numpydoc_xref_param_type = True
# Only these words of a type are links: the others are English.
numpydoc_xref_ignore = "all"
numpydoc_xref_aliases = {
    "bool": ":class:`bool`",
    "array-like": "numpy.ndarray",
    "tensor": "torch.Tensor",
    "DataFrame": "pandas.DataFrame",
    "Series": "pandas.Series",
    "Bunch": "sklearn.utils.Bunch",
    "Figure": "matplotlib.figure.Figure",
    "Axes": "matplotlib.axes.Axes",
    "SDE": "skdiffusion.diffusion.sde.SDE",
    "Mixture": "skdiffusion.diffusion.analytic.Mixture",
    "Denoiser": "skdiffusion.diffusion.denoiser.Denoiser",
    "CSDIImputer": "skdiffusion.estimators.CSDIImputer",
}
# A full name stands for itself.
numpydoc_xref_aliases |= {
    name: f":class:`{name}`"
    for name in (
        *("torch.Generator", "torch.device", "torch.dtype", "numpy.random.Generator"),
        "sklearn.mixture.GaussianMixture",
    )
}
# No links for words that their inventories keep under other headings.
numpydoc_xref_aliases |= {word: word for word in ("scalar", "iterable", "sequence", "generator")}
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Shipped with the pages (see _static/mathjax), so that formulas need no network.
mathjax_path = "mathjax/tex-svg-full.js"
mathjax3_config = {"svg": {"fontCache": "local"}, "options": {"enableMenu": False}}

# What is copied is what is typed.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_selector = "div.highlight:not(.sphx-glr-script-out *) pre"

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "subsection_order": ["examples/imputation", "examples/density", "examples/sampling", "*"],
    "within_subsection_order": "gallery_order.by_importance",
    "filename_pattern": "/plot_",
    "image_scrapers": ("matplotlib",),
    # Which examples use a class: what ends its page.
    "doc_module": ("skdiffusion",),
    "backreferences_dir": "api/generated/backreferences",
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "show_memory": False,
    "min_reported_time": 1,
    "download_all_examples": False,
    # Such a page would come up in searches and loads scripts from elsewhere.
    "write_computation_times": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "skdiffusion"
html_favicon = "_static/logo.svg"
html_show_sourcelink = False
html_css_files = ["site.css"]
html_search_scorer = str(HERE / "_ext" / "scorer.js")
# Pages without others of their kind have nothing to list at the side.
html_sidebars = {
    page: []
    for page in (
        *("index", "install", "design", "where_to_change", "contributing"),
        *("whats_new/*", "search", "genindex", "py-modindex"),
    )
}
html_theme_options = {
    "logo": {
        "text": "skdiffusion",
        "image_light": "_static/logo.svg",
        "image_dark": "_static/logo.svg",
    },
    # The button alone: beside a field for searches the links would need a second row.
    "navbar_persistent": ["search-button"],
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "show_prev_next": True,
}


def drop_progress(app, docname, source):
    """Of the progress bars that an example printed keep the last full one."""
    if docname.startswith("auto_examples/"):
        lines = source[0].splitlines(keepends=True)
        bars = [i for i, line in enumerate(lines) if re.match(r"\s*\w+: +\d+%\|", line)]
        full = [i for i in bars if "100%" in lines[i]]
        dropped = set(bars) - set(full[-1:])
        source[0] = "".join(line for i, line in enumerate(lines) if i not in dropped)


def setup(app):
    """Register the hook above."""
    app.connect("source-read", drop_progress)
