"""How long a nested sampling run still takes."""

import math
import time
from collections import deque

import numpy as np


class Countdown:
    """From the live points: how much more the prior volume has to shrink, and how fast it does.

    The run ends when the live points hold `precision` of the evidence. Were the best of them as good as it gets, that
    would be at ln X = ln precision + ln Z - ln L_max, with Z the evidence of dead and live points. While they still
    climb this is too early, so a lower bound; later it is right to a fifth or so.

    Parameters
    ----------
    precision : float
        Ratio of the evidences in live and in dead points at which the run ends.
    """

    CLIMBING = 2.0
    """Above this ln(evidence in the live points / in the dead ones), what is left is a lower bound."""
    UPDATES = 5
    """The pace is that of so many."""

    def __init__(self, precision: float):
        self._goal = math.log(precision)
        self._marks = deque(maxlen=self.UPDATES)
        self.log_live_fraction = math.nan
        self.folds_left = math.nan

    @property
    def climbing(self) -> bool:
        """Whether what is left is a lower bound."""
        return self.log_live_fraction > self.CLIMBING

    def update(self, folds: float, logL: np.ndarray, log_live_fraction: float) -> None:
        """Take the state of the run.

        Parameters
        ----------
        folds : float
            -ln of the prior volume that the live points fill.
        logL : numpy.ndarray
            (n_live,) their log-likelihood.
        log_live_fraction : float
            ln(evidence in the live points / in the dead ones); +inf without dead points.
        """
        self._marks.append((time.monotonic(), folds))
        self.log_live_fraction = float(log_live_fraction)
        # ln L_max - ln(mean L) of the live points; the second term adds the evidence of the dead ones.
        peak = float(np.max(logL)) - float(np.logaddexp.reduce(logL) - math.log(len(logL)))
        self.folds_left = max(0.0, peak - float(np.logaddexp(0.0, -self.log_live_fraction)) - self._goal)

    def seconds(self) -> float | None:
        """What is left at the pace of the last updates; None before there is one."""
        if len(self._marks) < 2:
            return None
        (t0, x0), (t1, x1) = self._marks[0], self._marks[-1]
        if not x1 > x0:
            return None
        return max(0.0, self.folds_left * (t1 - t0) / (x1 - x0) - (time.monotonic() - t1))
