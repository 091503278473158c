"""The likelihood of a global-signal spectrum."""

import copy
import dataclasses
from collections.abc import Callable

import numpy as np

from lstmfit.errors import InputError
from lstmfit.likelihoods.components import Component
from lstmfit.likelihoods.gaussian import GaussianNoise, StudentNoise, choose_centre
from lstmfit.likelihoods.global_signal_options import GlobalSignalOptions
from lstmfit.likelihoods.model_noise import ModelNoise
from lstmfit.likelihoods.noise import Noise
from lstmfit.likelihoods.signal_error import SignalError
from lstmfit.likelihoods.spectrum_model import SpectrumModel
from lstmfit.likelihoods.standard_residuals import normal_scores, standardise
from lstmfit.mistakes import validate_block

ROWS = 128
"""Number of residuals that `GlobalSignal.loglikelihood_batch` computes at a time, so that they stay in the cache."""


class GlobalSignal(SpectrumModel):
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
    names, params, spectrum, noise, marginalised, components, fraction, covariance, meanings
        As for `SpectrumModel`.
    density : GaussianNoise, NoiseWithRegions or StudentNoise
        Density of a residual in the transformed basis (`whiten`).
    data : numpy.ndarray
        (n,) data in the transformed basis, minus the offsets of linear sampled components and the marginalised
        foreground at ``density.terms.centre``.
    root, operator : numpy.ndarray
        Transformation of a signal to that basis: the matrix `operator` (n, n_channels) or, if it is None, the factor
        `root` (n,).
    compiled : CompiledSpectrum or None
        Compiled ln L, if there is one.
    model_noise : ModelNoise or None
        Density of the residual if the noise is that of the model's sky; `density` then has the noise of the data.
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
        super().__init__(spectrum, redshifts, noise, foreground, systematics, error)
        weight = np.asarray(spectrum.weight, dtype=float)
        self.density = self._make_density(weight)
        data = self._temperature
        if self.marginalised is not None:
            data = data - self._centre()
        self.data = self.density.whiten(data)
        self.root, self.operator = np.sqrt(weight), self.density.operator(self._matrix)
        self._sigma, self._dof, self._student = noise.sigma, noise.dof, noise.student
        self.dof_at = 0 if noise.sigma is not None else 1
        self._compiled = self._compile()
        if self.fraction:
            self._check_fraction()
        self.model_noise = None if noise.samples is None else self._make_model_noise(weight, foreground)
        self._fixed_noise = not self.fraction and self.model_noise is None
        # The compiled ln L has a noise that does not depend on the signal.
        self.compiled = self._compiled if self._fixed_noise and not self._has_marginalised_regions else None
        self._transform_components()

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
        noise = options.noise_of(spectrum).build(spectrum)
        blocks = options.foreground, options.systematics
        at = spectrum.frequency, spectrum.kept, load_emulator
        components = [None if block is None else block.build(*at) for block in blocks]
        error = SignalError.from_option(options.emulator_error, signal_covariance)
        made = cls(spectrum, redshifts, noise, *components, error)
        for block, component in zip(blocks, components):
            if block is not None:
                made.meanings |= dict.fromkeys(component.names, block.meaning(spectrum.frequency))
        return made

    def _make_density(self, weight):
        marginalised, noise, covariance = self.marginalised, self.noise, self.covariance
        if noise.student:
            if marginalised is not None:
                raise InputError("Student-t noise does not allow analytic marginalisation; set marginalise: false")
            if covariance is not None and covariance.ndim == 2:
                raise InputError("Student-t noise does not allow a full covariance; set emulator_error: diagonal")
            return StudentNoise(weight, covariance)
        if self._has_marginalised_regions:
            density = self._make_density_with_regions(weight)
        else:
            density = GaussianNoise(weight, covariance, *self._prior_of_terms(weight))
        if noise.sigma == 0 and not density.positive_without_sigma:
            raise InputError("noise: the covariance is not positive definite; add a floor")
        return density

    def _prior_of_terms(self, weight):
        """Arguments of `GaussianNoise` for a marginalised linear foreground."""
        marginalised = self.marginalised
        if marginalised is None:
            return ()
        # In terms of coefficients that are independent a priori.
        basis, mean, scale = marginalised.mixed(marginalised.basis), marginalised.mean, marginalised.scale
        if marginalised.mixing is not None:
            mean = np.linalg.solve(marginalised.mixing, np.broadcast_to(mean, basis.shape[1:]))
        data = self._temperature if marginalised.offset is None else self._temperature - marginalised.offset
        return basis, mean, scale, choose_centre(basis, data, weight, mean, scale)

    def _make_density_with_regions(self, weight):
        from lstmfit.likelihoods.marginalised_regions import NoiseWithRegions

        remedy = "or marginalise: false in the foreground"
        if self.covariance is not None and self.covariance.ndim == 2:
            raise InputError(
                "spectral indices of regions are only marginalised if channels are independent, but the noise or the "
                f"emulator error has a full covariance; set emulator_error: diagonal or false, {remedy}"
            )
        if self.noise.samples is not None:
            raise InputError(
                f"noise: sky: model does not allow marginalised spectral indices of regions; set sky: data, {remedy}"
            )
        data = self._temperature - self._centre()
        return NoiseWithRegions(weight, self.covariance, self.marginalised, data, self.noise.sigma)

    def _compile(self):
        """Compiled functions of this spectrum; None if its signal is on its channels, or its noise not independent."""
        if self._matrix is None or self.noise.student or self.density.has_correlations:
            return None
        from lstmfit.likelihoods.compiled_spectrum import FEWEST, CompiledSpectrum

        if len(self.redshifts) < FEWEST:
            return None
        return CompiledSpectrum(self.density, self.redshifts, self._frequency, self.root)

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

    def _make_model_noise(self, weight, foreground):
        if foreground is None:
            raise InputError(
                "noise: sky: model needs the sky in the model, but there is no foreground; add one, or give sky: "
                "{temperature: K, frequency: MHz, index: -2.5}"
            )
        if self.density.has_correlations:
            raise InputError(
                "noise: sky: model needs independent channels, but the emulator error is correlated; set "
                "emulator_error: diagonal, or sky: data"
            )
        return ModelNoise.of(self.density, self._temperature, weight, self.noise.samples, self._error)

    @property
    def _has_marginalised_regions(self):
        return self.marginalised is not None and self.marginalised.regions is not None

    def _centre(self):
        """The marginalised foreground (n,) mK that is subtracted in advance, at ``density.terms.centre``.

        Of regions it is only the part without a spectral index.
        """
        if self._has_marginalised_regions:
            return self.marginalised.offset
        return self.marginalised.evaluate(self.marginalised.mixed(self.density.terms.centre))

    def _transform_components(self):
        self.linear, self.nonlinear = [], []
        for component, part in self.components:
            if component.basis is not None:
                self.linear.append((self.density.whiten(component.basis), part))
                if component.offset is not None:
                    self.data = self.data - self.density.whiten(component.offset)
            else:
                self.nonlinear.append((component.evaluate, part))

    def __call__(self, signal: np.ndarray, values: np.ndarray) -> float:
        """Log likelihood.

        Parameters
        ----------
        signal : numpy.ndarray
            (n_channels,) mK on the emulator's grid; not modified.
        values : numpy.ndarray
            (len(names),) parameters of the likelihood.
        """
        sigma = self.sigma_of(values)
        if self.compiled is not None:
            value = self.compiled.loglikelihood(signal, self.without_components(values), sigma)
            # NaN if digits would be lost, or if the signal is NaN.
            if value == value:
                return value
        if self.fraction:
            signal = self._whitened(signal)
            r, variance = self.without_components(values) - signal, (self.fraction * signal) ** 2
            if self.model_noise is not None:
                return self.model_noise.logpdf(r, sigma, variance)
            return self.density.logpdf_with(variance, r, sigma)
        r = self.residual(signal, values)
        if self.model_noise is not None:
            return self.model_noise.logpdf(r, sigma)
        if self._student:
            return self.density.logpdf_whitened(r, sigma, self._dof or float(values[self.dof_at]))
        return self.density.logpdf_whitened(r, sigma)

    def loglikelihood_batch(self, signals: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Log likelihoods (m,) of signals (m, n_channels) with parameters (m, len(names))."""
        if self._compiled is not None or self._student or not self._fixed_noise:
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
            return self._compiled.residual(signal, self.without_components(values))
        data = self.data - (self.root * signal if self.operator is None else self.operator @ signal)
        return self.without_components(values, data)

    def _whitened(self, signal):
        """Signal in the transformed basis, (n,)."""
        if self._compiled is not None:
            return -self._compiled.residual(signal, np.zeros(self.density.n))
        return self.root * signal if self.operator is None else self.operator @ signal

    def with_variance_at(self, signal: np.ndarray, values: np.ndarray) -> "GlobalSignal":
        """Likelihood whose variances are fixed at their values for a signal and parameters.

        These are an error that is a fraction of the signal, and the noise of the model's sky; the latter is that of the
        data if the sky is not positive there. So ln L is quadratic in the signal. Without such variances it is the
        likelihood itself.

        Parameters
        ----------
        signal : numpy.ndarray
            (n_channels,) mK.
        values : numpy.ndarray
            (len(names),) parameters of the likelihood.
        """
        if self._fixed_noise:
            return self
        extra, noise, weight = self.density.extra, dataclasses.replace(self.noise, samples=None), self.root**2
        if self.model_noise is not None:
            variance = self._model_variance(signal, values)
            if variance is not None:
                extra = variance
                noise = dataclasses.replace(noise, extra=(variance - self.model_noise.rest) / weight)
        extra = extra + (self.fraction * self._whitened(signal)) ** 2
        made = copy.copy(self)
        changes = {"noise": noise, "density": self.density.with_extra(extra), "covariance": extra / weight}
        made.__dict__.update(changes, fraction=0.0, model_noise=None, _fixed_noise=True)
        return made

    def quadratic_at(self, signal: np.ndarray, values: np.ndarray) -> Callable[[np.ndarray, np.ndarray], float]:
        """Ln L up to a constant, approximated by a quadratic function of the signal about a signal and parameters.

        Its variances are fixed as in `with_variance_at`, and a foreground of regions is linear in its indices. It is
        exact for other Gaussian likelihoods; Student-t noise is left as it is.

        Returns
        -------
        callable
            (signal, values) -> ln L.
        """
        if not self._has_marginalised_regions:
            return self.with_variance_at(signal, values)
        value = self.density.linearised(self.residual(signal, values), self.sigma_of(values))
        return lambda signal, values: value(self.residual(signal, values))

    def _model_variance(self, signal, values):
        """As `ModelNoise.variance`, for a signal and parameters."""
        return self.model_noise.variance(self.residual(signal, values), self.sigma_of(values))

    def sigma_of(self, values: np.ndarray) -> float:
        """Noise of a channel of weight one in mK, from the parameters of the likelihood."""
        return self._sigma if self._sigma is not None else float(values[0])

    def without_components(self, values: np.ndarray, data: np.ndarray | None = None) -> np.ndarray:
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

    def standard_residuals(self, signal, values) -> np.ndarray:
        """`residuals` in units of the noise, see `standardise`."""
        return self.with_variance_at(signal, values).standardise(self.residuals(signal, values), values)

    def standardise(self, residuals: np.ndarray, values) -> np.ndarray:
        """Residuals in units of the noise, including the emulator error, in ascending order of frequency.

        An error that is a fraction of the signal is not included, and the noise of the model's sky is that of the data,
        unless `with_variance_at` has fixed them.

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
        return standardise(residuals, self.spectrum, self.noise.at(values), self.covariance)

    def chi_square(self, signal, values) -> float:
        """Sum of the squares of `standard_residuals`."""
        return self.with_variance_at(signal, values).chi_square_of(self.residuals(signal, values), values)

    def chi_square_of(self, residual: np.ndarray, values) -> float:
        """Sum of the squares of a residual (n,) in mK, as from `standardise`."""
        # The order of the channels does not matter, so that unlike there no factorisation is needed.
        noise = self.noise.at(values)
        z = self.density.whiten(residual) / np.sqrt(noise.sigma**2 + self.density.extra)
        if noise.student:
            z = normal_scores(z, noise.dof)
        return float(z @ z)

    def coefficients(self, signal, values, rng: np.random.Generator | None = None) -> np.ndarray:
        """As `SpectrumModel.coefficients`."""
        residual = self._temperature - self._centre() - self.model(signal, values)
        density = self.with_variance_at(signal, values).density
        return self.marginalised.mixed(density.coefficients(residual, self.sigma_of(values), rng))
