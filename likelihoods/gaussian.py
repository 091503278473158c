"""The noise at the bottom: factored once, always normalised, linear terms marginalised exactly."""

import math

import numpy as np
from scipy.linalg import eigh, lapack, solve_triangular
from scipy.special import gammaln

from lstmfit.errors import InputError

LN_2PI = math.log(2.0 * math.pi)


class GaussianNoise:
    """ln N(residual; 0, C), with C = sigma^2 diag(1 / weight) + E + F L F^T.

    sigma may change from call to call; everything that does not depend on it is worked out once. The residual is
    brought into a basis in which sigma^2 diag(1/weight) + E is the diagonal sigma^2 + e: by scaling with the square
    root of the weights and, where E is not diagonal, by rotating with its eigenvectors.

    Parameters
    ----------
    weight : numpy.ndarray
        (n,) positive.
    covariance : numpy.ndarray, optional
        E in mK^2: (n,) where it is diagonal, else (n, n), symmetric; not negative.
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
            self._set_covariance(weight, np.asarray(covariance, dtype=float))
        self._basis = None
        if basis is not None:
            self._set_basis(np.asarray(basis, dtype=float), mean, scale, centre)
        self._cached_sigma = None

    @property
    def positive_without_sigma(self) -> bool:
        """Whether E alone is a positive definite covariance, so that sigma may be zero."""
        extra = np.asarray(self._extra)
        return bool(extra.ndim and extra.min() > 1e-12 * extra.max())

    def _set_covariance(self, weight, covariance):
        if covariance.shape not in ((self.n,), (self.n, self.n)):
            raise InputError(f"covariance has shape {covariance.shape}; the data have {self.n} channels")
        if covariance.ndim == 1:
            if not (np.isfinite(covariance).all() and (covariance >= 0).all()):
                raise InputError("variances must be finite and not negative")
            self._extra = weight * covariance
            return
        values, vectors = eigh(self._whiten_matrix(covariance))
        # Emulator files hold single precision, which makes the vanishing eigenvalues of a covariance that negative.
        if values[0] < -1e-6 * max(values[-1], 0.0) - 1e-300:
            raise InputError(
                f"covariance is not positive definite: its smallest eigenvalue is {values[0]:.3g} (scaled by the "
                "weights); check that it is symmetric and made from more samples than channels"
            )
        self._rotation, self._extra = np.ascontiguousarray(vectors.T), np.clip(values, 0.0, None)

    def _whiten_matrix(self, covariance):
        scale = np.abs(covariance).max() if np.isfinite(covariance).all() else np.nan
        if not np.abs(covariance - covariance.T).max() <= 1e-6 * scale:
            raise InputError("covariance is not a finite symmetric matrix")
        return self._root[:, None] * (0.5 * (covariance + covariance.T)) * self._root

    def _set_basis(self, basis, mean, scale, centre):
        k = basis.shape[1]
        scale = np.broadcast_to(np.asarray(scale, dtype=float), (k,))
        if not (scale > 0).all():
            raise InputError("the prior of a marginalised coefficient needs a width: scale > 0")
        offset = np.broadcast_to(np.asarray(mean, dtype=float), (k,)) - (0.0 if centre is None else centre)
        # In units of the coefficients in which the columns are orthonormal, every matrix below is well conditioned.
        q, self._triangle = np.linalg.qr(self.whiten(basis))
        if np.abs(np.diag(self._triangle)).min() < 1e-13 * np.abs(np.diag(self._triangle)).max():
            raise InputError(f"the {k} foreground terms are not independent on these {self.n} channels; use fewer")
        self._basis = np.ascontiguousarray(q.T)
        inverse = solve_triangular(self._triangle, np.eye(k))
        self._precision = inverse.T @ (inverse / scale[:, None] ** 2)
        self._pull = inverse.T @ (offset / scale**2)
        self._constant = float(np.sum((offset / scale) ** 2))
        self._log_prior_volume = float(np.sum(np.log(scale)) + np.log(np.abs(np.diag(self._triangle))).sum())
        self.centre = np.zeros(k) if centre is None else np.asarray(centre, dtype=float)

    def whiten(self, x: np.ndarray) -> np.ndarray:
        """Bring (n,) or the columns of (n, m) into the basis of `logpdf_whitened`; a new array."""
        x = self._root[:, None] * x if x.ndim == 2 else self._root * x
        return x if self._rotation is None else self._rotation @ x

    def operator(self, matrix: np.ndarray | None) -> np.ndarray | None:
        """The matrix that does `whiten` after `matrix` (n, m) in one product; None where `whiten` alone is cheaper."""
        if matrix is None:
            return None if self._rotation is None else self._rotation * self._root
        return np.ascontiguousarray(self.whiten(matrix))

    def _at(self, sigma):
        """Everything that depends on sigma and not on the residual; kept until sigma changes."""
        variance = sigma * sigma + self._extra
        self._inverse = 1.0 / variance
        total = float(np.log(variance).sum()) if np.ndim(variance) else self.n * math.log(variance)
        self._norm = -0.5 * (self.n * LN_2PI + total) + self._log_jacobian
        if self._basis is not None:
            self._weighted = self._basis * self._inverse
            # LAPACK directly: the wrappers' checks would cost more than the work on these few rows.
            factor, _ = lapack.dpotrf(self._precision + self._weighted @ self._basis.T, lower=1)
            self._inverse_factor, _ = lapack.dtrtri(factor, lower=1)
            self._norm -= float(np.log(factor.diagonal()).sum()) + self._log_prior_volume
        self._cached_sigma = sigma

    def logpdf_whitened(self, r: np.ndarray, sigma: float) -> float:
        """Log density of a residual (n,) that `whiten` has treated; not changed."""
        if sigma != self._cached_sigma:
            self._at(sigma)
        chi2 = float(np.dot(r * self._inverse, r))
        if self._basis is not None:
            v = self._inverse_factor @ (self._weighted @ r + self._pull)
            chi2 += self._constant - float(np.dot(v, v))
        return self._norm - 0.5 * chi2

    def logpdf(self, residual: np.ndarray, sigma: float) -> float:
        """Log density of a residual.

        Parameters
        ----------
        residual : numpy.ndarray
            (n,) mK; not changed.
        sigma : float
            Noise of a channel of weight one, mK.
        """
        return self.logpdf_whitened(self.whiten(residual), sigma)

    def coefficients(self, residual: np.ndarray, sigma: float, rng: np.random.Generator | None = None) -> np.ndarray:
        """Marginalised coefficients given a residual: their conditional mean, or a draw where `rng` is given.

        Returns
        -------
        numpy.ndarray
            (k,), `centre` included.
        """
        self._at(sigma)
        v = self._inverse_factor @ (self._weighted @ self.whiten(residual) + self._pull)
        if rng is not None:
            v = v + rng.standard_normal(len(v))
        return solve_triangular(self._triangle, self._inverse_factor.T @ v) + self.centre


class StudentNoise:
    """Independent Student-t noise in each channel: outliers cost less than under a Gaussian.

    The scale of a channel is sqrt(sigma^2 / weight + e).

    Parameters
    ----------
    weight : numpy.ndarray
        (n,) positive.
    variance : numpy.ndarray, optional
        e, (n,) mK^2, added to the square of the scale.

    Raises
    ------
    InputError
        A weight is not positive.
    """

    def __init__(self, weight, variance=None):
        weight = np.asarray(weight, dtype=float)
        if not (np.isfinite(weight).all() and (weight > 0).all()):
            raise InputError("weights must be positive; leave channels of weight zero out")
        self.n, self._root = len(weight), np.sqrt(weight)
        self._extra = 0.0 if variance is None else weight * variance
        self._log_jacobian = 0.5 * float(np.log(weight).sum())

    def whiten(self, x: np.ndarray) -> np.ndarray:
        """Scale (n,) or the columns of (n, m) by the square root of the weights; a new array."""
        return self._root[:, None] * x if x.ndim == 2 else self._root * x

    def operator(self, matrix: np.ndarray | None) -> np.ndarray | None:
        """As `GaussianNoise.operator`."""
        return None if matrix is None else np.ascontiguousarray(self.whiten(matrix))

    def logpdf_whitened(self, r: np.ndarray, sigma: float, dof: float) -> float:
        """Log density of a residual (n,) that `whiten` has treated."""
        variance = dof * (sigma * sigma + self._extra)
        log_scale = 0.5 * float(np.log(variance).sum()) if np.ndim(variance) else 0.5 * self.n * math.log(variance)
        norm = self.n * (gammaln(0.5 * (dof + 1.0)) - gammaln(0.5 * dof) - 0.5 * math.log(math.pi))
        tail = float(np.log1p(r * r / variance).sum())
        return float(norm) + self._log_jacobian - log_scale - 0.5 * (dof + 1.0) * tail
