"""Remaining time of a nested sampling run."""

import math
import time
from collections import deque

import numpy as np


class Countdown:
    """Estimate the remaining time from the live points: how far and how fast the prior volume still has to shrink.

    The run ends when the live points contain a fraction `precision` of the evidence. If the best live point is already
    at the maximum likelihood, this happens at ln X = ln precision + ln Z - ln L_max, where Z is the evidence of dead
    and live points. While the live points still climb, the estimate is a lower bound; later it is correct to about
    20 %.

    Parameters
    ----------
    precision : float
        Ratio of the evidences of live and dead points at which the run ends.
    """

    CLIMBING = 2.0
    """The remaining time is a lower bound while ln(evidence of the live points / of the dead points) exceeds this."""
    UPDATES = 5
    """Number of recent updates from which the rate is computed."""

    def __init__(self, precision: float):
        self._goal = math.log(precision)
        self._marks = deque(maxlen=self.UPDATES)
        self.log_live_fraction = math.nan
        self.folds_left = math.nan

    @property
    def climbing(self) -> bool:
        """Whether the remaining time is a lower bound."""
        return self.log_live_fraction > self.CLIMBING

    def update(self, folds: float, logL: np.ndarray, log_live_fraction: float) -> None:
        """Record the current state of the run.

        Parameters
        ----------
        folds : float
            -ln of the prior volume that the live points occupy.
        logL : numpy.ndarray
            (n_live,) log-likelihoods of the live points.
        log_live_fraction : float
            ln(evidence of the live points / of the dead points); +inf without dead points.
        """
        self._marks.append((time.monotonic(), folds))
        self.log_live_fraction = float(log_live_fraction)
        # ln L_max - ln(mean L) of the live points; the second term below adds the evidence of the dead points.
        peak = float(np.max(logL)) - float(np.logaddexp.reduce(logL) - math.log(len(logL)))
        self.folds_left = max(0.0, peak - float(np.logaddexp(0.0, -self.log_live_fraction)) - self._goal)

    def seconds(self) -> float | None:
        """Remaining time in seconds at the rate of the last updates; None until a rate is known."""
        if len(self._marks) < 2:
            return None
        (t0, x0), (t1, x1) = self._marks[0], self._marks[-1]
        if not x1 > x0:
            return None
        return max(0.0, self.folds_left * (t1 - t0) / (x1 - x0) - (time.monotonic() - t1))
