"""Optical depth of the CMB."""

import numpy as np

from lstmfit.errors import InputError
from lstmfit.likelihoods import asymmetric
from lstmfit.likelihoods.base import with_defaults


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
        given = with_defaults("planck_tau", options)
        if given["measurement"] not in given["measurements"]:
            raise InputError(
                f"likelihood.planck_tau: unknown measurement {given['measurement']!r}; "
                f"known are {', '.join(given['measurements'])}"
            )
        if given["form"] not in asymmetric.FORMS:
            raise InputError(
                f"likelihood.planck_tau: form is {given['form']!r}; there are {', '.join(asymmetric.FORMS)}"
            )
        chosen = given["measurements"][given["measurement"]]
        self.value, up, down = (
            float(chosen[key] if given[key] is None else given[key]) for key in ("mean", "err_up", "err_down")
        )
        asymmetric.check_errors("likelihood.planck_tau", up, down)
        self.up, self.down = (float(np.hypot(err, given["emulator_error"])) for err in (up, down))
        self._density = getattr(asymmetric, given["form"])

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
