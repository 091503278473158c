"""The likelihood of a global-signal spectrum."""

import warnings

import numpy as np
from scipy.interpolate import CubicSpline

from lstmfit.constants import frequency_to_redshift, redshift_to_frequency
from lstmfit.errors import InputError
from lstmfit.likelihoods.base import read_defaults
from lstmfit.likelihoods.foregrounds import Component, log_polynomial, middle
from lstmfit.likelihoods.gaussian import GaussianNoise, StudentNoise, choose_centre
from lstmfit.likelihoods.noise import LARGEST_SIGMA, SMALLEST_SIGMA, Noise
from lstmfit.schema import LARGEST

SMALLEST_DOF = 1e-3
"""Degrees of freedom of a Student-t with still heavier tails than this are not told apart from none."""

EDGE = 0.05
"""How far, in steps of the signal's grid, a channel may lie beyond its end; it is then taken to be the end."""


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
        A frequency outside the grid by more than a twentieth of its last step.
    """
    z = frequency_to_redshift(frequency)
    # Frequencies of the grid itself, written with few digits, are not outside.
    low, high = (EDGE * abs(redshifts[i + 1] - redshifts[i]) for i in (0, -2))
    outside = (z < redshifts[0] - low) | (z > redshifts[-1] + high)
    if outside.any():
        raise InputError(_outside(redshifts, np.asarray(frequency), outside))
    margin = 1e-9 * redshifts[-1]
    if len(z) == len(redshifts) and np.allclose(z, redshifts, rtol=0, atol=margin):
        return None
    return CubicSpline(redshifts, np.eye(len(redshifts)))(np.clip(z, redshifts[0], redshifts[-1]))


def _outside(redshifts, frequency, outside) -> str:
    """What is wrong, and the band to cut where that leaves most of the channels."""
    low, high = redshift_to_frequency(redshifts[-1]), redshift_to_frequency(redshifts[0])
    n, bad = len(frequency), int(outside.sum())
    where = (
        f"{bad} of {n} channels lie outside the emulator's {low:.2f} to {high:.2f} MHz (the data span "
        f"{frequency.min():.6g} to {frequency.max():.6g} MHz)"
    )
    if bad > n / 2:
        return (
            f"{where}: most of them, so do not cut them with band: but check the emulator, and that the first column "
            "is in MHz; columns: takes redshift: 0, or frequency: 0 with frequency_unit: Hz, kHz or GHz"
        )
    good = frequency[~outside]
    # Rounded inwards, but not so far that a good channel is lost.
    edges = np.ceil(100.0 * low) / 100.0, np.floor(100.0 * high) / 100.0
    edges = [float(min(edges[0], good.min())), float(max(edges[1], good.max()))]
    return f"{where}; cut them with data: {{band: {edges}}}"


def _sum_covariances(*terms):
    """Sum of covariances, each None, diagonal (n,) or full (n, n): None, (n,) or (n, n)."""
    terms = [term for term in terms if term is not None]
    if any(term.ndim == 2 for term in terms):
        terms = [np.diag(term) if term.ndim == 1 else term for term in terms]
    return sum(terms) if terms else None


class GlobalSignal:
    """Likelihood of a spectrum: signal plus foreground plus noise.

    ``ln L = -1/2 r^T C^-1 r - 1/2 ln |2 pi C|``, r = data - signal - foreground, normalised, so that evidences compare.

    Parameters
    ----------
    frequency, temperature, weight : numpy.ndarray
        (n,) MHz, mK and positive weights: the noise variance of a channel is sigma^2 / weight.
    redshifts : numpy.ndarray
        (n_channels,) the signal's grid.
    noise : Noise
        The noise model.
    components : sequence of Component
        What is added to the signal and sampled: foreground, systematics.
    marginalised : Component, optional
        A linear foreground whose coefficients are integrated out analytically.
    mean, scale : float or numpy.ndarray
        Gaussian prior of the marginalised coefficients.
    signal_error : numpy.ndarray, optional
        The emulator's error in mK^2: its covariance (n_channels, n_channels) on the signal's grid.
    diagonal_error : bool
        Take only the variances of `signal_error` at the data's channels.
    channel_error : float
        An error of the model in mK, the same and independent in every channel.

    Attributes
    ----------
    outputs : tuple of str
        What it needs of the model: the signal.
    names : tuple of str
        Its own parameters, in the order of `values`.
    params : dict of str to dict
        Default prior and LaTeX label of each, from ``global_signal.yaml``.
    noise : Noise
        The noise model.

    Raises
    ------
    InputError
        Channels outside the signal's grid, a covariance that is not positive definite, or parts that do not combine.
    """

    outputs = ("signal",)

    def __init__(
        self,
        frequency,
        temperature,
        weight,
        redshifts,
        noise: Noise,
        components=(),
        marginalised: Component | None = None,
        mean=0.0,
        scale=1e4,
        signal_error=None,
        diagonal_error: bool = False,
        channel_error: float = 0.0,
    ):
        self.frequency = np.asarray(frequency, dtype=float)
        self.temperature = np.asarray(temperature, dtype=float)
        weight = np.asarray(weight, dtype=float)
        sigma = noise.sigma
        if sigma is not None and not (sigma == 0 or SMALLEST_SIGMA <= sigma <= LARGEST_SIGMA):
            raise InputError(
                f"noise: {noise.name} is {sigma:g} mK; give a number from {SMALLEST_SIGMA:g} to {LARGEST_SIGMA:g} mK"
            )
        if noise.dof is not None and not SMALLEST_DOF <= noise.dof <= LARGEST:
            raise InputError(f"noise: dof is {noise.dof:g}; give a number from {SMALLEST_DOF:g} to {LARGEST:g}")
        if not 0 <= channel_error <= LARGEST_SIGMA:
            raise InputError(f"emulator_error is {channel_error:g} mK; give a number up to {LARGEST_SIGMA:g} mK")
        matrix = interpolation_matrix(np.asarray(redshifts, dtype=float), self.frequency)
        error = signal_error
        if error is not None and matrix is not None:
            error = matrix @ error @ matrix.T
        if error is not None and diagonal_error:
            error = np.diagonal(error)
        channel = np.full(len(self.frequency), channel_error**2) if channel_error else None
        covariance = _sum_covariances(noise.extra, error, channel)
        centre = None
        if marginalised is not None:
            centre = choose_centre(marginalised.basis, self.temperature, weight, mean, scale)
        self._student = noise.student
        if noise.student:
            if marginalised is not None:
                raise InputError("Student-t noise has no analytic marginalisation; set marginalise: false")
            if covariance is not None and covariance.ndim == 2:
                raise InputError("Student-t noise takes no full covariance; set emulator_error: diagonal")
            self._noise = StudentNoise(weight, covariance)
        else:
            basis = None if marginalised is None else marginalised.basis
            self._noise = GaussianNoise(weight, covariance, basis, mean, scale, centre)
            if sigma == 0 and not self._noise.positive_without_sigma:
                raise InputError("noise: the covariance is not positive definite; add a floor")
        self._marginalised = marginalised
        data = self.temperature if centre is None else self.temperature - marginalised.basis @ centre
        self._data = self._noise.whiten(data)
        self._root = np.sqrt(weight)
        self._matrix, self._operator = matrix, self._noise.operator(matrix)
        self.noise, self._sigma, self._dof = noise, sigma, noise.dof
        self._set_components(noise, components)

    def _set_components(self, noise, components):
        names, self._linear, self._other, self._components = list(noise.names), [], [], []
        for component in components:
            part = slice(len(names), len(names) + len(component.names))
            names += component.names
            self._components.append((component, part))
            if component.basis is not None:
                self._linear.append((self._noise.whiten(component.basis), part))
            else:
                self._other.append((component.evaluate, part))
        clash = {name for name in names if names.count(name) > 1}
        if clash:
            raise InputError(f"global_signal: two of its parts have a parameter {clash.pop()!r}")
        self.names = tuple(names)
        self._dof_at = 0 if noise.sigma is not None else 1
        known = read_defaults("global_signal")["params"]
        self.params = {name: known[name] for name in noise.names}
        for component in components:
            self.params |= component.params

    def _mean(self, signal):
        return self._root * signal if self._operator is None else self._operator @ signal

    def __call__(self, signal: np.ndarray, values: np.ndarray) -> float:
        """Log likelihood.

        Parameters
        ----------
        signal : numpy.ndarray
            (n_channels,) mK on the emulator's grid; not changed.
        values : numpy.ndarray
            (len(names),) the likelihood's own parameters.
        """
        r = self._data - self._mean(signal)
        for basis, part in self._linear:
            r -= basis @ values[part]
        for evaluate, part in self._other:
            r -= self._noise.whiten(evaluate(values[part]))
        sigma = self._sigma if self._sigma is not None else float(values[0])
        if self._student:
            return self._noise.logpdf_whitened(r, sigma, self._dof or float(values[self._dof_at]))
        return self._noise.logpdf_whitened(r, sigma)

    def model(self, signal, values) -> np.ndarray:
        """Signal and sampled components at the data's channels, (n,) mK."""
        signal = np.asarray(signal, dtype=float)
        model = signal if self._matrix is None else self._matrix @ signal
        for component, part in self._components:
            model = model + component.evaluate(np.asarray(values)[part])
        return model

    def foreground(self, signal, values, rng: np.random.Generator | None = None) -> np.ndarray:
        """What is added to the signal, at the data's channels: foreground and systematics.

        A marginalised foreground is its conditional mean, or a draw where `rng` is given.

        Returns
        -------
        numpy.ndarray
            (n,) mK; zero where nothing is added.
        """
        signal = np.asarray(signal, dtype=float)
        total = self.model(signal, values) - (signal if self._matrix is None else self._matrix @ signal)
        if self._marginalised is not None:
            total = total + self._marginalised.basis @ self.coefficients(signal, values, rng)
        return total

    @property
    def n_marginalised(self) -> int:
        """Coefficients that are integrated out analytically."""
        return 0 if self._marginalised is None else self._marginalised.basis.shape[1]

    def coefficients(self, signal, values, rng: np.random.Generator | None = None) -> np.ndarray:
        """Marginalised coefficients (k,) given the rest: their conditional mean, or a draw where `rng` is given."""
        centre = self._noise.centre
        data = self.temperature - self._marginalised.basis @ centre
        sigma = self._sigma if self._sigma is not None else float(values[0])
        return self._noise.coefficients(data - self.model(signal, values), sigma, rng)


