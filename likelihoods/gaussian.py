"""The Gaussian at the bottom: covariance factored once, always normalised, linear terms marginalised exactly."""

import math

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh, solve_triangular

from lstmfit.errors import InputError

LN_2PI = math.log(2.0 * math.pi)


class GaussianNoise:
    """ln N(residual; 0, C), with C = sigma^2 diag(1 / weight) + E + F L F^T.

    sigma may change from call to call; everything that does not depend on it is worked out once. The residual is
    brought into a basis in which sigma^2 diag(1/weight) + E is the diagonal sigma^2 + e: by scaling with the square
    root of the weights and, where there is an E, by rotating with its eigenvectors.

    Parameters
    ----------
    weight : numpy.ndarray
        (n,) positive.
    covariance : numpy.ndarray, optional
        E, (n, n) mK^2, symmetric and not negative.
    basis : numpy.ndarray, optional
        F, (n, k): columns whose coefficients are marginalised.
    mean, scale : numpy.ndarray, optional
        (k,) mean and standard deviation of the coefficients' Gaussian prior; L = diag(scale^2).
    centre : numpy.ndarray, optional
        (k,) coefficients near the answer (say, fitted to the data). The caller's residuals must then be those with
        ``basis @ centre`` taken off already. It changes nothing but rounding: a foreground is 10^5 times the noise,
        and its square would drown the digits of ln L.

    Raises
    ------
    InputError
        A weight is not positive, E is not a covariance, or the columns are not independent.
    """

    def __init__(self, weight, covariance=None, basis=None, mean=None, scale=None, centre=None):
        weight = np.asarray(weight, dtype=float)
        if not (np.isfinite(weight).all() and (weight > 0).all()):
            raise InputError("weights must be positive; leave channels of weight zero out")
        self.n = len(weight)
        self._root = np.sqrt(weight)
        self._log_jacobian = 0.5 * float(np.log(weight).sum())
        self._rotation, self._extra = None, 0.0
        if covariance is not None:
            values, vectors = eigh(self._whiten_matrix(np.asarray(covariance, dtype=float)))
            if values[0] < -1e-9 * max(values[-1], 0.0) - 1e-300:
                raise InputError(
                    f"covariance is not positive: its smallest eigenvalue is {values[0]:.3g} (scaled by the weights); "
                    "check that it is symmetric and made from more samples than channels"
                )
            self._rotation, self._extra = np.ascontiguousarray(vectors.T), np.clip(values, 0.0, None)
        self._basis = None
        if basis is not None:
            self._set_basis(np.asarray(basis, dtype=float), mean, scale, centre)
        self._cached_sigma = None

    def _whiten_matrix(self, covariance):
        if covariance.shape != (self.n, self.n):
            raise InputError(f"covariance has shape {covariance.shape}; the data have {self.n} channels")
        if not np.isfinite(covariance).all() or not np.allclose(covariance, covariance.T, rtol=1e-6, atol=0.0):
            raise InputError("covariance is not a finite symmetric matrix")
        return self._root[:, None] * (0.5 * (covariance + covariance.T)) * self._root

    def _set_basis(self, basis, mean, scale, centre):
        k = basis.shape[1]
        scale = np.broadcast_to(np.asarray(scale, dtype=float), (k,))
        if not (scale > 0).all():
            raise InputError("the prior of a marginalised coefficient needs a width: scale > 0")
        offset = np.broadcast_to(np.asarray(mean, dtype=float), (k,)) - (0.0 if centre is None else centre)
        # In units of the coefficients in which the columns are orthonormal, every matrix below is well conditioned.
        q, self._triangle = np.linalg.qr(self._whiten(basis))
        if np.abs(np.diag(self._triangle)).min() < 1e-13 * np.abs(np.diag(self._triangle)).max():
            raise InputError(f"the {k} foreground terms are not independent on these {self.n} channels; use fewer")
        self._basis = q
        inverse = solve_triangular(self._triangle, np.eye(k))
        self._precision = inverse.T @ (inverse / scale[:, None] ** 2)
        self._pull = inverse.T @ (offset / scale**2)
        self._constant = float(np.sum((offset / scale) ** 2))
        self._log_prior_volume = float(np.sum(np.log(scale)) + np.log(np.abs(np.diag(self._triangle))).sum())
        self._centre = np.zeros(k) if centre is None else np.asarray(centre, dtype=float)

    def _whiten(self, x):
        x = self._root[:, None] * x if x.ndim == 2 else self._root * x
        return x if self._rotation is None else self._rotation @ x

    def _at(self, sigma):
        """Everything that depends on sigma and not on the residual; kept until sigma changes."""
        if sigma != self._cached_sigma:
            variance = sigma * sigma + self._extra
            self._inverse = 1.0 / variance
            total = float(np.sum(np.log(variance))) if np.ndim(variance) else self.n * math.log(variance)
            self._norm = -0.5 * (self.n * LN_2PI + total) + self._log_jacobian
            if self._basis is not None:
                weighted = self._basis * (self._inverse[:, None] if np.ndim(self._inverse) else self._inverse)
                self._weighted = np.ascontiguousarray(weighted.T)
                self._factor = cho_factor(self._precision + self._weighted @ self._basis, lower=True)
                self._norm -= float(np.log(np.diag(self._factor[0])).sum()) + self._log_prior_volume
            self._cached_sigma = sigma

    def logpdf(self, residual: np.ndarray, sigma: float) -> float:
        """Log density of a residual.

        Parameters
        ----------
        residual : numpy.ndarray
            (n,) mK; not changed.
        sigma : float
            Noise of a channel of weight one, mK.
        """
        self._at(sigma)
        r = self._whiten(residual)
        chi2 = float(np.dot(r * self._inverse, r))
        if self._basis is not None:
            c = self._weighted @ r + self._pull
            chi2 += self._constant - float(np.dot(c, cho_solve(self._factor, c, check_finite=False)))
        return self._norm - 0.5 * chi2

    def coefficients(self, residual: np.ndarray, sigma: float, rng: np.random.Generator | None = None) -> np.ndarray:
        """Marginalised coefficients given a residual: their conditional mean, or a draw where `rng` is given.

        Returns
        -------
        numpy.ndarray
            (k,), `centre` included.
        """
        self._at(sigma)
        c = self._weighted @ self._whiten(residual) + self._pull
        mean = cho_solve(self._factor, c)
        if rng is not None:
            mean = mean + solve_triangular(self._factor[0], rng.standard_normal(len(mean)), lower=True, trans="T")
        return solve_triangular(self._triangle, mean) + self._centre
