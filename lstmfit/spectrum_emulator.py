"""Emulators of spectra that are a foreground: networks of this package, trained on spectra in K."""

import dataclasses
from pathlib import Path

import numpy as np

from lstmfit.errors import InputError
from lstmfit.parameter_space import natural_parameters
from lstmfit.parameters import Parameter


class SpectrumEmulator:
    """An emulator of spectra, evaluated relative to their mean.

    The network computes in single precision, which resolves 5000 K to 0.3 mK. Here its last layer gives the deviation
    from the mean of the training set in units of their standard deviation, so that mean and unit can be applied in
    double precision.

    Parameters
    ----------
    path : path
        File written by ``lstmfit train``.

    Attributes
    ----------
    name : str
        Name for messages.
    parameters : tuple of Parameter
        In the order of theta; their ranges are the training range.
    params : dict of str to dict
        Default prior, which is that range, and label of each parameter.
    redshifts : numpy.ndarray
        (n_channels,) ascending.
    mean : numpy.ndarray
        (n_channels,) mK.
    unit : float
        mK.

    Raises
    ------
    InputError
        There is no such file, or it is not an emulator of this package.
    """

    def __init__(self, path):
        from lstmfit.emulator import store
        from lstmfit.emulator.numba_engine import NumbaEngine

        path = Path(path)
        if not path.is_file():
            raise InputError(f"foreground: no file {path}; give an emulator that `lstmfit train` wrote")
        content = store.read(path)
        architecture, scaling = content["architecture"], content["scaling"]
        n = architecture.n_channels
        self.name = path.name
        self.parameters: tuple[Parameter, ...] = content["parameters"]
        self.params = natural_parameters(self.parameters)
        self.redshifts = content["redshifts"]
        self.mean, self.unit = np.array(scaling.offset[0], dtype=float), float(scaling.scale[0])
        plain = dataclasses.replace(scaling, offset=np.zeros_like(scaling.offset), scale=np.ones_like(scaling.scale))
        self._engine, self._signal = NumbaEngine(architecture, plain, content["weights"]), slice(0, n)

    def deviation(self, theta: np.ndarray) -> np.ndarray:
        """Deviation from `mean` in units of `unit` for physical parameters.

        Parameters
        ----------
        theta : numpy.ndarray
            (n_params,) float64.

        Returns
        -------
        numpy.ndarray
            (n_channels,) float32, overwritten by the next call of the same thread.
        """
        return self._engine.single(theta)[self._signal]
