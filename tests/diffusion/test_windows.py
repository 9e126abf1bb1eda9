"""Series cut into windows."""

import pytest
import torch

from skdiffusion.diffusion.window.series import WindowedSeries, taper


def joined(sizes, length, n_features=2):
    triples = []
    for i, n in enumerate(sizes):
        values = torch.arange(n * n_features).view(n, n_features).double() + 100 * i
        observed = torch.ones(n, n_features, dtype=torch.bool)
        observed[0, 0] = False
        triples.append((values, observed, ~observed))
    return WindowedSeries.join(triples, length)


def test_short_series_are_padded_with_cells_nobody_wants():
    series = joined([3, 7], length=5)
    assert series.offsets.tolist() == [0, 5, 12]
    assert not series.observed[3:5].any()
    assert not series.wanted[3:5].any()
    assert series.wanted.sum() == 2


def test_windows_never_cross_series():
    series = joined([6, 5, 9], length=5)
    number, _, _ = series.place(series.rows(series.all_starts()).flatten())
    assert (number.view(-1, 5) == number.view(-1, 5)[:, :1]).all()
    assert len(series.all_starts()) == 2 + 1 + 5


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_regular_windows_cover_every_row(stride):
    series = joined([6, 5, 13], length=5)
    covered = torch.zeros(len(series.values), dtype=torch.bool)
    covered[series.rows(series.regular_starts(stride)).flatten()] = True
    assert covered.all()


def test_place_and_address_are_inside_the_series():
    series = joined([6, 5], length=5)
    number, local, size = series.place(torch.tensor([0, 5, 6, 10]))
    assert number.tolist() == [0, 0, 1, 1]
    assert local.tolist() == [0, 5, 0, 4]
    assert size.tolist() == [6, 6, 5, 5]
    number, cell = series.address()
    assert number.tolist() == [0, 1]
    assert cell.tolist() == [0, 0]


def test_stacked_samples_equal_joined_ones():
    values = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0)).double()
    observed = values > 0
    stack = WindowedSeries.stack(values, observed)
    join = WindowedSeries.join([(x, o, ~o) for x, o in zip(values, observed)], 4)
    for name in ("values", "observed", "wanted", "offsets"):
        assert getattr(stack, name).equal(getattr(join, name))


def test_the_taper_is_positive_symmetric_and_largest_in_the_middle():
    for length in (1, 2, 7, 24):
        weights = taper(length)
        assert (weights > 0).all()
        torch.testing.assert_close(weights, weights.flip(0))
        assert weights.argmax() in (length // 2, (length - 1) // 2)
