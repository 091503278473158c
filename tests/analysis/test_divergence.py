"""Divergences against closed forms."""

import numpy as np
import pytest

from lstmfit.analysis.divergence import (
    bound,
    bound_correlated,
    gaussian_divergence,
    independent_columns,
    linear_gaussian,
    nearest_neighbour_divergence,
    with_error,
)


def linear_case(rng, n=60, d=3, sigma=2.0):
    """Model matrix, error vector and noise covariance (correlated) of a linear model."""
    matrix, error = rng.standard_normal((n, d)), 0.3 * rng.standard_normal(n)
    lag = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    return matrix, error, sigma**2 * 0.8**lag


def test_two_gaussians():
    assert gaussian_divergence([0.0], [[1.0]], [0.0], [[1.0]]) == pytest.approx(0.0)
    # ln(s2/s1) + (s1^2 + (m1-m2)^2) / (2 s2^2) - 1/2
    expected = np.log(2.0) + (1.0 + 0.25) / 8.0 - 0.5
    assert gaussian_divergence([0.5], [[1.0]], [1.0], [[4.0]]) == pytest.approx(expected)
    p, q = np.array([[2.0, 0.3], [0.3, 1.0]]), np.array([[1.0, -0.2], [-0.2, 3.0]])
    rotate = np.linalg.qr(np.array([[1.0, 2.0], [3.0, -1.0]]))[0]
    one = gaussian_divergence([0, 1], p, [1, 1], q)
    two = gaussian_divergence(rotate @ [0, 1], rotate @ p @ rotate.T, rotate @ [1, 1], rotate @ q @ rotate.T)
    assert one == pytest.approx(two)


def test_the_linear_gaussian_form_is_the_divergence_of_the_two_posteriors(rng):
    matrix, error, noise = linear_case(rng)
    inverse = np.linalg.inv(noise)
    prior_precision = np.diag([0.1, 1.0, 5.0])
    for extra in (None, prior_precision):
        fisher, pull = matrix.T @ inverse @ matrix, matrix.T @ inverse @ error
        d_kl, shift = linear_gaussian(fisher, pull, extra)
        covariance = np.linalg.inv(fisher if extra is None else fisher + extra)
        data = rng.standard_normal(len(error))
        means = [covariance @ matrix.T @ inverse @ (data - e) for e in (0.0, error)]
        assert d_kl == pytest.approx(gaussian_divergence(means[0], covariance, means[1], covariance))
        np.testing.assert_allclose(shift, (means[1] - means[0]) / np.sqrt(np.diag(covariance)), rtol=1e-9)


def test_the_bound_holds_and_is_reached_by_an_error_in_the_tangent_space(rng):
    matrix, error, noise = linear_case(rng)
    inverse = np.linalg.inv(noise)
    for vector in (error, matrix @ [0.1, -0.2, 0.05]):
        d_kl, _ = linear_gaussian(matrix.T @ inverse @ matrix, matrix.T @ inverse @ vector)
        assert d_kl <= bound_correlated(vector, noise) * (1 + 1e-12)
    assert d_kl == pytest.approx(bound_correlated(vector, noise))
    white = 4.0 * np.eye(len(error))
    assert bound_correlated(error, white) == pytest.approx(bound(np.sqrt(np.mean(error**2)), 2.0, len(error)))


def test_the_published_bounds():
    """Bevins et al. 2025, Table 3, and 21cmLSTM's 0.39 mK."""
    assert bound(0.99, 5.0, 490) == pytest.approx(9.60, abs=0.01)
    assert bound(3.14, 25.0, 490) == pytest.approx(3.86, abs=0.01)
    assert bound(0.39, 5.0, 451) == pytest.approx(1.37, abs=0.005)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_nearest_neighbours_find_the_divergence_of_gaussians(rng, shift):
    d, n = 4, 2000
    x, y = rng.standard_normal((n, d)), shift + 1.2 * rng.standard_normal((n, d))
    expected = gaussian_divergence(np.zeros(d), np.eye(d), np.full(d, shift), 1.44 * np.eye(d))
    value, error = with_error(nearest_neighbour_divergence, x, y, rng)
    assert 0.005 < error < 0.08
    assert abs(value - expected) < 3 * error + 0.02


def test_points_in_common_are_no_neighbours(rng):
    """The same points in both, all or a half of them, and each of them twice."""
    x = rng.standard_normal((600, 3))
    assert nearest_neighbour_divergence(x, x) == 0.0
    assert nearest_neighbour_divergence(np.repeat(x, 7, axis=0), np.repeat(x, 7, axis=0)) == 0.0
    values = []
    for _ in range(20):
        x = rng.standard_normal((600, 3))
        values.append(nearest_neighbour_divergence(x[:400], x[200:]))
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(20)


def test_columns_that_are_linear_functions_of_others(rng):
    x = rng.standard_normal((200, 3)) * [1.0, 1e20, 1e-3]
    x = np.column_stack([x, 2.0 * x[:, 0], x[:, 0] + 1e3 * x[:, 2] - 5.0])
    assert independent_columns(np.cov(x, rowvar=False)) == [0, 1, 2]
    assert independent_columns(np.cov(x[:, ::-1], rowvar=False)) == [0, 1, 3]
    assert independent_columns(np.empty((0, 0))) == []


def test_half_samples_give_the_scatter_between_independent_samples(rng):
    def estimate():
        x, y = rng.standard_normal((400, 2)), 0.3 + rng.standard_normal((400, 2))
        return with_error(nearest_neighbour_divergence, x, y, rng)

    values, errors = np.array([estimate() for _ in range(40)]).T
    assert 0.7 < errors.mean() / values.std() < 1.5


def test_smaller_subsets_give_the_scatter_between_correlated_samples(rng):
    """Points that move together: the variance of a mean is four times that of independent points, also in the error."""
    n, f = 400, 4.0
    common = np.sqrt((f - 1.0) / n)

    def estimate(estimator, inflation):
        x, y = (rng.standard_normal((n, 2)) + common * rng.standard_normal(2) for _ in range(2))
        return with_error(estimator, x, 1.0 + y, rng, inflation=inflation)

    def gaussian(x, y):
        return gaussian_divergence(x.mean(axis=0), np.cov(x.T), y.mean(axis=0), np.cov(y.T))

    for estimator in (gaussian, nearest_neighbour_divergence):
        values, errors = np.array([estimate(estimator, (f, f)) for _ in range(60)]).T
        assert 0.75 < errors.mean() / values.std() < 1.4
        halves = np.array([estimate(estimator, (1.0, 1.0))[1] for _ in range(10)])
        assert halves.mean() / values.std() < 0.75
