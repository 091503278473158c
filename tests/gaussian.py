"""A Gaussian of known evidence, as PolyChord is given it in several test modules."""

import time
from types import SimpleNamespace

import numpy as np

from lstmfit.sampling.polychord.resume_file import read_resume_header
from lstmfit.sampling.polychord.settings import PolyChordSettings

N = 4
MEAN = np.array([0.4, 0.5, 0.55, 0.6])
SIGMA = np.array([0.03, 0.05, 0.08, 0.04])
CORRELATION = np.array([[1, 0.8, 0, 0], [0.8, 1, 0, 0], [0, 0, 1, -0.5], [0, 0, -0.5, 1]])
COVARIANCE = np.outer(SIGMA, SIGMA) * CORRELATION
INVERSE = np.linalg.inv(COVARIANCE)
LOG_NORM = -0.5 * np.linalg.slogdet(2 * np.pi * COVARIANCE)[1]
NAMES = [f"p{i}" for i in range(N)]
LATEX = [f"p_{i}" for i in range(N)]


def gaussian(theta):
    """Normalised and well inside the unit cube, so ln Z = 0 with a uniform prior."""
    r = theta - MEAN
    return LOG_NORM - 0.5 * r @ INVERSE @ r


def identity(cube):
    return cube


def settings(**changes):
    return PolyChordSettings(**({"n_live": 100, "num_repeats": 12, "seed": 3} | changes))


def read(root):
    from anesthetic import read_chains

    return read_chains(str(root))


def evidence(samples):
    """Log-evidence and its error from the numbers of live points, which needs no random numbers."""
    weights = samples.get_weights()
    shares = weights / weights.sum()
    return samples.logZ(), np.sqrt(np.sum(((1.0 - np.cumsum(shares)) / samples.nlive.to_numpy() - shares) ** 2))


class Slow:
    """The Gaussian, a fraction of a millisecond a call."""

    def __init__(self, wait):
        self.wait = wait

    def __call__(self, theta):
        time.sleep(self.wait)
        return gaussian(theta), [theta[0] + theta[1]]


def make_gaussian(wait=0.0, n_names=N):
    return SimpleNamespace(
        loglikelihood=Slow(wait) if wait else lambda theta: (gaussian(theta), [theta[0] + theta[1]]),
        prior_transform=identity,
        names=NAMES[:n_names],
        derived_names=["total"],
        latex=[*LATEX[:n_names], "t"],
    )


class Failing:
    """Fails after some calls, in children only: the first call of all is the check before the run."""

    def __init__(self, error):
        self.error, self.calls = error, 0

    def __call__(self, theta):
        self.calls += 1
        if self.calls > 300:
            raise self.error
        return gaussian(theta)


def dead(path):
    return read_resume_header(path)["n_dead"]


def live_points(samples):
    """Number of live points at the largest weight, where the excess draws from the prior are long dead."""
    return samples.nlive.to_numpy()[np.argmax(samples.get_weights())]
