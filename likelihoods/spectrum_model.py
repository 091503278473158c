"""Model of a spectrum in the channels of its data: signal, foreground, residuals and mocks."""

import dataclasses

import numpy as np

from lstmfit.errors import InputError
from lstmfit.likelihoods.base import read_defaults
from lstmfit.likelihoods.components import Component
from lstmfit.likelihoods.interpolation import interpolation_matrix
from lstmfit.likelihoods.noise import Noise
from lstmfit.likelihoods.scale_check import check_scale
from lstmfit.likelihoods.signal_error import SignalError, sum_covariances


class SpectrumModel:
    """Signal plus foreground plus noise in the channels of a spectrum: what `GlobalSignal` is the likelihood of.

    Parameters
    ----------
    spectrum : Spectrum
        ``frequency``, ``temperature`` and ``weight`` (n,): MHz, mK and positive weights.
    redshifts : numpy.ndarray
        (n_channels,) redshift grid of the signal.
    noise : Noise
        Noise model.
    foreground, systematics : Component, optional
        Components added to the signal.
    error : SignalError, optional
        Error of the signal.

    Attributes
    ----------
    names : tuple of str
        Its parameters in the order of `values`, beginning with those of the noise.
    params : dict of str to dict
        Default prior and LaTeX label of each, from ``global_signal.yaml``.
    spectrum, redshifts, noise
        As given.
    marginalised : Component or None
        The foreground whose coefficients are marginalised analytically.
    components : list of (Component, slice)
        Sampled components with the positions of their parameters in `values`.
    fraction : float
        Error of each channel as a fraction of the signal there; mocks do not include it.
    covariance : numpy.ndarray or None
        (n,) or (n, n) mK^2, E of the noise plus the emulator error that does not depend on the signal. If the noise is
        that of the model's sky, it is taken from the data here.
    meanings : dict of str to str
        Model and reference of the parameters of foreground and systematics, if known.

    Raises
    ------
    InputError
        Channels lie outside the grid of the signal, a number of the noise or the error is out of bounds, or two
        components have a parameter of the same name.
    """

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
        noise.check()
        self.redshifts = np.asarray(redshifts, dtype=float)
        self._matrix = interpolation_matrix(self.redshifts, self._frequency)
        self.fraction = 0.0 if error is None else error.fraction
        error_covariance = None if error is None else error.on_channels(self._matrix, len(self._frequency))
        self.covariance, self._error = sum_covariances(noise.extra, error_covariance), error_covariance
        self.marginalised = foreground if foreground is not None and foreground.marginalise else None
        sampled = None if self.marginalised is not None else foreground
        self._set_parameters([component for component in (sampled, systematics) if component is not None])

    def _set_parameters(self, components):
        names, self.components = list(self.noise.names), []
        for component in components:
            self.components.append((component, slice(len(names), len(names) + len(component.names))))
            names += component.names
        clash = {name for name in names if names.count(name) > 1}
        if clash:
            raise InputError(
                f"global_signal: noise, foreground and systematics have the parameter {clash.pop()!r} more than once; "
                "choose another model for one of them"
            )
        self.names = tuple(names)
        known = read_defaults("global_signal")["params"]
        self.params = {name: known[name] for name in self.noise.names}
        for component in components:
            self.params |= component.params

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

    def coefficients(self, signal, values, rng: np.random.Generator | None = None) -> np.ndarray:
        """Conditional mean of the marginalised coefficients (k,), or a random draw if `rng` is given."""
        raise NotImplementedError

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
            weight = self.spectrum.weight
            sky = sky + self.noise.at(values).of_sky(sky, weight).draw(weight, rng)
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

    def check_scale(self, sigma) -> None:
        """Warn if data and noise seem to be in different units; see `lstmfit.likelihoods.scale_check.check_scale`."""
        spectrum = self.spectrum
        check_scale(spectrum.frequency, spectrum.temperature, spectrum.weight, sigma, self.noise.extra)
