"""The counter-based generator: published answers, moments, independence."""

import numpy as np
import pytest
import torch

from skdiffusion._random import draw_seed, normals, philox, row_keys

# Known-answer vectors of Philox-4x32-10 in the authors' Random123 distribution.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def words(text):
    return [torch.tensor(int(word, 16), dtype=torch.int64) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_gives_the_published_answers(counter, key, expected):
    out = philox(words(counter), words(key))
    assert [f"{int(word):08x}" for word in out] == expected.split()


def noise(n_rows=20, n_draws=20, n_cells=500):
    keys = row_keys(np.arange(2.0 * n_rows).reshape(n_rows, 2), seed=1)
    draw, cell = torch.arange(n_draws)[:, None], torch.arange(n_cells)
    return normals(keys[:, None, None], draw, 3, cell, dtype=torch.float64)


def test_normals_have_the_moments_of_a_normal():
    x = noise().numpy().ravel()
    # 4.9 standard errors are exceeded once in a million.
    for power, mean, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs(np.mean(x**power) - mean) < 4.9 * np.sqrt(variance / x.size)


def test_normals_have_the_tails_of_a_normal():
    from scipy.stats import kstest

    assert kstest(noise().numpy().ravel(), "norm").pvalue > 1e-6


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_neighbouring_addresses_are_independent(axis):
    x = noise().numpy()
    first = np.take(x, range(x.shape[axis] - 1), axis).ravel()
    second = np.take(x, range(1, x.shape[axis]), axis).ravel()
    for f, g in [(first, second), (first**2 - 1, second**2 - 1)]:
        z = (f * g).sum() / np.sqrt((f**2 * g**2).sum())
        assert abs(z) < 4.9


def test_steps_and_keys_change_everything():
    keys = row_keys(np.zeros((2, 3)), seed=0)
    cell = torch.arange(1000)
    a, b = normals(keys[0], 0, 0, cell), normals(keys[0], 0, 1, cell)
    c = normals(keys[1], 0, 0, cell)
    assert not (a == b).any()
    assert not (a == c).any()


def test_noise_depends_on_the_address_only():
    keys = row_keys(np.arange(6.0).reshape(3, 2), seed=0)
    whole = normals(keys[:, None], 0, 0, torch.arange(70_000))
    part = normals(keys[1], 0, 0, torch.arange(69_990, 70_000))
    torch.testing.assert_close(whole[1, 69_990:], part, rtol=0, atol=0)


def test_row_keys_follow_content_not_place():
    rows = np.random.default_rng(0).standard_normal((5, 3))
    keys = row_keys(rows, seed=7)
    assert len(set(keys.tolist())) == 5
    assert row_keys(rows[::-1], seed=7).flip(0).equal(keys)
    assert row_keys(rows[2:3], seed=7)[0] == keys[2]
    assert not row_keys(rows, seed=8).eq(keys).any()


def test_equal_rows_get_different_keys():
    keys = row_keys([np.array([0.0, np.nan]), np.array([-0.0, -np.nan])], seed=0)
    assert keys[0] != keys[1]
    again = row_keys([np.array([-0.0, np.nan])] * 2, seed=0)
    assert again.equal(keys)


def test_draw_seed_is_fixed_by_an_int():
    assert draw_seed(3) == draw_seed(3) == draw_seed(np.random.RandomState(3))
    assert draw_seed(3) != draw_seed(4)
    assert 0 <= draw_seed(None) < 2**63
