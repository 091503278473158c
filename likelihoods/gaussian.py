"""Normalised densities of residuals: Gaussian with exactly marginalised linear terms, and Student-t."""

import copy
import math

import numpy as np
from scipy.linalg import eigh, lapack
from scipy.special import gammaln

from lstmfit.errors import InputError

LN_2PI = math.log(2.0 * math.pi)
NARROWEST, WIDEST = 1e-12, 1e9
"""Limits in K of the prior width of a coefficient. Anything narrower is fixed; no sky is brighter than 1e9 K."""


class GaussianNoise:
    """ln N(residual; 0, C), with C = sigma^2 diag(1 / weight) + E + F L F^T.

    sigma may change from call to call; everything that does not depend on it is computed once. Residuals are
    transformed to a basis in which sigma^2 diag(1/weight) + E is the diagonal sigma^2 + e. They are scaled by the
    square root of the weights and, if E is not diagonal, rotated to its eigenvectors.

    Parameters
    ----------
    weight : numpy.ndarray
        (n,) positive weights.
    covariance : numpy.ndarray, optional
        E in mK^2: (n,) variances, or a positive semi-definite matrix (n, n).
    basis : numpy.ndarray, optional
        F, (n, k), whose coefficients are marginalised.
    mean, scale : numpy.ndarray, optional
        (k,) mean and standard deviation of the Gaussian prior of the coefficients; L = diag(scale^2).
    centre : numpy.ndarray, optional
        (k,) approximate coefficients, for example from a fit to the data. ``basis @ centre`` must already have been
        subtracted from the residuals. This only reduces rounding errors: a foreground is 10^5 times the noise, and its
        square would limit the precision of ln L.

    Attributes
    ----------
    n : int
        Number of channels.
    extra : float or numpy.ndarray
        e, (n,) diagonal of E in the transformed basis.
    log_jacobian : float
        Log determinant of the transformation.
    terms : MarginalisedTerms or None
        F in the transformed basis.

    Raises
    ------
    InputError
        A weight is not positive, E is not a covariance, or the columns of F are not independent.
    """

    def __init__(self, weight, covariance=None, basis=None, mean=None, scale=None, centre=None):
        weight = np.asarray(weight, dtype=float)
        if not (np.isfinite(weight).all() and (weight > 0).all()):
            raise InputError("weights must be positive; leave channels of weight zero out")
        self.n = len(weight)
        self._root = np.sqrt(weight)
        self.log_jacobian = 0.5 * float(np.log(weight).sum())
        self._rotation, self.extra = None, 0.0
        if covariance is not None:
            self._set_covariance(weight, np.asarray(covariance, dtype=float))
        self.terms = None
        if basis is not None:
            self.terms = MarginalisedTerms(self.whiten(np.asarray(basis, dtype=float)), mean, scale, centre)
        self._kept = (math.nan,) * 5

    @property
    def has_correlations(self) -> bool:
        """Whether E is not diagonal, so that residuals are rotated."""
        return self._rotation is not None

    @property
    def positive_without_sigma(self) -> bool:
        """Whether E alone is a positive definite covariance, so that sigma may be zero."""
        extra = np.asarray(self.extra)
        return bool(extra.ndim and extra.min() > 1e-12 * extra.max())

    def _set_covariance(self, weight, covariance):
        if covariance.shape not in ((self.n,), (self.n, self.n)):
            raise InputError(f"covariance has shape {covariance.shape}, but the data have {self.n} channels")
        if covariance.ndim == 1:
            if not (np.isfinite(covariance).all() and (covariance >= 0).all()):
                raise InputError("variances must be finite and not negative")
            self.extra = weight * covariance
            return
        values, vectors = eigh(self._whiten_matrix(covariance))
        # Emulator files use single precision, so zero eigenvalues of a covariance can become this negative.
        if values[0] < -1e-6 * max(values[-1], 0.0) - 1e-300:
            raise InputError(
                f"covariance is not positive definite: its smallest eigenvalue is {values[0]:.3g} (scaled by the "
                "weights); check that it is symmetric and estimated from more samples than channels"
            )
        self._rotation, self.extra = np.ascontiguousarray(vectors.T), np.clip(values, 0.0, None)

    def _whiten_matrix(self, covariance):
        scale = np.abs(covariance).max() if np.isfinite(covariance).all() else np.nan
        if not np.abs(covariance - covariance.T).max() <= 1e-6 * scale:
            raise InputError("covariance is not a finite symmetric matrix")
        return self._root[:, None] * (0.5 * (covariance + covariance.T)) * self._root

    def with_extra(self, extra: np.ndarray) -> "GaussianNoise":
        """Copy with another E, given by its diagonal (n,) in the transformed basis."""
        made = copy.copy(self)
        made.__dict__.update(extra=extra, _kept=(math.nan,) * 5)
        return made

    def whiten(self, x: np.ndarray) -> np.ndarray:
        """Transform (n,) or the columns of (n, m) to the basis of `logpdf_whitened`; returns a new array."""
        x = self._root[:, None] * x if x.ndim == 2 else self._root * x
        if self._rotation is None:
            return x
        if x.ndim == 1 and not math.isfinite(total := x.sum()):
            # A rotation of infinite numbers would be NaN, but ln L of an infinite foreground is minus infinity.
            return np.full(self.n, total)
        return self._rotation @ x

    def operator(self, matrix: np.ndarray | None) -> np.ndarray | None:
        """Matrix that combines `matrix` (n, m) and `whiten` in one product; None if `whiten` alone is cheaper."""
        if matrix is None:
            return None if self._rotation is None else self._rotation * self._root
        return np.ascontiguousarray(self.whiten(matrix))

    def noise_at(self, sigma: float):
        """Inverse variance, a number or (n,), and log normalisation of the density at `sigma`, without F.

        (0, -inf) if there is no density: sigma is NaN, or 0 without other noise.
        """
        square = sigma * sigma
        if not (square > 0 or (square == 0 and self.positive_without_sigma)):
            return 0.0, -math.inf
        variance = square + self.extra
        total = float(np.log(variance).sum()) if np.ndim(variance) else self.n * math.log(variance)
        return 1.0 / variance, -0.5 * (self.n * LN_2PI + total) + self.log_jacobian

    def _at(self, sigma):
        """Everything that depends on sigma but not on the residual, cached until sigma changes.

        Returns
        -------
        tuple
            sigma, inverse variance, normalisation; with F also the weighted F^T and the inverse Cholesky factor of
            `MarginalisedTerms.at`. A single object, so that threads with different sigma do not mix.
        """
        inverse, norm = self.noise_at(sigma)
        if norm == -math.inf:
            return math.nan, inverse, norm, None, None
        weighted = inverse_factor = None
        if self.terms is not None:
            weighted, inverse_factor, change = self.terms.at(inverse)
            norm += change
        kept = sigma, inverse, norm, weighted, inverse_factor
        self._kept = kept
        return kept

    def logpdf_whitened(self, r: np.ndarray, sigma: float) -> float:
        """Log density of a residual (n,) transformed by `whiten`; it is not modified."""
        kept = self._kept
        if sigma != kept[0]:
            kept = self._at(sigma)
        _, inverse, norm, weighted, inverse_factor = kept
        if norm == -math.inf:
            return -math.inf
        chi2 = float(np.dot(r * inverse, r))
        if self.terms is not None:
            chi2 = self.terms.chi_square(chi2, r, inverse, weighted, inverse_factor)
        return norm - 0.5 * chi2

    def logpdf_with(self, variance: np.ndarray, r: np.ndarray, sigma: float) -> float:
        """As `logpdf_whitened` without F, with a further variance (n,) in the transformed basis, such as w_i T_i^2.

        It may change from call to call, so that nothing is computed in advance.
        """
        square = sigma * sigma
        if not (square > 0 or (square == 0 and self.positive_without_sigma)):
            return -math.inf
        total = square + self.extra + variance
        chi2 = float(np.dot(r / total, r))
        return -0.5 * (self.n * LN_2PI + float(np.log(total).sum()) + chi2) + self.log_jacobian

    def logpdf_whitened_batch(self, r: np.ndarray, sigma) -> np.ndarray:
        """Log densities of many residuals transformed by `whiten`; they are not modified.

        Parameters
        ----------
        r : numpy.ndarray
            (m, n).
        sigma : float or numpy.ndarray
            A number, or (m,).

        Returns
        -------
        numpy.ndarray
            (m,).
        """
        if np.ndim(sigma):
            return np.array([self.logpdf_whitened(row, s) for row, s in zip(r, sigma.tolist())])
        kept = self._kept
        if sigma != kept[0]:
            kept = self._at(sigma)
        _, inverse, norm, weighted, inverse_factor = kept
        if norm == -math.inf:
            return np.full(len(r), -math.inf)
        # The same product as for one residual, so that the results are the same to the last digit.
        chi2 = np.matmul((r * inverse)[:, None, :], r[:, :, None])[:, 0, 0]
        if self.terms is not None:
            chi2 = self.terms.chi_square_batch(chi2, r, inverse, weighted, inverse_factor)
        return norm - 0.5 * chi2

    def logpdf(self, residual: np.ndarray, sigma: float) -> float:
        """Log density of a residual.

        Parameters
        ----------
        residual : numpy.ndarray
            (n,) mK; not modified.
        sigma : float
            Noise of a channel of weight one, mK.
        """
        return self.logpdf_whitened(self.whiten(residual), sigma)

    def coefficients(self, residual: np.ndarray, sigma: float, rng: np.random.Generator | None = None) -> np.ndarray:
        """Marginalised coefficients given a residual: their conditional mean, or a random draw if `rng` is given.

        Returns
        -------
        numpy.ndarray
            (k,) coefficients, including `centre`.
        """
        _, _, _, weighted, inverse_factor = self._at(sigma)
        return self.terms.coefficients(self.whiten(residual), weighted, inverse_factor, rng)


