"""Optical depth of the CMB."""

from typing import Literal

import numpy as np

from lstmfit.errors import InputError, did_you_mean
from lstmfit.likelihoods import asymmetric
from lstmfit.likelihoods.base import read_options
from lstmfit.schema import Block, NotNegative, Number, Positive, shown


class Measurement(Block):
    """A value of tau with its errors."""

    mean: Number
    err_up: Positive
    err_down: Positive


class Options(Block):
    """Options of `PlanckTau`, see ``planck_tau.yaml``."""

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
        Not needed.
    **options
        Those of ``planck_tau.yaml``: which measurement, or mean, err_up and err_down of your own; how asymmetric
        errors are read; the emulator's error on tau.

    Raises
    ------
    InputError
        Unknown measurement or option, or an error that is not positive.
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
        """Options of a mock: the model's own value in place of the measured one.

        Parameters
        ----------
        arguments : sequence
            What a call would get at the truth.
        rng : numpy.random.Generator or None
            Draws the noise; without it the mock lies at the truth.
        """
        tau = float(arguments[0])
        if rng is not None:
            z = rng.standard_normal()
            # An error upwards means that the truth may lie that far above the measurement.
            tau -= z * (self.up if z > 0 else self.down)
        return {"mean": tau}
