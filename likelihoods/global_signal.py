"""The likelihood of a global-signal spectrum."""

import numpy as np
from scipy.interpolate import CubicSpline

from lstmfit.constants import frequency_to_redshift, redshift_to_frequency
from lstmfit.errors import InputError
from lstmfit.likelihoods.gaussian import GaussianNoise


def interpolation_matrix(redshifts: np.ndarray, frequency: np.ndarray) -> np.ndarray | None:
    """Matrix that takes a signal on the emulator's grid to the data's channels.

    A cubic spline in redshift, which is linear in the signal, so it is worked out once.

    Parameters
    ----------
    redshifts : numpy.ndarray
        (n_channels,) ascending.
    frequency : numpy.ndarray
        (n,) MHz.

    Returns
    -------
    numpy.ndarray or None
        (n, n_channels); None where the data are on the grid itself.

    Raises
    ------
    InputError
        A frequency outside the grid.
    """
    z = frequency_to_redshift(frequency)
    margin = 1e-9 * redshifts[-1]
    outside = (z < redshifts[0] - margin) | (z > redshifts[-1] + margin)
    if outside.any():
        low, high = redshift_to_frequency(redshifts[-1]), redshift_to_frequency(redshifts[0])
        raise InputError(
            f"{outside.sum()} of {len(z)} channels lie outside the emulator's {low:.2f} to {high:.2f} MHz "
            f"(the data span {frequency.min():.2f} to {frequency.max():.2f} MHz); cut the data"
        )
    if len(z) == len(redshifts) and np.allclose(z, redshifts, rtol=0, atol=margin):
        return None
    return CubicSpline(redshifts, np.eye(len(redshifts)))(np.clip(z, redshifts[0], redshifts[-1]))


class GlobalSignal:
    """Gaussian likelihood of a spectrum: signal plus foreground plus noise.

    ``ln L = -1/2 r^T C^-1 r - 1/2 ln |2 pi C|``, r = data - signal - foreground, normalised, so that evidences compare.

    Parameters
    ----------
    frequency, temperature, weight : numpy.ndarray
        (n,) MHz, mK and positive weights: the noise variance of a channel is sigma^2 / weight.
    redshifts : numpy.ndarray
        (n_channels,) the signal's grid.
    sigma : float or None
        Noise of a channel of weight one in mK; None makes it a parameter, ``sigma``.
    basis : numpy.ndarray, optional
        (n, k) linear foreground, mK for one unit of each coefficient.
    marginalise : bool
        Integrate the coefficients out analytically; else they are parameters ``a0``, ``a1``, ...
    mean, scale : float or numpy.ndarray
        Gaussian prior of marginalised coefficients.
    signal_covariance : numpy.ndarray, optional
        (n_channels, n_channels) mK^2 on the signal's grid: the emulator's error.

    Attributes
    ----------
    names : tuple of str
        The likelihood's own parameters, in the order of `values`.
    """

    def __init__(
        self,
        frequency,
        temperature,
        weight,
        redshifts,
        sigma: float | None,
        basis=None,
        marginalise: bool = False,
        mean=0.0,
        scale=1e4,
        signal_covariance=None,
    ):
        self.frequency = np.asarray(frequency, dtype=float)
        self.temperature = np.asarray(temperature, dtype=float)
        self._sigma = sigma
        if sigma is not None and not (np.isfinite(sigma) and sigma > 0):
            raise InputError(f"noise sigma is {sigma} mK; a positive number is needed")
        self._matrix = interpolation_matrix(np.asarray(redshifts, dtype=float), self.frequency)
        covariance = signal_covariance
        if covariance is not None and self._matrix is not None:
            covariance = self._matrix @ covariance @ self._matrix.T
        self._basis, self._marginalise = basis, marginalise and basis is not None
        k = 0 if basis is None else basis.shape[1]
        centre = None
        if self._marginalise:
            root = np.sqrt(weight)
            centre = np.linalg.lstsq(root[:, None] * basis, root * self.temperature, rcond=None)[0]
            self._noise = GaussianNoise(weight, covariance, basis, mean, scale, centre)
        else:
            self._noise = GaussianNoise(weight, covariance)
        self._data = self.temperature if centre is None else self.temperature - basis @ centre
        self._sampled = basis is not None and not self._marginalise
        self.names = (() if sigma is not None else ("sigma",)) + (
            tuple(f"a{i}" for i in range(k)) if self._sampled else ()
        )

    def model(self, signal, values) -> np.ndarray:
        """Signal and sampled foreground at the data's channels, (n,) mK."""
        model = signal if self._matrix is None else self._matrix @ signal
        return model + self._basis @ values[-self._basis.shape[1] :] if self._sampled else model

    def __call__(self, signal: np.ndarray, values: np.ndarray) -> float:
        """Log likelihood.

        Parameters
        ----------
        signal : numpy.ndarray
            (n_channels,) mK on the emulator's grid; not changed.
        values : numpy.ndarray
            (len(names),) the likelihood's own parameters.
        """
        sigma = self._sigma if self._sigma is not None else float(values[0])
        return self._noise.logpdf(self._data - self.model(signal, values), sigma)

    def foreground(self, signal, values, rng: np.random.Generator | None = None) -> np.ndarray:
        """Foreground at the data's channels: sampled, or the conditional mean (or a draw) of a marginalised one.

        Returns
        -------
        numpy.ndarray
            (n,) mK; zero without a foreground.
        """
        if self._basis is None:
            return np.zeros(len(self.frequency))
        if self._sampled:
            return self._basis @ values[-self._basis.shape[1] :]
        sigma = self._sigma if self._sigma is not None else float(values[0])
        return self._basis @ self._noise.coefficients(self._data - self.model(signal, values), sigma, rng)
