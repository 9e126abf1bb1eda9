"""Models of halves foretell the other half alone."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsRegressor

from skdiffusion.estimators._halves import averaged, cross_fitted


@pytest.mark.parametrize("as_masks", [True, False])
def test_no_row_is_foretold_by_a_model_that_has_seen_it(as_masks):
    # What the nearest row says of itself is the truth; of a row that it has not seen, noise.
    rng = np.random.default_rng(0)
    inputs, target = rng.normal(size=(400, 1)), rng.normal(size=400)
    even = rng.random(400) < 0.5
    halves = (even, ~even) if as_masks else (np.flatnonzero(even), np.flatnonzero(~even))
    models, foretold = cross_fitted(lambda: KNeighborsRegressor(1), inputs, target, halves)
    assert abs(np.corrcoef(foretold, target)[0, 1]) < 5 / np.sqrt(400)
    for model, half in zip(models, halves, strict=True):
        np.testing.assert_array_equal(model.predict(inputs[half]), target[half])
    both = [model.predict(inputs) for model in models]
    np.testing.assert_allclose(averaged(models, inputs), (both[0] + both[1]) / 2)