FACTOR = 30.0
"""Scatter and noise that differ by more than this are a matter of units: K for mK is 1000, s for h 60 in the noise."""


def check_scale(frequency, temperature, weight, sigma, extra=None) -> None:
    """Warn where the scatter from channel to channel is nothing like the noise: K taken for mK, most often.

    What a smooth log polynomial leaves is compared with the noise through second differences of neighbouring channels,
    which see nothing of a smooth signal.

    Parameters
    ----------
    frequency, temperature, weight : numpy.ndarray
        (n,) MHz, mK and weights of the data.
    sigma : float or (float, float)
        Noise of a channel of weight one in mK; where it is free, the ends of its prior.
    extra : numpy.ndarray, optional
        Further covariance of the channels in mK^2: (n,) where it is diagonal, else (n, n).
    """
    if len(frequency) < 10:
        return
    order = np.argsort(frequency)
    data, weight = np.asarray(temperature, dtype=float)[order], np.asarray(weight, dtype=float)[order]
    if extra is not None:
        extra = np.asarray(extra)[order] if np.ndim(extra) == 1 else np.asarray(extra)[np.ix_(order, order)]
    low, high = np.broadcast_to(sigma, (2,))
    root = np.sqrt(weight)
    smooth = log_polynomial(frequency[order], 7, middle(frequency))
    rest = data - smooth @ np.linalg.lstsq(root[:, None] * smooth, root * data, rcond=None)[0]
    steps = rest[2:] - 2.0 * rest[1:-1] + rest[:-2]
    ratios = [np.abs(steps) / np.sqrt(_step_variance(s * s / weight, extra)) for s in (low, high)]
    # In units of the noise, for the smallest and the largest that it can be; 1.4826 makes sigma of a median.
    at_most, at_least = (1.4826 * float(np.median(ratio)) for ratio in ratios)
    if at_most >= 1.0 / FACTOR and at_least <= FACTOR:
        return
    scatter = 1.4826 * float(np.median(np.abs(steps) / np.sqrt(_step_variance(1.0 / weight, None))))
    advice = "check data: unit (K or mK), the weights and the noise (channel_width in MHz, integration_time in hours)"
    if scatter <= 1e-7 * float(np.abs(data).max()):
        text = f"the data have no noise from channel to channel; right for a test without noise, else {advice}"
    else:
        free = f"between {low:.3g} and {high:.3g} mK by its prior"
        noise = f"{scatter / at_most:.3g} mK" if low == high else free
        text = f"neighbouring channels scatter by {scatter:.3g} mK, but the noise is {noise}; {advice}"
    warnings.warn(text, stacklevel=2)


def _step_variance(variance, extra):
    """Variance (n - 2,) of second differences of noise of this variance (n,) and further covariance."""
    diagonal = variance if extra is None else variance + (extra if extra.ndim == 1 else np.diagonal(extra))
    total = diagonal[2:] + 4.0 * diagonal[1:-1] + diagonal[:-2]
    if extra is not None and extra.ndim == 2:
        pairs, ends = np.diagonal(extra, 1), np.diagonal(extra, 2)
        # A covariance that is smooth from channel to channel leaves next to nothing; rounding must not decide.
        total = np.maximum(total - 4.0 * (pairs[1:] + pairs[:-1]) + 2.0 * ends, 1e-4 * total)
    return np.maximum(total, np.finfo(float).tiny)
