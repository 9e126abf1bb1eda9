"""The classes of this package: what a file may hold of it, and the list that skops asks for."""

import functools
import importlib
import inspect
import pkgutil

# Subpackages whose objects estimators are made of.
_ROOMS = ("inputs", "columns", "diffusion", "nn", "estimators", "metrics")
# Classes that went elsewhere since files were written: the name in the file, the name of today.
MOVED = {}
# Classes of others inside estimators of this package, for skops.
_OTHERS = [
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.utils._bunch.Bunch",
]


@functools.cache
def own_types():
    """Classes of this package by their full names."""
    found = {}
    for room in _ROOMS:
        package = importlib.import_module(f"skdiffusion.{room}")
        names = [m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
        for module in map(importlib.import_module, names):
            for value in vars(module).values():
                if inspect.isclass(value) and value.__module__ == module.__name__:
                    found[f"{module.__name__}.{value.__qualname__}"] = value
    return found


#: Names of the classes in fitted estimators, for ``skops.io.load(file, trusted=trusted_types)``.
trusted_types = sorted([*own_types(), *_OTHERS])
