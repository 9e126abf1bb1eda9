"""What leaves the sampler, or must not be left behind."""

import contextlib


@contextlib.contextmanager
def unchanged_by_failure(estimator):
    """Forget what was learnt, and take it back where learning fails or is interrupted."""
    before = dict(vars(estimator))
    try:
        for name in before:
            if name.endswith("_"):
                delattr(estimator, name)
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def inference_data(x, log_density):
    """Give draws of shape (n_chains, n_draws, n_features) to ArviZ, with their log densities."""
    try:
        from arviz import from_dict
    except ImportError:
        try:
            from arviz_base import from_dict
        except ImportError as error:
            raise ImportError("to_inference_data needs ArviZ: pip install arviz") from error
    groups = {"posterior": {"x": x}}
    if log_density is not None:
        groups["sample_stats"] = {"lp": log_density, "energy": -log_density}
    return from_dict(groups)