class MarginalisedTerms:
    """Linear terms F a with a Gaussian prior, marginalised analytically: N(r; F a, V) -> N(r; F mean, V + F L F^T).

    Residuals r are in a basis in which V is diagonal. It may change from call to call; everything that does not depend
    on it is computed once.

    Parameters
    ----------
    basis : numpy.ndarray
        F in that basis, (n, k).
    mean, scale : numpy.ndarray
        (k,) or numbers: mean and standard deviation of the prior of the coefficients; L = diag(scale^2).
    centre : numpy.ndarray, optional
        (k,) coefficients whose terms have already been subtracted from the residuals.

    Attributes
    ----------
    directions : numpy.ndarray
        (k, n) orthonormal rows: the principal axes of F.
    mean, width : numpy.ndarray
        (k,) prior mean and standard deviation of the coefficients of `directions`.
    precision, pull, constant, log_prior_volume : numpy.ndarray or float
        diag(1 / width^2), mean / width^2, sum of (mean / width)^2 and sum of ln width.
    centre : numpy.ndarray
        (k,) as given.

    Raises
    ------
    InputError
        The columns of F are not independent, or mean or scale is out of bounds.
    """

    def __init__(self, basis, mean, scale, centre=None):
        k = basis.shape[1]
        scale = np.broadcast_to(np.asarray(scale, dtype=float), (k,))
        wrong = ~((scale >= NARROWEST) & (scale <= WIDEST))
        if wrong.any():
            raise InputError(
                f"scale of a marginalised coefficient is {scale[wrong][0]:g} K; give {NARROWEST:g} to {WIDEST:g} K (to "
                "fix a coefficient, set marginalise: false and give a number under params)"
            )
        mean = np.broadcast_to(np.asarray(mean, dtype=float), (k,))
        if not (np.abs(mean) <= WIDEST).all():
            raise InputError(f"mean of a marginalised coefficient is {mean.tolist()}; give at most {WIDEST:g} K")
        norms = np.sqrt((basis**2).sum(axis=0))
        singular = np.linalg.svd(basis / np.where(norms > 0, norms, 1.0), compute_uv=False)
        if not (norms > 0).all() or singular[-1] < 1e-13 * singular[0]:
            raise InputError(f"the {k} foreground terms are not independent on these {len(basis)} channels; use fewer")
        # In the principal axes of F diag(scale) = U diag(g) V^T the columns are orthonormal, and the coefficients
        # g V^T (a / scale) are independent a priori with standard deviations g. So the matrices below are well
        # conditioned for any width of the prior and for nearly dependent columns.
        directions, self.width, self._axes = principal_axes(basis, scale)
        self.directions = np.ascontiguousarray(directions.T)
        self.centre = np.zeros(k) if centre is None else np.asarray(centre, dtype=float)
        self._scale = scale
        self.mean = self.width * (self._axes.T @ ((np.asarray(mean, dtype=float) - self.centre) / scale))
        self.precision = np.diag(self.width**-2.0)
        self.pull = self.mean / self.width**2
        self.constant = float(np.sum((self.mean / self.width) ** 2))
        self.log_prior_volume = float(np.log(self.width).sum())

    def at(self, inverse):
        """Everything that depends on the noise but not on the residual.

        Parameters
        ----------
        inverse : float or numpy.ndarray
            Inverse variances, a number or (n,).

        Returns
        -------
        weighted, inverse_factor : numpy.ndarray
            (k, n) weighted F^T, and (k, k) inverse Cholesky factor of the posterior precision of the coefficients.
        log_norm : float
            Change of the log normalisation by the marginalisation.
        """
        weighted = self.directions * inverse
        # Call LAPACK directly, because the checks of SciPy's wrappers would take longer than the computation.
        factor, _ = lapack.dpotrf(self.precision + weighted @ self.directions.T, lower=1)
        inverse_factor, _ = lapack.dtrtri(factor, lower=1)
        return weighted, inverse_factor, -(float(np.log(factor.diagonal()).sum()) + self.log_prior_volume)

    def chi_square(self, chi2: float, r: np.ndarray, inverse, weighted, inverse_factor) -> float:
        """Chi-square of a residual r (n,) after the marginalisation, given that before it and the result of `at`."""
        whole = chi2 + self.constant
        v = inverse_factor @ (weighted @ r + self.pull)
        if whole < LARGEST_DIFFERENCE:
            return whole - float(np.dot(v, v))
        # Avoid the difference of two large numbers: sum the squares that remain at the minimum.
        best = v @ inverse_factor
        left = r - best @ self.directions
        return float(np.dot(left * inverse, left)) + float(np.sum(((best - self.mean) / self.width) ** 2))

    def chi_square_batch(self, chi2: np.ndarray, r: np.ndarray, inverse, weighted, inverse_factor) -> np.ndarray:
        """As `chi_square` for many residuals (m, n) with the same noise, (m,)."""
        v = (r @ weighted.T + self.pull) @ inverse_factor.T
        found = chi2 + self.constant
        for i in np.flatnonzero(~(found < LARGEST_DIFFERENCE)):
            found[i] = self.chi_square(chi2[i], r[i], inverse, weighted, inverse_factor)
            v[i] = 0.0
        return found - np.einsum("ij,ij->i", v, v)

    def coefficients(self, r, weighted, inverse_factor, rng: np.random.Generator | None = None) -> np.ndarray:
        """Conditional mean of the coefficients (k,) given a residual r (n,), or a random draw if `rng` is given."""
        v = inverse_factor @ (weighted @ r + self.pull)
        if rng is not None:
            v = v + rng.standard_normal(len(v))
        return self._scale * (self._axes @ ((inverse_factor.T @ v) / self.width)) + self.centre


