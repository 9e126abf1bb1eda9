"""The chain of columns: a density with sharp dependence, its map and what follows from it."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from skdiffusion import ScoreSDE
from skdiffusion.estimators.density import _bases, _chain, _fitting, _order, _selection
from skdiffusion.training import chain as training


def sharp(n, seed=0, noise=0.05):
    """Three uniform columns and, second, a smooth function of two of them."""
    rng = np.random.default_rng(seed)
    u = rng.random((n, 3))
    value = np.sin(6 * u[:, 0]) * u[:, 1] + noise * rng.normal(size=n)
    return np.column_stack([u[:, 0], value, u[:, 1:]])


@pytest.fixture(scope="module")
def model():
    return ScoreSDE(base="chain", max_iter=0, random_state=0).fit(sharp(2000))


@pytest.fixture(scope="module")
def chain():
    """A chain that has not learnt much, of columns that hang together."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 4))
    rows[:, 1] += rows[:, 3]
    rows[:, 0] = 0.5 * rows[:, 2] ** 2 + 0.1 * rows[:, 0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_FEWEST", 100)
        patch.setattr(training, "_EPOCHS", 1)
        return _chain.fit_chain(rows[:300], rows[300:], 0)[0], rows


def test_what_the_others_foretell_stands_last():
    """A function comes after its arguments; independent columns come in any order."""
    order = list(_order.column_order(sharp(2500), 0))
    assert order[-1] == 1


def test_the_map_has_its_inverse(chain):
    chain, rows = chain
    scores, _ = chain.forward(rows)
    np.testing.assert_allclose(chain.inverse(scores), rows, atol=1e-9)
    far = np.array([[30.0, -40.0, 50.0, 9.0]])
    np.testing.assert_allclose(chain.inverse(chain.forward(far)[0]), far, rtol=1e-9)


def test_log_determinant_and_factors_are_those_of_the_jacobian(chain):
    """By automatic differentiation of the scores; the factors add up to the density."""
    chain, rows = chain
    scores, log_jacobian = chain.forward(rows[:20])
    h = 1e-6
    for row, ours in zip(rows[:5], log_jacobian):
        steps = np.concatenate([row + h * np.eye(4), row - h * np.eye(4)])
        ahead = chain.forward(steps)[0]
        jacobian = (ahead[:4] - ahead[4:]) / (2 * h)
        assert np.linalg.slogdet(jacobian)[1] == pytest.approx(ours, abs=1e-6)
    total = chain.log_factors(torch.as_tensor(rows[:20])).sum(1).numpy()
    np.testing.assert_allclose(total, stats.norm.logpdf(scores).sum(1) + log_jacobian, atol=1e-9)


def test_a_row_does_not_depend_on_the_others(chain):
    chain, rows = chain
    together, alone = chain.forward(rows)[0][7:8], chain.forward(rows[7:8])[0]
    np.testing.assert_allclose(together, alone, atol=1e-10)


def test_a_pickle_is_the_same_chain(chain):
    chain, rows = chain
    state = pickle.dumps(chain)
    assert b"torch" not in state
    np.testing.assert_allclose(
        pickle.loads(state).forward(rows)[0], chain.forward(rows)[0], atol=1e-12
    )


def test_trees_find_steps_and_groups():
    """A column that repeats five values by groups of another: networks see a wiggle."""
    rng = np.random.default_rng(0)
    places = rng.random(1200)
    rows = np.column_stack([places, np.sin(9.0 * np.floor(30 * places))])
    rows[:, 1] += 0.02 * rng.normal(size=1200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_FEWEST", 200)
        patch.setattr(training, "_EPOCHS", 1)
        fitted = _chain.fit_chain(rows[:1000], rows[1000:], 0)[0]
    weights = fitted.log_weights.exp().numpy()
    np.testing.assert_allclose(weights.sum(0), 1, rtol=1e-12)
    assert weights[2:, 1].sum() > 0.5
    scores = fitted.forward(rows)[0]
    np.testing.assert_allclose(fitted.inverse(scores), rows, atol=1e-8)


def test_labels_hang_together_as_in_the_data():
    """Shares of one label given another, which normals smooth, within their sampling errors."""
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    k = rng.choice(3, 1500, p=[0.5, 0.3, 0.2])
    high = rng.random(1500) < np.array([0.02, 0.5, 0.95])[k]
    table = pd.DataFrame({"a": pd.Categorical(k), "x": k + rng.normal(size=1500), "b": high})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_FEWEST", 400)
        patch.setattr(training, "_EPOCHS", 1)
        fitted = ScoreSDE(base="chain", max_iter=0, random_state=0).fit(table)
    draws = fitted.sample(6000, random_state=1)
    for name in (0, 1, 2):
        ours, data = (t.loc[t["a"] == name, "b"].astype(float) for t in (draws, table))
        share = data.mean()
        error = np.sqrt(share * (1 - share) * (1 / len(ours) + 1 / len(data)))
        assert abs(ours.mean() - share) < 5 * error + 0.01
        assert len(ours) / 6000 == pytest.approx(len(data) / 1500, abs=0.05)
    given = fitted.sample(300, given={"a": 2}, random_state=2)
    assert (given["a"] == 2).all()
    assert given["b"].mean() > 0.85
    chain, rows = fitted.coordinates_.chain, rng.normal(size=(50, 3))
    scores, log_jacobian = chain.forward(rows)
    total = chain.log_factors(torch.as_tensor(rows)).sum(1).numpy()
    np.testing.assert_allclose(total, stats.norm.logpdf(scores).sum(1) + log_jacobian, atol=1e-9)
    np.testing.assert_allclose(chain.inverse(scores), rows, atol=1e-7)


def test_entropy_of_a_sharp_function_is_nearly_reached(model):
    """The truth is that of the noise, as the other columns are uniform on (0, 1)."""
    truth = -stats.norm(scale=0.05).entropy()
    assert truth - 0.2 < model.score(sharp(3000, seed=1)) < truth + 0.05


def test_draws_follow_the_function(model):
    draws = model.sample(3000, random_state=1)
    residual = draws[:, 1] - np.sin(6 * draws[:, 0]) * draws[:, 2]
    assert np.abs(np.median(residual)) < 0.01
    assert 0.045 < stats.iqr(residual) / 1.349 < 0.065
    for j in (0, 2, 3):
        assert stats.kstest(draws[:, j], "uniform").pvalue > 1e-6


def test_density_on_a_column_and_its_arguments_integrates_to_one(model):
    """The density of one column, the others fixed, over its marginal density."""
    grid = np.linspace(-1.5, 1.5, 3001)
    rows = np.repeat([[0.3, 0.0, 0.6, 0.5]], len(grid), axis=0)
    rows[:, 1] = grid
    density = np.exp(model.score_samples(rows))
    assert grid[density.argmax()] == pytest.approx(np.sin(1.8) * 0.6, abs=0.02)
    assert density.sum() * 0.001 == pytest.approx(1, abs=0.15)


def test_gradient_and_latent_rows_go_through_the_chain(model):
    rows, h = sharp(20, seed=2), 1e-6
    numeric = np.column_stack(
        [
            (model.score_samples(rows + e) - model.score_samples(rows - e)) / (2 * h)
            for e in h * np.eye(4)
        ]
    )
    ours = model.log_density_gradient(rows, noise_level=1e-3)
    # A tree may leap between two points, and has no slope elsewhere.
    assert np.isclose(ours, numeric, rtol=1e-3, atol=1e-3).mean() > 0.97
    back = model.inverse_transform(model.transform(rows))
    np.testing.assert_allclose(back, rows, atol=1e-4)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.score_samples(rows), model.score_samples(rows))


@pytest.mark.slow
def test_auto_keeps_the_chain_where_dependence_is_sharp():
    X = sharp(1000)
    model = ScoreSDE(hidden_layer_sizes=(16,), max_iter=20, random_state=0).fit(X)
    assert model.base_.startswith("chain")
    assert {"mixture", "chain"} <= set(model.held_out_score_)


@pytest.mark.slow
def test_a_network_learns_on_the_chain():
    X = sharp(1000)
    settings = {"base": "chain", "hidden_layer_sizes": (16,), "max_iter": 20, "random_state": 0}
    model = ScoreSDE(**settings).fit(X)
    assert {"chain", "chain + network"} == set(model.held_out_score_)
    model.partial_fit(X)
    assert model.base_ == "chain + network"
    assert np.isfinite(model.score_samples(X[:50])).all()
    assert model.sample(5).shape == (5, 4)
    assert np.isfinite(model.impute([[0.5, np.nan, 0.2, np.nan]], 3)).all()


def test_a_chain_has_no_condition():
    with pytest.raises(ValueError, match='base="chain" has no conditional form'):
        ScoreSDE(base="chain", condition="value").fit(sharp(100), np.arange(100.0))


@pytest.mark.parametrize("rows", [sharp(6), sharp(200)[:, :1], np.round(10 * sharp(300))])
def test_few_rows_one_column_and_integers(rows):
    model = ScoreSDE(base="chain", max_iter=0, random_state=0).fit(rows)
    assert np.isfinite(model.score_samples(rows)).all()
    assert np.isfinite(model.sample(20)).all()


@pytest.mark.parametrize("is_sharp", [True, False])
def test_all_rows_go_to_mixtures_only_where_a_chain_is_not_far_ahead(is_sharp, monkeypatch):
    sizes = []
    fit_stacks = _bases.fit_stacks

    def seen(train, *rest):
        sizes.append(len(train))
        return fit_stacks(train, *rest)

    monkeypatch.setattr(_bases, "fit_stacks", seen)
    monkeypatch.setattr(_selection, "_SKETCH_ROWS", 150)
    monkeypatch.setattr(training, "_FEWEST", 300)
    monkeypatch.setattr(training, "_EPOCHS", 1)
    rows = sharp(1000, noise=0.01) if is_sharp else np.random.default_rng(0).normal(size=(1000, 3))
    fitted = ScoreSDE(hidden_layer_sizes=(8,), max_iter=1, random_state=0).fit(rows)
    assert fitted.base_.startswith("chain") == is_sharp
    assert set(sizes) == ({150} if is_sharp else {150, 900})


def test_full_fits_are_for_the_best_map_and_those_whose_sketches_are_not_clearly_behind():
    noise = torch.as_tensor(np.random.default_rng(0).normal(size=1000))
    gains = {None: 0 * noise, "histogram": noise - noise.mean() - 0.03, "copula": 0.1 * noise - 1}

    def mapped(option, gain, *others):
        of_base = lambda name, one: SimpleNamespace(name=name, log_densities=one)  # noqa: E731
        pairs = [("mixture", gain), *others]
        return SimpleNamespace(option=option, candidates=[of_base(*pair) for pair in pairs])

    tried = [mapped(option, gain) for option, gain in gains.items()]
    # 0.03 is one standard error of the mean of the second, 1 is far more than that of the third.
    assert _selection._not_behind(tried, tried[0]) == [None, "histogram"]
    # A kernel estimate is of all rows, which says nothing of sketches of other maps.
    tried[2] = mapped("copula", gains["copula"], ("kde", noise + 1))
    assert _selection._not_behind(tried, tried[2]) == [None, "histogram", "copula"]


def test_shapes_that_are_of_no_use_are_not_started_again(monkeypatch):
    seeds, tried, fit, clusters = [], {}, _bases.em.fit, _bases.clusters

    def seen_clusters(rows, size, seed):
        seeds.append(seed)
        return clusters(rows, size, seed)

    def seen_fit(rows, start, shape):
        tried.setdefault(seeds[-1], set()).add(shape)
        return fit(rows, start, shape)

    monkeypatch.setattr(_bases, "clusters", seen_clusters)
    monkeypatch.setattr(_bases.em, "fit", seen_fit)
    rows = np.random.default_rng(0).normal(size=(300, 3)) @ [[1, 1, 1], [0, 0.05, 0], [0, 0, 0.05]]
    stack = _bases.fit_stack(rows[:200], rows[200:], 0)
    first, *others = tried.values()
    assert (len(first), len(others)) == (6, 2)
    for again in others:
        assert set(stack.shapes) <= again < first
        # A strip along the diagonal is nothing for columns that are independent.
        assert not any(shape.diagonal for shape in again)
    tried.clear()
    _bases.fit_stack(rows[:200], rows[200:], 0, sketched=True)
    assert len(tried) == 1


def test_bases_show_how_long_they_take(capsys):
    ScoreSDE(verbose=1, max_iter=0, random_state=0).fit(sharp(60))
    assert "ScoreSDE, mixtures" in capsys.readouterr().err


def test_a_chain_stays_behind_the_maps_that_it_was_learnt_behind(monkeypatch):
    """Those of all rows have their edges elsewhere."""

    class Seen(Exception):
        pass

    def look(mapped, settings):
        x = np.linspace(-2, 2, 50)[:, None].repeat(3, 1)
        maps = mapped.marginals, mapped.fitted_marginals
        raise Seen(all(np.array_equal(a, b) for a, b in zip(*(m.forward(x) for m in maps))))

    monkeypatch.setattr(_selection, "_with_chain", look)
    X = np.random.default_rng(0).gamma(1.0, size=(400, 3))
    with pytest.raises(Seen, match="True"):
        ScoreSDE(base="chain", random_state=0).fit(X)


@pytest.mark.parametrize("weighted", [False, True])
def test_of_very_many_rows_some_are_learnt_from_whatever_stands_beside_them(weighted, monkeypatch):
    sizes, split = [], _fitting.split_rows

    def seen(rows, *rest):
        sizes.append(len(np.unique(rows, axis=0)))
        left, right = (set(rows[sign * rows[:, 0] > 0.5, 1]) for sign in (-1, 1))
        assert len(left) == len(right) == 1
        assert left != right
        return split(rows, *rest)

    monkeypatch.setattr(_fitting, "split_rows", seen)
    monkeypatch.setattr(_fitting, "_MOST_ROWS", 100)
    x = np.random.default_rng(0).uniform(0.1, 1, 300) * np.tile([1, -1], 150)
    weight = np.ones(300) if weighted else None
    model = ScoreSDE(condition="label", base="mixture", max_iter=0, random_state=0)
    model.fit(x[:, None], np.where(x > 0, "right", "left"), sample_weight=weight)
    assert sizes == [100]


@pytest.mark.parametrize(("ahead", "names"), [(0.01, ["chain", "kde"]), (5.0, ["chain"])])
def test_what_is_not_far_behind_a_chain_gets_a_network_too(ahead, names):
    """On a network a kernel estimate gained .4 nats, where the chain that was ahead gained none."""
    noise = np.random.default_rng(0).normal(size=500)
    candidates = [
        SimpleNamespace(name=name, chain=chain, score=score, log_densities=torch.as_tensor(x))
        for name, chain, score, x in [
            ("mixture", None, -ahead - 1, noise - 1),
            ("kde", None, -ahead, noise),
            ("chain", object(), 0.0, noise + ahead),
        ]
    ]
    rows = SimpleNamespace(train=range(4000), held_out=range(1000), n_features=5)
    settings = SimpleNamespace(base="auto", own_network=False, max_iter=100)
    found = _selection._to_train(candidates, candidates[-1], rows, settings)
    assert [candidate.name for candidate in found] == names
