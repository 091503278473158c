"""Optical depth of the CMB."""

from typing import Literal

import numpy as np

from lstmfit.errors import InputError, did_you_mean
from lstmfit.likelihoods import asymmetric
from lstmfit.likelihoods.base import read_options
from lstmfit.schema import Block, NotNegative, Number, Positive, shown


class Measurement(Block):
    """A value of tau with its errors.

    Parameters
    ----------
    mean : float
        Measured optical depth.
    err_up, err_down : float
        Upper and lower error.
    """

    mean: Number
    err_up: Positive
    err_down: Positive


class Options(Block):
    """Options of `PlanckTau`, see ``planck_tau.yaml``.

    Parameters
    ----------
    measurement : str
        Name of one of the `measurements`.
    mean : float, optional
        Value that replaces that of the measurement.
    err_up, err_down : float, optional
        Upper and lower error that replace those of the measurement.
    form : {"two_piece", "variable_width"}
        Density for different upper and lower errors: two half Gaussians, or the variable width of 21CMMC.
    emulator_error : float
        Error of the emulated tau, added in quadrature.
    measurements : dict of str to Measurement
        Known measurements by name.
    """

    measurement: str
    mean: Number | None
    err_up: Positive | None
    err_down: Positive | None
    form: Literal["two_piece", "variable_width"]
    emulator_error: NotNegative
    measurements: dict[str, Measurement]


class PlanckTau:
    """Likelihood of the Thomson optical depth tau.

    Parameters
    ----------
    redshifts : numpy.ndarray
        Not used.
    **options
        Options of ``planck_tau.yaml``: the name of a measurement, or mean, err_up and err_down; the treatment of
        asymmetric errors; the emulator error of tau.

    Raises
    ------
    InputError
        A measurement or an option is unknown, or an error is not positive.
    """

    outputs = ("tau",)
    names = ()

    def __init__(self, redshifts: np.ndarray, /, **options):
        given = read_options("planck_tau", Options, options)
        if given.measurement not in given.measurements:
            raise InputError(
                f"likelihood.planck_tau: unknown measurement {shown(given.measurement)}; "
                f"{did_you_mean(given.measurement, given.measurements)}"
            )
        chosen = given.measurements[given.measurement]
        self.value, up, down = (
            getattr(chosen if getattr(given, key) is None else given, key) for key in ("mean", "err_up", "err_down")
        )
        self.up, self.down = (float(np.hypot(err, given.emulator_error)) for err in (up, down))
        self._density = getattr(asymmetric, given.form)

    def __call__(self, tau: float, values) -> float:
        """Log likelihood of an optical depth."""
        return self._density(float(tau), self.value, self.up, self.down)

    def mocked(self, arguments, rng: np.random.Generator | None) -> dict:
        """Options of a mock: the value of the model instead of the measured one.

        Parameters
        ----------
        arguments : sequence
            Arguments of a call at the true parameters.
        rng : numpy.random.Generator or None
            Random generator for the noise; None for a mock without noise.
        """
        tau = float(arguments[0])
        if rng is not None:
            z = rng.standard_normal()
            # The upper error is the distance by which the truth may exceed the measurement.
            tau -= z * (self.up if z > 0 else self.down)
        return {"mean": tau}