def principal_axes(basis: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Singular value decomposition of ``basis * scale`` with high relative accuracy in all singular values.

    One-sided Jacobi rotations (Demmel & Veselic 1992, SIAM J. Matrix Anal. Appl. 13, 1204) are also accurate for small
    singular values if columns differ by many orders of magnitude, while the errors of LAPACK are relative to the
    largest one. Extended precision is used if available, because the columns may be nearly dependent.

    Parameters
    ----------
    basis : numpy.ndarray
        (n, k).
    scale : numpy.ndarray
        (k,) positive.

    Returns
    -------
    directions : numpy.ndarray
        (n, k) orthonormal columns.
    widths : numpy.ndarray
        (k,) singular values.
    axes : numpy.ndarray
        (k, k) orthogonal: ``basis * scale = directions * widths @ axes.T``.
    """
    g = np.asarray(basis, dtype=np.longdouble) * np.asarray(scale, dtype=np.longdouble)
    k, one = g.shape[1], np.longdouble(1)
    axes, eps = np.eye(k, dtype=np.longdouble), np.finfo(np.longdouble).eps
    for _ in range(60):
        turned = False
        for i in range(k - 1):
            for j in range(i + 1, k):
                a, b, c = g[:, i] @ g[:, i], g[:, j] @ g[:, j], g[:, i] @ g[:, j]
                if abs(c) <= 4 * eps * np.sqrt(a) * np.sqrt(b):
                    continue
                turned = True
                ratio = (b - a) / (2 * c)
                tangent = np.copysign(one, ratio) / (abs(ratio) + np.hypot(one, ratio))
                cosine = one / np.hypot(one, tangent)
                rotation = cosine * np.array([[one, tangent], [-tangent, one]])
                g[:, [i, j]], axes[:, [i, j]] = g[:, [i, j]] @ rotation, axes[:, [i, j]] @ rotation
        if not turned:
            break
    widths = np.sqrt((g**2).sum(axis=0))
    return (g / widths).astype(float), widths.astype(float), axes.astype(float)


def choose_centre(basis, data, weight, mean, scale) -> np.ndarray:
    """Coefficients to subtract from the data in advance: least squares, or the prior mean where the prior is narrow.

    Parameters
    ----------
    basis, data, weight : numpy.ndarray
        (n, k), (n,) and (n,).
    mean, scale : numpy.ndarray
        (k,) mean and standard deviation of the prior.

    Returns
    -------
    numpy.ndarray
        (k,) coefficients, within a thousand standard deviations of the prior mean.
    """
    root, centre = np.sqrt(weight), np.array(np.broadcast_to(np.asarray(mean, dtype=float), (basis.shape[1],)))
    scale, free = np.broadcast_to(scale, centre.shape), np.ones(len(centre), dtype=bool)
    mean = centre.copy()
    while free.any():
        rest = data if free.all() else data - basis[:, ~free] @ mean[~free]
        centre[free] = np.linalg.lstsq(root[:, None] * basis[:, free], root * rest, rcond=None)[0]
        narrow = free & ~(np.abs(centre - mean) < 1e3 * scale)
        if not narrow.any():
            break
        centre[narrow], free = mean[narrow], free & ~narrow
    return centre


LARGEST_DIFFERENCE = 1e7
"""Below this, chi-square may be computed as a difference: the rounding error is below 1e-8."""


class StudentNoise:
    """Independent Student-t noise in each channel, which is robust to outliers.

    The scale of a channel is sqrt(sigma^2 / weight + e).

    Parameters
    ----------
    weight : numpy.ndarray
        (n,) positive weights.
    variance : numpy.ndarray, optional
        e, (n,) mK^2, added to the square of the scale.

    Attributes
    ----------
    n, extra, log_jacobian
        As for `GaussianNoise`.

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
        self.extra = 0.0 if variance is None else weight * variance
        self.log_jacobian = 0.5 * float(np.log(weight).sum())

    def whiten(self, x: np.ndarray) -> np.ndarray:
        """Scale (n,) or the columns of (n, m) by the square root of the weights; returns a new array."""
        return self._root[:, None] * x if x.ndim == 2 else self._root * x

    def operator(self, matrix: np.ndarray | None) -> np.ndarray | None:
        """As `GaussianNoise.operator`."""
        return None if matrix is None else np.ascontiguousarray(self.whiten(matrix))

    def logpdf_whitened(self, r: np.ndarray, sigma: float, dof: float) -> float:
        """Log density of a residual (n,) transformed by `whiten`."""
        square = sigma * sigma
        if not (square > 0 and dof > 0):
            return -math.inf
        variance = square + self.extra
        log_scale = 0.5 * float(np.log(variance).sum()) if np.ndim(variance) else 0.5 * self.n * math.log(variance)
        tail = float(np.log1p(r * r / (dof * variance)).sum())
        return self.n * log_student_norm(dof) + self.log_jacobian - log_scale - 0.5 * (dof + 1.0) * tail


def log_student_norm(dof: float) -> float:
    """Log of the Student-t density of unit scale at zero: ln Gamma((nu + 1) / 2) - ln Gamma(nu / 2) - ln(pi nu) / 2.

    For large nu the first two terms cancel, so the asymptotic series of their difference is used (DLMF 5.11.13).

    Parameters
    ----------
    dof : float
        nu, positive.
    """
    if dof < 40.0:
        return float(gammaln(0.5 * (dof + 1.0)) - gammaln(0.5 * dof)) - 0.5 * math.log(math.pi * dof)
    x = 1.0 / dof
    return x * student_series(x * x) - 0.5 * LN_2PI


def student_series(square):
    """Series of `log_student_norm` in 1 / nu, without its leading factor 1 / nu; `square` is 1 / nu^2."""
    return -1 / 4 + square * (1 / 24 + square * (-1 / 20 + square * (17 / 112 + square * (-31 / 36))))
