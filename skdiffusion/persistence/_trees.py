"""Decision trees of scikit-learn: whether their numbers lead where there is something.

Compiled code follows these numbers without looking: those of a forged file would lead it anywhere.
"""

import numpy as np

from skdiffusion._file import ModelFileError


def check_trees(estimator):
    """Refuse trees of an estimator that lead outside of themselves or of its columns.

    Parameters
    ----------
    estimator : object
        Any object; those without trees pass.

    Raises
    ------
    ModelFileError
        If a tree does.
    """
    state = getattr(estimator, "__dict__", {})
    n_features = state.get("n_features_in_")
    for predictors in state.get("_predictors", ()):
        for predictor in predictors:
            _check_boosted(predictor, n_features)
    if "tree_" in state and hasattr(state["tree_"], "node_count"):
        _check_tree(state["tree_"], n_features)
    if "tree_" in state or "_predictors" in state:
        return
    trees = [t for t in np.ravel(state.get("estimators_", ())) if hasattr(t, "tree_")]
    if trees:
        _require(all(tree.n_features_in_ == n_features for tree in trees))


def _check_boosted(predictor, n_features):
    """Check the nodes of one tree of gradient boosting."""
    nodes = predictor.nodes
    inner = nodes["is_leaf"] == 0
    _check_nodes(nodes["left"], nodes["right"], nodes["feature_idx"], inner, n_features)
    categorical = inner & (nodes["is_categorical"] != 0)
    _require((nodes["bitset_idx"][categorical] < len(predictor.raw_left_cat_bitsets)).all())


def _check_tree(tree, n_features):
    """Check the nodes of a decision tree."""
    left, right = tree.children_left, tree.children_right
    _require(tree.n_features == n_features and tree.node_count == len(tree.__getstate__()["nodes"]))
    _check_nodes(left, right, tree.feature, left != -1, n_features)


def _check_nodes(left, right, feature, inner, n_features):
    """Children come after their parent, and features are there."""
    number = np.flatnonzero(inner)
    for child in (left[inner].astype(np.int64), right[inner].astype(np.int64)):
        _require(((child > number) & (child < len(inner))).all())
    _require(len(inner) > 0 and n_features is not None)
    _require(((feature[inner] >= 0) & (feature[inner] < n_features)).all())


def _require(holds):
    if not holds:
        raise ModelFileError("it holds a decision tree that leads nowhere")
