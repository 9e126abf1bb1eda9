"""Pictures of chains show the numbers they are given."""

import numpy as np
import pytest

from skdiffusion.estimators import LangevinSampler
from skdiffusion.inspection import TraceDisplay, TrajectoryDisplay


@pytest.fixture(autouse=True)
def no_window():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def sampler():
    parameters = {"method": "mala", "n_steps": 10, "n_features": 3, "random_state": 0}
    return LangevinSampler(lambda x: -x.square().sum(1), **parameters).fit()


def test_trajectory_shows_first_and_last_positions(sampler):
    display = TrajectoryDisplay.from_estimator(sampler, 40, features=(2, 0)).plot(n_moments=3)
    path = sampler.sample(40, return_trajectory=True)[1]
    assert len(display.axes_) == 3
    for ax, moment in ((display.axes_[0], 0), (display.axes_[2], len(path) - 1)):
        np.testing.assert_allclose(ax.collections[0].get_offsets(), path[moment][:, [2, 0]])


def test_traces_are_the_chains(sampler):
    display = TraceDisplay.from_estimator(sampler, 4, feature=1).plot()
    path = sampler.sample(4, return_trajectory=True)[1]
    drawn = np.stack([line.get_ydata() for line in display.axes_[0].lines], 1)
    np.testing.assert_allclose(drawn, path[:, :, 1])


def test_wrong_features_are_named():
    path = np.zeros((5, 4, 2))
    with pytest.raises(ValueError, match=r"features=\(0, 2\)"):
        TrajectoryDisplay(path, features=(0, 2))
    with pytest.raises(ValueError, match="feature=2"):
        TraceDisplay(path, feature=2)
    with pytest.raises(ValueError, match="shape"):
        TrajectoryDisplay(path[0])
