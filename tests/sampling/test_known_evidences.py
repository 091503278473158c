"""PolyChord through the package's adapter on problems whose evidence is known: is what it quotes right?

References are closed forms, or quadrature done here; settings are those that a user would take. What was measured is
shown by ``pytest -m slow --log-cli-level=INFO tests/sampling/test_known_evidences.py``.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from anesthetic.utils import temporary_seed
from helpers import problem_of
from scipy.special import logsumexp
from scipy.stats import chi2

from lstmfit.analysis.chains import evidence, read_samples
from lstmfit.analysis.insertion import SMALL, insertion_p
from lstmfit.analysis.reweight import effective_size
from lstmfit.sampling.polychord.run import run_polychord
from lstmfit.sampling.polychord.settings import PolyChordSettings

DRAWS = 1000
SEED = 1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """A likelihood over a box with a uniform prior, whose evidence and information are known.

    `loglikelihood` takes (..., d); `settings` are n_live and num_repeats.
    """

    loglikelihood: Callable
    low: float
    high: float
    d: int
    logZ: float
    d_kl: float
    settings: tuple[int, int]

    @property
    def names(self):
        return tuple(f"x{i}" for i in range(self.d))

    def sample(self, folder, seed):
        """The samples as the package reads them, and what the sampler reported."""
        names, width = self.names, self.high - self.low
        n_live, num_repeats = self.settings
        settings = PolyChordSettings(n_live=n_live, num_repeats=num_repeats, seed=seed)
        transform = lambda cube: self.low + width * cube
        result = run_polychord(problem_of(self.loglikelihood, transform, names), folder, "chain", settings)
        return read_samples(folder / "chain"), result


# ---------------------------------------------------------------- references


def reference(log_integral):
    """Ln Z and D_KL from ln of the prior's mean of L^beta: <ln L> is its derivative at beta = 1."""
    logZ, step = log_integral(1.0), 1e-4
    mean_logL = (log_integral(1.0 + step) - log_integral(1.0 - step)) / (2.0 * step)
    return logZ, mean_logL - logZ


def on_a_grid(loglikelihood, low, high, n):
    """In two dimensions by n x n midpoints."""
    x = low + (high - low) * (np.arange(n) + 0.5) / n
    logL = loglikelihood(np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1))
    return reference(lambda beta: logsumexp(beta * logL) - 2.0 * np.log(n))


def along_a_chain(low, high, d, n):
    """Rosenbrock's function in d dimensions: each parameter meets its neighbours alone, so the integral is a product
    of d - 1 matrices of n x n midpoints.
    """
    x = low + (high - low) * (np.arange(n) + 0.5) / n
    link = rosenbrock(np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1))

    def log_integral(beta):
        matrix, vector, log_scale = np.exp(beta * link), np.ones(n), 0.0
        for _ in range(d - 1):
            vector = matrix @ vector
            log_scale += np.log(vector.max())
            vector /= vector.max()
        return log_scale + np.log(vector.sum()) - d * np.log(n)

    return reference(log_integral)


