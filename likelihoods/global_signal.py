"""The likelihood of a global-signal spectrum."""

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from lstmfit.errors import InputError
from lstmfit.likelihoods.base import read_defaults
from lstmfit.likelihoods.components import Component
from lstmfit.likelihoods.gaussian import GaussianNoise, StudentNoise, choose_centre
from lstmfit.likelihoods.global_signal_options import LARGEST_FRACTION, GlobalSignalOptions, RelativeError
from lstmfit.likelihoods.interpolation import interpolation_matrix
from lstmfit.likelihoods.noise import LARGEST_SIGMA, SMALLEST_SIGMA, Channels, Noise, NoiseBlock
from lstmfit.likelihoods.scale_check import check_scale
from lstmfit.mistakes import validate_block
from lstmfit.schema import LARGEST

ROWS = 128
"""Number of residuals that `GlobalSignal.loglikelihood_batch` computes at a time, so that they stay in the cache."""
SMALLEST_DOF = 1e-3
"""Smallest number of degrees of freedom of a Student-t distribution."""


def _sum_covariances(*terms):
    """Sum of covariances, each None, diagonal (n,) or full (n, n): None, (n,) or (n, n)."""
    terms = [term for term in terms if term is not None]
    if any(term.ndim == 2 for term in terms):
        terms = [np.diag(term) if term.ndim == 1 else term for term in terms]
    return sum(terms) if terms else None


@dataclass(frozen=True)
class SignalError:
    """Error of the signal, such as that of an emulator.

    Parameters
    ----------
    covariance : numpy.ndarray, optional
        (n_channels, n_channels) mK^2 on the redshift grid of the signal.
    diagonal : bool
        Use only the variances of `covariance` at the channels of the data.
    channel : float
        Independent error in mK, the same in every channel of the data.
    fraction : float
        Independent error of each channel of the data as a fraction of the signal there.
    """

    covariance: np.ndarray | None = None
    diagonal: bool = False
    channel: float = 0.0
    fraction: float = 0.0

    @classmethod
    def from_option(cls, value, covariance: np.ndarray | None) -> "SignalError":
        """Error given by ``emulator_error:``; see `lstmfit.likelihoods.global_signal_options.GlobalSignalOptions`.

        Raises
        ------
        InputError
            The option requires a covariance, but there is none.
        """
        if isinstance(value, RelativeError):
            return cls(fraction=value.fraction)
        if type(value) is float:
            return cls(channel=value)
        if not value:
            return cls()
        if covariance is None:
            raise InputError(
                f"emulator_error is {str(value).lower()}, but the signal has no test-set errors; retrain the emulator "
                "with a test set, give a number in mK, or set emulator_error: false"
            )
        return cls(covariance, value == "diagonal")

    def on_channels(self, matrix: np.ndarray | None, n: int) -> np.ndarray | None:
        """Covariance at n channels in mK^2, (n,) if diagonal or (n, n), given the `interpolation_matrix`."""
        if not 0 <= self.channel <= LARGEST_SIGMA:
            raise InputError(f"emulator_error is {self.channel:g} mK; give a number up to {LARGEST_SIGMA:g} mK")
        if not 0 <= self.fraction <= LARGEST_FRACTION:
            raise InputError(
                f"emulator_error is {self.fraction:g} times the signal; give a fraction up to {LARGEST_FRACTION:g}"
            )
        error = self.covariance
        if error is not None and matrix is not None:
            error = matrix @ error @ matrix.T
        if error is not None and self.diagonal:
            error = np.diagonal(error)
        return _sum_covariances(error, np.full(n, self.channel**2) if self.channel else None)


