"""Errors as the field quotes them."""

import numpy as np
import pytest

from lstmfit.constants import redshift_to_frequency
from lstmfit.emulator.metrics import rms_error, summarise
from lstmfit.errors import InputError


def test_rms_error_by_hand(rng):
    true = rng.normal(size=(4, 10))
    predicted = true + np.arange(4)[:, None]
    absolute, relative = rms_error(predicted, true)
    np.testing.assert_allclose(absolute, np.arange(4), atol=1e-12)
    np.testing.assert_allclose(relative, np.arange(4) / np.abs(true).max(axis=1), atol=1e-12)


@pytest.mark.parametrize(("low", "high"), [(60.0, 90.0), (60.0, None), (None, 90.0), (0.0, None)])
def test_a_band_with_both_one_or_no_edge(rng, low, high):
    z = np.linspace(5, 50, 60)
    nu = redshift_to_frequency(z)
    inside = (nu >= (low or 0.0)) & (nu <= (high or np.inf))
    true, predicted = rng.normal(size=(2, 3, 60))
    absolute, relative = rms_error(predicted, true, z, low, high)
    expected = np.sqrt(np.mean((predicted - true)[:, inside] ** 2, axis=1))
    assert absolute.shape == relative.shape == (3,)
    np.testing.assert_allclose(absolute, expected)
    np.testing.assert_allclose(relative, expected / np.abs(true[:, inside]).max(axis=1))


def test_an_empty_band_is_refused():
    with pytest.raises(InputError, match="no channel between 300"):
        rms_error(np.ones((1, 3)), np.ones((1, 3)), [5.0, 6.0, 7.0], 300.0)


def test_summary():
    summary = summarise(np.array([1.0, 3.0]), np.array([0.01, 0.03]))
    assert (summary.mean_percent, summary.median_percent, summary.max_percent) == pytest.approx((2.0, 2.0, 3.0))
    assert summary.mean_mK == 2.0
    assert summary.n == 2
