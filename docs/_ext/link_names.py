"""Names of the package that stand as code in a text become links to their page.

Of `CSDIImputer`, `ScoreSDE.sample` and `conformalize(imputer, X)` each leads to the reference,
without a role around it. Methods alone, such as `transform`, stay as they are.
"""

import importlib
import re

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

PACKAGES = ("estimators", "metrics", "datasets", "inspection", "nn", "persistence")
# What users know under its short name.
OTHERS = {
    "DataFrame": "pandas.DataFrame",
    "GridSearchCV": "sklearn.model_selection.GridSearchCV",
    "RandomizedSearchCV": "sklearn.model_selection.RandomizedSearchCV",
    "cross_validate": "sklearn.model_selection.cross_validate",
    "cross_val_score": "sklearn.model_selection.cross_val_score",
    "Pipeline": "sklearn.pipeline.Pipeline",
    "ColumnTransformer": "sklearn.compose.ColumnTransformer",
    "IterativeImputer": "sklearn.impute.IterativeImputer",
    "KNNImputer": "sklearn.impute.KNNImputer",
    "SimpleImputer": "sklearn.impute.SimpleImputer",
    "KernelDensity": "sklearn.neighbors.KernelDensity",
    "GaussianMixture": "sklearn.mixture.GaussianMixture",
}
# Too common as words to be links: `load` may be that of any package.
PLAIN = {"load", "save", "get_scorer"}
CODE = re.compile(r"(?P<name>[A-Za-z_]\w+)(?P<method>\.[a-z]\w*)?(\(.*\))?", re.DOTALL)


def full_names():
    """Full name of each short one."""
    names = dict(OTHERS)
    for package in PACKAGES:
        module = importlib.import_module(f"skdiffusion.{package}")
        names |= {name: f"{module.__name__}.{name}" for name in module.__all__}
    return {name: full for name, full in names.items() if name not in PLAIN}


class LinkNames(SphinxTransform):
    """Wrap literals that are names of the package in a reference."""

    default_priority = 400
    names = full_names()

    def apply(self, **kwargs):
        """Visit the literals of a page, but those in headings and links."""
        if self.env.docname.startswith("api/"):
            return
        for literal in list(self.document.findall(nodes.literal)):
            match = CODE.fullmatch(literal.astext())
            if match is None or match["name"] not in self.names or self.is_taken(literal):
                continue
            target = self.names[match["name"]] + (match["method"] or "")
            reference = addnodes.pending_xref(
                "", refdomain="py", reftype="obj", reftarget=target, refwarn=False
            )
            literal.replace_self(reference)
            reference += literal

    def is_taken(self, node):
        """Whether a literal is part of a heading, a link or a directive of its own."""
        taken = (nodes.title, nodes.reference, addnodes.pending_xref, addnodes.desc, nodes.rubric)
        while node is not None:
            if isinstance(node, taken):
                return True
            node = node.parent
        return False


def setup(app):
    """Register the transform."""
    app.add_transform(LinkNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