class GlobalSignal:
    """Likelihood of a spectrum: signal plus foreground plus noise.

    ``ln L = -1/2 r^T C^-1 r - 1/2 ln |2 pi C|`` with r = data - signal - foreground. It is normalised, so that
    evidences can be compared.

    Parameters
    ----------
    spectrum : Spectrum
        ``frequency``, ``temperature`` and ``weight`` (n,): MHz, mK and positive weights. The noise variance of a
        channel is sigma^2 / weight.
    redshifts : numpy.ndarray
        (n_channels,) redshift grid of the signal.
    noise : Noise
        Noise model.
    foreground, systematics : Component, optional
        Components added to the signal: sampled, or marginalised analytically if the foreground requests it.
    error : SignalError, optional
        Emulator error, which is added to the noise. If it is a fraction of the signal, C depends on the signal, and a
        foreground must be sampled and the noise Gaussian and independent.

    Attributes
    ----------
    outputs : tuple of str
        Outputs of the model that it needs: the signal.
    names : tuple of str
        Its own parameters in the order of `values`, beginning with those of the noise.
    params : dict of str to dict
        Default prior and LaTeX label of each, from ``global_signal.yaml``.
    spectrum, noise
        As given.
    marginalised : Component or None
        The foreground whose coefficients are marginalised analytically.
    components : list of (Component, slice)
        Sampled components with the positions of their parameters in `values`.
    density : GaussianNoise or StudentNoise
        Density of a residual in the transformed basis (`whiten`).
    data : numpy.ndarray
        (n,) data in the transformed basis, minus the offsets of linear sampled components and the marginalised
        foreground at ``density.terms.centre``.
    root, operator : numpy.ndarray
        Transformation of a signal to that basis: the matrix `operator` (n, n_channels) or, if it is None, the factor
        `root` (n,).
    fraction : float
        Error of each channel as a fraction of the signal there; mocks do not include it.
    covariance : numpy.ndarray or None
        (n,) or (n, n) mK^2, E of the noise plus the emulator error that does not depend on the signal.
    meanings : dict of str to str
        Model and reference of the parameters of foreground and systematics, if known.
    dof_at : int
        Position of the degrees of freedom of Student-t noise in `values`, if they are free.
    linear, nonlinear : list
        (transformed basis, slice) of each linear sampled component; (evaluate, slice) of the others.

    Raises
    ------
    InputError
        Channels lie outside the grid of the signal, the covariance is not positive definite, or the options cannot be
        combined.
    """

    outputs = ("signal",)

    def __init__(
        self,
        spectrum,
        redshifts,
        noise: Noise,
        foreground: Component | None = None,
        systematics: Component | None = None,
        error: SignalError | None = None,
    ):
        self.spectrum, self.noise, self.meanings = spectrum, noise, {}
        self._frequency = np.asarray(spectrum.frequency, dtype=float)
        self._temperature = np.asarray(spectrum.temperature, dtype=float)
        weight = np.asarray(spectrum.weight, dtype=float)
        _check_noise(noise)
        self._redshifts = np.asarray(redshifts, dtype=float)
        self._matrix = interpolation_matrix(self._redshifts, self._frequency)
        self.fraction = 0.0 if error is None else error.fraction
        error = None if error is None else error.on_channels(self._matrix, len(self._frequency))
        self.covariance = covariance = _sum_covariances(noise.extra, error)
        self.marginalised = foreground if foreground is not None and foreground.marginalise else None
        self.density = self._make_density(weight, covariance)
        data = self._temperature
        if self.marginalised is not None:
            data = data - self._centre()
        self.data = self.density.whiten(data)
        self.root, self.operator = np.sqrt(weight), self.density.operator(self._matrix)
        self._sigma, self._dof, self._student = noise.sigma, noise.dof, noise.student
        self._compiled = self._compile()
        # The compiled ln L has a noise that does not depend on the signal.
        self._fast = None if self.fraction else self._compiled
        if self.fraction:
            self._check_fraction()
        sampled = None if self.marginalised is not None else foreground
        self._set_components([component for component in (sampled, systematics) if component is not None])

    @classmethod
    def from_options(
        cls,
        options,
        spectrum,
        redshifts: np.ndarray,
        signal_covariance: np.ndarray | None = None,
        load_emulator: Callable | None = None,
    ) -> "GlobalSignal":
        """Build the likelihood from the options of a run file.

        Parameters
        ----------
        options : GlobalSignalOptions or dict
            Block of the run file.
        spectrum : Spectrum
            Data.
        redshifts : numpy.ndarray
            (n_channels,) redshift grid of the signal.
        signal_covariance : numpy.ndarray, optional
            (n_channels, n_channels) mK^2, covariance of the emulator error, if known.
        load_emulator : callable, optional
            As in `lstmfit.likelihoods.components.ComponentBlock.build`.

        Raises
        ------
        InputError
            As the class itself; also if the options are invalid or do not match the data.
        """
        if not isinstance(options, GlobalSignalOptions):
            options = validate_block(GlobalSignalOptions, options, "likelihood.global_signal")
        noise = _noise_block(options, spectrum).build(spectrum)
        blocks = options.foreground, options.systematics
        at = spectrum.frequency, spectrum.kept, load_emulator
        components = [None if block is None else block.build(*at) for block in blocks]
        error = SignalError.from_option(options.emulator_error, signal_covariance)
        made = cls(spectrum, redshifts, noise, *components, error)
        for block, component in zip(blocks, components):
            if block is not None:
                made.meanings |= dict.fromkeys(component.names, block.meaning(spectrum.frequency))
        return made

    def _make_density(self, weight, covariance):
        marginalised, noise = self.marginalised, self.noise
        if noise.student:
            if marginalised is not None:
                raise InputError("Student-t noise does not allow analytic marginalisation; set marginalise: false")
            if covariance is not None and covariance.ndim == 2:
                raise InputError("Student-t noise does not allow a full covariance; set emulator_error: diagonal")
            return StudentNoise(weight, covariance)
        prior = ()
        if marginalised is not None:
            # In terms of coefficients that are independent a priori.
            basis, mean, scale = marginalised.mixed(marginalised.basis), marginalised.mean, marginalised.scale
            if marginalised.mixing is not None:
                mean = np.linalg.solve(marginalised.mixing, np.broadcast_to(mean, basis.shape[1:]))
            data = self._temperature if marginalised.offset is None else self._temperature - marginalised.offset
            prior = basis, mean, scale, choose_centre(basis, data, weight, mean, scale)
        density = GaussianNoise(weight, covariance, *prior)
        if noise.sigma == 0 and not density.positive_without_sigma:
            raise InputError("noise: the covariance is not positive definite; add a floor")
        return density

    def _compile(self):
        """Compiled functions of this spectrum; None if its signal is on its channels, or its noise not independent."""
        if self._matrix is None or self.noise.student or self.density.has_correlations:
            return None
        from lstmfit.likelihoods.compiled_spectrum import FEWEST, CompiledSpectrum

        if len(self._redshifts) < FEWEST:
            return None
        return CompiledSpectrum(self.density, self._redshifts, self._frequency, self.root)

    def _check_fraction(self):
        problem = None
        if self.marginalised is not None:
            problem = "but the foreground is marginalised; set marginalise: false in it"
        elif self.noise.student:
            problem = "but the noise is student_t; choose white, channels or radiometer noise"
        elif self.density.has_correlations:
            problem = "but the noise has a full covariance; choose white, channels or radiometer noise"
        if problem is not None:
            raise InputError(
                "emulator_error as a fraction of the signal needs independent Gaussian noise and a sampled foreground, "
                f"{problem}"
            )

    def _centre(self):
        """The marginalised foreground (n,) mK that is subtracted in advance, at ``density.terms.centre``."""
        return self.marginalised.evaluate(self.marginalised.mixed(self.density.terms.centre))

    def _set_components(self, components):
        noise = self.noise
        names, self.linear, self.nonlinear, self.components = list(noise.names), [], [], []
        for component in components:
            part = slice(len(names), len(names) + len(component.names))
            names += component.names
            self.components.append((component, part))
            if component.basis is not None:
                self.linear.append((self.density.whiten(component.basis), part))
                if component.offset is not None:
                    self.data = self.data - self.density.whiten(component.offset)
            else:
                self.nonlinear.append((component.evaluate, part))
        clash = {name for name in names if names.count(name) > 1}
        if clash:
            raise InputError(
                f"global_signal: noise, foreground and systematics have the parameter {clash.pop()!r} more than once; "
                "choose another model for one of them"
            )
        self.names = tuple(names)
        self.dof_at = 0 if noise.sigma is not None else 1
        known = read_defaults("global_signal")["params"]
        self.params = {name: known[name] for name in noise.names}
        for component in components:
            self.params |= component.params

    def __call__(self, signal: np.ndarray, values: np.ndarray) -> float:
        """Log likelihood.

        Parameters
        ----------
        signal : numpy.ndarray
            (n_channels,) mK on the emulator's grid; not modified.
        values : numpy.ndarray
            (len(names),) parameters of the likelihood.
        """
        sigma = self._sigma if self._sigma is not None else float(values[0])
        if self._fast is not None:
            value = self._fast.loglikelihood(signal, self._without_components(values), sigma)
            # NaN if digits would be lost, or if the signal is NaN.
            if value == value:
                return value
        if self.fraction:
            signal = self._whitened(signal)
            r = self._without_components(values) - signal
            return self.density.logpdf_with((self.fraction * signal) ** 2, r, sigma)
        r = self.residual(signal, values)
        if self._student:
            return self.density.logpdf_whitened(r, sigma, self._dof or float(values[self.dof_at]))
        return self.density.logpdf_whitened(r, sigma)

    def loglikelihood_batch(self, signals: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Log likelihoods (m,) of signals (m, n_channels) with parameters (m, len(names))."""
        if self._compiled is not None or self._student or self.fraction:
            return np.array([self(signal, own) for signal, own in zip(signals, values)])
        found = np.empty(len(signals))
        for first in range(0, len(signals), ROWS):
            rows = slice(first, first + ROWS)
            sigma = values[rows, 0] if self._sigma is None else self._sigma
            found[rows] = self.density.logpdf_whitened_batch(self._residual_batch(signals[rows], values[rows]), sigma)
        return found

    def _residual_batch(self, signals, values):
        """`residual` of signals (m, n_channels), (m, n)."""
        data = self.data - (self.root * signals if self.operator is None else signals @ self.operator.T)
        for basis, part in self.linear:
            data -= values[:, part] @ basis.T
        for evaluate, part in self.nonlinear:
            for row, own in zip(data, values):
                row -= self.density.whiten(evaluate(own[part]))
        return data

    def residual(self, signal: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Data minus signal and sampled components in the transformed basis, (n,); a new array."""
        if self._compiled is not None:
            return self._compiled.residual(signal, self._without_components(values))
        data = self.data - (self.root * signal if self.operator is None else self.operator @ signal)
        return self._without_components(values, data)

    def _whitened(self, signal):
        """Signal in the transformed basis, (n,)."""
        if self._compiled is not None:
            return -self._compiled.residual(signal, np.zeros(self.density.n))
        return self.root * signal if self.operator is None else self.operator @ signal

    def with_variance_at(self, signal: np.ndarray) -> "GlobalSignal":
        """Likelihood in which an error that is a fraction of the signal keeps its value at a signal (n_channels,) mK.

        So its ln L is quadratic in the signal. Without such an error it is the likelihood itself.
        """
        if not self.fraction:
            return self
        made = copy.copy(self)
        made.fraction, made.density = 0.0, copy.copy(self.density)
        whitened = (self.fraction * self._whitened(signal)) ** 2
        made.density.extra = self.density.extra + whitened
        made.covariance = _sum_covariances(self.covariance, whitened / self.root**2)
        return made

    def _without_components(self, values, data=None):
        """Data minus sampled components in the transformed basis, (n,); `data` is modified, if given."""
        if data is None:
            if not self.components:
                return self.data
            data = self.data.copy()
        for basis, part in self.linear:
            data -= basis @ values[part]
        for evaluate, part in self.nonlinear:
            data -= self.density.whiten(evaluate(values[part]))
        return data

    def on_channels(self, signal, redshifts: np.ndarray | None = None) -> np.ndarray:
        """A signal at the channels of the data.

        Parameters
        ----------
        signal : numpy.ndarray
            (n_channels,) or (m, n_channels) mK.
        redshifts : numpy.ndarray, optional
            Redshift grid of the signal, if different from that of the likelihood.

        Returns
        -------
        numpy.ndarray
            (n,) or (m, n) mK.

        Raises
        ------
        InputError
            Channels lie outside the grid.
        """
        signal = np.asarray(signal, dtype=float)
        matrix = self._matrix if redshifts is None else interpolation_matrix(redshifts, self._frequency)
        if matrix is None:
            return signal
        return matrix @ signal if signal.ndim == 1 else signal @ matrix.T

    def model(self, signal, values) -> np.ndarray:
        """Signal and sampled components at the channels of the data, (n,) mK."""
        return self._with_components(self.on_channels(signal), values)

    def _with_components(self, model, values):
        for component, part in self.components:
            model = model + component.evaluate(np.asarray(values)[part])
        return model

    def foreground(self, signal, values, rng: np.random.Generator | None = None) -> np.ndarray:
        """Foreground and systematics at the channels of the data.

        A marginalised foreground is evaluated at its conditional mean, or at a random draw if `rng` is given.

        Returns
        -------
        numpy.ndarray
            (n,) mK; zero if there are no such components.
        """
        total = self.model(signal, values) - self.on_channels(signal)
        if self.marginalised is not None:
            total = total + self.marginalised.evaluate(self.coefficients(signal, values, rng))
        return total

    def sky(self, signal, values, rng: np.random.Generator | None = None) -> np.ndarray:
        """Model of the data without noise: the signal plus `foreground`, (n,) mK."""
        return self.foreground(signal, values, rng) + self.on_channels(signal)

    def residuals(self, signal, values) -> np.ndarray:
        """Data minus `sky`, (n,) mK, with a marginalised foreground at its conditional mean."""
        return self._temperature - self.sky(signal, values)

    def standard_residuals(self, signal, values) -> np.ndarray:
        """`residuals` in units of the noise, see `standardise`."""
        return self.with_variance_at(signal).standardise(self.residuals(signal, values), values)

    def standardise(self, residuals: np.ndarray, values) -> np.ndarray:
        """Residuals in units of the noise, including the emulator error, in ascending order of frequency.

        An error that is a fraction of the signal is not included, unless `with_variance_at` has fixed it.

        Parameters
        ----------
        residuals : numpy.ndarray
            (n,) or (m, n) mK.
        values : numpy.ndarray
            (len(names),) parameters of the likelihood, which give the noise.

        Returns
        -------
        numpy.ndarray
            (n,) or (m, n), independent and standard normal if model and noise are correct. Student-t residuals are
            mapped to normal ones through their distribution functions; correlated residuals are whitened, starting at
            the lowest frequency.
        """
        order = np.argsort(self._frequency, kind="stable")
        noise, fixed = self.noise.at(values), self.covariance
        variance = (noise.sigma**2 / np.asarray(self.spectrum.weight, dtype=float))[order]
        residuals = np.asarray(residuals, dtype=float)[..., order]
        if fixed is None or fixed.ndim == 1:
            z = residuals / np.sqrt(variance + (0.0 if fixed is None else fixed[order]))
        else:
            factor = np.linalg.cholesky(fixed[np.ix_(order, order)] + np.diag(variance))
            z = solve_triangular(factor, residuals.T, lower=True).T
        return _normal_scores(z, noise.dof) if noise.student else z

    def chi_square(self, signal, values) -> float:
        """Sum of the squares of `standard_residuals`."""
        return self.with_variance_at(signal).chi_square_of(self.residuals(signal, values), values)

    def chi_square_of(self, residual: np.ndarray, values) -> float:
        """Sum of the squares of a residual (n,) in mK, as from `standardise`."""
        # The order of the channels does not matter, so that unlike there no factorisation is needed.
        noise = self.noise.at(values)
        z = self.density.whiten(residual) / np.sqrt(noise.sigma**2 + self.density.extra)
        if noise.student:
            z = _normal_scores(z, noise.dof)
        return float(z @ z)

    def mocked(self, arguments, rng: np.random.Generator | None, redshifts=None, coefficients=None):
        """Mock data from the model, with the channels and weights of the data.

        Parameters
        ----------
        arguments : sequence
            Arguments of a call at the true parameters: the signal and the parameters of the likelihood.
        rng : numpy.random.Generator or None
            Random generator for the coefficients of a marginalised foreground, drawn from their prior, and for the
            noise. If None, the coefficients are at their prior mean and there is no noise.
        redshifts : numpy.ndarray, optional
            Redshift grid of the signal, if different from that of the likelihood.
        coefficients : numpy.ndarray, optional
            Coefficients (k,) of a marginalised foreground, instead of a draw.

        Returns
        -------
        Spectrum
            The mock spectrum, with the true signal as its ``truth``.
        """
        signal, values = arguments
        true = np.array(self.on_channels(signal, redshifts))
        sky, fixed = true + self._with_components(np.zeros(len(true)), values), self.marginalised
        if fixed is not None:
            sky = sky + fixed.evaluate(fixed.draw(rng) if coefficients is None else coefficients)
        if rng is not None:
            sky = sky + self.noise.at(values).draw(self.spectrum.weight, rng)
        return dataclasses.replace(self.spectrum, temperature=sky, truth=true)

    @property
    def n_marginalised(self) -> int:
        """Number of analytically marginalised coefficients."""
        return 0 if self.marginalised is None else len(self.marginalised.names)

    @property
    def white_sigma(self) -> float | None:
        """Noise of each channel in mK if it is white, equal in all channels and fixed; otherwise None."""
        noise, weight = self.noise, self.spectrum.weight
        if noise.sigma is None or noise.student or noise.extra is not None or np.ptp(weight) != 0:
            return None
        return noise.sigma / np.sqrt(weight[0])

    def coefficients(self, signal, values, rng: np.random.Generator | None = None) -> np.ndarray:
        """Conditional mean of the marginalised coefficients (k,), or a random draw if `rng` is given."""
        data = self._temperature - self._centre()
        sigma = self._sigma if self._sigma is not None else float(values[0])
        return self.marginalised.mixed(self.density.coefficients(data - self.model(signal, values), sigma, rng))

    def check_scale(self, sigma) -> None:
        """Warn if data and noise seem to be in different units; see `lstmfit.likelihoods.scale_check.check_scale`."""
        spectrum = self.spectrum
        check_scale(spectrum.frequency, spectrum.temperature, spectrum.weight, sigma, self.noise.extra)


def _normal_scores(x, dof):
    """Normal deviates with the cumulative probabilities of Student-t deviates."""
    from scipy.stats import norm, t

    # The smallest number keeps a residual in the far tail finite.
    return np.copysign(norm.isf(np.maximum(t.sf(np.abs(x), dof), np.finfo(float).tiny)), x)


def _noise_block(options, spectrum) -> NoiseBlock:
    """Options of the noise; by default the sigma column of the data."""
    if options.noise is not None:
        return options.noise
    if spectrum.sigma is None:
        raise InputError(
            "likelihood.global_signal: noise is missing, and the data have no sigma column; give for example noise: "
            "{model: white, sigma: 25}, or name the column: data: {columns: {..., sigma: COLUMN}}"
        )
    return Channels()


def _check_noise(noise):
    sigma = noise.sigma
    if sigma is not None and not (sigma == 0 or SMALLEST_SIGMA <= sigma <= LARGEST_SIGMA):
        raise InputError(
            f"noise: {noise.name} is {sigma:g} mK; give a number from {SMALLEST_SIGMA:g} to {LARGEST_SIGMA:g} mK"
        )
    if noise.dof is not None and not SMALLEST_DOF <= noise.dof <= LARGEST:
        raise InputError(f"noise: dof is {noise.dof:g}; give a number from {SMALLEST_DOF:g} to {LARGEST:g}")
