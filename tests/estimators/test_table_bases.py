"""What tables get: normal scores where they help, a mixture where one Gaussian is not enough."""

import numpy as np
from scipy import stats

from skdiffusion import CSDIImputer
from skdiffusion.columns.bend import Bend
from skdiffusion.columns.columns import Columns
from skdiffusion.columns.spikes import Spikes
from skdiffusion.estimators.imputation._maps import better_mapped
from skdiffusion.metrics import crps_loss


def normal_rows(n=600):
    return np.random.default_rng(0).multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], n)


def test_scores_are_normal_and_come_back_and_the_ends_go_on():
    u = np.random.default_rng(0).uniform(-1, 1, (500, 1))
    scores = Spikes.learn(Bend.learn(u), u, every=True)
    z = scores.forward(u)
    assert stats.kstest(z[:, 0], "norm").pvalue > 0.9
    column = np.zeros(500, dtype=int)
    np.testing.assert_allclose(scores.inverse(z.T, column)[0], u[:, 0], atol=0.02)
    beyond = scores.inverse(np.array([[-9.0, 9.0]]), column[:2])[0]
    assert -2 <= beyond[0] < u.min()
    assert u.max() < beyond[1] <= 2
    assert Spikes.learn(Bend.learn(u), u).scores == {}


def test_a_normal_table_is_bent_and_a_copula_gets_scores():
    x = normal_rows()
    curved = np.column_stack([stats.norm.cdf(x[:, 0]) ** 4, x[:, 1] ** 3])
    chosen = [better_mapped(Columns.learn(t), t).column_map.scores for t in (x, curved)]
    assert [sorted(found) for found in chosen] == [[], [0, 1]]


def test_draws_follow_a_circle():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 500)
    X = np.column_stack([np.cos(angle), np.sin(angle)]) + 0.05 * rng.normal(size=(500, 2))
    gaps = X.copy()
    gaps[::3, 1] = np.nan
    drawn = {}
    for method in ("gaussian", "diffusion"):
        imputer = CSDIImputer(method=method, random_state=0).fit(gaps)
        drawn[method] = imputer.sample(gaps, n_draws=40)[::3]
        assert (imputer.method_, imputer.n_iter_) == ("gaussian", 1)
    np.testing.assert_array_equal(drawn["gaussian"], drawn["diffusion"])
    radius = np.linalg.norm(drawn["gaussian"], axis=2)
    assert np.mean(np.abs(radius - 1) < 0.25) > 0.8
    # A point at +h or -h with equal chances: E|x - y| - E|x - x'| / 2 = h - h / 2.
    half = np.abs(X[::3, 1]).mean() / 2
    assert crps_loss(X[::3, 1], drawn["gaussian"][..., 1]) < 1.2 * half