def converged(integrate, n):
    """The integral with n points, where half of them give the same to what matters here."""
    fine, coarse = integrate(n), integrate(n // 2)
    np.testing.assert_allclose(coarse, fine, atol=1e-3)
    return fine


# ---------------------------------------------------------------- problems


class Gaussian(Known):
    """Correlated and of unequal widths, its centre off that of the unit cube, six widths or more from every wall."""

    def __init__(self, d, settings):
        rng = np.random.default_rng(d)
        rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
        covariance = rotation @ np.diag(np.geomspace(0.02, 0.06, d) ** 2) @ rotation.T
        self.__dict__["mean"] = mean = rng.uniform(0.4, 0.6, size=d)
        self.__dict__["covariance"] = covariance
        inverse, log_det = np.linalg.inv(covariance), np.linalg.slogdet(2.0 * np.pi * covariance)[1]

        def loglikelihood(theta):
            r = theta - mean
            return -0.5 * float(r @ inverse @ r)

        super().__init__(loglikelihood, 0.0, 1.0, d, 0.5 * log_det, -0.5 * (d + log_det), settings)


def two_shells(theta):
    """Two Gaussian shells of radius 2 and width 0.1 (Feroz & Hobson 2008, MNRAS 384, 449, Sec. 6.2)."""
    x, y = theta[..., 0], theta[..., 1]
    r1, r2 = np.sqrt((x + 3.5) ** 2 + y**2), np.sqrt((x - 3.5) ** 2 + y**2)
    return np.logaddexp(-0.5 * ((r1 - 2.0) / 0.1) ** 2, -0.5 * ((r2 - 2.0) / 0.1) ** 2) - 0.5 * np.log(2 * np.pi * 0.01)


def eggbox(theta):
    """Eighteen equal peaks (Feroz & Hobson 2008, Sec. 6.1)."""
    return (2.0 + np.cos(0.5 * theta[..., 0]) * np.cos(0.5 * theta[..., 1])) ** 5


def rosenbrock(theta):
    """A curved valley."""
    x, y = theta[..., :-1], theta[..., 1:]
    return -np.sum(100.0 * (y - x**2) ** 2 + (1.0 - x) ** 2, axis=-1)


def make_shells():
    exact = converged(lambda n: on_a_grid(two_shells, -6.0, 6.0, n), 2000)
    return Known(two_shells, -6.0, 6.0, 2, *exact, (200, 20))


def make_eggbox():
    exact = converged(lambda n: on_a_grid(eggbox, 0.0, 10.0 * np.pi, n), 2000)
    return Known(eggbox, 0.0, 10.0 * np.pi, 2, *exact, (500, 20))


def make_rosenbrock(d):
    exact = converged(lambda n: along_a_chain(-5.0, 5.0, d, n), 4000)
    return Known(rosenbrock, -5.0, 5.0, d, *exact, (25 * d, 5 * d))


PROBLEMS = {
    "gaussian2": lambda: Gaussian(2, (50, 10)),
    "gaussian8": lambda: Gaussian(8, (200, 40)),
    "gaussian16": lambda: Gaussian(16, (400, 80)),
    "shells": make_shells,
    "eggbox": make_eggbox,
    "rosenbrock2": lambda: make_rosenbrock(2),
    "rosenbrock4": lambda: make_rosenbrock(4),
}


# ---------------------------------------------------------------- figures


def volume_weights(samples, n=200):
    """Posterior weights (n_samples, n), summing to one, for draws of the prior volumes that the chain may have."""
    with temporary_seed(0):
        log_weights = samples.logw(n).to_numpy()
    weights = np.exp(log_weights - log_weights.max(axis=0))
    return weights / weights.sum(axis=0)


def mean_and_covariance(x, weights):
    """Posterior mean (d,) and covariance (d, d) of x (n, d) for one set of weights."""
    mean = weights @ x
    return mean, (weights[:, None] * (x - mean)).T @ (x - mean)


def moments_against(samples, names, mean, covariance):
    """How far a chain's mean and covariance are from those of a Gaussian, in their errors.

    In the coordinates in which that Gaussian is a standard one, so that correlations are tested too. Every shell of a
    Gaussian has the same mean, so the mean has the error of so many independent points, however uncertain the volumes
    are. For the covariance both count; added up they are a little more than its scatter.

    Returns
    -------
    means, covariances : numpy.ndarray
        Pulls, (d,) and (d (d + 1) / 2,).
    """
    x = np.linalg.solve(np.linalg.cholesky(covariance), (samples[list(names)].to_numpy() - mean).T).T
    weights = samples.get_weights()
    size = effective_size(weights)
    at, around = mean_and_covariance(x, weights / weights.sum())
    error = np.std([mean_and_covariance(x, w)[1] for w in volume_weights(samples).T], axis=0)
    unit = np.eye(len(names))
    covariances = (around - unit) / np.hypot(error, np.sqrt((1.0 + unit) / size))
    return at * np.sqrt(size), covariances[np.triu_indices(len(names))]


def say(what, **figures):
    log.info("%s: %s", what, ", ".join(f"{key} {value:.6g}" for key, value in figures.items()))


def pull(samples, known):
    """Ln Z as the package quotes it, its error, and how far it is from the truth in that error."""
    logZ, error = evidence(samples, DRAWS)
    return logZ, error, (logZ - known.logZ) / error


# ---------------------------------------------------------------- PolyChord


def wrong_with(what, known, samples):
    """Names of the figures of a chain that are further off than they may be."""
    logZ, error, off = pull(samples, known)
    with temporary_seed(0):
        d_kl = np.asarray(samples.D_KL(DRAWS), dtype=float)
    p = insertion_p(samples)
    say(what, logZ=logZ, error=error, true=known.logZ, D_KL=d_kl.mean(), true_D_KL=known.d_kl, insertion_p=p)
    # What theory says of this many live points: an error that is quoted too large would hide anything else.
    size = error / np.sqrt(known.d_kl / known.settings[0])
    within = {
        "logZ": abs(off) < 3,
        "error": 0.8 < size < 1.2,
        "D_KL": abs(d_kl.mean() - known.d_kl) < 3 * d_kl.std(),
        "insertion": p > SMALL,
    }
    if isinstance(known, Gaussian):
        pulls = moments_against(samples, known.names, known.mean, known.covariance)
        means, covariances = (np.abs(values).max() for values in pulls)
        say(f"{what}, largest pulls", means=means, covariances=covariances)
        # Of up to 152 numbers.
        within |= {"means": means < 4, "covariances": covariances < 4.5}
    return {key for key, good in within.items() if not good}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEMS)
