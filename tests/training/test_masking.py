"""Target strategies hide observed cells only, in the shares that are documented."""

import pytest
import torch

from skdiffusion.training.masking import (
    STRATEGIES,
    block_targets,
    by_feature,
    feature_targets,
    historical_targets,
    pattern_targets,
    random_targets,
)

SHAPE = (400, 24, 6)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pool(n):
    return torch.rand(n, *SHAPE[1:], generator=generator(9)) > 0.4


PATTERN = pattern_targets(torch.rand(3, *SHAPE[1:], generator=generator(5)) > 0.5)


@pytest.mark.parametrize("strategy", [*STRATEGIES.values(), PATTERN])
@pytest.mark.parametrize("shape", [SHAPE, (50, 24, 1)])
def test_only_observed_cells_are_hidden(strategy, shape):
    if strategy is PATTERN and shape != SHAPE:
        pytest.skip("the pattern has the features of the first shape")
    observed = torch.rand(shape, generator=generator(1)) > 0.3
    draw = lambda n: pool(n)[:, :, : shape[2]]  # noqa: E731
    hidden = strategy(observed, generator(), draw)
    assert hidden.dtype == torch.bool
    assert not (hidden & ~observed).any()
    assert hidden.any()
    assert strategy(observed, generator(), draw).equal(hidden)


@pytest.mark.parametrize("name", ["random", "feature", "block"])
def test_rows_of_a_table_are_a_window_of_one_step(name):
    observed = torch.ones(300, 1, 5, dtype=torch.bool)
    hidden = STRATEGIES[name](observed, generator(), None)
    assert 0.05 < hidden.double().mean() < 0.95


def test_random_shares_are_uniform():
    share = random_targets(torch.ones(SHAPE, dtype=torch.bool), generator()).double().mean((1, 2))
    # Mean 1/2 and variance 1/12 of U(0, 1); 4.9 standard errors.
    assert abs(float(share.mean()) - 0.5) < 4.9 * (1 / 12 / SHAPE[0]) ** 0.5
    assert float(share.var()) == pytest.approx(1 / 12, rel=0.3)


def test_historical_hides_the_gaps_of_another_window():
    observed = torch.ones(SHAPE, dtype=torch.bool)
    assert historical_targets(observed, generator(), pool).equal(~pool(SHAPE[0]))


def test_feature_hides_whole_features_at_most_half():
    hidden = feature_targets(torch.ones(SHAPE, dtype=torch.bool), generator())
    assert (hidden.all(1) == hidden.any(1)).all()
    count = hidden.any(1).sum(1)
    assert set(count.tolist()) == {1, 2, 3}


def test_block_mixes_scattered_cells_and_runs():
    hidden = block_targets(torch.ones(SHAPE, dtype=torch.bool), generator())
    # The longest run of hidden steps in any feature of each window.
    longest = torch.zeros(SHAPE[0])
    run = torch.zeros(SHAPE[0], SHAPE[2])
    for t in range(SHAPE[1]):
        run = (run + 1) * hidden[:, t]
        longest = torch.maximum(longest, run.amax(1))
    with_runs = (longest >= 6).double().mean()
    assert 0.3 < with_runs < 0.7
    assert 0.1 < hidden.double().mean() < 0.4


def test_patterns_are_each_used():
    patterns = torch.zeros(2, 3, 2, dtype=torch.bool)
    patterns[0, 0, 0] = patterns[1, 2, 1] = True
    hidden = pattern_targets(patterns)(torch.ones(100, 3, 2, dtype=torch.bool), generator())
    assert (hidden.flatten(1).sum(1) == 1).all()
    assert hidden[:, 0, 0].any()
    assert hidden[:, 2, 1].any()


@pytest.mark.parametrize("strategy", STRATEGIES.values())
def test_columns_of_one_category_are_hidden_together_and_as_often_as_a_number(strategy):
    owner = torch.tensor([0, 1, 1, 1, 1, 2])
    seen = torch.rand((4000, 1, 3), generator=generator()) < 0.8
    observed = seen[..., owner]
    pool = lambda n: observed.flip(0)[:n]  # noqa: E731
    hidden = by_feature(strategy, owner)(observed, generator(), pool)
    assert (hidden[..., 1:4] == hidden[..., 2:5]).all()
    assert not (hidden & ~observed).any()
    share = hidden[..., [0, 1, 5]].float().mean((0, 1))
    assert share.min() > 0.05
    assert share.max() - share.min() < 0.06  # seven standard errors


def test_features_of_one_column_each_leave_a_strategy_as_it_is():
    assert by_feature(STRATEGIES["block"], torch.arange(3)) is STRATEGIES["block"]
