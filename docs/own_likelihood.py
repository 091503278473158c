"""Your own likelihood: copy this file, rename the class, and name it in a run file by its dotted path.

The example is a measurement of the depth of the absorption trough, with a calibration error to marginalise over.
"""

import math

import numpy as np


class TroughDepth:
    """Gaussian likelihood of the deepest point of the signal.

    Parameters
    ----------
    redshifts : numpy.ndarray
        (n_channels,) grid of the signal; the first argument of every likelihood.
    depth, err : float
        The measurement and its error in mK: the options in the run file.
    """

    # What it needs from the model: signal (n_channels,) in mK, x_HI (n_channels,), tau.
    outputs = ("signal",)
    # Parameters that it takes. A name that the emulator or another likelihood also has is a shared parameter.
    names = ("gain",)
    # Default prior and label of the parameters that it defines. `params:` in the run file overrides them.
    params = {"gain": {"prior": {"dist": "norm", "loc": 1.0, "scale": 0.05}, "latex": "g"}}  # noqa: RUF012

    def __init__(self, redshifts, /, depth, err):
        # Compute here whatever can be computed once: the likelihood is called half a million times.
        if not err > 0:
            raise ValueError(f"err is {err}; a positive number in mK is needed")
        self.depth, self.err = depth, err
        self._norm = -math.log(err * math.sqrt(2.0 * math.pi))

    def __call__(self, signal: np.ndarray, values: np.ndarray) -> float:
        """Log likelihood: the outputs in the order of `outputs`, then the parameters in the order of `names`."""
        z = (values[0] * float(signal.min()) - self.depth) / self.err
        return self._norm - 0.5 * z * z

    def mocked(self, arguments, rng):
        """Optional: the options of a mock (`mock: true`), given the arguments of a call at the true parameters."""
        depth = float(arguments[0].min()) * float(arguments[1][0])
        return {"depth": depth + (0.0 if rng is None else self.err * rng.standard_normal())}
