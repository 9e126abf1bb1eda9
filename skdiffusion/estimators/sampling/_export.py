"""What leaves the sampler, or must not be left behind."""

import contextlib
import importlib
import inspect

from skdiffusion.estimators._atomic import all_or_nothing


@contextlib.contextmanager
def unchanged_by_failure(estimator):
    """Forget what was learnt, and take it back where learning fails or is interrupted."""
    with all_or_nothing(estimator):
        for name in list(vars(estimator)):
            if name.endswith("_"):
                delattr(estimator, name)
        yield


def inference_data(x, log_density):
    """Give draws of shape (n_chains, n_draws, n_features) to ArviZ, with their log densities."""
    module = _arviz()
    groups = {"posterior": {"x": x}}
    if log_density is not None:
        groups["sample_stats"] = {"lp": log_density, "energy": -log_density}
    # Before version 1 every group is an argument, since then they are one dictionary.
    old = "posterior" in inspect.signature(module.from_dict).parameters
    return module.from_dict(**groups) if old else module.from_dict(groups)


def _arviz():
    """ArviZ, or the part of it that holds data since version 1."""
    for name in ("arviz", "arviz_base"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ImportError("to_inference_data needs ArviZ: pip install arviz")
