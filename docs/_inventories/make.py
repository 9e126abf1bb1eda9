"""Write the inventories of other projects that this site links to.

Sphinx reads them from this folder, so that a build reaches nothing. Those of Python, SciPy,
scikit-learn and pandas keep the classes, functions and exceptions of the full inventory, the file
``objects.inv`` that comes with each project's documentation (on Debian in python3-doc,
python-scipy-doc, python-sklearn-doc and python-pandas-doc); the rest is listed below, name by name.

Run it again as ``python docs/_inventories/make.py python=FULL.inv scipy=FULL.inv``, or with no
argument for the listed ones alone.
"""

import sys
import zlib
from pathlib import Path

HERE = Path(__file__).parent
KEPT = {"py:class", "py:function", "py:exception", "py:data"}
# Of packages as wide as these only the part that such documentation speaks of.
PARTS = {
    "python": ("", "os.", "pathlib.", "io.", "collections.", "concurrent.futures.", "warnings."),
    "scipy": ("scipy.stats.", "scipy.optimize.", "scipy.integrate.", "scipy.special."),
    "sklearn": ("sklearn.",),
    "pandas": ("pandas.",),
}
# Newer than the full inventories at hand; their pages follow the pattern of the others.
ADDED = {
    "sklearn": [
        ("sklearn.model_selection.TunedThresholdClassifierCV", "py:class"),
        ("sklearn.preprocessing.TargetEncoder", "py:class"),
        ("sklearn.frozen.FrozenEstimator", "py:class"),
        ("sklearn.utils.Bunch", "py:class"),
    ],
}
LISTED = {
    "numpy": {
        "py:class": {
            "numpy.ndarray": "reference/generated/numpy.ndarray.html",
            "numpy.dtype": "reference/generated/numpy.dtype.html",
            "numpy.datetime64": "reference/arrays.scalars.html",
            "numpy.random.Generator": "reference/random/generator.html",
            "numpy.random.RandomState": "reference/random/legacy.html",
        },
        "py:function": {
            name: f"reference/generated/{name}.html"
            for name in (
                *("numpy.array", "numpy.asarray", "numpy.isnan", "numpy.load", "numpy.save"),
                *("numpy.mean", "numpy.nanmean", "numpy.median", "numpy.nanmedian", "numpy.std"),
                *("numpy.percentile", "numpy.quantile", "numpy.nanquantile", "numpy.savez"),
            )
        }
        | {"numpy.random.default_rng": "reference/random/generator.html"},
        "py:data": {
            "numpy.nan": "reference/constants.html",
            "numpy.inf": "reference/constants.html",
        },
    },
    "torch": {
        "py:class": {
            "torch.Tensor": "tensors.html",
            "torch.Generator": "generated/torch.Generator.html",
            "torch.device": "tensor_attributes.html",
            "torch.dtype": "tensor_attributes.html",
            "torch.nn.Module": "generated/torch.nn.Module.html",
            "torch.optim.Adam": "generated/torch.optim.Adam.html",
            "torch.optim.AdamW": "generated/torch.optim.AdamW.html",
        },
        "py:function": {
            name: f"generated/{name}.html"
            for name in ("torch.manual_seed", "torch.set_num_threads", "torch.load", "torch.save")
        },
    },
    "matplotlib": {
        "py:class": {
            "matplotlib.axes.Axes": "api/_as_gen/matplotlib.axes.Axes.html",
            "matplotlib.figure.Figure": "api/_as_gen/matplotlib.figure.Figure.html",
        },
        "py:function": {
            "matplotlib.pyplot.subplots": "api/_as_gen/matplotlib.pyplot.subplots.html",
        },
    },
}


def read_inventory(path):
    """Entries of an inventory: (name, type, priority, address, title)."""
    lines = path.read_bytes().split(b"\n", 4)
    for line in zlib.decompress(lines[4]).decode().splitlines():
        # Names may have blanks, the type holds the first colon that follows one.
        name, rest = line.split(" ", 1)
        if rest.startswith(("py:", "std:", "c:")):
            yield (name, *rest.split(" ", 3))


def write_inventory(project, entries):
    """Write entries of the form (name, type, address) as Sphinx reads them."""
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    lines = [f"{name} {role} 1 {address} -\n" for name, role, address in sorted(entries)]
    body = zlib.compress("".join(lines).encode(), 9)
    (HERE / f"{project}.inv").write_bytes(head.encode() + body)
    print(f"{project}: {len(lines)} names, {len(head) + len(body)} bytes")


def part_of(project, path):
    """Entries of a full inventory that are worth keeping."""
    for name, role, _, address, _ in read_inventory(path):
        module = name.rpartition(".")[0] + "."
        wanted = (
            module.startswith(PARTS[project])
            if project != "python"
            else (module.lstrip(".") in PARTS[project])
        )
        if role in KEPT and wanted and "._" not in name:
            yield name, role, address
    for name, role in ADDED.get(project, ()):
        yield name, role, f"modules/generated/{name}.html#$"


if __name__ == "__main__":
    for project, roles in LISTED.items():
        entries = [(n, role, f"{at}#$") for role, names in roles.items() for n, at in names.items()]
        write_inventory(project, entries)
    for argument in sys.argv[1:]:
        project, _, path = argument.partition("=")
        write_inventory(project, set(part_of(project, Path(path))))