def test_evidence_is_known(tmp_path, name):
    known = PROBLEMS[name]()
    samples, result = known.sample(tmp_path, SEED)
    say(name, calls=result.n_like, wall_s=result.wall_s)
    assert not wrong_with(name, known, samples)


@pytest.mark.slow
def test_one_repeat_is_caught(tmp_path):
    """The same checks on points that stay near the one that they started from; their insertion ranks look well."""
    known = Gaussian(8, (200, 1))
    samples, _ = known.sample(tmp_path, SEED)
    assert {"logZ", "means", "covariances"} <= wrong_with("one repeat", known, samples)


@pytest.mark.slow
def test_quoted_errors_are_the_scatter_about_the_truth(tmp_path):
    """Over thirty seeds: errors twice too small or too large would be caught 97 times in 100."""
    n, known = 30, Gaussian(2, (50, 10))
    chains = [known.sample(tmp_path / str(seed), seed)[0] for seed in range(n)]
    pulls = np.array([pull(samples, known)[2] for samples in chains])
    moments = [moments_against(samples, known.names, known.mean, known.covariance) for samples in chains]
    means, covariances = (np.concatenate([m[i] for m in moments]) for i in (0, 1))
    for what, values in {"logZ": pulls, "mean": means, "covariance": covariances}.items():
        say(f"pulls of {what}", mean=values.mean(), rms=np.sqrt(np.mean(values**2)))
    low, high = chi2.ppf([0.001, 0.999], n)
    assert abs(pulls.mean()) < 3 / np.sqrt(n)
    assert low < np.sum(pulls**2) < high
    # Two means that are independent in these coordinates.
    low, high = chi2.ppf([0.001, 0.999], 2 * n)
    assert abs(means.mean()) < 3 / np.sqrt(2 * n)
    assert low < np.sum(means**2) < high


# ---------------------------------------------------------------- nautilus


@pytest.mark.slow
def test_nautilus_on_the_gaussian_in_eight_dimensions(tmp_path):
    """Without the points of its exploration, which its authors call for where the answer must be unbiased."""
    pytest.importorskip("nautilus", reason="pip install nautilus-sampler")
    from lstmfit.sampling.nautilus import NautilusSettings, run_nautilus

    known = Gaussian(8, (200, 40))
    inverse = np.linalg.inv(known.covariance)

    def loglikelihood_batch(theta, return_derived):
        r = theta - known.mean
        return -0.5 * np.einsum("ni,ij,nj->n", r, inverse, r), theta.sum(axis=1)[:, None]

    problem = SimpleNamespace(
        names=known.names,
        derived_names=("total",),
        latex=(*known.names, "t"),
        signal=SimpleNamespace(costly=False),
        prior_transform=np.copy,
        loglikelihood_batch=loglikelihood_batch,
    )
    settings = NautilusSettings(n_live=500, n_eff=5000, discard_exploration=True, seed=SEED)
    result = run_nautilus(problem, tmp_path, "chain", settings)
    say("nautilus", logZ=result.logZ, error=result.logZ_err, true=known.logZ, calls=result.n_like, wall_s=result.wall_s)
    assert abs(result.logZ - known.logZ) < 3 * result.logZ_err
    assert result.logZ_err == pytest.approx(5000**-0.5, rel=0.1)
    samples = read_samples(tmp_path / "chain")
    weights = samples.get_weights()
    x = np.linalg.solve(np.linalg.cholesky(known.covariance), (samples[list(known.names)].to_numpy() - known.mean).T).T
    mean, covariance = mean_and_covariance(x, weights / weights.sum())
    np.testing.assert_allclose(mean, 0.0, atol=4 / np.sqrt(5000))
    np.testing.assert_allclose(covariance, np.eye(8), atol=4.5 * np.sqrt(2 / 5000))
