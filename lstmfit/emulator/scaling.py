"""Scaling of physical parameters to network inputs, and of network outputs to physical units."""

from dataclasses import dataclass

import numpy as np

from lstmfit.errors import InputError
from lstmfit.parameters import Parameter


@dataclass(frozen=True)
class Scaling:
    """Scaling of the inputs and outputs of a network; stored with it, so that no other file is needed.

    Parameters
    ----------
    log : numpy.ndarray
        (n_params,) bool: whether to take log10 first.
    low, high : numpy.ndarray
        (n_params,) limits of each parameter's range, in log10 where `log` is true; they map to -1 and 1.
    offset, scale : numpy.ndarray
        (n_histories, n_channels) and (n_histories,): physical = offset + scale * network.
    scalar_offset, scalar_scale : numpy.ndarray
        (n_scalars,) each, the same for the scalars.
    """

    log: np.ndarray
    low: np.ndarray
    high: np.ndarray
    offset: np.ndarray
    scale: np.ndarray
    scalar_offset: np.ndarray
    scalar_scale: np.ndarray

    def check(self, n_params: int, n_histories: int, n_channels: int, n_scalars: int) -> None:
        """Raise InputError unless the arrays fit the architecture, are finite, and have positive widths."""
        shapes = {
            "log": (n_params,), "low": (n_params,), "high": (n_params,), "offset": (n_histories, n_channels),
            "scale": (n_histories,), "scalar_offset": (n_scalars,), "scalar_scale": (n_scalars,),
        }  # fmt: skip
        for name, shape in shapes.items():
            array = np.asarray(getattr(self, name))
            if array.shape != shape or array.dtype.kind not in "biuf" or not np.isfinite(array).all():
                raise InputError(
                    f"emulator scaling: {name} has shape {array.shape}, type {array.dtype}; finite numbers of shape "
                    f"{shape} are needed"
                )
        if not (np.asarray(self.low) < np.asarray(self.high)).all():
            raise InputError(
                "emulator scaling: low is not below high for every input; copy the file again or retrain the emulator"
            )
        for name in ("scale", "scalar_scale"):
            if not (np.asarray(getattr(self, name)) > 0).all():
                raise InputError(
                    f"emulator scaling: {name} is not positive; copy the file again or retrain the emulator"
                )

    @classmethod
    def fit(cls, parameters: tuple[Parameter, ...], histories: np.ndarray, scalars: np.ndarray) -> "Scaling":
        """Determine the scaling from the parameter ranges and the TRAINING set.

        Parameters
        ----------
        parameters : tuple of Parameter
            Names, ranges and log flags.
        histories : numpy.ndarray
            (n, n_histories, n_channels) training histories. The offset is the mean over signals at each channel. The
            scale is one standard deviation over all channels, so that they keep their relative weight.
        scalars : numpy.ndarray
            (n, n_scalars).
        """
        log = np.array([p.log for p in parameters])
        ends = np.array([(p.min, p.max) for p in parameters], dtype=float)
        ends[log] = np.log10(ends[log])
        offset = histories.mean(axis=0, dtype=float)
        scale = np.array([(histories[:, i] - offset[i]).std(dtype=float) or 1.0 for i in range(histories.shape[1])])
        spread = scalars.std(axis=0, dtype=float)
        return cls(
            log,
            ends[:, 0],
            ends[:, 1],
            offset,
            scale,
            scalars.mean(axis=0, dtype=float),
            np.where(spread > 0, spread, 1.0),
        )

    def inputs(self, theta: np.ndarray) -> np.ndarray:
        """Network inputs for physical parameters.

        Parameters
        ----------
        theta : numpy.ndarray
            (..., n_params) physical.

        Returns
        -------
        numpy.ndarray
            float64, same shape, -1..1 within the training range. NaN where a log parameter is not positive.
        """
        x = np.array(theta, dtype=float)
        with np.errstate(invalid="ignore", divide="ignore"):
            x[..., self.log] = np.log10(x[..., self.log])
        return 2.0 * (x - self.low) / (self.high - self.low) - 1.0

    def input_slopes(self, theta: np.ndarray) -> np.ndarray:
        """Derivative of each scaled input with respect to its physical parameter, same shape as theta."""
        slope = np.broadcast_to(2.0 / (self.high - self.low), np.shape(theta)).copy()
        slope[..., self.log] /= np.log(10.0) * np.asarray(theta, dtype=float)[..., self.log]
        return slope
