"""An emulator used as a simulator, for example as the teacher of a distillation or to measure a bias."""

import numpy as np

from lstmfit.emulator.base import BaseEmulator


class EmulatedSimulator:
    """A simulator that evaluates an emulator.

    Parameters
    ----------
    emulator : BaseEmulator
        The emulator.

    Attributes
    ----------
    redshifts, parameters, layout, axes, name, version
        As for `lstmfit.simulators.Simulator`; the version is the emulator's checksum.
    """

    def __init__(self, emulator: BaseEmulator):
        self.emulator = emulator
        self.redshifts, self.parameters = emulator.redshifts, emulator.parameters
        self.layout, self.axes = emulator.layout, emulator.layout.axes
        self.name, self.version = emulator.name, emulator.checksum

    def __call__(self, theta) -> dict[str, np.ndarray]:
        """Outputs by name for theta (n_params,), which may be outside the training range."""
        return self.emulator.histories(theta, outside="allow")

    def batch(self, theta: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Outputs by name for each row of theta (n, n_params)."""
        outputs = self.emulator.histories(theta, outside="allow")
        return [{name: array[i] for name, array in outputs.items()} for i in range(len(theta))]
