"""A foreground that is given by an emulator of spectra.

Imports neither pandas nor SciPy, because run files are validated with it. It does not load the emulator itself, because
likelihoods know no emulators.
"""

from typing import Literal

import numpy as np
from pydantic import StrictBool, model_validator

from lstmfit.errors import InputError
from lstmfit.likelihoods.components import Component, ComponentBlock, only_sampled


class Emulated(ComponentBlock):
    """A foreground given by an emulator of spectra in K, whose parameters are sampled.

    Parameters
    ----------
    file : str
        File written by ``lstmfit train``.
    marginalise : bool, optional
        Only false, because the model is not linear in its parameters.
    """

    FILES = ("file",)
    MEANING = ("file",)

    model: Literal["emulator"] = "emulator"
    file: str
    marginalise: StrictBool | None = None

    @model_validator(mode="after")
    def _sampled(self):
        return only_sampled(self)

    def load(self, load_emulator):
        """The emulator, given a function that loads it (`lstmfit.spectrum_emulator.SpectrumEmulator`).

        Raises
        ------
        InputError
            There is no such function, or as that.
        """
        if load_emulator is None:
            raise InputError(
                "foreground: model emulator needs a function that loads its file; pass "
                "load_emulator=lstmfit.spectrum_emulator.SpectrumEmulator"
            )
        return load_emulator(self.file)

    def build(self, frequency, kept=None, load_emulator=None):
        """As `ComponentBlock.build`.

        Raises
        ------
        InputError
            The emulator cannot be loaded, or the data have channels outside its grid.
        """
        emulator = self.load(load_emulator)
        try:
            sky = EmulatedSky(emulator, frequency)
        except InputError as error:
            raise InputError(f"foreground: {emulator.name}: {error}") from None
        return Component(tuple(emulator.params), sky, emulator.params)


class EmulatedSky:
    """Emulated spectrum at the channels of the data.

    Parameters
    ----------
    emulator : SpectrumEmulator
        See `lstmfit.spectrum_emulator.SpectrumEmulator`.
    frequency : numpy.ndarray
        (n,) MHz.

    Raises
    ------
    InputError
        A channel is outside the grid of the emulator.
    """

    def __init__(self, emulator, frequency):
        from lstmfit.likelihoods.interpolation import interpolation_matrix
        from lstmfit.parameters import widened

        matrix = interpolation_matrix(emulator.redshifts, np.asarray(frequency, dtype=float))
        if matrix is None:
            matrix = np.eye(len(emulator.redshifts))
        self._mean, self._matrix = matrix @ emulator.mean, np.ascontiguousarray(emulator.unit * matrix)
        self._ranges = tuple(widened(p.min, p.max, p.log) for p in emulator.parameters)
        self._deviation = emulator.deviation

    def __call__(self, values) -> np.ndarray:
        """Temperature (n,) in mK for parameters (n_params,); infinite outside, where ln L is -inf."""
        values = np.ascontiguousarray(values, dtype=np.float64)
        for value, (low, high) in zip(values.tolist(), self._ranges):
            if not low <= value <= high:
                return np.full(len(self._mean), np.inf)
        return self._mean + self._matrix @ self._deviation(values)
