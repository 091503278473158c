"""A likelihood of your own: copy this file, rename the class, and name it in a run file by its dotted path.

Here: somebody else measured the depth of the absorption, with a calibration error that is to be marginalised.
"""

import math

import numpy as np


class TroughDepth:
    """Gaussian likelihood of the deepest point of the signal.

    Parameters
    ----------
    redshifts : numpy.ndarray
        (n_channels,) the signal's grid; every likelihood is handed it first.
    depth, err : float
        The measurement and its error in mK: the options of the run file's block.
    """

    # What it needs of the model: signal (n_channels,) in mK, x_HI (n_channels,), tau.
    outputs = ("signal",)
    # Parameters that it takes. A name that the emulator or another likelihood has as well is shared with them.
    names = ("gain",)
    # Those that it brings itself: default prior and label. The run file's `params:` has the last word.
    params = {"gain": {"prior": {"dist": "norm", "loc": 1.0, "scale": 0.05}, "latex": "g"}}  # noqa: RUF012

    def __init__(self, redshifts, /, depth, err):
        # Everything that can be worked out once belongs here: a call is made half a million times.
        if not err > 0:
            raise ValueError(f"err is {err}; a positive number in mK is needed")
        self.depth, self.err = depth, err
        self._norm = -math.log(err * math.sqrt(2.0 * math.pi))

    def __call__(self, signal: np.ndarray, values: np.ndarray) -> float:
        """Log likelihood: the outputs in the order of `outputs`, then the parameters in the order of `names`."""
        z = (values[0] * float(signal.min()) - self.depth) / self.err
        return self._norm - 0.5 * z * z

    def mocked(self, arguments, rng):
        """Not needed: what `mock: true` makes of the options, the arguments being those of a call at the truth."""
        depth = float(arguments[0].min()) * float(arguments[1][0])
        return {"depth": depth + (0.0 if rng is None else self.err * rng.standard_normal())}
